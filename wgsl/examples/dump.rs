//! Writes the WGSL source of every variant that WebGPU guarantees as `NNN.wgsl` and a list of them, `variants.json`, into a folder: for compilers
//! other than naga (`tests/dawn.sh`). Usage: `cargo run --release -p pentimento-wgsl --example dump -- FOLDER`
use pentimento_wgsl::kernel::Features;
use pentimento_wgsl::{Binding, Variant, link, variants};
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: dump FOLDER");
        std::process::exit(2);
    };
    std::fs::create_dir_all(&folder)?;
    let mut list = Vec::new();
    // Others need what adapters may lack, or extensions of naga's.
    let portable = |v: &Variant| v.needs().features == Features::NONE;
    for (i, v) in variants().iter().filter(|v| portable(v)).enumerate() {
        let file = format!("{i:03}.wgsl");
        std::fs::write(folder.join(&file), link(v))?;
        let kind = |b| match b {
            Binding::Storage | Binding::Written(_) => "storage",
            Binding::Packed(_) => "read-only-storage",
            Binding::Texture => "texture",
        };
        let bindings: Vec<String> =
            v.bindings().iter().map(|(n, b)| format!("[{n},\"{}\"]", kind(*b))).collect();
        list.push(format!(
            "{{\"file\":\"{file}\",\"name\":\"{v:?}\",\"entry\":\"{}\",\"bindings\":[{}]}}",
            v.entry(),
            bindings.join(",")
        ));
    }
    std::fs::write(folder.join("variants.json"), format!("[\n{}\n]\n", list.join(",\n")))?;
    println!("{} variants in {}", list.len(), folder.display());
    Ok(())
}
