// A flat f32 tensor staged in a texture, four numbers a texel, 1024 texels a row.
// Why: llvmpipe reads storage buffers lane by lane through the stack (about 60 ns for 8 lanes on an EPYC),
// but texels with one vector gather; see REJECTED.md for the figures. Why a storage texture: loads of sampled ones are calls of a
// function that looks up the sizes of their level for each lane.
fn texel(t: texture_storage_2d<rgba32float, read>, i: u32) -> vec4<f32> {
    return textureLoad(t, vec2<u32>(i & 1023u, i >> 10u));
}
