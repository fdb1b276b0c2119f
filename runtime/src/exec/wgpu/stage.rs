//! Tensors staged in textures for CPU drivers, four numbers a texel, [`TEXELS`] texels a row (`shared/texel.wgsl` says why).
use crate::plan::{Place, Slot};
use alloc::vec::Vec;
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::{TEXELS, TEXTURE_ROW};

/// Bytes of one texture row.
pub(super) const ROW_BYTES: u64 = Stored::F32.bytes(TEXTURE_ROW) as u64;

/// Four numbers.
pub(super) const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

/// A texture that holds `len` numbers.
pub(super) fn texture(device: &wgpu::Device, len: usize) -> wgpu::Texture {
    let rows = len.div_ceil(TEXTURE_ROW).max(1) as u32;
    device.create_texture(&wgpu::TextureDescriptor {
        label: Some("texels"),
        size: wgpu::Extent3d { width: TEXELS, height: rows, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: FORMAT,
        usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
        view_formats: &[],
    })
}

/// The full rows and the rest of a tensor: (first row, rows, texels a row).
fn parts(len: usize) -> impl Iterator<Item = (u32, u32, u32)> {
    let rows = (len / TEXTURE_ROW) as u32;
    let rest = ((len % TEXTURE_ROW).div_ceil(4)) as u32;
    [(0, rows, TEXELS), (rows, 1, rest)].into_iter().filter(|p| p.1 > 0 && p.2 > 0)
}

/// Writes numbers from the host.
pub(super) fn write(queue: &wgpu::Queue, texture: &wgpu::Texture, data: &[f32]) {
    let mut padded = Vec::from(data);
    padded.resize(data.len().next_multiple_of(4), 0.0);
    for (row, rows, width) in parts(data.len()) {
        let from = row as usize * TEXTURE_ROW;
        let count = rows as usize * width as usize * 4;
        queue.write_texture(
            wgpu::TexelCopyTextureInfo {
                origin: wgpu::Origin3d { x: 0, y: row, z: 0 },
                ..texture.as_image_copy()
            },
            bytemuck::cast_slice(&padded[from..from + count]),
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(width * 16), rows_per_image: None },
            wgpu::Extent3d { width, height: rows, depth_or_array_layers: 1 },
        );
    }
}

/// A copy from a buffer range into a texture, encoded before the dispatch that reads it.
pub(super) struct Copy {
    buffer: wgpu::Buffer,
    offset: u64,
    texture: wgpu::Texture,
    len: usize,
}

impl Copy {
    pub(super) fn new(buffer: wgpu::Buffer, offset: u64, texture: wgpu::Texture, len: usize) -> Self {
        Copy { buffer, offset, texture, len }
    }
    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        for (row, rows, width) in parts(self.len) {
            encoder.copy_buffer_to_texture(
                wgpu::TexelCopyBufferInfo {
                    buffer: &self.buffer,
                    layout: wgpu::TexelCopyBufferLayout {
                        offset: self.offset + u64::from(row) * ROW_BYTES,
                        bytes_per_row: (rows > 1).then_some(ROW_BYTES as u32),
                        rows_per_image: None,
                    },
                },
                wgpu::TexelCopyTextureInfo {
                    origin: wgpu::Origin3d { x: 0, y: row, z: 0 },
                    ..self.texture.as_image_copy()
                },
                wgpu::Extent3d { width, height: rows, depth_or_array_layers: 1 },
            );
        }
    }
}

/// Textures of one plan, reused in order of age; remembers which tensor each holds.
#[derive(Default)]
pub(super) struct Stage {
    held: Vec<(Slot, bool, u64, wgpu::Texture)>,
    clock: u64,
}

/// Textures kept per height before the oldest is reused: q, k, v, dy and the operands of a matmul fit.
const KEPT: usize = 6;

impl Stage {
    /// The texture for a tensor, and whether it must be filled.
    pub(super) fn get(&mut self, device: &wgpu::Device, slot: &Slot) -> (wgpu::Texture, bool) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(h) = self.held.iter_mut().find(|h| h.1 && h.0 == *slot) {
            h.2 = clock;
            return (h.3.clone(), false);
        }
        let rows = slot.len.div_ceil(TEXTURE_ROW).max(1) as u32;
        let same = self.held.iter().filter(|h| h.3.height() == rows).count();
        let oldest = self.held.iter_mut().filter(|h| h.3.height() == rows).min_by_key(|h| (h.1, h.2));
        if let (Some(h), true) = (oldest, same >= KEPT) {
            (h.0, h.1, h.2) = (*slot, true, clock);
            return (h.3.clone(), true);
        }
        let texture = texture(device, slot.len);
        self.held.push((*slot, true, clock, texture.clone()));
        (texture, true)
    }
    /// Forgets what a command has overwritten.
    pub(super) fn written(&mut self, outputs: &[Slot]) {
        let range = |s: &Slot| match s.place {
            Place::Arena { slab, offset } => (slab, offset, offset + Stored::F32.bytes(s.len) as u64),
            _ => (usize::MAX, 0, 0),
        };
        for out in outputs {
            let (slab, start, end) = range(out);
            for h in &mut self.held {
                let (b, from, to) = range(&h.0);
                if b == slab && from < end && start < to {
                    h.1 = false;
                }
            }
        }
    }
}
