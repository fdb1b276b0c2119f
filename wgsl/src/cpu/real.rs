//! The number types a twin runs in.
use core::fmt::Debug;
use core::ops::{Add, Mul, Sub};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// f32, which the shaders compute in, or f64, whose central differences check the gradient rules far below f32's
/// rounding. Both keep their sums in f64; they differ in how an output is stored. Sealed: the twins know these two.
pub trait Real:
    sealed::Sealed
    + Copy
    + Debug
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + 'static
{
    /// One.
    const ONE: Self;
    /// As f64, exactly.
    fn wide(self) -> f64;
    /// The nearest number of this type.
    fn narrow(value: f64) -> Self;
    /// The larger one; the other one where one is NaN.
    fn larger(self, other: Self) -> Self;
}

impl Real for f32 {
    const ONE: Self = 1.0;
    fn wide(self) -> f64 {
        self.into()
    }
    fn narrow(value: f64) -> Self {
        value as f32
    }
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Real for f64 {
    const ONE: Self = 1.0;
    fn wide(self) -> f64 {
        self
    }
    fn narrow(value: f64) -> Self {
        value
    }
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}
