// The second pair of factors, for variants that read one number at a time; low_b lies as b does.
fn with_low(m: u32, n: u32, product: f32) -> f32 {
    if p.low == 0u || m >= p.m || n >= p.n { return product; }
    var acc = product;
    for (var k = 0u; k < p.low; k++) {
        acc += low_a[m * p.low + k] * low_b[select(k * p.n + n, n * p.low + k, p.stride_bk == 1u)];
    }
    return acc;
}
