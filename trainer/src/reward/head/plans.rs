//! What the head computes on the device: its outputs, and a step of its training.
use super::{NAMES, STEADY, Shape};
use crate::Result;
use pentimento_runtime::exec::{Executor, PlanId, compile};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_wgsl::kernel::{Act, Unary};

pub(super) fn head(g: &mut Graph, tokens: Id, shape: Shape) -> (Id, [Id; 4]) {
    let sizes = shape.params();
    let params: [Id; 4] = core::array::from_fn(|i| g.param(NAMES[i], &sizes[i]));
    let [w0, b0, w2, b2] = params;
    let h = g.linear(tokens, w0, Some(b0));
    let h = g.act(Act::Gelu, h);
    (g.linear(h, w2, Some(b2)), params)
}

pub(super) fn score_plan(exec: &mut dyn Executor, batch: usize, shape: Shape) -> Result<PlanId> {
    let mut g = Graph::new();
    let x = g.input("tokens", &[batch, shape.tokens, shape.width]);
    let (h, _) = head(&mut g, x, shape);
    compile(exec, g, &[("score", h)])
}

pub(super) fn step_plan(exec: &mut dyn Executor, batch: usize, shape: Shape, steady: f32) -> Result<PlanId> {
    let Shape { tokens, width, .. } = shape;
    let mut g = Graph::new();
    let x = g.input("tokens", &[batch, tokens, width]);
    let sign = g.input("sign", &[batch, 1]);
    let weight = g.input("weight", &[batch, tokens]);
    let (h, params) = head(&mut g, x, shape);
    let h = g.reshape(h, &[batch, tokens]);
    let signed = g.mul(h, sign);
    let margin = g.affine(signed, 1.0, 1.0);
    let hinge = g.unary(Unary::Act(Act::Relu), margin);
    let mut loss = hinge;
    if steady > 0.0 {
        let noisy = g.input("noisy", &[batch, tokens, width]);
        let (other, _) = head(&mut g, noisy, shape);
        let other = g.reshape(other, &[batch, tokens]);
        let change = g.sub(other, h);
        let square = g.unary(Unary::Square, change);
        let penalty = g.affine(square, steady / (STEADY * STEADY), 0.0);
        loss = g.add(hinge, penalty);
    }
    // The last bias's gradient is summed on the host, see [`Head::shift`]; the penalty does not depend on it.
    let grads = gradients(&mut g, loss, weight, &params[..3], false)?;
    let mut outputs = vec![("hinge", hinge)];
    outputs.extend(NAMES.into_iter().zip(grads));
    compile(exec, g, &outputs)
}
