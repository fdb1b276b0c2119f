//! Sizes of `shader/attention*_tile.wgsl`.
use super::super::Needs;
use super::Pass;
use alloc::{vec, vec::Vec};

/// Side of a workgroup's square of invocations.
const SIDE: u32 = 8;
/// Queries and keys of a block.
pub(super) const TILE: u32 = 4 * SIDE;
/// Vectors of a row that lie in workgroup memory at once, while logits are computed.
const CHUNK: u32 = 4;
/// Vectors of the memory that chunks share with rows.
const POOL: u32 = 2 * TILE * (CHUNK + 1);

/// Rows that lie in workgroup memory at once, while results are summed up.
fn part(head: u32) -> u32 {
    [TILE, TILE / 2].into_iter().find(|rows| rows * head / 4 <= POOL).unwrap_or(TILE / 4)
}
pub(super) fn constants(head: u32) -> Vec<(&'static str, u32)> {
    let (d4, invocations) = (head / 4, SIDE * SIDE);
    vec![
        ("D4", d4),
        ("SIDE", SIDE),
        ("TILE", TILE),
        ("CHUNK", CHUNK),
        ("POOL", POOL),
        ("STEPS", TILE * CHUNK / invocations),
        ("PART", part(head)),
        ("MOVES", (part(head) * d4).div_ceil(invocations)),
        ("OWN", d4.div_ceil(SIDE)),
    ]
}
pub(super) fn needs(pass: Pass) -> Needs {
    let rest = match pass {
        Pass::Forward => 4 * TILE * (SIDE + 1),
        Pass::Dq => 0,
        Pass::Dkv => 8 * TILE,
    };
    let workgroup_memory = 16 * (POOL + TILE * (SIDE + 1)) + rest;
    Needs { invocations: SIDE * SIDE, workgroup_memory, ..Needs::PLAIN }
}
/// Iterations for each block that passes by.
pub(super) fn iterations(pass: Pass, head: u32) -> u32 {
    let (products, sums) = match pass {
        Pass::Forward => (1, 1),
        Pass::Dq => (2, 1),
        Pass::Dkv => (2, 2),
    };
    1 + products * (head / 4).div_ceil(CHUNK) + sums * (TILE / part(head) + TILE / 4)
}
