//! Tensors staged in textures for CPU drivers, four numbers a texel, [`TEXELS`] texels a row (`shared/texel.wgsl` says why).
pub(super) use crate::exec::memory::ROW_BYTES;
use crate::exec::memory::texture_rows;
use crate::exec::texels::Texels;
use crate::plan::Slot;
use alloc::vec::Vec;
use pentimento_wgsl::kernel::{TEXELS, TEXTURE_ROW};

/// Four numbers.
pub(super) const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

/// A texture that holds `len` numbers.
pub(super) fn texture(device: &wgpu::Device, len: usize) -> wgpu::Texture {
    let rows = texture_rows(len);
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
    for (row, rows, width) in parts(data.len()) {
        let from = row as usize * TEXTURE_ROW;
        let count = rows as usize * width as usize * 4;
        let mut last = [0.0; TEXTURE_ROW];
        // The last texel may have fewer numbers than four.
        let numbers = data.get(from..from + count).unwrap_or_else(|| {
            let rest = data.get(from..).unwrap_or_default();
            last[..rest.len()].copy_from_slice(rest);
            &last[..count]
        });
        queue.write_texture(
            wgpu::TexelCopyTextureInfo {
                origin: wgpu::Origin3d { x: 0, y: row, z: 0 },
                ..texture.as_image_copy()
            },
            bytemuck::cast_slice(numbers),
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

/// The textures of one plan.
#[derive(Default)]
pub(super) struct Stage {
    texels: Texels,
    textures: Vec<wgpu::Texture>,
}

impl Stage {
    /// The texture for a tensor, and whether it must be filled.
    pub(super) fn get(&mut self, slot: &Slot, make: impl FnOnce() -> wgpu::Texture) -> (wgpu::Texture, bool) {
        let (at, fresh) = self.texels.get(slot);
        if at == self.textures.len() {
            self.textures.push(make());
        }
        (self.textures[at].clone(), fresh)
    }
    /// Forgets what a command has overwritten.
    pub(super) fn written(&mut self, outputs: &[Slot]) {
        self.texels.written(outputs);
    }
    /// Bytes of all.
    pub(super) fn bytes(&self) -> u64 {
        self.texels.bytes()
    }
}
