// attention_coop: attention.wgsl with cooperative matrices: operands rounded to f16, sums in f32.
// q, y: [B, Q, H*D]; k, v: [B, K, H*D]; bias: [K] or [H, Q, K]; lse: [B, H, Q]. D = 4 * D4, padded with zeros to DT matrices; flags as in
// attention.wgsl.
// A workgroup holds ROWS queries of one head, each of its WAVES subgroups EDGE of them; blocks of KEYS keys stream past. With BUFFERS
// = 2 the next block is read while this one is computed.
// Logits (to the base 2) leave the matrices through `logit`, LANES invocations a query with PIECES fours each, and come back as
// probabilities through `prob`. A query keeps a stale maximum until a logit exceeds it by 10, so probabilities are at most 2^10; only
// then y takes the way through `logit` to be scaled.
// What is stored and where has a name, or naga's SPIR-V writer does not find it. Subgroups meet at workgroup barriers: naga does not order workgroup memory with those of subgroups.
// Reference: wgsl/src/cpu/attention.rs
// Papers: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022, algorithm 1
@group(0) @binding(4) var<storage, read_write> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
var<workgroup> tile_k: array<vec4<f16>, BUFFERS * KEYS * LD>;
var<workgroup> tile_v: array<vec4<f16>, BUFFERS * KEYS * LD>;
var<workgroup> row_scale: array<f32, ROWS>;
var<workgroup> votes: array<u32, WAVES>;
// Element n of a block that begins with key j0.
fn of_block(at: u32, j0: u32, n: u32) -> u32 {
    return at + min(j0 + n / DP4, p.k - 1u) * p.heads * D4 + min(n % DP4, D4 - 1u);
}
fn keep(buffer: u32, n: u32, key: vec4<f32>, value: vec4<f32>) {
    if n < KEYS * DP4 {
        let to = (buffer * KEYS + n / DP4) * LD + n % DP4;
        tile_k[to] = within(key, n % DP4);
        tile_v[to] = within(value, n % DP4);
    }
}
@compute @workgroup_size(WORKGROUP)
fn attention_coop(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(subgroup_id) wave: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let index = workgroup_of(wg, grid);
    let blocks = (p.q + ROWS - 1u) / ROWS;
    let bh = index / blocks;
    if bh >= p.batch * p.heads { return; }
    let q0 = (index % blocks) * ROWS;
    let b = bh / p.heads;
    let h = bh % p.heads;
    let row = p.heads * D4;
    let tid = wave * SUBGROUP + lane;
    let mine = wave * EDGE;
    let r = lane % EDGE;
    let part = lane / EDGE;
    let at_q = b * p.q * row + h * D4;
    let at_k = b * p.k * row + h * D4;
    let ld = LD;
    let cs = CS;
    let cp = CP;
    // Queries as matrices, KEYS columns at a time through this subgroup's part of `prob`.
//@ for c in 0..(DT+CT-1)/CT
//@ for i in 0..PIECES
    {
        let n = lane + $iu * SUBGROUP;
        let x = n / (KEYS / 4u);
        let e = n % (KEYS / 4u);
        let d = $cu * (KEYS / 4u) + e;
        prob[(mine + x) * CP + e] = within(load_q(at_q + min(q0 + mine + x, p.q - 1u) * row + min(d, D4 - 1u)), d);
    }
//@ end
    workgroupBarrier();
//@ for t in 0..CT
//@ if c*CT+t < DT
    let q_$(c*CT+t) = coopLoadT<MatrixA>(&prob[mine * CP + $(t*EDGE/4)u], cp);
//@ end
//@ end
    workgroupBarrier();
//@ end
    let c = p.scale * 1.44269504;
    var zero: MatrixC;
    let z = zero;
//@ for d in 0..DT
    var o_$d: MatrixC;
//@ end
    var top = -3.0e38;
    var total = 0.0;
    let causal = (p.flags & 2u) != 0u;
    let end = select(p.k, min(p.k, q0 + ROWS), causal);
//@ for i in 0..STEPS
    var k_$i: vec4<f32>;
    var v_$i: vec4<f32>;
//@ end
//@ if BUFFERS == 2
//@ for i in 0..STEPS
    k_$i = load_k(of_block(at_k, 0u, tid + $iu * WORKGROUP));
    v_$i = load_v(of_block(at_k, 0u, tid + $iu * WORKGROUP));
//@ end
//@ for i in 0..STEPS
    keep(0u, tid + $iu * WORKGROUP, k_$i, v_$i);
//@ end
    workgroupBarrier();
//@ end
    for (var j0 = 0u; j0 < end; j0 += KEYS) {
//@ if BUFFERS == 2
        let buffer = (j0 / KEYS) & 1u;
//@ for i in 0..STEPS
        k_$i = load_k(of_block(at_k, j0 + KEYS, tid + $iu * WORKGROUP));
        v_$i = load_v(of_block(at_k, j0 + KEYS, tid + $iu * WORKGROUP));
//@ end
//@ else
        let buffer = 0u;
        workgroupBarrier();
//@ for i in 0..STEPS
        k_$i = load_k(of_block(at_k, j0, tid + $iu * WORKGROUP));
        v_$i = load_v(of_block(at_k, j0, tid + $iu * WORKGROUP));
//@ end
//@ for i in 0..STEPS
        keep(0u, tid + $iu * WORKGROUP, k_$i, v_$i);
//@ end
        workgroupBarrier();
//@ end
        let start = buffer * (KEYS * LD);
        // S = q kT
//@ for t in 0..CT
        let s_$t_0 = z;
//@ for d in 0..DT
        let k_$t_$d = coopLoad<MatrixB>(&tile_k[start + $(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        let s_$t_$(d+1) = coopMultiplyAdd(q_$d, k_$t_$d, s_$t_$d);
//@ end
        let to_$t = mine * CS + $(t*EDGE/4)u;
        coopStoreT(s_$t_$(DT), &logit[to_$t], cs);
//@ end
        workgroupBarrier();
//@ if BUFFERS == 2
//@ for i in 0..STEPS
        keep(1u - buffer, tid + $iu * WORKGROUP, k_$i, v_$i);
//@ end
//@ end
//@ for i in 0..PIECES
        var t_$i = logit[(mine + r) * CS + part * PIECES + $iu] * c;
//@ end
        if j0 + KEYS > p.k || (p.flags & 5u) != 0u || (causal && j0 + KEYS > q0 + 1u) {
            let i = min(q0 + mine + r, p.q - 1u);
            let last = select(p.k, min(p.k, i + 1u), causal);
//@ for i in 0..PIECES
            {
                let j = four(j0 + 4u * (part * PIECES + $iu));
                let e = min(j, vec4<u32>(p.k - 1u));
                if (p.flags & 1u) != 0u { t_$i += bias_of(e); }
                if (p.flags & 4u) != 0u { t_$i += bias_of((h * p.q + i) * p.k + e); }
                t_$i = select(vec4<f32>(-3.0e38), t_$i, j < vec4<u32>(last));
            }
//@ end
        }
        var most = t_0;
//@ for i in 1..PIECES
        most = max(most, t_$i);
//@ end
        var peak = max(max(most.x, most.y), max(most.z, most.w));
//@ if LANES >= 2
        peak = max(peak, subgroupShuffleXor(peak, EDGE));
//@ end
//@ if LANES >= 4
        peak = max(peak, subgroupShuffleXor(peak, 2u * EDGE));
//@ end
        let over = peak > top + 10.0;
        let high = select(top, peak, over);
        let shrink = exp2(top - high);
        top = high;
        // Nothing is there to be scaled in the first block.
        let vote = subgroupAny(over && j0 > 0u);
        if part == 0u { row_scale[mine + r] = shrink; }
        if lane == 0u { votes[wave] = select(0u, 1u, vote); }
        var sum = vec4<f32>();
//@ for i in 0..PIECES
        t_$i = exp2(t_$i - top);
        sum += t_$i;
        prob[(mine + r) * CP + part * PIECES + $iu] = vec4<f16>(t_$i);
//@ end
        total = total * shrink + ((sum.x + sum.y) + (sum.z + sum.w));
        workgroupBarrier();
        var any = votes[0];
//@ for w in 1..WAVES
        any |= votes[$w];
//@ end
        if any != 0u {
            // Rare: y's rows times `row_scale`, one column of matrices at a time.
//@ for d in 0..DT
            {
                let value = o_$d;
                let to = mine * CS;
                coopStoreT(value, &logit[to], cs);
            }
            workgroupBarrier();
//@ for i in 0..(EDGE*EDGE/4+SUBGROUP-1)/SUBGROUP
            {
                let n = lane + $iu * SUBGROUP;
                let x = n / (EDGE / 4u);
                if x < EDGE { logit[(mine + x) * CS + n % (EDGE / 4u)] *= row_scale[mine + x]; }
            }
//@ end
            workgroupBarrier();
            o_$d = coopLoadT<MatrixC>(&logit[mine * CS], cs);
            workgroupBarrier();
//@ end
        }
        // O += P v
//@ for t in 0..CT
        let p_$t = coopLoadT<MatrixA>(&prob[mine * CP + $(t*EDGE/4)u], cp);
//@ for d in 0..DT
        let v_$t_$d = coopLoadT<MatrixB>(&tile_v[start + $(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        o_$d = coopMultiplyAdd(p_$t, v_$t_$d, o_$d);
//@ end
//@ end
    }
    // Lanes of one query join; they had one maximum all along.
//@ if LANES >= 2
    total += subgroupShuffleXor(total, EDGE);
//@ end
//@ if LANES >= 4
    total += subgroupShuffleXor(total, 2u * EDGE);
//@ end
    if part == 0u {
        row_scale[mine + r] = 1.0 / total;
        if q0 + mine + r < p.q { lse[bh * p.q + q0 + mine + r] = (top + log2(total)) * 0.69314718; }
    }
    // y leaves through `logit`, KEYS columns at a time.
//@ for c in 0..(DT+CT-1)/CT
    workgroupBarrier();
//@ for t in 0..CT
//@ if c*CT+t < DT
    {
        let value = o_$(c*CT+t);
        let to = mine * CS + $(t*EDGE/4)u;
        coopStoreT(value, &logit[to], cs);
    }
//@ end
//@ end
    workgroupBarrier();
//@ for i in 0..PIECES
    {
        let n = lane + $iu * SUBGROUP;
        let x = n / (KEYS / 4u);
        let e = n % (KEYS / 4u);
        let d = $cu * (KEYS / 4u) + e;
        let i = q0 + mine + x;
        if i < p.q && d < D4 { y[at_q + i * row + d] = logit[(mine + x) * CS + e] * row_scale[mine + x]; }
    }
//@ end
//@ end
}
