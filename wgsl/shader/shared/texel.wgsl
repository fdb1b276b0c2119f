// Where number 4 i of a flat f32 tensor begins in its texture: four numbers a texel, 1024 texels a row.
// Why textures: llvmpipe reads storage buffers lane by lane through the stack (about 60 ns for 8 lanes on an EPYC),
// but texels with one vector gather; see REJECTED.md for the figures. Why storage textures: loads of sampled ones are calls of a
// function that looks up the sizes of their level for each lane. Why no texture as a parameter: naga cannot write that in MSL.
fn texel(i: u32) -> vec2<u32> { return vec2<u32>(i & 1023u, i >> 10u); }
