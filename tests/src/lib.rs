//! What the tests share: the op table, the adapter under test, golden fixtures.
pub mod adapter;
pub mod cases;
pub mod fixture;
pub mod scratch;
