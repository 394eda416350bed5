//! What boot_params carry over, and what they do not.

use super::*;
use crate::abi::efi::EfiDescriptor;
use crate::abi::x86::boot_params::join;
use crate::host::efi::Efi;
use crate::testing::bzimage::{TinyBzImage, field};
use crate::testing::elf::TinyElf;
use crate::testing::host::{Says as _, host, range};

const SYSTEM_TABLE: u64 = 0x1_2345_6000;

/// A machine booted through EFI that told everything.
fn efi_machine() -> Host {
    let mut host =
        host("00100000-3fffffff : System RAM\n").boot_e820([(0x10_0000, 0x3fff_ffff, 1)]);
    let info = &mut host.boot_params.as_mut().unwrap().params.efi_info;
    info.loader_signature = EFI64_LOADER_SIGNATURE.into();
    let (low, high) = split(SYSTEM_TABLE);
    (info.systab, info.systab_hi) = (low.into(), high.into());
    (info.memdesc_size, info.memdesc_version) = (48.into(), 1.into());
    host.efi = Some(Efi {
        fw_vendor: 0x3e00_0000,
        config_table: 0x3e00_1000,
        platform_bits: 64,
        acpi20: 0x3e00_2014,
        acpi: 0x3e00_2000,
        smbios: 0x3e00_3000,
        runtime_map: vec![
            EfiDescriptor {
                kind: 5,
                physical: 0x3e10_0000,
                virtual_: 0xffff_fffe_ffe0_0000,
                pages: 3,
                attributes: 0x8000_0000_0000_000f,
            };
            2
        ],
        secure_boot: Some(false),
        event_log: None,
    });
    host
}

fn with_image<T>(xloadflags: u16, run: impl FnOnce(&LinuxKernel<'_>) -> T) -> T {
    let file = TinyBzImage::new(0x1000)
        .u16(field::XLOADFLAGS, xloadflags)
        .build();
    run(&crate::image::bzimage::parse(&file).unwrap().unwrap())
}

fn built(host: &Host) -> Box<BootParams> {
    let efi = with_image(0x7f, |image| efi_handover(host, image))
        .ok()
        .flatten();
    let mut chain = SetupData::default();
    if let (Some(handover), Some(efi)) = (&efi, &host.efi) {
        chain.push_efi(
            &efi.setup_data(),
            &efi.runtime_map,
            handover.descriptor_size,
        );
    }
    let map = [(range(0x10_0000, 0x3fff_ffff), Told::RAM)];
    let at = Addresses {
        kernel: 0x140_0000,
        cmdline: 0x1_0000_1000,
        initrd: Some(0x2_0000_2000),
        initrd_size: 0x1_8000_0001,
        setup_data: 0x3_0000_3000,
        randomized: false,
    };
    with_image(0x7f, |image| {
        build(image, host, efi.as_ref(), &map, &chain, &at)
    })
}

#[test]
fn efi_is_handed_over_whole() {
    let host = efi_machine();
    let params = built(&host);
    let info = &params.efi_info;
    assert_eq!(info.loader_signature.get(), EFI64_LOADER_SIGNATURE);
    assert_eq!(params.efi_system_table(), Some(SYSTEM_TABLE));
    assert_eq!(
        (info.memdesc_size.get(), info.memdesc_version.get()),
        (48, 1)
    );
    assert_eq!(info.memmap_size.get(), 2 * 48);
    // Behind the SETUP_EFI node: a header of 16 bytes and twelve words.
    let memmap = join(info.memmap.get(), info.memmap_hi.get());
    assert_eq!(memmap, 0x3_0000_3000 + 16 + 96);
}

/// Takes something away from a machine.
type Spoil = fn(&mut Host);

#[test]
fn or_not_at_all() {
    let missing: [(Spoil, u16, &str); 10] = [
        (
            |host| host.efi.as_mut().unwrap().platform_bits = 32,
            0x7f,
            "the firmware is 32-bit (mixed mode)",
        ),
        (
            |host| host.boot_params = None,
            0x7f,
            "/sys/kernel/boot_params is missing",
        ),
        (
            |host| {
                let info = &mut host.boot_params.as_mut().unwrap().params.efi_info;
                info.loader_signature = u32::from_le_bytes(*b"EL32").into();
            },
            0x7f,
            "the running kernel's boot_params name no 64-bit EFI system table",
        ),
        (
            |host| host.efi.as_mut().unwrap().runtime_map.clear(),
            0x7f,
            "/sys/firmware/efi/runtime-map is missing or empty",
        ),
        (
            |host| host.efi.as_mut().unwrap().config_table = 0,
            0x7f,
            "/sys/firmware/efi does not tell fw_vendor and config_table",
        ),
        (
            |host| host.efi.as_mut().unwrap().fw_vendor = 0,
            0x7f,
            "/sys/firmware/efi does not tell fw_vendor and config_table",
        ),
        (
            |_| (),
            0x7e,
            "it is entered in 32-bit mode, and takes over no EFI from a kexec",
        ),
        (
            |_| (),
            0x6f,
            "the new kernel cannot take over EFI from a kexec (XLF_EFI_KEXEC)",
        ),
        (
            |host| {
                let info = &mut host.boot_params.as_mut().unwrap().params.efi_info;
                info.memdesc_size = 39.into();
            },
            0x7f,
            "the running kernel's EFI memory descriptors have 39 bytes",
        ),
        (
            |host| {
                let info = &mut host.boot_params.as_mut().unwrap().params.efi_info;
                info.memdesc_size = u32::MAX.into();
            },
            0x7f,
            "the running kernel's EFI memory descriptors have 4294967295 bytes",
        ),
    ];
    for (spoil, xloadflags, reason) in missing {
        let mut host = efi_machine();
        spoil(&mut host);
        let refused = with_image(xloadflags, |image| efi_handover(&host, image));
        assert_eq!(refused, Err(reason.to_owned()));
    }
    // A machine without EFI is no reason for a warning.
    let mut host = efi_machine();
    host.efi = None;
    assert_eq!(
        with_image(0x7f, |image| efi_handover(&host, image)),
        Ok(None)
    );
    // And efi_info stays empty although the running kernel had one.
    assert_eq!(built(&host).efi_info.as_bytes(), [0; 32]);
}

#[test]
fn the_rsdp_by_the_best_witness() {
    let mut host = efi_machine();
    assert_eq!(rsdp(&host), 0x3e00_2014);
    host.boot_params.as_mut().unwrap().params.acpi_rsdp_addr = 0xf_0000.into();
    assert_eq!(rsdp(&host), 0xf_0000);
    host.boot_params = None;
    host.efi.as_mut().unwrap().acpi20 = 0;
    assert_eq!(rsdp(&host), 0x3e00_2000);
    host.efi = None;
    assert_eq!(rsdp(&host), 0);
}

#[test]
fn addresses_and_sizes_have_two_halves() {
    let params = built(&efi_machine());
    let hdr = &params.hdr;
    assert_eq!(
        join(hdr.cmd_line_ptr.get(), params.ext_cmd_line_ptr.get()),
        0x1_0000_1000
    );
    assert_eq!(
        join(hdr.ramdisk_image.get(), params.ext_ramdisk_image.get()),
        0x2_0000_2000
    );
    assert_eq!(
        join(hdr.ramdisk_size.get(), params.ext_ramdisk_size.get()),
        0x1_8000_0001
    );
    assert_eq!(hdr.setup_data.get(), 0x3_0000_3000);
    assert_eq!(hdr.type_of_loader, 0xd0);
}

#[test]
fn what_describes_the_machine_is_carried_over_and_nothing_else() {
    let mut host = efi_machine();
    let running = &mut host.boot_params.as_mut().unwrap().params;
    // Every byte of the running kernel's boot_params says that it is one.
    let table = running.e820_table;
    running.as_mut_bytes().fill(0x5a);
    running.e820_table = table;
    running.e820_entries = 1;
    let running = running.clone();
    let params = built(&host);

    let mut expected = BootParams::zeroed();
    expected.screen_info = running.screen_info;
    // ext_mem_k: memory above 1 MiB in KiB, up to 63 MiB.
    expected.screen_info[2..4].copy_from_slice(&0xfc00_u16.to_le_bytes());
    expected.edid_info = running.edid_info;
    expected.secure_boot = 0x5a;
    (expected.eddbuf_entries, expected.eddbuf) = (0x5a, running.eddbuf);
    expected.edd_mbr_sig_buf_entries = 0x5a;
    expected.edd_mbr_sig_buffer = running.edd_mbr_sig_buffer;
    expected.acpi_rsdp_addr = running.acpi_rsdp_addr;
    expected.alt_mem_k = (0x3ff0_0000 / 1024).into();
    expected.e820_entries = 1;
    expected.e820_table[0] = E820Entry {
        address: 0x10_0000.into(),
        size: 0x3ff0_0000.into(),
        kind: 1.into(),
    };
    // Written by the loader, or by the image: other tests.
    expected.hdr = params.hdr;
    (expected.ext_cmd_line_ptr, expected.ext_ramdisk_image) =
        (params.ext_cmd_line_ptr, params.ext_ramdisk_image);
    expected.ext_ramdisk_size = params.ext_ramdisk_size;
    let differ: Vec<String> = params
        .as_bytes()
        .iter()
        .zip(expected.as_bytes())
        .enumerate()
        .filter(|(_, (is, should))| is != should)
        .map(|(offset, (is, should))| format!("{offset:#x}: {is:#x}, not {should:#x}"))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
    assert_eq!(params.hdr.hardware_subarch.get(), 0x5a5a_5a5a);
    // The sentinel above all: the kernel wipes half the page when it is set.
    assert_eq!(params.sentinel, 0);
}

#[test]
fn the_command_line_begins_on_the_second_page() {
    let params = BootParams::zeroed();
    let bytes = segment_bytes(&params, b"quiet");
    assert_eq!(bytes.len(), 4096 + 6);
    assert_eq!(&bytes[4096..], b"quiet\0");
    assert_eq!(segment_size(5), 4096 + 2048);
    assert_eq!(segment_size(2047), 4096 + 2048);
    assert_eq!(segment_size(2048), 4096 + 2049);
}

#[test]
fn fallback_sizes_for_a_kernel_without_e820() {
    let sizes = |last: u64| {
        let mut params = BootParams::zeroed();
        set_fallback_sizes(&mut params, &[(range(0x10_0000, last), Told::RAM)]);
        let ext = u16::from_le_bytes([params.screen_info[2], params.screen_info[3]]);
        (params.alt_mem_k.get(), ext)
    };
    assert_eq!(sizes(0x1f_ffff), (1024, 1024));
    assert_eq!(sizes(0x3ff_ffff), (63 << 10, 0xfc00));
    assert_eq!(sizes(0x3fff_ffff), (1023 << 10, 0xfc00));
    // 4 TiB and more in KiB is no 32-bit number.
    assert_eq!(sizes((1 << 50) - 1), (u32::MAX, 0xfc00));
    let mut params = BootParams::zeroed();
    set_fallback_sizes(&mut params, &[(range(0x20_0000, 0x3fff_ffff), Told::RAM)]);
    assert_eq!(params.alt_mem_k.get(), 0);
}

/// A vmlinux has no setup header, and gets the one of a bzImage of the same kernel.
#[test]
fn a_vmlinux_gets_a_header() {
    let file = TinyElf::vmlinux().build();
    let image = crate::image::vmlinux::parse(&file).unwrap().unwrap();
    let at = Addresses {
        kernel: 0x140_0000,
        cmdline: 0x1000,
        initrd: None,
        initrd_size: 0,
        setup_data: 0x3000,
        randomized: false,
    };
    let chain = SetupData::default();
    let header = build(&image, &efi_machine(), None, &[], &chain, &at).hdr;
    assert_eq!(
        (header.boot_flag.get(), header.version.get()),
        (0xaa55, 0x020f)
    );
    assert_eq!(
        (header.root_flags.get(), header.vid_mode.get()),
        (1, 0xffff)
    );
    assert_eq!(header.xloadflags.get(), image.x86.flags);
    assert_eq!(header.kernel_alignment.get(), 1 << header.min_alignment);
    assert_eq!(
        u64::from(header.kernel_alignment.get()),
        image.geometry.align
    );
    assert_eq!(u64::from(header.init_size.get()), image.geometry.size);
    assert_eq!(header.pref_address.get(), image.geometry.floor);
    assert_eq!(header.initrd_addr_max.get(), 0x7fff_ffff);
    assert_eq!(
        (header.relocatable_kernel, header.cmdline_size.get()),
        (1, 2047)
    );
}
