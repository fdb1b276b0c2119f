//! Values that lie inside others: reshapes, and slices of whole outermost entries, which need no copy where a binding may
//! begin. Whoever reads a view reads its storage, so the storage lives as long as its last view is read.
use crate::caps::Caps;
use crate::graph::{Graph, Id, Op};
use alloc::{collections::BTreeMap, vec::Vec};
use pentimento_wgsl::Stored;

/// What is a view, by node.
pub(super) struct Views {
    /// Owner of the storage and the first byte in it, of every slice that is one.
    slices: BTreeMap<Id, (Id, u64)>,
}

impl Views {
    pub(super) fn new(g: &Graph, caps: &Caps) -> Self {
        let mut views = Views { slices: BTreeMap::new() };
        let ids: Vec<Id> = (0..g.nodes().len()).map(|i| Id(i as u32)).collect();
        for id in ids {
            let Op::Slice { n, inner, start, len } = g.node(id).op else { continue };
            let whole = g.node(id).inputs[0];
            let (owner, from) = views.storage(g, whole);
            let from = from + Stored::F32.bytes(start * inner) as u64;
            // Leaves are bound from their beginning, and inputs are not in the arena.
            let owned = !matches!(g.node(owner).op, Op::Leaf { .. });
            if owned && len > 0 && g.len(whole) == n * inner && from.is_multiple_of(caps.alignment) {
                views.slices.insert(id, (owner, from));
            }
        }
        views
    }
    /// The node that owns a value's storage, and the value's first byte in it.
    pub(super) fn storage(&self, g: &Graph, id: Id) -> (Id, u64) {
        let root = g.root(id);
        self.slices.get(&root).copied().unwrap_or((root, 0))
    }
    /// Whether a node has no storage of its own.
    pub(super) fn is_view(&self, g: &Graph, id: Id) -> bool {
        self.storage(g, id).0 != id
    }
}
