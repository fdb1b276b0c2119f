//! How passes on cooperative matrices are cut into blocks.
use super::super::{Features, Matrix, Needs};
use super::Pass;
use alloc::{vec, vec::Vec};

/// How a pass on cooperative matrices is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coop {
    /// The device's matrices.
    pub matrix: Matrix,
    /// Subgroups of a workgroup; each holds as many queries or keys as a matrix has rows.
    pub waves: u32,
    /// The next block is read while this one is computed.
    pub ahead: bool,
}

impl Coop {
    /// Queries or keys of a block that passes by.
    pub(super) const KEYS: u32 = 32;

    /// Those worth trying, best first (H200; see REJECTED.md). The later ones are for less workgroup memory.
    pub(super) fn ranked(pass: Pass, matrix: Matrix) -> Vec<Self> {
        let of = |waves, ahead| Coop { matrix, waves, ahead };
        match pass {
            _ if !Matrix::KNOWN.contains(&matrix) => vec![],
            Pass::Forward => vec![of(8, true), of(8, false), of(4, false)],
            Pass::Dq => vec![of(4, false)],
            Pass::Dkv => vec![of(8, false), of(4, false)],
        }
    }
    /// Queries or keys that a workgroup holds.
    pub(super) fn rows(self) -> u32 {
        self.waves * self.matrix.edge
    }
    /// Vectors of a row, padded to whole matrices.
    pub(super) fn padded(self, head: u32) -> u32 {
        head.next_multiple_of(self.matrix.edge) / 4
    }
    pub(super) fn buffers(self) -> u32 {
        if self.ahead { 2 } else { 1 }
    }
    pub(super) fn constants(self, head: u32) -> Vec<(&'static str, u32)> {
        let Coop { matrix: Matrix { edge, subgroup }, waves, .. } = self;
        let (padded, lanes) = (self.padded(head), subgroup / edge);
        vec![
            ("D4", head / 4),
            ("DP4", padded),
            ("DT", 4 * padded / edge),
            ("EDGE", edge),
            ("SUBGROUP", subgroup),
            ("WAVES", waves),
            ("ROWS", self.rows()),
            ("KEYS", Coop::KEYS),
            ("CT", Coop::KEYS / edge),
            ("LANES", lanes),
            ("PIECES", Coop::KEYS / 4 / lanes),
            ("STEPS", (Coop::KEYS * padded).div_ceil(waves * subgroup)),
            ("BUFFERS", self.buffers()),
        ]
    }
    pub(super) fn needs(self, pass: Pass, head: u32) -> Needs {
        // Blocks of both operands in f16, rows of logits in f32, of probabilities and their gradients in f16.
        let blocks = 2 * self.buffers() * Coop::KEYS * 8 * (self.padded(head) + 2);
        let (logits, halves) = (16 * (Coop::KEYS / 4 + 1), 8 * (Coop::KEYS / 4 + 2));
        let rest = match pass {
            Pass::Forward => self.rows() * (logits + halves + 4) + 4 * self.waves,
            Pass::Dq => self.rows() * (logits + halves),
            Pass::Dkv => self.rows() * (logits + 2 * halves) + 8 * Coop::KEYS,
        };
        Needs {
            invocations: self.waves * self.matrix.subgroup,
            workgroup_memory: blocks + rest,
            features: Features::MATRIX,
        }
    }
}
