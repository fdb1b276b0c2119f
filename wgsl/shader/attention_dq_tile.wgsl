// attention_dq_tile: attention_dq.wgsl for GPUs, with tiles of f32 in workgroup memory.
// q, dy, dq: [B, Q, H*D]; k, v: [B, K, H*D]; stats: [B, H, Q, 2]; bias: [K]. D = 4 * D4; flags as in attention.wgsl.
// Tiles as in attention_tile.wgsl: q kT, then dy vT through the same `pool`, then dq += ds k.
// Reference: wgsl/src/cpu/attention.rs
// Paper: Dao et al. 2022, algorithm 4
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;
@compute @workgroup_size(WORKGROUP)
fn attention_dq_tile(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_of(wg, grid);
    let blocks = (p.q + TILE - 1u) / TILE;
    let bh = i / blocks;
    if bh >= p.batch * p.heads { return; }
    let q0 = (i % blocks) * TILE;
    let b = bh / p.heads;
    let h = bh % p.heads;
    let row = p.heads * D4;
    let tx = lane % SIDE;
    let ty = lane / SIDE;
    let at_q = b * p.q * row + h * D4;
    let at_k = b * p.k * row + h * D4;
    let c = p.scale * 1.44269504;
//@ for i in 0..4
    let i_$i = min(q0 + ty + $iu * SIDE, p.q - 1u);
    let level_$i = stats[2u * (bh * p.q + i_$i)] * 1.44269504;
    let delta_$i = stats[2u * (bh * p.q + i_$i) + 1u];
//@ for o in 0..OWN
    var o_$i_$o: vec4<f32>;
//@ end
//@ end
    let causal = (p.flags & 2u) != 0u;
    let end = select(p.k, min(p.k, q0 + TILE), causal);
    for (var j0 = 0u; j0 < end; j0 += TILE) {
        // s0 = q kT, s1 = dy vT
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
                let from_q = at_q + min(q0 + x, p.q - 1u) * row + min(d, D4 - 1u);
                let from_k = at_k + min(j0 + x, p.k - 1u) * row + min(d, D4 - 1u);
                let to_q = x * AS + n % CHUNK;
                let to_k = (TILE + (x % 4u) * SIDE + x / 4u) * AS + n % CHUNK;
//@ if m == 0
                pool[to_q] = within(load_q(from_q), d);
                pool[to_k] = within(load_k(from_k), d);
//@ else
                pool[to_q] = within(load_dy(from_q), d);
                pool[to_k] = within(load_v(from_k), d);
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
        let masks = j0 + TILE > p.k || (p.flags & 1u) != 0u || (causal && j0 + TILE > q0 + 1u);
//@ for i in 0..4
        s0_$i *= c;
        if masks {
            let last = select(p.k, min(p.k, i_$i + 1u), causal);
            let j = four(j0 + 4u * tx);
            if (p.flags & 1u) != 0u { s0_$i += bias_of(min(j, vec4<u32>(p.k - 1u))); }
            s0_$i = select(vec4<f32>(-3.0e38), s0_$i, j < vec4<u32>(last));
        }
        prob[(ty + $iu * SIDE) * PS + tx] = exp2(s0_$i - level_$i) * (s1_$i - delta_$i);
//@ end
        // dq += ds k
        for (var v0 = 0u; v0 < TILE; v0 += PART) {
//@ for s in 0..MOVES
            {
                let n = lane + $su * WORKGROUP;
                if n < PART * D4 { pool[n] = load_k(at_k + min(j0 + v0 + n / D4, p.k - 1u) * row + n % D4); }
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
                o_$i_$o = fma(vec4<f32>(p_$i.w), v_$o_3, fma(vec4<f32>(p_$i.z), v_$o_2, fma(vec4<f32>(p_$i.y), v_$o_1, fma(vec4<f32>(p_$i.x), v_$o_0, o_$i_$o))));
//@ end
//@ end
            }
            workgroupBarrier();
        }
    }
//@ for i in 0..4
    if q0 + ty + $iu * SIDE < p.q {
//@ for o in 0..OWN
        if tx + $ou * SIDE < D4 { dq[at_q + i_$i * row + tx + $ou * SIDE] = p.scale * o_$i_$o; }
//@ end
    }
//@ end
}
