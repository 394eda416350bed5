//! The stubs that lanzaboote makes for NixOS: PE files that look like a UKI, whose
//! sections `.linux` and `.initrd` hold no kernel and no initrd, but the paths of these
//! on the EFI system partition, with a SHA-256 of each in a section of its own. So a
//! kernel lies there once, however many generations of the system have it.
//!
//! Source: lanzaboote, rust/uefi/stub/src/thin.rs. Older stubs have the paths in
//! `.kernelp` and `.initrdp`, and the kernel's hash in `.kernelh`.

use super::ImageError;
use super::pe::Pe;

/// What a stub is called.
pub const NAME: &str = "a lanzaboote stub of NixOS";
/// Longest path taken for one, bytes.
const MAX_PATH: usize = 1024;
/// Bytes of a SHA-256.
const HASH: usize = 32;
/// Sections by what they hold: the path, the hash.
const KERNEL: [(&str, &str); 2] = [(".linux", ".linuxh"), (".kernelp", ".kernelh")];
const INITRD: [(&str, &str); 2] = [(".initrd", ".initrdh"), (".initrdp", ".initrdh")];

/// A stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    /// The kernel.
    pub kernel: Named,
    /// The initrd, when it names one.
    pub initrd: Option<Named>,
    /// The command line, when it has one that is text.
    pub cmdline: Option<String>,
}

/// A file on the EFI system partition, as a stub names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its path from the root of the partition, with backslashes.
    pub path: String,
    /// The SHA-256 that it must have.
    pub sha256: [u8; HASH],
}

impl Stub {
    /// Reads a stub. `None`: the file is no stub.
    #[must_use]
    pub fn parse(file: &[u8]) -> Option<Self> {
        let pe = Pe::parse(file).ok()??;
        let kernel = named(&pe, &KERNEL)?;
        let cmdline = section(&pe, ".cmdline").and_then(|line| std::str::from_utf8(line).ok());
        Some(Self {
            kernel,
            initrd: named(&pe, &INITRD),
            cmdline: cmdline.map(|line| {
                let line = line.replace(char::is_control, " ");
                line.trim().to_owned()
            }),
        })
    }
}

impl Named {
    /// The path below a mounted EFI system partition: with slashes, without one at
    /// the start.
    #[must_use]
    pub fn file(&self) -> String {
        self.path.trim_start_matches('\\').replace('\\', "/")
    }

    /// The hash as sha256sum prints it.
    #[must_use]
    pub fn hex(&self) -> String {
        self.sha256
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl From<Stub> for ImageError {
    fn from(stub: Stub) -> Self {
        Self::Lanzaboote(Box::new(stub))
    }
}

impl std::fmt::Display for Stub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kernel = &self.kernel;
        write!(
            f,
            "{NAME}: it holds no kernel, but names files on the EFI system partition: kernel {} (SHA-256 {})",
            kernel.path,
            kernel.hex()
        )?;
        if let Some(initrd) = &self.initrd {
            write!(f, ", initrd {} (SHA-256 {})", initrd.path, initrd.hex())?;
        }
        write!(f, "; load these files: ESP/{}", kernel.file())?;
        match &self.initrd {
            Some(initrd) => write!(f, " --initrd ESP/{}", initrd.file()),
            None => Ok(()),
        }
    }
}

fn section<'a>(pe: &Pe<'a>, name: &str) -> Option<&'a [u8]> {
    let section = pe.sections.iter().find(|section| section.name == name)?;
    Some(section.bytes)
}

/// The first pair of sections that both are there: a path and a hash.
fn named(pe: &Pe<'_>, sections: &[(&str, &str)]) -> Option<Named> {
    sections.iter().find_map(|(path, hash)| {
        let sha256 = section(pe, hash)?.try_into().ok()?;
        let path = section(pe, path).filter(|path| path.len() <= MAX_PATH)?;
        let end = path
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(path.len());
        let path = std::str::from_utf8(path.get(..end)?).ok()?.trim();
        let is_path = !path.is_empty() && !path.contains(char::is_control);
        is_path.then(|| Named {
            path: path.to_owned(),
            sha256,
        })
    })
}

#[cfg(test)]
#[path = "lanzaboote_tests.rs"]
mod tests;
