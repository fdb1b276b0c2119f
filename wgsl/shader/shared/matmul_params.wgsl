// Parameters of every matmul.
struct Params {
    m: u32, n: u32, k: u32,
    stride_am: u32, stride_ak: u32, stride_bk: u32, stride_bn: u32,
    flags: u32, act: u32, rows_per_batch: u32, low: u32, part: u32, first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
