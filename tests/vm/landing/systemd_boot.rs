//! systemd-boot on OVMF, with files of the Boot Loader Specification and unified kernel
//! images.

use std::path::Path;

use anyhow::Result;

use super::disk::{Disk, Tree};
use super::{Case, files, initrd, prove, system};
use crate::formats::Ukify;
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, line};
use crate::trip::host_file;

const UUID: &str = "2f1d7c44-7a0e-4c55-8f3d-0123456789ab";
const ROOT: &str = "/dev/vda2";
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The vendor of systemd-boot's variables.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// `variable NAME FILE`: sets a variable of systemd-boot, or unsets it without FILE. The
/// kernel protects variables that are there.
const AT_BOOT: &str = "mount -t vfat /dev/vda1 /efi
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
variable() {
  local path=/sys/firmware/efi/efivars/$1-VENDOR
  if [ -e $path ]; then
    chattr -i $path
    rm $path
  fi
  if [ -n \"${2-}\" ]; then dd if=/test/$2 of=$path bs=4k 2>/dev/null; fi
}
ls /efi/loader/entries | record files
ls /sys/firmware/efi/efivars | record variables\n";

/// A variable's file in efivarfs: its attributes, then its value in UTF-16.
fn value(text: &str) -> Vec<u8> {
    let attributes = 7_u32.to_le_bytes();
    let units = text.encode_utf16().chain([0]);
    attributes
        .into_iter()
        .chain(units.flat_map(u16::to_le_bytes))
        .collect()
}

/// The EFI system partition.
fn esp() -> Result<Tree> {
    let (kernel, tree) = (Kernel::small()?, Tree::new()?);
    let ukify = Ukify::new()?;
    let loader = lab::part("ukify")?.join("usr/lib/systemd/boot/efi/systemd-bootx64.efi");
    tree.file("EFI/BOOT/BOOTX64.EFI", &host_file(&loader)?)?;
    tree.file("loader/loader.conf", b"timeout 0\n")?;
    tree.file("vmlinuz", &host_file(&kernel.image())?)?;
    // Of one product the newest version comes first.
    for (name, file, version, word) in [
        ("old", "old.conf", "1", "type1=old"),
        ("new", "new.conf", "2", "type1=new"),
        ("trial", "trial+2-0.conf", "3", "type1=trial"),
    ] {
        tree.file(&format!("initrd-{name}"), &initrd(name, ROOT)?)?;
        let text = format!(
            "title Entry {name}\nsort-key product\nversion {version}\nlinux /vmlinuz\n\
             initrd /initrd-{name}\noptions {}\noptions {word}\n",
            line!("quiet")
        );
        tree.file(&format!("loader/entries/{file}"), text.as_bytes())?;
    }
    for (name, id) in [("uki-a", "then"), ("uki-b", "then-other")] {
        let release = format!("@ID={id}\nPRETTY_NAME={id}\nVERSION_ID=1\n");
        let release = release.trim_start_matches('@');
        let text = format!("{} uki={name}", line!("quiet"));
        let image = ukify.uki(
            name,
            &kernel.image(),
            &initrd(name, ROOT)?,
            &text,
            &["--os-release", release],
        )?;
        tree.file(&format!("EFI/Linux/{name}.efi"), &host_file(&image)?)?;
    }
    Ok(tree)
}

fn cases() -> Vec<Case> {
    let case = |what, set: &str, initrd, word| Case {
        what,
        set: set.to_owned(),
        initrd,
        word,
    };
    vec![
        case(
            "the last try of the newest version, after the first boot had one",
            "true",
            "trial",
            "type1=trial",
        ),
        case("no try is left", "true", "new", "type1=new"),
        case(
            "a pattern in loader.conf",
            "echo 'default uki-*' >>/efi/loader/loader.conf",
            "uki-a",
            "uki=uki-a",
        ),
        case(
            "LoaderEntryDefault",
            "variable LoaderEntryDefault old",
            "old",
            "type1=old",
        ),
        case(
            "LoaderEntryOneShot",
            "variable LoaderEntryOneShot uki-b",
            "uki-b",
            "uki=uki-b",
        ),
        case(
            "the one that was booted last",
            "sed -i 's/^default.*/default @saved/' /efi/loader/loader.conf
             variable LoaderEntryDefault
             variable LoaderEntryLastBooted old",
            "old",
            "type1=old",
        ),
    ]
}

#[test]
fn systemd_boot() -> Result<()> {
    let cases = cases();
    let mut files = files("", &AT_BOOT.replace("VENDOR", VENDOR), &cases)?;
    files.program(Path::new("/usr/bin/chattr"), "usr/bin/chattr")?;
    for (name, text) in [("old", "old.conf"), ("uki-b", "uki-b.efi")] {
        files.file(&format!("test/{name}"), 0o644, &value(text));
    }
    let disk = Disk::new(
        "gpt",
        &[
            ("type=U", &esp()?.fat(72)?),
            ("type=L", &system()?.ext("ext4", UUID, 48)?),
        ],
    )?;
    let guest = Guest::from_disk("landing-systemd-boot", disk.path(), files)?.args([
        "-drive",
        &format!("if=pflash,format=raw,unit=0,readonly=on,file={CODE}"),
        "-drive",
        &format!("if=pflash,format=raw,unit=1,snapshot=on,file={VARIABLES}"),
    ]);
    let outcome = prove(guest, &cases)?;
    // A cold boot counts and takes the one-shot variable away, and a kexec does not.
    let trial = |stage: u32| -> Result<bool> {
        Ok(outcome
            .stage(stage)?
            .text("files")?
            .contains("trial+1-1.conf"))
    };
    let once = |stage: u32| -> Result<bool> {
        Ok(outcome
            .stage(stage)?
            .text("variables")?
            .contains("LoaderEntryOneShot-"))
    };
    assert_eq!([trial(2)?, trial(3)?], [true, false]);
    assert_eq!([once(10)?, once(11)?], [true, false]);
    Ok(())
}
