//! Devices that the program opened: wgpu's, from Rust, and Vulkan's, from C.
use pentimento_runtime::exec::wgpu::{Fault, Options, Wgpu, adapters};
use pentimento_runtime::exec::{Executor, LeafData, compile};
use pentimento_runtime::graph::{Graph, Layout};
use pentimento_runtime::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::adapter::adapter;
use tests::built::workspace;
use tests::c::{Link, compile as compile_c, succeeds};

/// A layer and what follows it, on numbers that are not simple.
fn computed(exec: &mut Wgpu) -> Result<Vec<f32>> {
    let numbers = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 7919 % 1009) as f32 * 1e-3 - 0.5).collect() };
    let mut g = Graph::new();
    let (x, w) = (g.input("x", &[33, 48]), g.weight("w", &[40, 48], Layout::Plain));
    let y = g.linear(x, w, None);
    let y = g.softmax(y, 0.7);
    exec.set_leaf("w", LeafData::F32(&numbers(40 * 48)))?;
    let plan = compile(exec, g, &[("y", y)])?;
    exec.write(plan, "x", &numbers(33 * 48))?;
    exec.run(plan)?;
    exec.peek(plan, "y")
}

/// A program's own wgpu: its adapter, the first one found, and a device with these limits.
fn host(limits: impl Fn(wgpu::Limits) -> wgpu::Limits) -> (wgpu::Adapter, wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let name = &adapters()[0].name;
    let all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = all.into_iter().find(|a| a.get_info().name == *name).expect("the adapter");
    let descriptor =
        wgpu::DeviceDescriptor { required_limits: limits(adapter.limits()), ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    (adapter, device, queue)
}

/// What a program would call on its device, wrongly.
fn mistake(device: &wgpu::Device) {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage,
        mapped_at_creation: false,
    });
}

/// Counts a device's errors that nobody caught.
fn counted(device: &wgpu::Device) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let own = count.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        own.fetch_add(1, Ordering::Relaxed);
    }));
    count
}

#[test]
fn an_adopted_device_computes_the_same_bits_and_stays_its_owners() {
    if adapter("an adopted device").is_none() {
        return;
    }
    let want = computed(&mut Wgpu::open(None).expect("a device")).expect("a result");
    let (adapter, device, queue) = host(|all| all);
    let count = counted(&device);
    let mut exec =
        Wgpu::adopt(&adapter, device.clone(), queue.clone(), &Options::default()).expect("adopted");
    assert_eq!(computed(&mut exec).expect("a result"), want);
    mistake(&device);
    assert_eq!(count.load(Ordering::Relaxed), 1, "the host's own error is the host's");
    exec.fail_at(Fault::OutOfMemory, 1);
    let error = computed(&mut exec).expect_err("no memory");
    assert!(matches!(error, Error::Memory { .. }), "{error}");
    assert_eq!(computed(&mut exec).expect("a result"), want, "after the error");
    drop(exec);
    mistake(&device);
    assert_eq!(count.load(Ordering::Relaxed), 2, "the handler is the host's still");
    queue.submit([]);
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device is usable");
}

#[test]
fn errors_of_ours_are_ours() {
    if adapter("an adopted device").is_none() {
        return;
    }
    // No kernel's bindings fit.
    let (adapter, device, queue) =
        host(|all| wgpu::Limits { max_uniform_buffers_per_shader_stage: 0, ..all });
    let count = counted(&device);
    let mut exec = Wgpu::adopt(&adapter, device, queue, &Options::default()).expect("adopted");
    let error = computed(&mut exec).expect_err("a layout that cannot be");
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 0, "the host was told of our error");
    // A device that its owner destroys.
    let (adapter, device, queue) = host(|all| all);
    let count = counted(&device);
    let mut exec = Wgpu::adopt(&adapter, device.clone(), queue, &Options::default()).expect("adopted");
    computed(&mut exec).expect("a result");
    device.destroy();
    let error = computed(&mut exec).expect_err("a lost device");
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[test]
fn a_device_with_too_little_says_what_to_ask_for() {
    if adapter("an adopted device").is_none() {
        return;
    }
    let (adapter, device, queue) =
        host(|all| wgpu::Limits { max_compute_workgroup_storage_size: 1024, ..all });
    let error = Wgpu::adopt(&adapter, device, queue, &Options::default()).err().expect("too little");
    let text = error.to_string();
    assert!(text.contains("max_compute_workgroup_storage_size 1024, 16384 is needed"), "{text}");
}

#[test]
fn a_program_of_vulkan_keeps_its_device() {
    if adapter("an adopted Vulkan device").is_none() {
        return;
    }
    let source = "tests/c/adopt.c";
    if !Path::new("/usr/include/vulkan/vulkan.h").exists() {
        return println!("SKIPPED: {source} (no vulkan/vulkan.h; Debian: libvulkan-dev)");
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(program) = compile_c(source, folder, Link::Shared, &["-lvulkan"]) else { return };
    let said = succeeds(&program, &[workspace().join("examples/models/icons").as_os_str()]);
    print!("{said}");
    assert!(said.contains("the program's queue under a lock: done"), "{said}");
}
