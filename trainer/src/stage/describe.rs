//! Latents to what the reward reads: decoded and described on the device, several images a run.
use super::{Stage, prepare};
use crate::Result;
use crate::machine::Machine;
use crate::reward::backbone::Backbone;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::graph::Graph;
use pentimento_runtime::pipeline::Pipeline;
use std::sync::Arc;

/// Whose latents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    References,
    Images,
}

/// Describes latents from `first` on.
pub(crate) struct Describe {
    of: Of,
    first: usize,
}

impl Describe {
    pub fn references() -> Self {
        Describe { of: Of::References, first: 0 }
    }
    /// Of the iteration's images, those that are not described yet.
    pub fn images(s: &State) -> Self {
        Describe { of: Of::Images, first: s.batch.tokens.len() }
    }
    fn latents<'a>(&self, m: &'a Machine, s: &'a State) -> &'a [Vec<f32>] {
        match self.of {
            Of::References => &m.known.latents,
            Of::Images => &s.batch.images,
        }
    }
}

impl Stage for Describe {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        let rest = self.latents(m, s).get(self.first..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let rows = m.config.at_once.describe;
        let mut x: Vec<f32> = rest.iter().take(rows).flatten().copied().collect();
        x.resize(rows * m.per_image(), 0.0);
        let texts = m.known.aligned.first().map(|first| {
            let own = |i: usize| match self.of {
                Of::Images => s.batch.prompts.get(i / m.config.rollout.group).map(|&p| &m.known.aligned[p]),
                Of::References => None,
            };
            (self.first..self.first + rows).flat_map(|i| own(i).unwrap_or(first)).copied().collect::<Vec<_>>()
        });
        let (pipeline, critic) = m.judged()?;
        let plan = critic.describe;
        pipeline.exec.write(plan, "latents", &x)?;
        texts.iter().try_for_each(|t| pipeline.exec.write(plan, "text", t))?;
        Ok(Some(plan))
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let wanted = self.latents(m, s).len() - self.first;
        let rows = m.config.at_once.describe;
        let (pipeline, critic) = m.judged()?;
        let tokens = pipeline.exec.read(critic.describe, "tokens")?;
        let tokens = tokens.chunks_exact(critic.backbone.token_numbers()).take(wanted).map(<[f32]>::to_vec);
        self.first += rows;
        match self.of {
            Of::References => {
                m.known.tokens.extend(tokens);
                Ok(prepare::encoded(m, None))
            }
            Of::Images => {
                s.batch.tokens.extend(tokens.map(Arc::new));
                if critic.prompt.is_some() {
                    let each = pipeline.exec.read(critic.describe, "alignment")?;
                    s.batch.alignment.extend(each.into_iter().take(wanted));
                }
                Ok(s.part())
            }
        }
    }
}

/// Latents to images and to reward tokens: decode, resize, encode.
/// With `aligned` also how far images are what their prompts say: `alignment`.
pub(crate) fn plan(
    pipeline: &mut Pipeline,
    backbone: &mut Backbone,
    aligned: bool,
    rows: usize,
    size: [usize; 2],
) -> Result<PlanId> {
    let mut g = Graph::new();
    let x = g.input("latents", &[rows, size[0], size[1], pipeline.vae.latent_channels]);
    let (image, level) = pipeline.decode_graph(&mut g, x);
    let tokens = backbone.tokens(&mut g, image);
    let mut outputs = vec![("tokens", tokens), ("image", image), ("finite/tokens", level)];
    if let (true, Some(width)) = (aligned, backbone.aligned()) {
        let text = g.input("text", &[rows, width]);
        outputs.push(("alignment", backbone.alignment(&mut g, tokens, text)));
    }
    g.check()?;
    backbone.upload(&mut *pipeline.exec, &g)?;
    pipeline.compile(g, &outputs, size)
}
