//! Ways to train: which stage comes next.
pub mod released;
