//! Messages for files that are no kernel: what the file is instead, or what it lacks
//! for the format that it nearly has.

use goblin::elf::Elf;
use goblin::elf::header::{
    EM_386, EM_AARCH64, EM_ARM, EM_LOONGARCH, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, ET_CORE,
    ET_DYN, ET_EXEC, ET_REL, Header,
};
use goblin::elf::program_header::{PT_INTERP, PT_LOAD, ProgramHeader};

use super::pe::{self, Pe};
use super::{ImageError, decompress};

/// Formats by their magic: where it is, what it is, and how it is called. Those
/// of packed files are known to [`decompress`].
const MAGICS: [(usize, &[u8], &str); 17] = [
    (0, b"070701", "a cpio archive (an initrd?)"),
    (0, b"070702", "a cpio archive (an initrd?)"),
    (0, b"070707", "a cpio archive of the old form"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree blob, or a FIT image"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"\x27\x05\x19\x56", "a U-Boot uImage"),
    (0, b"ANDROID!", "an Android boot image"),
    (0, b"!<arch>\n", "an ar archive (a Debian package?)"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"#!", "a script"),
    (0, b"KDUMP   ", "a dump that makedumpfile wrote"),
    (257, b"ustar", "a tar archive"),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"PK\x03\x04", "a zip archive"),
    (
        0,
        b"#\n# Automatically generated file; DO NOT EDIT.",
        "the configuration of a kernel",
    ),
];

/// Linux of other architectures, by their magic (Documentation/arch/*/booting.rst,
/// Documentation/arch/arm/zImage.c: the header of `arch/arm/boot/compressed/head.S`).
const OTHERS: [(usize, &[u8], &str); 5] = [
    (0x38, b"ARM\x64", "an arm64 Image"),
    (0x38, b"RSC\x05", "a riscv64 Image"),
    (0x24, b"\x18\x28\x6f\x01", "an Arm zImage"),
    (0x24, b"\x01\x6f\x28\x18", "a big-endian Arm zImage"),
    (0x04, b"zimg", "an EFI zboot image"),
];

/// Size of what a bzImage begins with, bytes: the boot sector and the setup header.
const BOOT_SECTOR: usize = 0x268;

/// Sections that only UKIs and their addons have.
const UKI_SECTIONS: [&str; 4] = [".cmdline", ".initrd", ".ucode", ".dtb"];

/// Says what `file` is, which no format of a kernel took.
pub(super) fn miss(file: &[u8]) -> ImageError {
    let not = |what: String| ImageError::NotAKernel(what);
    let is = |what: &str| not(format!("this is {what}"));
    let has = |(at, magic, _): &&(usize, &[u8], &str)| {
        file.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    if let Some((_, _, name)) = OTHERS.iter().find(has) {
        let what = format!("{name}: this program loads x86_64 kernels");
        return ImageError::Unsupported(what);
    }
    if file.starts_with(b"MZ") {
        return is(&pe(file));
    }
    if let Some((_, _, name)) = MAGICS.iter().find(has) {
        return is(name);
    }
    if let Some(compression) = decompress::compression(file) {
        return is(&format!("{} data", compression.name()));
    }
    if file.get(510..512) == Some(b"\x55\xaa") {
        return is("a boot sector, or a whole disk, without \"HdrS\" at 0x202");
    }
    // Check named formats first: boot loaders and disks hold this magic as well.
    if let Some(what) = super::multiboot::near_miss(file) {
        return not(what);
    }
    if file.starts_with(b"\x7fELF") {
        return is(&elf(file));
    }
    not(unnamed(file))
}

/// Describes a file of no known format.
fn unnamed(file: &[u8]) -> String {
    let start = file.get(..0x1000.min(file.len())).unwrap_or_default();
    if file.is_empty() {
        "the file is empty".to_owned()
    } else if file.iter().all(|byte| *byte == 0) {
        "the file has nothing but zeroes".to_owned()
    } else if std::str::from_utf8(start).is_ok_and(|text| !text.contains('\0')) {
        "this is a text file".to_owned()
    } else if file.len() < BOOT_SECTOR {
        format!(
            "this is a file of {} bytes, too short for the boot sector of a bzImage",
            file.len()
        )
    } else {
        "this is a file of an unknown format: it has no boot sector with \"HdrS\", and is neither an \
         ELF nor a PE file"
            .to_owned()
    }
}

/// Describes an ELF file that is no kernel.
fn elf(file: &[u8]) -> String {
    let header = match Elf::parse_header(file) {
        Ok(header) => header,
        Err(error) => return format!("an ELF file with a bad header: {error}"),
    };
    if header.e_machine == EM_386 {
        return "an ELF file for 32-bit x86: of a 32-bit Linux, take the bzImage".to_owned();
    }
    if header.e_machine != EM_X86_64 {
        return format!(
            "an ELF file for {}, and this program loads x86_64 kernels",
            elf_machine(&header)
        );
    }
    match header.e_type {
        ET_REL => return "an ELF object file (a module of a kernel?)".to_owned(),
        ET_CORE => return "an ELF core file (a dump of a kernel?)".to_owned(),
        ET_EXEC | ET_DYN => {}
        other => return format!("an ELF file of type {other:#x}"),
    }
    let Some(table) = program_headers(file, &header) else {
        return "an ELF file whose program headers are not all there".to_owned();
    };
    let mut loads = table
        .iter()
        .filter(|header| header.p_type == PT_LOAD)
        .peekable();
    if loads.peek().is_none() {
        return "an ELF file without a PT_LOAD: there is nothing to load".to_owned();
    }
    if loads.all(|load| load.p_filesz == 0) {
        return "an ELF file with debug information alone: its PT_LOADs have no bytes".to_owned();
    }
    if table.iter().any(|header| header.p_type == PT_INTERP) {
        return "a program for Linux".to_owned();
    }
    "an ELF file for x86_64, but no vmlinux: either it is not linked where Linux is, or it has no \
     \"Linux version\" in it"
        .to_owned()
}

fn elf_machine(header: &Header) -> String {
    let is_64 = header
        .container()
        .is_ok_and(goblin::container::Container::is_big);
    match (header.e_machine, is_64) {
        (EM_AARCH64, _) => "arm64",
        (EM_ARM, _) => "32-bit Arm",
        (EM_RISCV, true) => "riscv64",
        (EM_RISCV, false) => "32-bit RISC-V",
        (EM_PPC64, _) => "powerpc64",
        (EM_S390, _) => "s390",
        (EM_LOONGARCH, _) => "loongarch64",
        (other, _) => return format!("machine {other}"),
    }
    .to_owned()
}

fn program_headers(file: &[u8], header: &Header) -> Option<Vec<ProgramHeader>> {
    let context = goblin::container::Ctx::new(header.container().ok()?, header.endianness().ok()?);
    let table = file.get(usize::try_from(header.e_phoff).ok()?..)?;
    ProgramHeader::parse(table, 0, header.e_phnum.into(), context).ok()
}

/// Describes a PE file that is neither a bzImage nor a UKI.
fn pe(file: &[u8]) -> String {
    let pe = match Pe::parse(file) {
        Ok(Some(pe)) => pe,
        Ok(None) => return "a DOS program, or the beginning of a PE file".to_owned(),
        Err(what) => return format!("a damaged PE file: {what}"),
    };
    let machine = pe::machine_name(pe.machine);
    if pe.has(".linux") {
        return format!("a UKI for {machine}");
    }
    if UKI_SECTIONS.iter().any(|name| pe.has(name)) {
        return format!(
            "a UKI without a kernel (no section .linux): an addon for {machine}, for --addon?"
        );
    }
    if pe.has(".sdmagic") {
        return format!("a part of systemd-boot for {machine}: a UKI has a section .linux");
    }
    format!("a PE file for {machine} without a Linux boot sector and without a section .linux")
}

#[cfg(test)]
#[path = "near_tests.rs"]
mod tests;
