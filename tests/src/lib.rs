//! What the tests share: the op table with its draws, bounds and comparison, the adapter under test, golden fixtures.
pub mod adapter;
pub mod bound;
pub mod cases;
pub mod check;
pub mod draw;
pub mod fixture;
pub mod known;
pub mod real;
pub mod scratch;
