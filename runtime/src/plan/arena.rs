//! Where values lie.
use alloc::{vec, vec::Vec};

/// First-fit allocator over slabs no larger than one buffer.
pub(super) struct Arena {
    alignment: u64,
    limit: u64,
    /// Their sizes, bytes.
    pub slabs: Vec<u64>,
    /// (slab, offset, size), sorted, never adjacent.
    free: Vec<(usize, u64, u64)>,
}

impl Arena {
    pub fn new(alignment: u64, limit: u64) -> Self {
        Arena { alignment: alignment.max(16), limit, slabs: vec![0], free: Vec::new() }
    }
    fn size(&self, bytes: u64) -> u64 {
        bytes.max(16).next_multiple_of(self.alignment)
    }
    pub fn take(&mut self, bytes: u64) -> (usize, u64) {
        let size = self.size(bytes);
        if let Some(i) = self.free.iter().position(|f| f.2 >= size) {
            let (slab, offset, room) = self.free[i];
            if room == size {
                self.free.remove(i);
            } else {
                self.free[i] = (slab, offset + size, room - size);
            }
            return (slab, offset);
        }
        // Grow the last slab, reusing a free range at its end.
        let slab = self.slabs.len() - 1;
        let end = self.slabs[slab];
        let tail = self.free.iter().position(|f| f.0 == slab && f.1 + f.2 == end);
        let offset = tail.map_or(end, |i| self.free[i].1);
        if offset + size <= self.limit || offset == 0 {
            if let Some(i) = tail {
                self.free.remove(i);
            }
            self.slabs[slab] = offset + size;
            return (slab, offset);
        }
        self.slabs.push(size);
        (slab + 1, 0)
    }
    pub fn give(&mut self, slab: usize, offset: u64, bytes: u64) {
        let size = self.size(bytes);
        let at = self.free.partition_point(|f| (f.0, f.1) < (slab, offset));
        self.free.insert(at, (slab, offset, size));
        if at + 1 < self.free.len() && self.free[at + 1].0 == slab && self.free[at + 1].1 == offset + size {
            self.free[at].2 += self.free[at + 1].2;
            self.free.remove(at + 1);
        }
        if at > 0 && self.free[at - 1].0 == slab && self.free[at - 1].1 + self.free[at - 1].2 == offset {
            self.free[at - 1].2 += self.free[at].2;
            self.free.remove(at);
        }
    }
}
