// philox: the words of a Philox4x32-10 stream, from a block on; y = upper 24 bits / 2^24, low = lower 8 bits.
// state: [12], seed, stream and first block as four 16-bit halves each, lowest first; y, low: [N]. All exact in f32.
// One invocation per block of four words: element i is a function of i alone, so neither order nor adapter matters.
// Reference: wgsl/src/cpu/philox.rs
// Paper: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"
struct Params { n: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> low: array<f32>;

fn word(i: u32) -> u32 {
    return (u32(state[2u * i]) & 0xffffu) | ((u32(state[2u * i + 1u]) & 0xffffu) << 16u);
}
// Upper word of a 32 x 32 bit product. WGSL has no 64-bit integers: schoolbook on 16-bit halves; no sum here exceeds
// (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1.
fn mul_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let mid = a1 * b0 + ((a0 * b0) >> 16u);
    let mid2 = a0 * b1 + (mid & 0xffffu);
    return a1 * b1 + (mid >> 16u) + (mid2 >> 16u);
}
@compute @workgroup_size(WORKGROUP)
fn philox(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= (p.n + 3u) / 4u { return; }
    var key = vec2<u32>(word(0u), word(1u));
    let first = word(4u);
    let block = first + i;
    let carry = select(0u, 1u, block < first);
    var c = vec4<u32>(block, word(5u) + carry, word(2u), word(3u));
    for (var round = 0u; round < 10u; round++) {
        let high0 = mul_high(0xD2511F53u, c.x);
        let high1 = mul_high(0xCD9E8D57u, c.z);
        c = vec4<u32>(high1 ^ c.y ^ key.x, 0xCD9E8D57u * c.z, high0 ^ c.w ^ key.y, 0xD2511F53u * c.x);
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    for (var j = 0u; j < 4u && 4u * i + j < p.n; j++) {
        y[4u * i + j] = f32(c[j] >> 8u) * (1.0 / 16777216.0);
        low[4u * i + j] = f32(c[j] & 255u);
    }
}
