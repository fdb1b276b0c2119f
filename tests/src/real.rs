//! Running error analysis (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.3) with the
//! accuracies that WGSL allows: a shader's formula, evaluated with [`Real`]s, yields the exact value and a bound on how far
//! a conforming shader may be from it. Nothing here is measured or tuned.
//!
//! From the WGSL specification, "Floating Point Accuracy" (section 15.7.4 and its table 15.7.4.1):
//! `+ - *` are correctly rounded, and either neighbour counts as such: 2^-23 relative. Division: 2.5 ULP for divisors
//! of 2^-126 to 2^126. `exp`: 3 + 2 |x| ULP. `inverseSqrt`: 2 ULP, and `sqrt` is inherited from `1 / inverseSqrt(x)`.
//! `log`: 2^-21 absolute on [0.5, 2], 3 ULP elsewhere. `dot` is inherited from its products and sums, in any order.
//! One ULP is at most 2^-23 of the value. Contraction to fma is allowed and only removes a rounding.
//! "Differences from IEEE-754" (15.7.2): subnormal inputs and results may be flushed to zero, and a program may count on
//! nothing once an intermediate value overflows.

/// Relative size of one rounding to either neighbour.
pub const EPS: f64 = 1.0 / 8_388_608.0;
/// The smallest normal f32: results below may become zero.
pub const FLUSH: f64 = f32::MIN_POSITIVE as f64;
/// The smallest normal f16.
const HALF_FLUSH: f64 = 1.0 / 16_384.0;
const MAX: f64 = f32::MAX as f64;
/// Stands for a value beyond f32, so that no infinity comes from finite inputs.
const BEYOND: f64 = 2.0 * MAX;

/// A value and a bound on the absolute error of what a shader has for it. An error that is not finite means that the
/// specification promises nothing; a value that is not finite comes from an input that is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Real {
    /// The exact value.
    pub v: f64,
    /// Bound on the absolute error.
    pub e: f64,
}

impl From<f32> for Real {
    /// A number in memory: exact, but a subnormal one may be flushed where it is used.
    fn from(x: f32) -> Real {
        Real { v: x.into(), e: if x.is_subnormal() { f64::from(x).abs() } else { 0.0 } }
    }
}

impl Real {
    /// A number that f32 holds exactly, such as a small whole one.
    pub const fn exact(v: f64) -> Real {
        Real { v, e: 0.0 }
    }
    /// A decimal constant of a shader: rounded to f32, and written there with eight digits at least.
    pub fn literal(v: f64) -> Real {
        Real { v, e: EPS * v.abs() }
    }
    /// Nothing is promised.
    pub const fn free() -> Real {
        Real { v: 0.0, e: f64::INFINITY }
    }
    /// The most a shader may have for the absolute value.
    pub fn top(self) -> f64 {
        self.v.abs() + self.e
    }
    /// The result of an operation of `ulps` roundings whose operands alone leave an error of `e`.
    fn rounded(v: f64, e: f64, ulps: f64) -> Real {
        if v == 0.0 && e == 0.0 {
            return Real { v, e };
        }
        let top = v.abs() + e;
        let mut err = e + ulps * EPS * top;
        if v.abs() - err < FLUSH {
            err += FLUSH;
        }
        if v.is_finite() && top + err > MAX {
            return Real { v: v.clamp(-BEYOND, BEYOND), e: f64::INFINITY };
        }
        Real { v, e: err }
    }
    /// `1 / self` and the like; see the module for the domain.
    pub fn over(self, by: Real) -> Real {
        let least = by.v.abs() - by.e;
        if by.v.is_finite() && (by.top().is_nan() || least < FLUSH) {
            return Real::free();
        }
        let v = self.v / by.v;
        let e = (self.v.abs() * by.e + by.v.abs() * self.e) / (by.v.abs() * least);
        if by.v.is_finite() && by.top() > 8.507e37 {
            // Beyond 2^126: the reciprocal may be flushed, and so the quotient lost.
            return Real { v, e: e + v.abs() + FLUSH };
        }
        Real::rounded(v, e, 2.5)
    }
    /// `e^self`.
    pub fn exp(self) -> Real {
        let v = libm::exp(self.v);
        if self.v.is_finite() && (v > MAX || self.v + self.e > 88.8 || self.e.is_nan()) {
            return Real { v: v.min(BEYOND), e: f64::INFINITY };
        }
        Real::rounded(v, v * libm::expm1(self.e), 3.0 + 2.0 * self.top())
    }
    /// `2^self`: accurate as `exp` is.
    pub fn exp2(self) -> Real {
        let v = libm::exp2(self.v);
        if self.v.is_finite() && (v > MAX || self.v + self.e > 128.0 || self.e.is_nan()) {
            return Real { v: v.min(BEYOND), e: f64::INFINITY };
        }
        let e = v * libm::expm1(core::f64::consts::LN_2 * self.e);
        Real::rounded(v, e, 3.0 + 2.0 * self.top())
    }
    /// Logarithm to the base 2: accurate as `log` is.
    pub fn log2(self) -> Real {
        let low = self.v - self.e;
        if self.v.is_finite() && (low < FLUSH || self.e.is_nan()) {
            return Real::free();
        }
        let near = low <= 2.0 && self.v + self.e >= 0.5;
        let e = libm::log1p(self.e / low) * core::f64::consts::LOG2_E;
        Real::rounded(libm::log2(self.v), e + if near { 1.0 / 2_097_152.0 } else { 0.0 }, 3.0)
    }
    /// Rounded to the nearest f16, after a multiplication by the power of two `scale` that is undone later: 2^-11 relative; a
    /// subnormal one may be flushed, and nothing is promised beyond the largest.
    pub fn half(self, scale: f64) -> Real {
        if !self.v.is_finite() {
            return self;
        }
        if self.e.is_nan() || scale * self.top() > 65504.0 {
            return Real::free();
        }
        if self.v == 0.0 && self.e == 0.0 {
            return self;
        }
        let small = if scale * (self.v.abs() - self.e) < HALF_FLUSH { HALF_FLUSH / scale } else { 0.0 };
        Real { v: self.v, e: self.e + self.top() / 2048.0 + small }
    }
    /// A number that is an f16 already, as one that products are made of: a subnormal one may be flushed.
    pub fn of_half(x: f32) -> Real {
        let x = Real::from(x);
        if x.v.abs() < HALF_FLUSH { Real { e: x.v.abs(), ..x } } else { x }
    }
    /// Square root.
    pub fn sqrt(self) -> Real {
        if self.v < 0.0 || (self.v.is_finite() && self.e.is_nan()) {
            return Real { v: if self.v == f64::NEG_INFINITY { f64::NAN } else { 0.0 }, e: f64::INFINITY };
        }
        let v = self.v.sqrt();
        let low = (self.v - self.e).max(0.0);
        let e = if self.e == 0.0 { 0.0 } else { (v - low.sqrt()).max((self.v + self.e).sqrt() - v) };
        // inverseSqrt and division, both with their second-order part. A flushed argument loses its whole root.
        let flushed = if self.v - self.e < FLUSH { FLUSH.sqrt() } else { 0.0 };
        Real::rounded(v, e + flushed, 4.6)
    }
    /// Natural logarithm.
    pub fn ln(self) -> Real {
        let low = self.v - self.e;
        if self.v.is_finite() && (low < FLUSH || self.e.is_nan()) {
            return Real::free();
        }
        let v = libm::log(self.v);
        let near = low <= 2.0 && self.v + self.e >= 0.5;
        Real::rounded(v, libm::log1p(self.e / low) + if near { 1.0 / 2_097_152.0 } else { 0.0 }, 3.0)
    }
    /// Absolute value: exact.
    pub fn abs(self) -> Real {
        Real { v: self.v.abs(), e: self.e }
    }
    /// The larger one. With a NaN WGSL may give either.
    pub fn max(self, b: Real) -> Real {
        if self.v.is_nan() || b.v.is_nan() {
            return Real::free();
        }
        Real { v: self.v.max(b.v), e: self.e.max(b.e) }
    }
    /// The smaller one.
    pub fn min(self, b: Real) -> Real {
        -(-self).max(-b)
    }
    /// 1 where `self > 0`, else 0; anything in between where the error decides.
    pub fn step(self) -> Real {
        if self.v.is_nan() || self.e.is_nan() {
            return Real::free();
        }
        let open = self.e > 0.0 && self.v.abs() <= self.e;
        Real { v: f64::from(u8::from(self.v > 0.0)), e: f64::from(u8::from(open)) }
    }
    /// A sum in any order: with n terms each takes part in at most n - 1 additions (Higham, section 4.2).
    pub fn sum(terms: impl IntoIterator<Item = Real>) -> Real {
        let (mut v, mut e, mut size, mut n) = (0.0, 0.0, 0.0, 0u32);
        for t in terms {
            v += t.v;
            e += t.e;
            size += t.top();
            n += 1;
        }
        if size == 0.0 || n <= 1 {
            return Real { v, e };
        }
        let n = f64::from(n);
        if v.is_finite() && (size.is_nan() || size >= MAX / 2.0) {
            return Real { v: v.clamp(-BEYOND, BEYOND), e: f64::INFINITY };
        }
        // (1 + eps)^n - 1 for n roundings; every partial sum may be flushed.
        Real { v, e: e + libm::expm1((n - 1.0) * EPS) * size + n * FLUSH }
    }
}

impl core::ops::Neg for Real {
    type Output = Real;
    fn neg(self) -> Real {
        Real { v: -self.v, e: self.e }
    }
}
impl core::ops::Add for Real {
    type Output = Real;
    fn add(self, b: Real) -> Real {
        Real::rounded(self.v + b.v, self.e + b.e, 1.0)
    }
}
impl core::ops::Sub for Real {
    type Output = Real;
    fn sub(self, b: Real) -> Real {
        self + -b
    }
}
impl core::ops::Mul for Real {
    type Output = Real;
    fn mul(self, b: Real) -> Real {
        Real::rounded(self.v * b.v, self.v.abs() * b.e + b.v.abs() * self.e + self.e * b.e, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// f32 arithmetic of the host is a conforming shader: its errors stay below the bounds, but not far below.
    #[test]
    fn host_arithmetic_is_within_the_bounds() {
        let mut worst = 0.0f64;
        let mut rng = pentimento_runtime::rng::Philox::new(1, 1);
        for _ in 0..2000 {
            let (a, b, c) = (rng.normal(), rng.normal(), rng.normal());
            let shader = ((a * b + c).exp() / (1.0 + c * c)).sqrt();
            let [x, y, z] = [a, b, c].map(Real::from);
            let r = (x * y + z).exp().over(Real::exact(1.0) + z * z).sqrt();
            let share = (f64::from(shader) - r.v).abs() / r.e;
            assert!(share <= 1.0, "{a} {b} {c}: {share}");
            worst = worst.max(share);
        }
        assert!(worst > 0.03, "the bound is idle: {worst}");
    }
    #[test]
    fn a_wrong_constant_is_outside() {
        let x = Real::from(0.3);
        let r = x * Real::literal(0.044715);
        assert!((f64::from(0.3f32 * 0.044_714_5) - r.v).abs() > r.e);
    }
    #[test]
    fn finite_inputs_never_make_a_value_infinite() {
        let big = Real::from(3e38);
        let zero = Real::from(0.0);
        for r in [big * big, big + big, big.exp(), Real::exact(1.0).over(zero), zero.ln(), (-big).sqrt()] {
            assert!(r.v.is_finite() && !r.e.is_finite(), "{r:?}");
        }
        assert!(Real::sum([big, big]).e.is_infinite());
        assert!(Real::from(f32::NAN).v.is_nan() && (Real::from(f32::INFINITY) + zero).v.is_infinite());
    }
    #[test]
    fn subnormals_may_be_lost() {
        assert_eq!(Real::from(1e-40).e, f64::from(1e-40f32));
        assert!((Real::from(1e-30) * Real::from(1e-10)).e >= FLUSH);
    }
}
