// What passes over blocks of keys or queries share: four neighbours, and the biases of four keys. Logits are to the base 2.
fn four(x: u32) -> vec4<u32> { return x + vec4<u32>(0u, 1u, 2u, 3u); }
fn bias_of(j: vec4<u32>) -> vec4<f32> { return 1.44269504 * vec4<f32>(bias[j.x], bias[j.y], bias[j.z], bias[j.w]); }
