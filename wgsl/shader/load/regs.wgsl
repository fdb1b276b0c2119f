// Stages of matmul_regs: a is [M, K] (A_T 0) or [K, M], b is [N, K] (B_T 1) or [K, N]. Past K, from the next multiple of DEPTH on,
// comes the second pair of factors, laid out alike.
fn stage(m0: u32, n0: u32, k0: u32, end: u32, lane: u32) {
    let main = (p.k + DEPTH - 1u) / DEPTH * DEPTH;
//@ for low in 0..2-A_T
//@ if low == 0
    if k0 < main {
        let last = min(end, p.k);
        let width = p.k;
        let at = k0;
//@ else
    if k0 >= main {
        let last = p.low;
        let width = p.low;
        let at = k0 - main;
//@ end
//@ for side in 0..2
//@ if side == 0 && A_T == 0 || side == 1 && B_T == 1
//@ if side == 0
        for (var e = lane; e < TILE_M / 4u * DEPTH / 4u; e += WORKGROUP) {
//@ else
        for (var e = lane; e < TILE_N / 4u * DEPTH / 4u; e += WORKGROUP) {
//@ end
            let row4 = e / (DEPTH / 4u);
            let k4 = e % (DEPTH / 4u);
//@ for i in 0..4
            var r$i = vec4<f32>();
//@ if side == 0
            if m0 + 4u * row4 + $iu < p.m && at + 4u * k4 < last {
                let i = (m0 + 4u * row4 + $iu) * (width / 4u) + at / 4u + k4;
//@ else
            if n0 + 4u * row4 + $iu < p.n && at + 4u * k4 < last {
                let i = (n0 + 4u * row4 + $iu) * (width / 4u) + at / 4u + k4;
//@ end
//@ if side == 0 && low == 0
                r$i = a[i];
//@ end
//@ if side == 0 && low == 1
                r$i = low_a[i];
//@ end
//@ if side == 1 && low == 0
                r$i = load_b4(i);
//@ end
//@ if side == 1 && low == 1
                r$i = low_b[i];
//@ end
            }
//@ end
//@ if side == 0
            turn_a(row4, k4, r0, r1, r2, r3);
//@ else
            turn_b(row4, k4, r0, r1, r2, r3);
//@ end
        }
//@ else
//@ if side == 0
        for (var e = lane; e < TILE_M / 4u * DEPTH; e += WORKGROUP) {
            let k = e / (TILE_M / 4u);
            let m4 = e % (TILE_M / 4u);
            var v = vec4<f32>();
            if m0 + 4u * m4 < p.m && at + k < last { v = a[(at + k) * (p.m / 4u) + m0 / 4u + m4]; }
            tile_a[k * ROW_A + m4] = v;
        }
//@ else
        for (var e = lane; e < TILE_N / 4u * DEPTH; e += WORKGROUP) {
            let k = e / (TILE_N / 4u);
            let n4 = e % (TILE_N / 4u);
            var v = vec4<f32>();
            if n0 + 4u * n4 < p.n && at + k < last {
                let i = (at + k) * (p.n / 4u) + n0 / 4u + n4;
//@ if low == 0
                v = load_b4(i);
//@ else
                v = low_b[i];
//@ end
            }
            tile_b[k * ROW_B + n4] = v;
        }
//@ end
//@ end
//@ end
    }
//@ end
}
