//! What is in the initrds, and whether it fits the kernel.

use std::collections::BTreeSet;

use bstr::ByteSlice as _;

use super::{Facts, Said, Severity};
use crate::cmdline;
use crate::image::decompress::{Compression, DEFAULT_CAP};
use crate::image::initramfs::compression;
use crate::image::initrd_files::{self, Part};
use crate::kconfig::{KernelConfig, Symbol};

/// Most bytes that an initrd is unpacked to.
const CAP: usize = DEFAULT_CAP * 4;
/// Most releases that are kept: an initrd has one or two.
const MOST_RELEASES: usize = 64;
/// Where modules lie, before the release; `usr/` may be in front.
const MODULES: &[u8] = b"lib/modules/";
/// Where the kernel looks for updates of the processor
/// (Documentation/arch/x86/microcode.rst).
const MICROCODE: &[u8] = b"kernel/x86/microcode/";
/// Where everything lies that the kernel looks for before it unpacks an initrd.
const EARLY: &[u8] = b"kernel/";
/// Programs, scripts and units that save a dump: makedumpfile and kexec-tools, dracut's kdump
/// module, SUSE's kdump, and rkexec's examples.
const TOOLS: [&str; 8] = [
    "kdump-capture.service",
    "kdump-save",
    "kdump-save.service",
    "kdump.sh",
    "makedumpfile",
    "rkexec-capture",
    "save_dump.sh",
    "vmcore-dmesg",
];
/// Where dracut's squash modules put all files but those that mount this image
/// (dracut.modules(7)): with squashfs in three generations of dracut, and with EROFS.
const IMAGES: [&[u8]; 4] = [
    b"squash/root.img",
    b"squash-root.img",
    b"squashfs-root.img",
    b"erofs-root.img",
];

/// How root= names a file system that only an initrd finds: the kernel itself knows devices
/// and partitions (`early_lookup_bdev` in block/early-lookup.c).
const BY_INITRD: [&str; 3] = ["UUID=", "LABEL=", "/dev/mapper/"];
/// Has the kernel itself make devices of the device mapper
/// (Documentation/admin-guide/device-mapper/dm-init.rst).
const MAKES_MAPPED: &str = "dm-mod.create";

/// What is in the initrds of a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The releases of the kernels that there are modules of.
    pub releases: BTreeSet<String>,
    /// Something that saves a dump.
    pub tool: Option<&'static str>,
    /// There is an image of a file system with most of the files, which is not looked into.
    pub has_image: bool,
    /// There is a file that is not for the kernel's own early use: outside of `kernel/`.
    pub has_files: bool,
    /// Updates of the processor where the kernel reads them early.
    pub early_microcode: bool,
    /// Updates of the processor in an archive that is packed.
    pub packed_microcode: bool,
}

impl Contents {
    /// Those of `initrds`; `None` when one of them cannot be unpacked, of which the plan warns.
    #[must_use]
    pub fn read(initrds: &[&[u8]]) -> Option<Self> {
        let mut contents = Self::default();
        for initrd in initrds {
            initrd_files::names(initrd, CAP, |part, name| contents.see(part, name)).ok()?;
        }
        Some(contents)
    }

    fn see(&mut self, part: Part, name: &[u8]) {
        if name.starts_with(MICROCODE) {
            match part {
                Part::Plain => self.early_microcode = true,
                Part::Packed => self.packed_microcode = true,
            }
        }
        self.has_files |= !matches!(name, b"" | b"." | b"kernel") && !name.starts_with(EARLY);
        self.has_image |= IMAGES.contains(&name);
        let path = name.strip_prefix(b"usr/").unwrap_or(name);
        if let Some(rest) = path.strip_prefix(MODULES) {
            // A file below the directory of a release. What lies beside them is none.
            if let Some((release, _)) = rest.split_once_str(b"/")
                && self.releases.len() < MOST_RELEASES
            {
                let release = String::from_utf8_lossy(release);
                if !self.releases.contains(&*release) {
                    self.releases.insert(release.into_owned());
                }
            }
        }
        let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let tool = TOOLS.iter().find(|tool| tool.as_bytes() == base);
        self.tool = self.tool.or(tool.copied());
    }
}

/// How an initrd is packed, which a kernel is configured not to unpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    /// The format: the name of its tool.
    pub format: &'static str,
    /// The symbol of the configuration that is not set.
    pub symbol: &'static str,
    /// Where the configuration was read.
    pub from: String,
}

impl Packing {
    /// The first of `initrds` that a kernel with `config`, read `from` there, does not unpack.
    #[must_use]
    pub fn find(initrds: &[&[u8]], config: &KernelConfig, from: &str) -> Option<Self> {
        let packed = initrds.iter().filter_map(|initrd| compression(initrd));
        let mut packed = packed.map(|format| (format.name(), symbol(format)));
        let (format, symbol) = packed.find(|(_, symbol)| config.built_in(symbol) == Some(false))?;
        Some(Self {
            format,
            symbol,
            from: from.to_owned(),
        })
    }
}

/// Whether a kernel with `config` has an initramfs in its own image (usr/Kconfig).
#[must_use]
pub fn is_built_in(config: &KernelConfig) -> bool {
    let source = config.get("CONFIG_INITRAMFS_SOURCE");
    matches!(source, Some(Symbol::Value(value)) if value != "\"\"")
}

/// What lets a kernel unpack an initrd of that format (usr/Kconfig).
const fn symbol(format: Compression) -> &'static str {
    match format {
        Compression::Gzip => "CONFIG_RD_GZIP",
        Compression::Bzip2 => "CONFIG_RD_BZIP2",
        Compression::Lzma => "CONFIG_RD_LZMA",
        Compression::Xz => "CONFIG_RD_XZ",
        Compression::Lzo => "CONFIG_RD_LZO",
        Compression::Lz4 => "CONFIG_RD_LZ4",
        Compression::Zstd => "CONFIG_RD_ZSTD",
    }
}

/// An initrd that the kernel does not unpack.
pub(super) fn packing(facts: &Facts<'_>) -> Vec<Said> {
    let Some(packing) = facts.load.and_then(|load| load.unpackable.as_ref()) else {
        return Vec::new();
    };
    let Packing {
        format,
        symbol,
        from,
    } = packing;
    let finding = format!(
        "the initrd is packed with {format}, and the kernel is not configured to unpack that ({symbol}): it finds no \
         file of it"
    );
    let said = Said::new(Severity::Risk, finding, format!("the initrd; {from}"));
    vec![said.way_out("make the initrd anew, packed with gzip")]
}

/// Modules of another kernel.
pub(super) fn modules(facts: &Facts<'_>) -> Vec<Said> {
    let Some(load) = facts.load else {
        return Vec::new();
    };
    let (Some(contents), Some(release)) = (&load.initrd, load.release) else {
        return Vec::new();
    };
    if contents.releases.is_empty() || contents.releases.contains(release) {
        return Vec::new();
    }
    let others: Vec<&str> = contents.releases.iter().map(String::as_str).collect();
    let others = others.join(", ");
    let finding = format!(
        "the initrd has the modules of {others}, and the kernel is {release}: it loads none of them"
    );
    let evidence = "lib/modules in the initrd, the kernel's file";
    let way_out = format!("--initrd FILE, the initrd that was made for {release}");
    vec![Said::new(Severity::Risk, finding, evidence).way_out(way_out)]
}

/// A root file system that nobody finds.
pub(super) fn root(facts: &Facts<'_>) -> Vec<Said> {
    let (Some(load), Some(planned)) = (facts.load, facts.planned()) else {
        return Vec::new();
    };
    let line = planned.plan.cmdline.as_bstr();
    let root = cmdline::value(line, "root");
    let is_by_initrd = |value: &&bstr::BStr| {
        let value = value.trim_start_with(|quote| quote == '"');
        BY_INITRD
            .iter()
            .any(|start| value.starts_with(start.as_bytes()))
    };
    // Updates of the processor alone are no initrd. One that cannot be looked into may be.
    let has_initrd = match &load.initrd {
        Some(contents) => contents.has_files,
        None => load.has_initrd,
    };
    let is_found = has_initrd || load.has_built_in || cmdline::has(line, MAKES_MAPPED);
    let Some(value) = root.filter(is_by_initrd).filter(|_| !is_found) else {
        return Vec::new();
    };
    let finding = format!(
        "the command line has root={value}, which only an initrd can find, and there is no initrd"
    );
    let said = Said::new(Severity::Risk, finding, "the new command line");
    vec![said.way_out("--initrd FILE")]
}

/// Updates of the processor that are packed.
pub(super) fn microcode(facts: &Facts<'_>) -> Vec<Said> {
    let contents = facts.load.and_then(|load| load.initrd.as_ref());
    let is_late =
        contents.is_some_and(|contents| contents.packed_microcode && !contents.early_microcode);
    if !is_late {
        return Vec::new();
    }
    let finding = "the initrd has updates of the processor (kernel/x86/microcode) in an archive that is packed, where \
         the kernel does not look for them; those that the running kernel has put in stay in force";
    let said = Said::new(
        Severity::Note,
        finding,
        "kernel/x86/microcode in the initrd",
    );
    vec![said.way_out("--initrd FILE, an archive that is not packed, before the other one")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_count() {
        let seen = |part, name: &str| {
            let mut contents = Contents::default();
            contents.see(part, name.as_bytes());
            contents
        };
        let releases =
            |name: &str| -> Vec<String> { seen(Part::Packed, name).releases.into_iter().collect() };
        assert_eq!(releases("usr/lib/modules/6.1.0/modules.dep"), ["6.1.0"]);
        assert_eq!(releases("lib/modules/6.1.0/kernel/x.ko"), ["6.1.0"]);
        assert_eq!(releases("lib/modules/6.1.0"), [""; 0]);
        assert_eq!(releases("opt/lib/modules/6.1.0/x"), [""; 0]);
        let tool = |name| seen(Part::Packed, name).tool;
        assert_eq!(tool("usr/bin/makedumpfile"), Some("makedumpfile"));
        assert_eq!(
            tool("scripts/local-bottom/rkexec-capture"),
            Some("rkexec-capture")
        );
        assert_eq!(tool("etc/makedumpfile.conf"), None);
        assert!(seen(Part::Packed, "squashfs-root.img").has_image);
        assert!(!seen(Part::Packed, "root/squashfs-root.img").has_image);
        let microcode = "kernel/x86/microcode/GenuineIntel.bin";
        assert!(seen(Part::Plain, microcode).early_microcode);
        assert!(!seen(Part::Plain, microcode).has_files);
        assert!(!seen(Part::Plain, "kernel").has_files && seen(Part::Plain, "init").has_files);
        assert!(seen(Part::Packed, microcode).packed_microcode);
        let mut many = Contents::default();
        for number in 0..MOST_RELEASES * 2 {
            let name = format!("lib/modules/{number}/x");
            many.see(Part::Packed, name.as_bytes());
        }
        assert_eq!(many.releases.len(), MOST_RELEASES);
    }
}
