//! Convolution and upsampling, channels last. Their weights are frozen: gradients go to images only.
use super::Lowered;
use crate::graph::{Graph, Id, Node, Op};
use crate::{Error, Result};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::Call;
use pentimento_wgsl::kernel::conv::{BIAS, Call as Conv, Dx, Params, RESIDUAL};

impl Graph {
    /// Square convolution with zero padding. x: `[B, H, W, C]`, w: `[O, K, K, C]`, bias: `[O]`; C a multiple of 4.
    /// `pad_end` adds that much padding below and to the right only (diffusers' strided downsampling uses 1).
    pub fn conv2d(
        &mut self,
        x: Id,
        w: Id,
        bias: Option<Id>,
        stride: usize,
        pad: usize,
        pad_end: usize,
    ) -> Id {
        let (s, k) = (self.shape(x).to_vec(), self.shape(w).to_vec());
        let fits =
            s.len() == 4 && k.len() == 4 && s[3] == k[3] && s[3] % 4 == 0 && k[1] == k[2] && stride > 0;
        let tall = s.get(1).map_or(0, |h| h + 2 * pad + pad_end);
        let wide = s.get(2).map_or(0, |v| v + 2 * pad + pad_end);
        if !fits || tall < k[1] || wide < k[1] || bias.is_some_and(|b| self.len(b) != k[0]) {
            return self
                .fail(format!("conv2d of {s:?} by {k:?} (channels must be equal and multiples of 4)"));
        }
        let out = [(tall - k[1]) / stride + 1, (wide - k[1]) / stride + 1];
        let shape = vec![s[0], out[0], out[1], k[0]];
        let op = Op::Conv2d { kernel: k[1], stride, pad, bias: bias.is_some(), residual: false, out };
        let mut inputs = vec![x, w];
        inputs.extend(bias);
        self.push(op, inputs, shape)
    }
    /// Nearest-neighbour upsampling of `[B, H, W, C]` by two.
    pub fn upsample(&mut self, x: Id) -> Id {
        let s = self.shape(x).to_vec();
        if s.len() != 4 {
            return self.fail(format!("upsample of {s:?}: four axes wanted"));
        }
        self.push(Op::Upsample, vec![x], vec![s[0], 2 * s[1], 2 * s[2], s[3]])
    }
}

/// Forward: each tap of an output reads one pixel; so a pixel's gradient is the sum of dy w over the taps that read it.
pub(super) fn backward(g: &mut Graph, node: &Node, dy: Id, need: &[bool]) -> Result<Vec<Option<Id>>> {
    let Op::Conv2d { kernel, stride, pad, .. } = node.op else { return Ok(vec![None; need.len()]) };
    if need[1..].contains(&true) {
        let what = "a gradient was asked for the weights of a convolution, which are frozen";
        return Err(Error::Graph(what.into()));
    }
    let outs = node.shape[3];
    let dy = if outs.is_multiple_of(4) { dy } else { g.pad(dy, 3, 0, outs.next_multiple_of(4)) };
    let shape = g.shape(node.inputs[0]).to_vec();
    let mut out = vec![None; need.len()];
    out[0] = Some(g.push(Op::Conv2dDx { kernel, stride, pad }, vec![dy, node.inputs[1]], shape));
    Ok(out)
}

/// Forward wrote each pixel four times; so its gradient is the sum over two columns, then over two rows.
pub(super) fn upsample_backward(g: &mut Graph, node: &Node, dy: Id) -> Id {
    let &[b, h, w, c] = g.shape(node.inputs[0]) else { return g.fail("upsample: four axes wanted") };
    let columns = g.sum(dy, 2 * b * h * w, 2, c, 1.0, &[b, 2 * h, w, c]);
    g.sum(columns, b * h, 2, w * c, 1.0, &[b, h, w, c])
}

/// A pixel of dx meets `kernel^2 / stride^2` taps of each output channel.
fn lower_dx(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    let Op::Conv2dDx { kernel, stride, pad } = node.op else { unreachable!("a conv2d_dx") };
    let (s, dy, o) = (&node.shape, g.shape(node.inputs[0]), g.shape(node.inputs[1])[0]);
    let sizes = [s[0], s[1], s[2], s[3], dy[1], dy[2], o, kernel, stride, pad].map(|v| v as u32);
    let [batch, h, w, c, ho, wo, out, k, step, edge] = sizes;
    let params = Dx { batch, h, w, c, ho, wo, o: out, kh: k, kw: k, stride: step, pad: edge };
    let flops = 2 * (s[0] * dy[1] * dy[2] * o * kernel * kernel * s[3]) as u64;
    Lowered::new(Call::Conv(Conv::Conv2dDx(params)), &node.inputs, flops)
}

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    if matches!(node.op, Op::Conv2dDx { .. }) {
        return lower_dx(g, id);
    }
    let Op::Conv2d { kernel, stride, pad, bias, residual, out } = node.op else { unreachable!("a conv2d") };
    let s = g.shape(node.inputs[0]);
    let o = node.shape[3];
    let flags = if bias { BIAS } else { 0 } | if residual { RESIDUAL } else { 0 };
    let sizes = [s[0], s[1], s[2], s[3], out[0], out[1], o, kernel, stride, pad].map(|v| v as u32);
    let [batch, h, w, c, ho, wo, outs, k, step, edge] = sizes;
    let params = Params { batch, h, w, c, ho, wo, o: outs, kh: k, kw: k, stride: step, pad: edge, flags };
    let mut rest = node.inputs[2..].iter().copied();
    let mut take = |present: bool| if present { rest.next() } else { None };
    let inputs = vec![Some(node.inputs[0]), Some(node.inputs[1]), take(bias), take(residual)];
    let pixels = s[0] * out[0] * out[1];
    let flops = 2 * (pixels * o * kernel * kernel * s[3]) as u64;
    Lowered { call: Call::Conv(Conv::Conv2d(params)), inputs, flops }
}
