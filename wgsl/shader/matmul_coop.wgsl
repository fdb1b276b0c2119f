// matmul_coop: matmul on cooperative matrices: operands rounded to f16 as they are staged, sums in f32.
// a: [M, K]; b: [N, K] (B_T 1) or [K, N], staged as it lies in memory: coopLoad and coopLoadT pick the orientation. The second pair
// of factors goes on in the same sums; its left one is brought down by LOW and its right one up, since what an adapter learns
// first is too small for f16.
// One workgroup per TILE_M x TILE_N outputs, one subgroup per SIDE_M x SIDE_N of them. What comes next is loaded while the tiles
// are multiplied. Rows of tiles are padded by 8 halves, which spares bank conflicts and keeps 16-byte alignment.
// A matrix is stored from a name of its own, which naga 30 needs. The grid is folded as in shared/index.wgsl.
// Reference: wgsl/src/cpu/matmul.rs, of rounded operands
const LOW = 64.0;
const FOURS = EDGE * EDGE / 4u;
var<workgroup> tile_a: array<vec4<f16>, TILE_M * ROW_A>;
var<workgroup> tile_b: array<vec4<f16>, ROWS_B * ROW_B>;
var<workgroup> out: array<vec4<f32>, WORKGROUP / SUBGROUP * FOURS>;
@compute @workgroup_size(WORKGROUP)
fn matmul_coop(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) own: u32) {
    let tiles_n = (p.n + TILE_N - 1u) / TILE_N;
    let tile = workgroup_of(wg, grid);
    let m0 = (tile / tiles_n) * TILE_M;
    let n0 = (tile % tiles_n) * TILE_N;
    if m0 >= p.m { return; }
    let side_m = subgroup / (TILE_N / SIDE_N) * SIDE_M;
    let side_n = subgroup % (TILE_N / SIDE_N) * SIDE_N;
    let row_a = ROW_A;
    let row_b = ROW_B;
//@ for i in 0..SIDE_M/EDGE
//@ for j in 0..SIDE_N/EDGE
    var c_$i_$j: MatrixC;
//@ end
//@ end
//@ for i in 0..TILE_M*DEPTH/4/WORKGROUP
    let a_m_$i = (lane + $(i*WORKGROUP)u) / (DEPTH / 4u);
    let a_k_$i = (lane + $(i*WORKGROUP)u) % (DEPTH / 4u);
    var a_$i = vec4<f32>();
//@ end
//@ for i in 0..TILE_N*DEPTH/4/WORKGROUP
//@ if B_T == 1
    let b_n_$i = (lane + $(i*WORKGROUP)u) / (DEPTH / 4u);
    let b_k_$i = (lane + $(i*WORKGROUP)u) % (DEPTH / 4u);
//@ else
    let b_k_$i = (lane + $(i*WORKGROUP)u) / (TILE_N / 4u);
    let b_n_$i = (lane + $(i*WORKGROUP)u) % (TILE_N / 4u);
//@ end
    var b_$i = vec4<f16>();
//@ end
//@ for low in 0..2
//@ if low == 0
    let width_0 = p.k;
//@ else
    let width_1 = p.low;
//@ end
//@ for i in 0..TILE_M*DEPTH/4/WORKGROUP
    a_$i = vec4<f32>();
    if m0 + a_m_$i < p.m && 4u * a_k_$i < width_$low {
        let at = (m0 + a_m_$i) * (width_$low / 4u) + a_k_$i;
//@ if low == 0
        a_$i = a[at];
//@ else
        a_$i = low_a[at] / LOW;
//@ end
    }
//@ end
//@ for i in 0..TILE_N*DEPTH/4/WORKGROUP
    b_$i = vec4<f16>();
//@ if B_T == 1
    if n0 + b_n_$i < p.n && 4u * b_k_$i < width_$low {
        let at = (n0 + b_n_$i) * (width_$low / 4u) + b_k_$i;
//@ else
    if b_k_$i < width_$low && n0 + 4u * b_n_$i < p.n {
        let at = b_k_$i * (p.n / 4u) + n0 / 4u + b_n_$i;
//@ end
//@ if low == 0
        b_$i = load_b4(at);
//@ else
        b_$i = vec4<f16>(low_b[at] * LOW);
//@ end
    }
//@ end
    for (var k0 = 0u; k0 < width_$low; k0 += DEPTH) {
        workgroupBarrier();
//@ for i in 0..TILE_M*DEPTH/4/WORKGROUP
        tile_a[a_m_$i * ROW_A + a_k_$i] = vec4<f16>(a_$i);
//@ end
//@ for i in 0..TILE_N*DEPTH/4/WORKGROUP
//@ if B_T == 1
        tile_b[b_n_$i * ROW_B + b_k_$i] = b_$i;
//@ else
        tile_b[b_k_$i * ROW_B + b_n_$i] = b_$i;
//@ end
//@ end
        workgroupBarrier();
        let next = k0 + DEPTH;
//@ for i in 0..TILE_M*DEPTH/4/WORKGROUP
        a_$i = vec4<f32>();
        if m0 + a_m_$i < p.m && next + 4u * a_k_$i < width_$low {
            let at = (m0 + a_m_$i) * (width_$low / 4u) + next / 4u + a_k_$i;
//@ if low == 0
            a_$i = a[at];
//@ else
            a_$i = low_a[at] / LOW;
//@ end
        }
//@ end
//@ for i in 0..TILE_N*DEPTH/4/WORKGROUP
        b_$i = vec4<f16>();
//@ if B_T == 1
        if n0 + b_n_$i < p.n && next + 4u * b_k_$i < width_$low {
            let at = (n0 + b_n_$i) * (width_$low / 4u) + next / 4u + b_k_$i;
//@ else
        if next + b_k_$i < width_$low && n0 + 4u * b_n_$i < p.n {
            let at = (next + b_k_$i) * (p.n / 4u) + n0 / 4u + b_n_$i;
//@ end
//@ if low == 0
            b_$i = load_b4(at);
//@ else
            b_$i = vec4<f16>(low_b[at] * LOW);
//@ end
        }
//@ end
//@ for k in 0..DEPTH/EDGE
//@ for i in 0..SIDE_M/EDGE
        let ma_$k_$i = coopLoadT<MatrixA>(&tile_a[(side_m + $(i*EDGE)u) * ROW_A + $(k*EDGE/4)u], row_a);
//@ end
//@ for j in 0..SIDE_N/EDGE
//@ if B_T == 1
        let mb_$k_$j = coopLoad<MatrixB>(&tile_b[(side_n + $(j*EDGE)u) * ROW_B + $(k*EDGE/4)u], row_b);
//@ else
        let mb_$k_$j = coopLoadT<MatrixB>(&tile_b[$(k*EDGE)u * ROW_B + side_n / 4u + $(j*EDGE/4)u], row_b);
//@ end
//@ for i in 0..SIDE_M/EDGE
        c_$i_$j = coopMultiplyAdd(ma_$k_$i, mb_$k_$j, c_$i_$j);
//@ end
//@ end
//@ end
    }
//@ end
    let mine = subgroup * FOURS;
    let to = &out[mine];
    let row_c = EDGE / 4u;
//@ for i in 0..SIDE_M/EDGE
//@ for j in 0..SIDE_N/EDGE
    let s_$i_$j = c_$i_$j;
    coopStoreT(s_$i_$j, to, row_c);
    workgroupBarrier();
    for (var e = own; e < FOURS; e += SUBGROUP) {
        finish4(0u, m0 + side_m + $(i*EDGE)u + e / row_c, n0 + side_n + $(j*EDGE)u + e % row_c * 4u, out[mine + e]);
    }
    workgroupBarrier();
//@ end
//@ end
}
