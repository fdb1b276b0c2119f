//! The device options that commands share.
use clap::{Args as ClapArgs, ValueEnum};
use pentimento_runtime::caps::{Caps, Class};
use pentimento_runtime::exec::Executor;
use pentimento_runtime::exec::wgpu::{
    AdapterInfo, Checked, Limits, Options, Wgpu, adapter_index, adapters_within,
};
use pentimento_trainer::estimate::megabytes;
use pentimento_trainer::pipeline_cache::{self, Kept, Place};
use pentimento_trainer::{Error, Result};
use std::ffi::OsString;

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
    /// File that keeps what the driver builds of the kernels, where it can, so that later runs start faster. By default what
    /// PENTIMENTO_PIPELINE_CACHE says, else one for each adapter in the user's cache folder. Keep it where nobody else writes.
    #[arg(long, value_name = "FILE|off")]
    pipeline_cache: Option<OsString>,
}

/// Writes the kept pipelines when the work is over, however it ended.
pub struct Keeper(Option<Kept>);

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.0.as_mut().map(Kept::save) {
            eprintln!("built pipelines are not kept: {e}");
        }
    }
}

/// Where pipelines are kept, by the option and the environment.
fn place(option: Option<&OsString>, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<Place> {
    let named = option.cloned().or_else(|| variable("PENTIMENTO_PIPELINE_CACHE"));
    match named.filter(|name| !name.is_empty()) {
        Some(name) if name == "off" => None,
        Some(name) => Some(Place::File(name.into())),
        None => Place::usual(variable),
    }
}

impl DeviceArgs {
    /// The device as asked for, and what is to be dropped behind it.
    pub fn open(&self) -> Result<(Box<dyn Executor>, Keeper)> {
        let place = place(self.pipeline_cache.as_ref(), &|name| std::env::var_os(name));
        let (exec, kept) = pipeline_cache::open(self.device.as_deref(), self.limits.into(), place.as_ref())?;
        let keeper = Keeper(kept);
        exec.notes().iter().for_each(|note| eprintln!("{note}"));
        if !self.bisect {
            return Ok((Box::new(exec), keeper));
        }
        let note = |d: &pentimento_runtime::exec::wgpu::Difference| {
            println!("no disagreement in {} commands; closest to its limit: {d}", d.commands);
        };
        Ok((Box::new(Checked::new(exec, Box::new(note))), keeper))
    }
}

/// Which kernels a device gets, in words.
fn kernels(caps: &Caps) -> String {
    let half = if caps.half_weights { ", half-precision weights" } else { "" };
    match (caps.class, caps.matrix) {
        (Class::Software, _) => "for drivers that compute on the processor".into(),
        (Class::Gpu, Some(matrix)) => {
            format!("for GPUs, with cooperative matrices of {0} x {0}{half}", matrix.edge)
        }
        (Class::Gpu, None) => format!("for GPUs{half}"),
    }
}

/// Compares the device with the CPU, and measures it.
fn test(info: &AdapterInfo, limits: Limits) -> Result<bool> {
    let mut exec = Wgpu::open_with(Some(&info.index.to_string()), &Options { limits, ..Options::default() })?;
    exec.notes().iter().for_each(|note| println!("  {note}"));
    println!("  kernels in use: {}", kernels(exec.caps()));
    let tested = exec.self_test()?;
    match &tested.wrong {
        None => println!(
            "  self-test: {} commands of {} kernels agree with the CPU",
            tested.commands,
            tested.kernels.len()
        ),
        Some(wrong) => println!("  self-test: WRONG after {} commands: {wrong}", tested.commands),
    }
    let peaks = exec.peaks()?;
    println!(
        "  speed: {:.2} TFLOP/s in products, {:.1} GB/s copying",
        peaks.flops * 1e-12,
        peaks.bytes * 1e-9
    );
    Ok(tested.wrong.is_none())
}

/// `pentimento devices`.
pub fn list(limits: Limits, only: Option<&str>, tests: bool) -> Result<()> {
    let mut all = adapters_within(limits);
    if all.is_empty() {
        Wgpu::open(None)?;
    }
    if let Some(only) = only {
        let index = adapter_index(Some(only))?;
        all.retain(|a| a.index == index);
    }
    let mut good = true;
    for a in all {
        println!("{}: {}", a.index, a.name);
        let pci = if a.pci.is_empty() { String::new() } else { format!("PCI {}, ", a.pci) };
        println!("  {pci}{} on {}, {}", a.kind, a.backend, a.driver);
        let features = if a.features.is_empty() { "none of interest".into() } else { a.features.join(", ") };
        println!("  features: {features}");
        let c = &a.caps;
        if let Some(own) = c.memory {
            println!("  memory: {}", megabytes(own));
        }
        println!(
            "  limits: binding {} MiB, buffer {} MiB, {} workgroups a side",
            c.max_binding >> 20,
            c.max_buffer >> 20,
            c.max_groups
        );
        if tests {
            good &= test(&a, limits)?;
        } else {
            println!("  kernels: {}", kernels(c));
        }
    }
    if good {
        Ok(())
    } else {
        Err(Error::Device {
            device: "self-test".into(),
            reason: "a device computes wrong numbers; `--bisect` names them in a run of yours".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_goes_before_the_variable_and_both_may_say_off() {
        let place = |option: Option<&str>, set: Option<&'static str>| {
            super::place(option.map(OsString::from).as_ref(), &move |name| match name {
                "PENTIMENTO_PIPELINE_CACHE" => set.map(OsString::from),
                _ => Some("/caches".into()),
            })
        };
        let file = |path: &str| Some(Place::File(path.into()));
        assert_eq!(place(Some("a"), Some("b")), file("a"));
        assert_eq!(place(Some("a"), Some("off")), file("a"));
        assert_eq!(place(None, Some("b")), file("b"));
        assert_eq!((place(Some("off"), Some("b")), place(None, Some("off"))), (None, None));
        for usual in [place(None, None), place(None, Some("")), place(Some(""), None)] {
            assert!(matches!(usual, Some(Place::Folder(_))), "{usual:?}");
        }
    }
}
