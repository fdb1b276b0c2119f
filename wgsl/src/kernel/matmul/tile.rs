//! How tiles of products on registers lie.
use super::TILE;

/// 64 x 64 outputs, or as many where one side is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// Both sides are long.
    Square,
    /// Few columns.
    Tall,
    /// Few rows.
    Wide,
}

impl Tile {
    /// Rows and columns.
    pub(super) const fn sides(self) -> [u32; 2] {
        match self {
            Tile::Square => [TILE, TILE],
            Tile::Tall => [2 * TILE, TILE / 2],
            Tile::Wide => [TILE / 2, 2 * TILE],
        }
    }
    /// The one for an output of these sides.
    pub(super) fn of(m: u32, n: u32) -> Tile {
        match (m <= TILE / 2, n <= TILE / 2) {
            (_, true) => Tile::Tall,
            (true, false) => Tile::Wide,
            (false, false) => Tile::Square,
        }
    }
}
