//! Images too large for one tensor, as bands of rows.
//!
//! The autoencoder's widest tensors (1024 x 1024 pixels with 256 channels: 1 GiB) are larger than what a binding may
//! cover on many adapters. Tiles with blended seams, the usual answer, change the image: every tile gets its own
//! group-norm statistics and its own attention. Bands do not: a convolution borrows one row from each neighbour, and a
//! norm adds up all bands before it divides. So there are no seams, and only the rounding of sums differs.
use super::super::{Names, columns};
use crate::graph::{Graph, Id};
use alloc::{vec, vec::Vec};
use pentimento_wgsl::kernel::Unary;

/// Bands of one image tensor, top to bottom: `[B, h_i, W, C]` each. One band is the ordinary case.
#[derive(Clone, Debug)]
pub(super) struct Bands {
    parts: Vec<Id>,
    /// Numbers that a tensor may hold.
    most: usize,
    /// Bands begin and end at multiples of this many rows.
    align: usize,
}

/// The four sides of a band.
fn sides(g: &Graph, x: Id) -> [usize; 4] {
    g.shape(x).try_into().unwrap_or([0; 4])
}

impl Bands {
    /// One band.
    pub fn whole(x: Id, most: usize, align: usize) -> Self {
        Bands { parts: vec![x], most, align }
    }
    fn with(&self, parts: Vec<Id>) -> Self {
        Bands { parts, ..*self }
    }
    /// The same limits for another tensor.
    pub fn replaced(&self, x: Id) -> Self {
        self.with(vec![x])
    }
    /// C.
    pub fn columns(&self, g: &Graph) -> usize {
        self.parts.first().map_or(0, |&x| columns(g, x))
    }
    fn rows(&self, g: &Graph) -> usize {
        self.parts.iter().map(|&x| sides(g, x)[1]).sum()
    }
    /// All rows as one tensor.
    pub fn join(&self, g: &mut Graph) -> Id {
        let mut parts = self.parts.clone();
        // Pairs of pairs: copies each row a few times, not once per band.
        while parts.len() > 1 {
            let pair = |two: &[Id]| if let &[a, b] = two { g.concat(a, b, 1) } else { two[0] };
            parts = parts.chunks(2).map(pair).collect();
        }
        parts.first().copied().unwrap_or_else(|| g.fail("no bands"))
    }
    /// Names a module's output, where it is one tensor.
    pub fn tap(&self, g: &mut Graph, module: &Names) {
        if let &[x] = self.parts.as_slice() {
            g.tap(module.module(), x);
        }
    }
    /// Cuts what cannot be held with `channels` at `grow` times the size, and joins what can. Leaves room for the two
    /// rows that [`Bands::convolve`] borrows.
    pub fn fit(self, g: &mut Graph, channels: usize, grow: usize) -> Self {
        let Some(&first) = self.parts.first() else { return self };
        let [b, _, w, c] = sides(g, first);
        let row = [b, w, grow, c.max(channels)].iter().fold(1usize, |n, &v| n.saturating_mul(v)).max(1);
        if self.rows(g).saturating_mul(grow).saturating_mul(row) <= self.most {
            let whole = self.join(g);
            return self.with(vec![whole]);
        }
        let rows = (self.most / row).saturating_sub(2) / grow;
        let rows = (rows / self.align * self.align).max(self.align);
        let mut parts = Vec::new();
        for &x in &self.parts {
            let height = sides(g, x)[1];
            for start in (0..height).step_by(rows) {
                parts.push(if height <= rows { x } else { g.slice(x, 1, start, rows.min(height - start)) });
            }
        }
        self.with(parts)
    }
    /// Each band on its own.
    pub fn map(&self, g: &mut Graph, f: impl FnMut(&mut Graph, Id) -> Id) -> Self {
        let mut f = f;
        self.with(self.parts.iter().map(|&x| f(g, x)).collect())
    }
    /// `conv(before(x)) + onto` for a 3 x 3 convolution that keeps the size. `before` works pixel by pixel, or doubles
    /// the size; its bands are made just in time, so that they can be forgotten early.
    pub fn convolve(
        &self,
        g: &mut Graph,
        mut before: impl FnMut(&mut Graph, Id) -> Id,
        mut conv: impl FnMut(&mut Graph, Id) -> Id,
        onto: Option<&Bands>,
    ) -> Self {
        let n = self.parts.len();
        let (mut ready, mut out) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for i in 0..n {
            while ready.len() < (i + 2).min(n) {
                ready.push(before(g, self.parts[ready.len()]));
            }
            let rows = sides(g, ready[i])[1];
            let mut y = borrow(g, &ready, i, true);
            y = conv(g, y);
            if n > 1 {
                y = g.slice(y, 1, usize::from(i > 0), rows);
            }
            out.push(match onto {
                Some(other) => g.add(other.parts[i], y),
                None => y,
            });
        }
        self.with(out)
    }
    /// A 3 x 3 convolution of stride 2 that pads below and to the right: half the size.
    pub fn halve(&self, g: &mut Graph, mut conv: impl FnMut(&mut Graph, Id) -> Id) -> Self {
        let mut out = Vec::with_capacity(self.parts.len());
        for i in 0..self.parts.len() {
            let x = borrow(g, &self.parts, i, false);
            out.push(conv(g, x));
        }
        Bands { align: (self.align / 2).max(1), ..self.with(out) }
    }
    /// Mean and reciprocal deviation of each group of channels over all bands; `None` for a single band, which has a
    /// kernel for that.
    pub fn statistics(&self, g: &mut Graph, groups: usize, eps: f32) -> Option<Statistics> {
        let (&first, 2..) = (self.parts.first()?, self.parts.len()) else { return None };
        let [b, _, w, c] = sides(g, first);
        let each = c / groups.max(1);
        let scale = 1.0 / (self.rows(g) * w * each).max(1) as f32;
        // Mean over a group, repeated for each of its channels.
        let spread = |g: &mut Graph, sums: Id, f: &dyn Fn(&mut Graph, Id) -> Id| {
            let mean = g.sum(sums, b * groups, each, 1, scale, &[b * groups, 1]);
            let value = f(g, mean);
            let zeros = g.affine(sums, 0.0, 0.0);
            let zeros = g.reshape(zeros, &[b * groups, each]);
            let all = g.add(zeros, value);
            g.reshape(all, &[b, 1, 1, c])
        };
        let sums = self.total(g, |_, x| x);
        let mean = spread(g, sums, &|_, m| m);
        let squares = self.total(g, |g, x| {
            let d = g.sub(x, mean);
            g.unary(Unary::Square, d)
        });
        let rstd = spread(g, squares, &|g, variance| {
            let v = g.affine(variance, 1.0, eps);
            let v = g.unary(Unary::Sqrt, v);
            g.unary(Unary::Reciprocal, v)
        });
        Some(Statistics { mean, rstd })
    }
    /// Sum of `f(x)` over all rows and columns: `[B, C]`.
    fn total(&self, g: &mut Graph, mut f: impl FnMut(&mut Graph, Id) -> Id) -> Id {
        let mut all: Option<Id> = None;
        for &x in &self.parts {
            let [b, h, w, c] = sides(g, x);
            let x = f(g, x);
            let x = g.sum(x, b * h, w, c, 1.0, &[b * h, c]);
            let x = g.sum(x, b, h, c, 1.0, &[b, c]);
            all = Some(all.map_or(x, |before| g.add(before, x)));
        }
        all.unwrap_or_else(|| g.fail("no bands"))
    }
}

/// Band `i` with the first row of the next one below it, and the last one of the band before where `above` is set.
fn borrow(g: &mut Graph, parts: &[Id], i: usize, above: bool) -> Id {
    let mut x = parts[i];
    if let Some(&before) = i.checked_sub(1).and_then(|i| parts.get(i)).filter(|_| above) {
        let last = sides(g, before)[1].saturating_sub(1);
        let row = g.slice(before, 1, last, 1);
        x = g.concat(row, x, 1);
    }
    if let Some(&after) = parts.get(i + 1) {
        let row = g.slice(after, 1, 0, 1);
        x = g.concat(x, row, 1);
    }
    x
}

/// Of a group norm, `[B, 1, 1, C]` each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics {
    mean: Id,
    rstd: Id,
}

impl Statistics {
    /// `(x - mean) * rstd * scale + shift`; scale, shift: `[C]`.
    pub fn apply(&self, g: &mut Graph, x: Id, scale: Id, shift: Id) -> Id {
        let d = g.sub(x, self.mean);
        let factor = g.mul(self.rstd, scale);
        let y = g.mul(d, factor);
        g.add(y, shift)
    }
}
