//! How a call can be cut into calls over ranges of rows.
use alloc::vec::Vec;

/// How an argument goes with the rows that a call is cut by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every row reads all of it.
    Whole,
    /// So many numbers a row.
    Rows(usize),
    /// `len` numbers for every `rows` rows, as gates and modulations of one image.
    Group {
        /// Rows that share them.
        rows: usize,
        /// Numbers.
        len: usize,
    },
}

/// The rows of a call: what can be computed apart, with the same bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// How many there are.
    pub count: usize,
    /// What the counting parameter (`Call::counted`) counts for each.
    pub unit: usize,
    /// How each argument is cut, inputs then outputs.
    pub parts: Vec<Part>,
}

impl Rows {
    /// `count` rows, each `unit` of the counting parameter.
    pub(super) fn new(count: usize, unit: usize, parts: impl Into<Vec<Part>>) -> Option<Self> {
        Some(Rows { count, unit, parts: parts.into() })
    }
}
