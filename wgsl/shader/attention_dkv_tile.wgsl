// attention_dkv_tile: attention_dkv.wgsl for GPUs, with tiles of f32 in workgroup memory.
// q, dy: [B, Q, H*D]; k, v, dk, dv: [B, K, H*D]; stats: [B, H, Q, 2]; bias: [K]. D = 4 * D4; flags as in attention.wgsl.
// Tiles as in attention_tile.wgsl, but a workgroup holds TILE keys and queries stream past: k qT, then v dyT through the same `pool`,
// then dv += pT dy and dk += dsT q through the same `prob`.
// Reference: wgsl/src/cpu/attention.rs
// Paper: Dao et al. 2022, algorithm 4
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>;
var<workgroup> level: array<f32, TILE>;
var<workgroup> delta: array<f32, TILE>;
@compute @workgroup_size(WORKGROUP)
fn attention_dkv_tile(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_of(wg, grid);
    let blocks = (p.k + TILE - 1u) / TILE;
    let bh = i / blocks;
    if bh >= p.batch * p.heads { return; }
    let k0 = (i % blocks) * TILE;
    let b = bh / p.heads;
    let h = bh % p.heads;
    let row = p.heads * D4;
    let tx = lane % SIDE;
    let ty = lane / SIDE;
    let at_q = b * p.q * row + h * D4;
    let at_k = b * p.k * row + h * D4;
    let c = p.scale * 1.44269504;
//@ for i in 0..4
    let j_$i = min(k0 + ty + $iu * SIDE, p.k - 1u);
    var extra_$i = 0.0;
    if (p.flags & 1u) != 0u { extra_$i = 1.44269504 * bias[j_$i]; }
//@ for o in 0..OWN
    var o0_$i_$o: vec4<f32>;
    var o1_$i_$o: vec4<f32>;
//@ end
//@ end
    let causal = (p.flags & 2u) != 0u;
    for (var i0 = select(0u, k0, causal); i0 < p.q; i0 += TILE) {
        if lane < TILE {
            let at = 2u * (bh * p.q + min(i0 + lane, p.q - 1u));
            // Queries past the end get p = 0.
            level[lane] = select(3.0e38, stats[at] * 1.44269504, i0 + lane < p.q);
            delta[lane] = stats[at + 1u];
        }
        // s0 = k qT, s1 = v dyT
//@ for m in 0..2
//@ for i in 0..4
        var s$m_$i = vec4<f32>();
//@ end
        for (var d0 = 0u; d0 < D4; d0 += CHUNK) {
//@ for s in 0..STEPS
            {
                let n = lane + $su * WORKGROUP;
                let x = n / CHUNK;
                let d = d0 + n % CHUNK;
                let from_k = at_k + min(k0 + x, p.k - 1u) * row + min(d, D4 - 1u);
                let from_q = at_q + min(i0 + x, p.q - 1u) * row + min(d, D4 - 1u);
                let to_k = x * AS + n % CHUNK;
                let to_q = (TILE + (x % 4u) * SIDE + x / 4u) * AS + n % CHUNK;
//@ if m == 0
                pool[to_k] = within(load_k(from_k), d);
                pool[to_q] = within(load_q(from_q), d);
//@ else
                pool[to_k] = within(load_v(from_k), d);
                pool[to_q] = within(load_dy(from_q), d);
//@ end
            }
//@ end
            workgroupBarrier();
//@ for d in 0..CHUNK
            {
//@ for x in 0..4
                let b_$x = pool[(TILE + $xu * SIDE + tx) * AS + $du];
//@ end
//@ for i in 0..4
                let a_$i = pool[(ty + $iu * SIDE) * AS + $du];
//@ for x in 0..4
                s$m_$i[$x] = fma(a_$i.w, b_$x.w, fma(a_$i.z, b_$x.z, fma(a_$i.y, b_$x.y, fma(a_$i.x, b_$x.x, s$m_$i[$x]))));
//@ end
//@ end
            }
//@ end
            workgroupBarrier();
        }
//@ end
        let n = 4u * tx;
        let l = vec4<f32>(level[n], level[n + 1u], level[n + 2u], level[n + 3u]);
        let e = vec4<f32>(delta[n], delta[n + 1u], delta[n + 2u], delta[n + 3u]);
//@ for i in 0..4
        s0_$i = exp2(s0_$i * c + (extra_$i - l));
        if causal { s0_$i = select(vec4<f32>(), s0_$i, vec4<u32>(j_$i) <= four(i0 + n)); }
        prob[(ty + $iu * SIDE) * PS + tx] = s0_$i;
        s1_$i = s0_$i * (s1_$i - e);
//@ end
        // dv += pT dy, dk += dsT q
//@ for m in 0..2
        for (var v0 = 0u; v0 < TILE; v0 += PART) {
//@ for s in 0..MOVES
            {
                let n = lane + $su * WORKGROUP;
                let start = at_q + min(i0 + v0 + n / D4, p.q - 1u) * row + n % D4;
//@ if m == 0
                if n < PART * D4 { pool[n] = load_dy(start); }
//@ else
                if n < PART * D4 { pool[n] = load_q(start); }
//@ end
            }
//@ end
            workgroupBarrier();
            for (var e = 0u; e < PART / 4u; e++) {
//@ for i in 0..4
                let p_$i = prob[(ty + $iu * SIDE) * PS + v0 / 4u + e];
//@ end
//@ for o in 0..OWN
                let at_$o = 4u * e * D4 + min(tx + $ou * SIDE, D4 - 1u);
//@ for x in 0..4
                let v_$o_$x = pool[at_$o + $xu * D4];
//@ end
//@ for i in 0..4
                o$m_$i_$o = fma(vec4<f32>(p_$i.w), v_$o_3, fma(vec4<f32>(p_$i.z), v_$o_2, fma(vec4<f32>(p_$i.y), v_$o_1, fma(vec4<f32>(p_$i.x), v_$o_0, o$m_$i_$o))));
//@ end
//@ end
            }
            workgroupBarrier();
        }
//@ if m == 0
//@ for i in 0..4
        prob[(ty + $iu * SIDE) * PS + tx] = s1_$i;
//@ end
//@ end
//@ end
    }
//@ for i in 0..4
    if k0 + ty + $iu * SIDE < p.k {
//@ for o in 0..OWN
        if tx + $ou * SIDE < D4 {
            dv[at_k + j_$i * row + tx + $ou * SIDE] = o0_$i_$o;
            dk[at_k + j_$i * row + tx + $ou * SIDE] = p.scale * o1_$i_$o;
        }
//@ end
    }
//@ end
}
