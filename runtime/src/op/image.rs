//! Convolution and upsampling, channels last, forward only: no gradient goes through images.
use super::Lowered;
use crate::graph::{Graph, Id, Op};
use alloc::{format, vec};
use pentimento_wgsl::Kernel;

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

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    let Op::Conv2d { kernel, stride, pad, bias, residual, out } = node.op else { unreachable!("a conv2d") };
    let s = g.shape(node.inputs[0]);
    let o = node.shape[3];
    let flags = u32::from(bias) | u32::from(residual) << 2;
    let mut params =
        [s[0], s[1], s[2], s[3], out[0], out[1], o, kernel, kernel, stride, pad].map(|v| v as u32).to_vec();
    params.push(flags);
    let mut rest = node.inputs[2..].iter().copied();
    let mut take = |present: bool| if present { rest.next() } else { None };
    let inputs = vec![Some(node.inputs[0]), Some(node.inputs[1]), take(bias), take(residual)];
    let pixels = s[0] * out[0] * out[1];
    let flops = 2 * (pixels * o * kernel * kernel * s[3]) as u64;
    let work = s[0] * out[0] * out[1].div_ceil(4) * o.div_ceil(4);
    Lowered { kernel: Kernel::Conv2d, params, inputs, work, flops }
}
