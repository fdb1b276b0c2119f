// attention_tile: attention.wgsl for GPUs, with tiles of f32 in workgroup memory.
// q, y: [B, Q, H*D]; k, v: [B, K, H*D]; bias: [K] or [H, Q, K]; lse: [B, H, Q]. D = 4 * D4; flags as in attention.wgsl.
// A workgroup of SIDE x SIDE invocations holds TILE = 4 * SIDE queries of one head; blocks of TILE keys stream past. An invocation has
// queries ty + SIDE * i and keys 4 * tx to 4 * tx + 3 of a block, then columns tx + SIDE * o of y, in fours.
// q and k come through `pool` in chunks of 4 * CHUNK columns, v in parts of PART rows, so workgroup memory does not grow with D.
// Keys lie permuted, key r at (r % 4) * SIDE + r / 4, so that neighbours read neighbouring rows. Logits are to the base 2.
// Reference: wgsl/src/cpu/attention.rs
// Papers: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022, algorithm 1
@group(0) @binding(4) var<storage, read_write> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
const RS = SIDE + 1u;
var<workgroup> red: array<f32, TILE * RS>;
@compute @workgroup_size(WORKGROUP)
fn attention_tile(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
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
    var top_$i = -3.0e38;
    var total_$i = 0.0;
//@ for o in 0..OWN
    var o_$i_$o: vec4<f32>;
//@ end
//@ end
    let causal = (p.flags & 2u) != 0u;
    let end = select(p.k, min(p.k, q0 + TILE), causal);
    for (var j0 = 0u; j0 < end; j0 += TILE) {
        // s = q kT
//@ for i in 0..4
        var s_$i = vec4<f32>();
//@ end
        for (var d0 = 0u; d0 < D4; d0 += CHUNK) {
//@ for s in 0..STEPS
            {
                let n = lane + $su * WORKGROUP;
                let x = n / CHUNK;
                let d = d0 + n % CHUNK;
                let e = min(d, D4 - 1u);
                pool[x * AS + n % CHUNK] = within(load_q(at_q + min(q0 + x, p.q - 1u) * row + e), d);
                pool[(TILE + (x % 4u) * SIDE + x / 4u) * AS + n % CHUNK] = within(load_k(at_k + min(j0 + x, p.k - 1u) * row + e), d);
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
                s_$i[$x] = fma(a_$i.w, b_$x.w, fma(a_$i.z, b_$x.z, fma(a_$i.y, b_$x.y, fma(a_$i.x, b_$x.x, s_$i[$x]))));
//@ end
//@ end
            }
//@ end
            workgroupBarrier();
        }
        let masks = j0 + TILE > p.k || (p.flags & 5u) != 0u || (causal && j0 + TILE > q0 + 1u);
//@ for i in 0..4
        s_$i *= c;
        if masks {
            let i = min(q0 + ty + $iu * SIDE, p.q - 1u);
            let last = select(p.k, min(p.k, i + 1u), causal);
            let j = four(j0 + 4u * tx);
            let e = min(j, vec4<u32>(p.k - 1u));
            if (p.flags & 1u) != 0u { s_$i += bias_of(e); }
            if (p.flags & 4u) != 0u { s_$i += bias_of((h * p.q + i) * p.k + e); }
            s_$i = select(vec4<f32>(-3.0e38), s_$i, j < vec4<u32>(last));
        }
        red[(ty + $iu * SIDE) * RS + tx] = max(max(s_$i.x, s_$i.y), max(s_$i.z, s_$i.w));
//@ end
        workgroupBarrier();
//@ for i in 0..4
        {
            let at = (ty + $iu * SIDE) * RS;
            var peak = top_$i;
//@ for x in 0..SIDE
            peak = max(peak, red[at + $xu]);
//@ end
            let shrink = exp2(top_$i - peak);
            s_$i = exp2(s_$i - peak);
            prob[(ty + $iu * SIDE) * PS + tx] = s_$i;
            total_$i = total_$i * shrink + ((s_$i.x + s_$i.y) + (s_$i.z + s_$i.w));
            top_$i = peak;
//@ for o in 0..OWN
            o_$i_$o *= shrink;
//@ end
        }
//@ end
        // y += s v
        for (var v0 = 0u; v0 < TILE; v0 += PART) {
//@ for s in 0..MOVES
            {
                let n = lane + $su * WORKGROUP;
                if n < PART * D4 { pool[n] = load_v(at_k + min(j0 + v0 + n / D4, p.k - 1u) * row + n % D4); }
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
    // Invocations of a query join.
//@ for i in 0..4
    red[(ty + $iu * SIDE) * RS + tx] = total_$i;
//@ end
    workgroupBarrier();
//@ for i in 0..4
    {
        let i = q0 + ty + $iu * SIDE;
        var total = 0.0;
//@ for x in 0..SIDE
        total += red[(ty + $iu * SIDE) * RS + $xu];
//@ end
        if i < p.q {
//@ for o in 0..OWN
            if tx + $ou * SIDE < D4 { y[at_q + i * row + tx + $ou * SIDE] = o_$i_$o / total; }
//@ end
            if tx == 0u { lse[bh * p.q + i] = (top_$i + log2(total)) * 0.69314718; }
        }
    }
//@ end
}
