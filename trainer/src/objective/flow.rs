//! Supervised flow matching.
use super::{Params, compile, with_gradients};
use crate::Result;
use pentimento::exec::PlanId;
use pentimento::graph::Graph;
use pentimento::pipeline::Pipeline;
use pentimento_wgsl::kernel::Unary;

/// Flow matching on clean latents: `mean((v(x_sigma) - (eps - x0))^2)` (Lipman et al. 2023, eq. 14 for straight paths).
/// Inputs: the velocity's, and `target` = eps - x0. Outputs: `loss` `[B]` and the gradients.
///
/// # Errors
/// The device refuses the plan.
pub fn supervised(
    pipeline: &mut Pipeline,
    params: &Params,
    batch: usize,
    size: [usize; 2],
    recompute: bool,
) -> Result<PlanId> {
    let mut g = Graph::new();
    let (x, v) = pipeline.velocity_graph(&mut g, "", batch, size, None);
    let shape = g.shape(x).to_vec();
    let target = g.input("target", &shape);
    let d = g.sub(v, target);
    let square = g.unary(Unary::Square, d);
    let loss = g.mean(square, 1);
    let dy = g.input("seed", &[batch]);
    let outputs = with_gradients(&mut g, loss, dy, params, recompute, vec![("loss".into(), loss)])?;
    let plan = compile(pipeline, g, &outputs, size)?;
    pipeline.exec.write(plan, "seed", &vec![1.0 / batch as f32; batch])?;
    Ok(plan)
}
