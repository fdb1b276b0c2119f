//! A static library without std that plans and runs a graph on the CPU executor: proof that the core needs no std.
#![no_std]
extern crate alloc;
use core::alloc::{GlobalAlloc, Layout};
use pentimento_runtime::exec::{Executor, compile, cpu::Cpu};
use pentimento_runtime::graph::Graph;

/// The host's C allocator.
struct Malloc;
unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
    fn free(p: *mut u8);
}
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { malloc(layout.size()) }
    }
    unsafe fn dealloc(&self, p: *mut u8, _: Layout) {
        unsafe { free(p) }
    }
}
#[global_allocator]
static ALLOCATOR: Malloc = Malloc;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `2 * 3 + 1` the long way round; NaN when anything fails.
#[unsafe(no_mangle)]
pub extern "C" fn seven() -> f32 {
    let mut g = Graph::new();
    let x = g.input("x", &[1, 1]);
    let y = g.affine(x, 2.0, 1.0);
    let mut cpu = Cpu::new();
    let run = |cpu: &mut Cpu| {
        let plan = compile(cpu, g, &[("y", y)])?;
        cpu.write(plan, "x", &[3.0])?;
        cpu.run(plan)?;
        cpu.read(plan, "y")
    };
    run(&mut cpu).map_or(f32::NAN, |y| y[0])
}
