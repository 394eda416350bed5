//! Builds the purgatory: a flat image that runs at any address because it needs
//! no relocation, and the offsets of what the loader and the tests want in it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use goblin::elf::program_header::PT_LOAD;
use goblin::elf::{Elf, ProgramHeader};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=purgatory");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let elf = out.join("purgatory.elf");
    compile(&elf)?;
    let bytes = fs::read(&elf)?;
    let image = flatten(&bytes).map_err(|error| format!("{}: {error}", elf.display()))?;
    fs::write(out.join("purgatory.bin"), image.bytes)?;
    fs::write(
        out.join("purgatory.rs"),
        format!(
            "const IMAGE: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/purgatory.bin\"));\n\
             const ENTRY_OFFSET: u64 = {:#x};\n\
             const VERIFY_OFFSET: u64 = {:#x};\n\
             const STAMP_OFFSET: u64 = {:#x};\n\
             const MEMORY_SIZE: u64 = {:#x};\n",
            image.entry, image.verify, image.stamp, image.memory_size
        ),
    )?;
    Ok(())
}

/// The purgatory is x86_64 whatever the loader is.
fn target() -> String {
    env::var("TARGET")
        .ok()
        .filter(|target| target.starts_with("x86_64-") && target.contains("-linux-"))
        .unwrap_or_else(|| "x86_64-unknown-linux-gnu".to_owned())
}

/// Runs rustc by hand: cargo would apply the loader's profile and the user's
/// RUSTFLAGS (target-cpu=native, sanitizers, coverage), which break it.
fn compile(elf: &Path) -> Result<(), Box<dyn Error>> {
    let sources = Path::new("purgatory");
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("RUSTC is not set")?);
    for flags in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        rustc.env_remove(flags);
    }
    rustc.arg(sources.join("main.rs"));
    rustc.args([
        "--crate-name=purgatory",
        "--crate-type=bin",
        "--edition=2024",
    ]);
    rustc.arg(format!("--target={}", target()));
    rustc.arg("-o").arg(elf);
    for option in [
        // Without optimisation core's precompiled code is not left out.
        "opt-level=2",
        "codegen-units=1",
        "panic=abort",
        "debuginfo=0",
        "target-cpu=x86-64",
        "relocation-model=pie",
        // Else calls of memcpy go through the GOT, which wants a relocation.
        "relro-level=off",
        // An exception may push onto the stack at any time.
        "no-redzone=yes",
        "force-unwind-tables=no",
        "default-linker-libraries=no",
    ] {
        rustc.arg(format!("-C{option}"));
    }
    rustc.args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib"]);
    rustc.arg("-Clink-arg=-Wl,--build-id=none,-z,max-page-size=4096,-z,noexecstack");
    let script = fs::canonicalize(sources.join("purgatory.ld"))?;
    rustc.arg(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = std::ffi::OsString::from("-Clinker=");
        argument.push(linker);
        rustc.arg(argument);
    }
    let status = rustc.status()?;
    if !status.success() {
        return Err(format!("building the purgatory failed ({status}): {rustc:?}").into());
    }
    Ok(())
}

/// The image as the loader copies it.
struct Image<'a> {
    bytes: &'a [u8],
    /// With the bss.
    memory_size: u64,
    /// Offset of the first instruction.
    entry: u64,
    /// Offset of `purgatory_verify`.
    verify: u64,
    /// Offset of `purgatory_stamp`.
    stamp: u64,
}

/// Takes the one segment out of the ELF file, which must ask for nothing more.
fn flatten(bytes: &[u8]) -> Result<Image<'_>, Box<dyn Error>> {
    let elf = Elf::parse(bytes)?;
    let relocations = elf.dynrelas.len()
        + elf.dynrels.len()
        + elf.pltrelocs.len()
        + elf
            .shdr_relocs
            .iter()
            .map(|(_, of)| of.len())
            .sum::<usize>();
    if relocations != 0 {
        return Err(format!(
            "{relocations} relocations: see \"Traps\" in purgatory/README.md for what brings them"
        )
        .into());
    }
    let mut loads = elf.program_headers.iter().filter(|h| h.p_type == PT_LOAD);
    let load = match (loads.next(), loads.next()) {
        (Some(load), None) => load,
        _ => return Err("not exactly one loadable segment".into()),
    };
    if load.p_vaddr != 0 {
        return Err(format!("linked at {:#x}, not at 0", load.p_vaddr).into());
    }
    let content = bytes
        .get(ProgramHeader::file_range(load))
        .ok_or("the segment ends beyond the file")?;
    let offset = |name: &str| {
        let mut symbols = elf.syms.iter();
        symbols
            .find(|symbol| elf.strtab.get_at(symbol.st_name) == Some(name))
            .map(|symbol| symbol.st_value)
            .ok_or_else(|| format!("no symbol {name}"))
    };
    Ok(Image {
        bytes: content,
        memory_size: load.p_memsz.next_multiple_of(4096),
        entry: elf.entry,
        verify: offset("purgatory_verify")?,
        stamp: offset("purgatory_stamp")?,
    })
}
