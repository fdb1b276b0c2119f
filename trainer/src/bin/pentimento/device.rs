//! The device options that commands share.
use clap::{Args as ClapArgs, ValueEnum};
use pentimento::exec::Executor;
use pentimento::exec::wgpu::{Checked, Limits, Wgpu, adapters_within};
use pentimento_trainer::Result;

/// `--limits`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Within {
    /// All that the adapter has.
    Adapter,
    /// All but half-precision arithmetic: slower, and every product in f32.
    Exact,
    /// What WebGPU guarantees on every device, and no optional feature.
    Webgpu,
}

impl From<Within> for Limits {
    fn from(within: Within) -> Self {
        match within {
            Within::Adapter => Limits::Adapter,
            Within::Exact => Limits::Exact,
            Within::Webgpu => Limits::WebGpu,
        }
    }
}

#[derive(ClapArgs)]
pub struct DeviceArgs {
    /// Index or PCI id as `devices` lists them, or a part of the name that no other device has; the best one by default.
    #[arg(long)]
    device: Option<String>,
    /// Limits and features the device is opened with.
    #[arg(long, value_enum, default_value = "adapter")]
    limits: Within,
    /// Run every plan the first time command by command against the CPU, and stop with the name of the first kernel that
    /// disagrees. Slow.
    #[arg(long)]
    bisect: bool,
}

impl DeviceArgs {
    /// The device as asked for.
    pub fn open(&self) -> Result<Box<dyn Executor>> {
        let exec = Wgpu::open_within(self.device.as_deref(), self.limits.into())?;
        exec.notes().iter().for_each(|note| crate::say::aside(format_args!("{note}")));
        if !self.bisect {
            return Ok(Box::new(exec));
        }
        let note = |d: &pentimento::exec::wgpu::Difference| {
            println!("no disagreement in {} commands; closest to its limit: {d}", d.commands);
        };
        Ok(Box::new(Checked::new(exec, Box::new(note))))
    }
}

/// `pentimento devices`.
pub fn list(limits: Limits) -> Result<()> {
    let all = adapters_within(limits);
    if all.is_empty() {
        Wgpu::open(None)?;
    }
    for a in all {
        println!("{}: {}", a.index, a.name);
        let pci = if a.pci.is_empty() { String::new() } else { format!("PCI {}, ", a.pci) };
        println!("  {pci}{} on {}, {}", a.kind, a.backend, a.driver);
        let features = if a.features.is_empty() { "none of interest".into() } else { a.features.join(", ") };
        println!("  features: {features}");
        let c = &a.caps;
        println!(
            "  limits: binding {} MiB, buffer {} MiB, {} workgroups a side",
            c.max_binding >> 20,
            c.max_buffer >> 20,
            c.max_groups
        );
    }
    Ok(())
}
