//! Settings of the recipes, as measured in RESULTS.md.
use super::Recipe;
use crate::config::Config;
use crate::objective::grpo::{self, Credit};
use crate::objective::{anchor, pathwise, prior};
use crate::reward::head;
use crate::settings::Settings;
use crate::stage::{rollout, warm, watch};
use crate::{Error, Result, optim};

/// Agreement of halves of the images from which on gradients without a path are worth the whole rate: 256 images' reach it,
/// those of 32 do not.
const AGREEMENT: f32 = 0.1;

/// Settings by purpose.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for, a sentence.
    pub about: &'static str,
}

/// All presets. Their times follow from the device: the more work an iteration is for it, the fewer there are.
pub const PRESETS: [Preset; 4] = [
    Preset {
        name: "quick",
        about: "A first look: a fifth of the default's iterations, 16 images each; style moves half of the way.",
    },
    Preset { name: "balanced", about: "The default recipe as it is." },
    Preset {
        name: "thorough",
        about: "Three or four times the default's iterations, 32 images each: style as far as it was seen to go.",
    },
    Preset { name: "official", about: "The released schedule, to compare with." },
];

impl Settings {
    /// Those of a preset by its name among [`PRESETS`]; `slow` as for [`Config::recipe`].
    ///
    /// # Errors
    /// Another name.
    pub fn preset(name: &str, slow: bool) -> Result<Self> {
        // RESULTS.md: style rises steeply to 20 iterations and slowly to 200; nothing is lost by 500. Gradients of 16 images agree.
        let config = match (name, slow) {
            ("quick", false) => Config::pathwise(slow).of(20, 16),
            ("quick", true) => Config::pathwise(slow).of(4, 16),
            ("balanced", _) => return Settings::recipe("default", slow),
            ("thorough", false) => Config::pathwise(slow).of(300, 32),
            ("thorough", true) => Config::pathwise(slow).of(40, 32),
            ("official", _) => return Settings::recipe("released", slow),
            _ => return Err(Error::call("preset", PRESETS.map(|p| p.name).join(", "), name)),
        };
        let watch = watch::Settings::of(slow);
        Ok(Settings { config: Config { watch, ..config }, ..Settings::recipe("default", slow)? })
    }
    /// Those of a preset or of a recipe, whichever has the name.
    ///
    /// # Errors
    /// Neither has.
    pub fn named(name: &str, slow: bool) -> Result<Self> {
        if PRESETS.iter().any(|preset| preset.name == name) {
            return Settings::preset(name, slow);
        }
        let presets = PRESETS.map(|p| p.name).join(", ");
        Settings::recipe(name, slow).map_err(|e| e.with_hint(&format!("Presets: {presets}.")))
    }
}

impl Config {
    /// With so many iterations of so many images, whose gradients are all taken.
    fn of(self, iterations: usize, images: usize) -> Self {
        let rollout = rollout::Settings { prompts: images, ..self.rollout };
        Config { iterations, rollout, pathwise: pathwise::Settings { images, ..self.pathwise }, ..self }
    }
    /// The settings of a recipe by its name among [`Recipe::NAMES`]; `slow` for devices such as CPU drivers, on which
    /// an iteration takes many seconds and therefore has fewer images.
    ///
    /// # Errors
    /// Another name.
    pub fn recipe(name: &str, slow: bool) -> Result<Self> {
        let recipe = Recipe::named(name)
            .ok_or_else(|| Error::call("recipe", format!("one of {:?}", Recipe::NAMES), name))?;
        let config = match recipe {
            Recipe::Pathwise => Config::pathwise(slow),
            Recipe::Grpo => Config::grpo(slow),
            Recipe::FlowGrpo => Config::flow_grpo(slow),
            Recipe::Nft => Config::nft(slow),
            Recipe::Supervised => Config::supervised(slow),
            Recipe::Released => Config::released(),
        };
        Ok(Config { watch: watch::Settings::of(slow), ..config })
    }

    /// The pathwise adversarial objective with the layout anchor.
    pub fn pathwise(slow: bool) -> Self {
        let images = if slow { 16 } else { 32 };
        let pathwise = pathwise::Settings { images, ..pathwise::Settings::default() };
        let iterations = if slow { 10 } else { 100 };
        Config { iterations, rollout: rollout::Settings::plain(images), pathwise, ..Config::default() }
    }

    /// Adv-GRPO with the layout anchor: as many images as the device makes in about a second, because gradients of few
    /// disagree.
    pub fn grpo(slow: bool) -> Self {
        let (prompts, group) = if slow { (4, 8) } else { (16, 16) };
        Config {
            iterations: if slow { 5 } else { 50 },
            recipe: Recipe::Grpo,
            rollout: rollout::Settings { prompts, group, ..rollout::Settings::default() },
            optim: optim::Settings { agreement: AGREEMENT, ..optim::Settings::default() },
            ..Config::default()
        }
    }

    /// Flow-GRPO: fixed reward, one advantage an image, held to the base model.
    pub fn flow_grpo(slow: bool) -> Self {
        let own = Config::grpo(slow);
        Config {
            recipe: Recipe::FlowGrpo,
            grpo: grpo::Settings { credit: Credit::Image, beta: 0.04, norm: 0.0, ..own.grpo },
            head: head::Settings { steps: 0, ..own.head },
            anchor: anchor::Settings { weight: 0.0, ..own.anchor },
            ..own
        }
    }

    /// The forward-process objective with the layout anchor; rollouts without noise in their steps.
    pub fn nft(slow: bool) -> Self {
        let (prompts, group) = if slow { (4, 8) } else { (16, 16) };
        Config {
            iterations: if slow { 10 } else { 50 },
            recipe: Recipe::Nft,
            rollout: rollout::Settings { prompts, group, window: 0, ..rollout::Settings::default() },
            optim: optim::Settings { rate: 3e-4, agreement: AGREEMENT, ..optim::Settings::default() },
            ..Config::default()
        }
    }

    /// Supervised fine-tuning with prior preservation, the plain alternative: an iteration is ten optimiser steps.
    /// `prior.weight` 0 leaves the preservation out.
    pub fn supervised(slow: bool) -> Self {
        Config {
            iterations: if slow { 30 } else { 60 },
            recipe: Recipe::Supervised,
            rollout: rollout::Settings { steps: 10, ..rollout::Settings::plain(1) },
            prior: prior::Settings { weight: 1.0, ..prior::Settings::default() },
            anchor: anchor::Settings { weight: 0.0, ..anchor::Settings::default() },
            optim: optim::Settings { rate: 5e-4, ..optim::Settings::default() },
            ..Config::default()
        }
    }

    /// The released settings (arXiv 2511.20256, `train_sd3_fast_dino_patch.py`), with the released
    /// schedule: no warm start, own noise per image, the first two of ten steps, one advantage per image over the global
    /// deviation. With [`Recipe::Grpo`] they give the released objective on a loop which uses every rollout for head
    /// and generator.
    pub fn released() -> Self {
        Config {
            text_tokens: 128,
            rank: 32,
            iterations: 20,
            recipe: Recipe::Released,
            warm: warm::Settings { steps: 0, ..warm::Settings::default() },
            rollout: rollout::Settings::released(),
            grpo: grpo::Settings::released(),
            head: head::Settings::released(),
            optim: optim::Settings::released(),
            anchor: anchor::Settings { weight: 0.0, ..anchor::Settings::default() },
            ..Config::default()
        }
    }
}
