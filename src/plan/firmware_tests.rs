//! What the next kernel learns of the firmware, by whole plans.

use super::*;
use crate::abi::efi::EfiDescriptor;
use crate::abi::x86::boot_params::{
    BootParams, EFI32_LOADER_SIGNATURE, EFI64_LOADER_SIGNATURE, join,
};
use crate::boot::BootError;
use crate::boot::linux_x86::firmware::FirmwareError;
use crate::host::efi::Efi;
use crate::image::probe;
use crate::layout::Role;
use crate::request::{DirectChoice, SyscallChoice};
use crate::testing::bzimage::{TinyBzImage, field};
use crate::testing::host::{Says as _, host};

const RSDP: u64 = 0x3e00_2014;

/// A machine of 1 GiB whose BIOS tells nothing.
fn bios() -> Host {
    host("00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n")
        .boot_e820([(0x1000, 0x9_ffff, 1), (0x10_0000, 0x3fff_ffff, 1)])
}

fn params(host: &mut Host) -> &mut BootParams {
    &mut host.boot_params.as_mut().unwrap().params
}

/// The same, booted through EFI, with /sys/firmware masked.
fn masked() -> Host {
    let mut host = bios();
    let info = &mut params(&mut host).efi_info;
    info.loader_signature = EFI64_LOADER_SIGNATURE.into();
    info.systab = 0x3e20_0018.into();
    (info.memdesc_size, info.memdesc_version) = (48.into(), 1.into());
    host
}

fn descriptor(physical: u64, pages: u64) -> EfiDescriptor {
    EfiDescriptor {
        kind: 4,
        physical,
        virtual_: 0xffff_fffe_0000_0000 + physical,
        pages,
        attributes: 0x8000_0000_0000_000f,
    }
}

/// The same, with everything that tells of EFI, and a table at 0x3fff_e000.
fn efi() -> Host {
    Host {
        efi: Some(Efi {
            fw_vendor: 0x3e00_0000,
            config_table: 0x3e00_1000,
            platform_bits: 64,
            acpi20: RSDP,
            runtime_map: vec![descriptor(0x3fff_e000, 1)],
            ..Efi::default()
        }),
        ..masked()
    }
}

fn request(syscall: Syscall, line: &str) -> LoadRequest {
    let mut request = LoadRequest {
        syscall: SyscallChoice::Only(syscall),
        direct: DirectChoice::Off,
        ..LoadRequest::default()
    };
    request.cmdline.base = CmdlineBase::Given(line.into());
    request
}

/// Plans a tiny bzImage with `initrds`, and gives the plan to `look`.
fn planned<T>(
    request: &LoadRequest,
    host: &Host,
    initrds: &[&[u8]],
    look: impl FnOnce(&Plan<'_>) -> T,
) -> Result<T, PlanError> {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let plan = crate::plan::plan(
        request,
        host,
        &image,
        &crate::plan::Given::initrds(initrds),
        Capability::unknown,
    )?;
    Ok(look(&plan))
}

/// The initrd that the zero page tells of, and that the plan has: address and bytes.
fn initrd(plan: &Plan<'_>) -> ((u64, u64), Option<(u64, Vec<u8>)>) {
    let mut segments = plan.segments().iter();
    let zero_page = segments.clone().find(|s| s.role == Role::BootParams);
    let zero_page = BootParams::from_bytes(&zero_page.unwrap().buf[..4096]).unwrap();
    let header = &zero_page.hdr;
    let told = (
        join(
            header.ramdisk_image.get(),
            zero_page.ext_ramdisk_image.get(),
        ),
        join(header.ramdisk_size.get(), zero_page.ext_ramdisk_size.get()),
    );
    let segment = segments.find(|s| s.role == Role::Initrd);
    (told, segment.map(|s| (s.mem.start(), s.buf.to_vec())))
}

#[test]
fn with_efi_and_no_initrd_goes_an_empty_one() {
    let load = request(Syscall::KexecLoad, "x");
    // No initrd at all, and one without a byte (a section of a UKI).
    for none in [&[][..], &[&[][..]]] {
        planned(&load, &efi(), none, |plan| {
            let (told, segment) = initrd(plan);
            let (at, bytes) = segment.unwrap();
            assert_eq!((told, bytes), ((at, 4), vec![0; 4]));
            assert!(
                plan.empty_initrd
                    .unwrap()
                    .contains("LINUX_EFI_INITRD_MEDIA")
            );
            let mut segments = plan.segments().iter();
            let segment = segments.find(|s| s.role == Role::Initrd).unwrap();
            assert!(segment.rule.contains("an empty initrd"), "{}", segment.rule);
        })
        .unwrap();
    }
    planned(&load, &efi(), &[&[7; 9]], |plan| {
        assert_eq!(initrd(plan).1.unwrap().1, vec![7; 9]);
        assert_eq!(plan.empty_initrd, None);
    })
    .unwrap();
}

#[test]
fn the_running_kernel_is_given_an_empty_initrd_where_it_hands_over_efi() {
    let empty = |request: &LoadRequest, host: &Host, initrds: &[&[u8]]| {
        planned(request, host, initrds, |plan| plan.empty_initrd.is_some()).unwrap()
    };
    let load = request(Syscall::KexecFileLoad, "x");
    assert!(empty(&load, &efi(), &[]));
    // Masked or not, the running kernel knows what it was booted with.
    assert!(empty(&load, &masked(), &[]));
    assert!(!empty(&load, &efi(), &[&[7; 9]]));
    assert!(!empty(&load, &bios(), &[]));
    // A crash kernel dies alike.
    let crash = LoadRequest {
        target: Target::Crash,
        ..load
    };
    let reserved = |mut host: Host| {
        let iomem = "00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n  \
                     20000000-2fffffff : Crash kernel\n";
        host.iomem = crate::host::iomem::parse(iomem.as_bytes()).unwrap();
        host
    };
    assert!(empty(&crash, &reserved(efi()), &[]));
    assert!(!empty(&crash, &reserved(bios()), &[]));
}

#[test]
fn without_efi_no_initrd_is_made_up() {
    let load = request(Syscall::KexecLoad, "x");
    let no_efi = LoadRequest {
        no_efi: true,
        ..load.clone()
    };
    for (load, host) in [(&load, bios()), (&no_efi, efi())] {
        planned(load, &host, &[], |plan| {
            assert_eq!(initrd(plan), ((0, 0), None));
            assert_eq!(plan.empty_initrd, None);
        })
        .unwrap();
    }
}

/// Why there is no plan.
fn refused(request: &LoadRequest, host: &Host) -> FirmwareError {
    match planned(request, host, &[], |_| ()) {
        Err(PlanError::Boot(BootError::Firmware(error))) => error,
        other => panic!("{other:?}"),
    }
}

fn without_efi(line: &str) -> LoadRequest {
    LoadRequest {
        no_efi: true,
        ..request(Syscall::KexecLoad, line)
    }
}

#[test]
fn an_efi_machine_that_hides_its_efi_is_refused() {
    let load = request(Syscall::KexecLoad, "x");
    let error = refused(&load, &masked());
    assert_eq!(error, FirmwareError::EfiHidden { rsdp: false });
    let text = error.to_string();
    for word in ["booted through EFI", "/sys/firmware/efi", "RSDP"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(error.hint().contains("acpi_rsdp="));
    let mut mixed = masked();
    params(&mut mixed).efi_info.loader_signature = EFI32_LOADER_SIGNATURE.into();
    assert_eq!(
        refused(&load, &mixed),
        FirmwareError::EfiHidden { rsdp: false }
    );
    // With the RSDP alone the loss is to be asked for.
    let mut known = masked();
    params(&mut known).acpi_rsdp_addr = RSDP.into();
    let error = refused(&load, &known);
    assert_eq!(error, FirmwareError::EfiHidden { rsdp: true });
    assert!(error.hint().contains("--no-efi"));
    planned(&without_efi("x"), &known, &[], |plan| {
        assert_eq!(plan.warnings, Vec::<String>::new());
    })
    .unwrap();
}

#[test]
fn without_efi_the_root_pointer_of_acpi_must_be_known() {
    let why = "--no-efi asks for that".to_owned();
    assert_eq!(
        refused(&without_efi("x"), &masked()),
        FirmwareError::NoRsdp { why }
    );
    for line in ["acpi_rsdp=0x3e002014", "quiet acpi=off"] {
        planned(&without_efi(line), &masked(), &[], |_| ()).unwrap();
    }
    planned(&without_efi("x"), &efi(), &[], |_| ()).unwrap();
}

#[test]
fn what_is_said_of_acpi_is_what_is_done() {
    let load = |line| request(Syscall::KexecLoad, line);
    let gone = "/sys/firmware/efi/runtime-map is missing or empty";
    let mut host = efi();
    host.efi.as_mut().unwrap().runtime_map.clear();
    let warnings = |load: &LoadRequest, host: &Host| {
        planned(load, host, &[], |plan| plan.warnings.clone()).unwrap()
    };
    assert_eq!(
        warnings(&load("x"), &host),
        [format!(
            "the next kernel gets no EFI: {gone}; ACPI is handed over all the same"
        )]
    );
    host.efi.as_mut().unwrap().acpi20 = 0;
    let error = refused(&load("x"), &host);
    assert_eq!(
        error,
        FirmwareError::NoRsdp {
            why: gone.to_owned()
        }
    );
    assert_eq!(
        warnings(&load("acpi_rsdp=0x3e002014"), &host),
        [format!(
            "the next kernel gets no EFI: {gone}; ACPI is what its command line says of it"
        )]
    );
}

#[test]
fn a_machine_that_tells_nothing_of_its_boot() {
    let host = host("00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n");
    let warnings = |syscall| {
        planned(&request(syscall, "x"), &host, &[], |plan| {
            plan.warnings.clone()
        })
        .unwrap()
    };
    let [warning] = &warnings(Syscall::KexecLoad)[..] else {
        panic!()
    };
    assert!(warning.starts_with("whether this machine was booted through EFI is not known"));
    let [warning] = &warnings(Syscall::KexecFileLoad)[..] else {
        panic!()
    };
    assert!(warning.starts_with("the memory map that the running kernel hands over is not known"));
}

#[test]
fn no_segment_lies_over_a_table_of_efi() {
    let load = request(Syscall::KexecLoad, "x");
    let table = descriptor(0x3fff_e000, 1).range().unwrap();
    planned(&load, &efi(), &[&[7; 9]], |plan| {
        for segment in plan.segments() {
            assert!(!segment.mem.overlaps(table), "{segment:?}");
        }
        // The highest place is taken, beside the table.
        assert!(
            plan.segments()
                .iter()
                .any(|s| s.mem.end() > table.start() - 0x10_0000)
        );
        assert!(plan.told.contains(&(table, Told::RESERVED)));
        let kept = plan.excluded.iter().find(|kept| kept.range == table);
        assert_eq!(kept.unwrap().name, "EFI runtime map");
    })
    .unwrap();
    // Where the running kernel places everything, it is a warning.
    let file_load = request(Syscall::KexecFileLoad, "x");
    let warnings = planned(&file_load, &efi(), &[], |plan| plan.warnings.clone()).unwrap();
    assert_eq!(
        warnings,
        [
            "kexec_file_load takes 4 KiB that hold tables of EFI for free RAM, first \
          0x3fffe000-0x3fffefff: they may be overwritten, and the next kernel does without them"
        ]
    );
}

#[test]
fn memory_that_mem_takes_away_is_told_of_by_the_call_that_withholds_it() {
    let host = host("00001000-0009ffff : System RAM\n00100000-2fffffff : System RAM\n")
        .boot_e820([(0x1000, 0x9_ffff, 1), (0x10_0000, 0x3fff_ffff, 1)]);
    let warnings = |syscall| {
        planned(&request(syscall, "x"), &host, &[], |plan| {
            plan.warnings.join("\n")
        })
        .unwrap()
    };
    let withheld = "not passed on; --memory-map firmware passes them on";
    assert!(warnings(Syscall::KexecLoad).contains(withheld));
    let warnings = warnings(Syscall::KexecFileLoad);
    assert!(!warnings.contains(withheld), "{warnings}");
    assert!(
        warnings.contains("passes 256 MiB on as RAM that must stay reserved"),
        "{warnings}"
    );
}

/// A missing reservation is named before anything about the firmware: it is the first that
/// must be mended. An option that cannot be fulfilled is named before what the machine lacks.
#[test]
fn of_several_reasons_the_first_to_mend_is_named() {
    let mut panic = request(Syscall::KexecLoad, "x");
    panic.target = Target::Crash;
    let error = planned(&panic, &masked(), &[], |_| ()).unwrap_err();
    assert!(matches!(error, PlanError::Crash(_)), "{error}");

    let mut five_level = bios();
    five_level.cpu.la57 = true;
    let file = TinyBzImage::new(0x1000).u16(field::XLOADFLAGS, 0x3f & !(1 << 5));
    let file = file.build();
    let image = probe(&file).unwrap();
    let mut wish = request(Syscall::KexecLoad, "x");
    let refused = |wish: &LoadRequest| {
        crate::plan::plan(
            wish,
            &five_level,
            &image,
            &crate::plan::Given::default(),
            Capability::unknown,
        )
        .unwrap_err()
    };
    let error = refused(&wish);
    assert!(
        matches!(error, PlanError::Boot(BootError::FiveLevel)),
        "{error}"
    );
    wish.include_driver_managed.insert("hmem".to_owned());
    let error = refused(&wish);
    assert!(matches!(error, PlanError::NotIncludable { .. }), "{error}");
}
