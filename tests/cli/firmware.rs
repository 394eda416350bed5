//! What the next kernel is told of EFI and ACPI.

use std::path::Path;

use serde_json::Value;

use crate::{Lab, captured};

/// A field case.
fn case(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/cases")
        .join(name)
        .join("root");
    root.to_str().unwrap().to_owned()
}

fn plan(lab: &Lab, root: &str, args: &[&str]) -> Value {
    let head = ["plan", "--output", "json", "--root", root, "vmlinuz"];
    serde_json::from_str(&lab.succeeds(&[&head, args].concat())).unwrap()
}

#[test]
fn efi_firmware_masked() {
    let lab = Lab::new();
    let root = case("efi-firmware-masked");
    let fails = |args: &[&str]| {
        let head = ["plan", "--root", &root, "vmlinuz"];
        lab.fails(1, &[&head, args].concat())
    };
    assert_eq!(
        fails(&["--cmdline", "x"]),
        "rkexec: planning failed: this machine was booted through EFI (the running kernel's boot_params say so), and \
         /sys/firmware/efi is missing: the next kernel would get no EFI and no ACPI root pointer (RSDP), and could \
         not even switch off\n\
         hint: mount sysfs where its firmware directory is not masked (containers mask it: run on the host), or give \
         --no-efi and acpi_rsdp=ADDRESS on the next kernel's command line (the running kernel's log has it: ACPI: \
         RSDP 0x...)\n"
    );
    assert_eq!(
        fails(&["--cmdline", "x", "--no-efi"]),
        "rkexec: planning failed: the next kernel would find no ACPI: it gets no EFI (--no-efi asks for that), and \
         where the ACPI root pointer (RSDP) lies is not known\n\
         hint: give acpi_rsdp=ADDRESS on the next kernel's command line (the running kernel's log has it: ACPI: RSDP \
         0x...), or acpi=off\n"
    );
    let known = ["--cmdline", "acpi_rsdp=0x3f77e014", "--no-efi"];
    assert!(plan(&lab, &root, &known)["empty_initrd"].is_null());
    // The running kernel hands over EFI itself, and knows what a container does not.
    let file_load = ["--cmdline", "x", "--syscall", "kexec_file_load"];
    assert!(plan(&lab, &root, &file_load)["empty_initrd"].is_string());
    // The drop-in is no way around it.
    let load = ["-c", "-l", "vmlinuz", "--append=x", "--dry-run"];
    let ended = lab.run(&[&["--root", &root, "kexec"], &load[..]].concat());
    assert_eq!(ended.code, Some(255), "{ended:?}");
    assert!(
        ended.err.contains("/sys/firmware/efi is missing"),
        "{ended:?}"
    );
}

#[test]
fn an_empty_initrd_is_shown_with_its_rule() {
    let lab = Lab::new();
    let root = captured("ovmf-1g");
    let of_role = |plan: &Value, role: &str| {
        let mut segments = plan["segments"].as_array().unwrap().iter();
        segments.find(|s| s["role"] == role).cloned()
    };
    let with_none = plan(&lab, &root, &["--cmdline", "x"]);
    let initrd = of_role(&with_none, "initrd").unwrap();
    assert_eq!(
        (&initrd["bufsz"], &initrd["memsz"]),
        (&4.into(), &4096.into())
    );
    let why = with_none["empty_initrd"].as_str().unwrap();
    assert!(why.contains("LINUX_EFI_INITRD_MEDIA"), "{why}");
    assert!(initrd["rule"].as_str().unwrap().ends_with(why));
    let text = lab.succeeds(&["plan", "--root", &root, "vmlinuz", "--cmdline", "x"]);
    assert!(text.contains(&format!("initrd:    an empty one, because: {why}\n")));
    // A UKI without an initrd is no better off, and a BIOS machine no worse.
    let uki = crate::common::pe::TinyPe::uki()
        .without(".initrd")
        .without(".ucode")
        .without(".dtb")
        .build();
    lab.write("uki.efi", uki);
    let uki = ["plan", "--output", "json", "--root", &root, "uki.efi"];
    let uki: Value = serde_json::from_str(&lab.succeeds(&uki)).unwrap();
    assert_eq!(of_role(&uki, "initrd").unwrap()["bufsz"], 4);
    let bios = plan(&lab, &captured("bios-512m"), &["--cmdline", "x"]);
    assert!(of_role(&bios, "initrd").is_none() && bios["empty_initrd"].is_null());
}

/// The memory attributes table of the captured machine lies in System RAM.
#[test]
fn a_table_in_the_runtime_map_is_no_place_for_segments() {
    let lab = Lab::new();
    let table = "0x3d783000";
    // As tight as it gets: everything is to lie below the end of the table.
    let args = ["--cmdline", "x", "--mem-max", "0x3d784000"];
    let plan = plan(&lab, &captured("ovmf-1g"), &args);
    let row = |list: &str, key: &str| {
        let mut rows = plan[list].as_array().unwrap().iter();
        rows.find(|row| row[key] == table).cloned()
    };
    let kept = row("memory_map", "start").unwrap();
    assert_eq!(
        (
            &kept["kind"],
            &kept["e820"],
            &kept["segments"],
            &kept["in_dump"]
        ),
        (&"efi_tables".into(), &2.into(), &"no".into(), &true.into())
    );
    assert_eq!(row("excluded", "start").unwrap()["name"], "EFI runtime map");
    let hex = |value: &Value| u64::from_str_radix(&value.as_str().unwrap()[2..], 16).unwrap();
    for segment in plan["segments"].as_array().unwrap() {
        let start = hex(&segment["mem"]);
        let end = start + segment["memsz"].as_u64().unwrap();
        assert!(end <= 0x3d78_3000, "{segment}");
    }
}
