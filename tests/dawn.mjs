// Creates every dumped shader module and its pipeline on Dawn within WebGPU's default limits, then multiplies two matrices.
// Usage: node dawn.mjs FOLDER, beside a node_modules with the package `webgpu`. See dawn.sh.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
const folder = process.argv[2];
const variants = JSON.parse(readFileSync(join(folder, "variants.json"), "utf8"));
const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (!adapter) {
    console.error("Dawn takes none of the adapters.");
    process.exit(3);
}
const { vendor, architecture, device: model, description } = adapter.info;
console.log(`Dawn on ${[vendor, architecture, model, description].filter(Boolean).join(", ")}`);
const device = await adapter.requestDevice(); // default limits, no features
let failures = 0;
const fail = (what, text) => {
    failures += 1;
    console.error(`FAILED: ${what}: ${text}`);
};
device.addEventListener("uncapturederror", (e) => fail("device", e.error.message));

const layout = (bindings) => {
    const entry = ([binding, kind]) =>
        kind === "texture"
            ? { binding, visibility: GPUShaderStage.COMPUTE, storageTexture: { access: "read-only", format: "rgba32float" } }
            : { binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: kind } };
    const entries = [[0, "uniform"], ...bindings].map(entry);
    return device.createBindGroupLayout({ entries });
};

/// Module and pipeline of a variant; complaints of the compiler, warnings too, count as failures.
async function build(v, source) {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code: source, label: v.name });
    const { messages } = await module.getCompilationInfo();
    const errors = [];
    for (const m of messages) errors.push(`${m.type} at line ${m.lineNum}: ${m.message}`);
    const group = layout(v.bindings);
    const compute = { module, entryPoint: v.entry };
    let pipeline = null;
    if (errors.length === 0) {
        const whole = device.createPipelineLayout({ bindGroupLayouts: [group] });
        const made = device.createComputePipelineAsync({ layout: whole, compute });
        pipeline = await made.catch((e) => (errors.push(e.message), null));
    }
    const scope = await device.popErrorScope();
    if (scope) errors.push(scope.message);
    return { pipeline, group, errors };
}

const started = Date.now();
for (const v of variants) {
    const { errors } = await build(v, readFileSync(join(folder, v.file), "utf8"));
    if (errors.length) fail(v.name, errors.join("; "));
}
console.log(`${variants.length - failures} of ${variants.length} variants compile, ${(Date.now() - started) / 1000} s`);

// A checker that accepts everything would pass so far: it must refuse a broken shader.
const first = variants[0];
const broken = readFileSync(join(folder, first.file), "utf8").replace("fn linear(", "fn linnear(");
if ((await build(first, broken)).errors.length === 0) fail("a broken shader", "it was accepted");

/// y = a b^T, sizes that fill no tile, against sums in double precision.
async function matmul(v) {
    const [m, n, k] = [65, 70, 33];
    const { pipeline, group } = await build(v, readFileSync(join(folder, v.file), "utf8"));
    const numbers = (count, f) => Float32Array.from({ length: count }, (_, i) => f(i));
    const a = numbers(m * k, (i) => Math.fround(Math.sin(i)));
    const b = numbers(n * k, (i) => Math.fround(Math.cos(3 * i)));
    const U = GPUBufferUsage;
    const buffer = (data, usage) => {
        const made = device.createBuffer({ size: Math.max(64, Math.ceil(data.byteLength / 16) * 16), usage });
        device.queue.writeBuffer(made, 0, data);
        return made;
    };
    const params = Uint32Array.from([m, n, k, k, 1, 1, k, 0, 0, 1, 0, k]);
    const dummy = () => buffer(new Float32Array(4), U.STORAGE | U.COPY_DST);
    const y = buffer(new Float32Array(m * n), U.STORAGE | U.COPY_DST | U.COPY_SRC);
    const operands = [a, b].map((d) => buffer(d, U.STORAGE | U.COPY_DST));
    const buffers = [buffer(params, U.UNIFORM | U.COPY_DST), ...operands, ...Array.from({ length: 5 }, dummy), y];
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const bindGroup = device.createBindGroup({ layout: group, entries });
    const read = device.createBuffer({ size: 4 * m * n, usage: U.COPY_DST | U.MAP_READ });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(Math.ceil(m / 64) * Math.ceil(n / 64), 1);
    pass.end();
    encoder.copyBufferToBuffer(y, 0, read, 0, 4 * m * n);
    device.queue.submit([encoder.finish()]);
    await read.mapAsync(GPUMapMode.READ);
    const got = new Float32Array(read.getMappedRange());
    let [error, bound] = [0, 0];
    for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
            let [sum, size] = [0, 0];
            for (let l = 0; l < k; l++) {
                sum += a[i * k + l] * b[j * k + l];
                size += Math.abs(a[i * k + l] * b[j * k + l]);
            }
            const e = Math.abs(got[i * n + j] - sum);
            error = Number.isNaN(e) ? NaN : Math.max(error, e);
            bound = Math.max(bound, (k + 2) * 2 ** -23 * size); // k products and sums of one rounding each
        }
    }
    console.log(`${v.entry} ${m} x ${n} x ${k} on Dawn: error ${error.toExponential(2)}, limit ${bound.toExponential(2)}`);
    if (!(error <= bound)) fail(v.entry, "a wrong product");
}
const tile = variants.find((v) => v.entry === "matmul_tile" && v.name.includes("(F32)"));
await matmul(tile);
await device.queue.onSubmittedWorkDone();
process.exit(failures ? 1 : 0);
