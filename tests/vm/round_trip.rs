//! From one real kernel into another: what the plan promised arrives.

use anyhow::{Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::trip::{self, Plan, Trip};
use crate::witness::{Row, Stage};

/// Writes and reads an EFI variable: two calls of runtime services, which need
/// the runtime map and the addresses that the first kernel gave them.
const EFI_RUNTIME: &str = "
modules efivarfs
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
variable=/sys/firmware/efi/efivars/Rkexec-6a6f2b1e-94a5-4b0a-9f1a-3d3c8f9f6e11
printf '\\007\\000\\000\\000still here' >$variable
tail -c +5 $variable | record efi-variable
";

fn crosswise(name: &str, first: &str, next: &str, uefi: bool, options: &str) -> Result<()> {
    let (first, next) = (Kernel::new(first)?, Kernel::new(next)?);
    let guest = Guest::new(name, &first).uefi(uefi);
    let trip = Trip::to(&next)
        .options(&format!("--syscall {options}"))
        .bytes(b"rkexec.label=caf\xe9\xff")
        .after(if uefi { EFI_RUNTIME } else { "" });
    let plan = format!("try plan rkexec plan {} --output json", trip.request());
    let arrival = trip.before(&plan).run(guest)?;
    let (before, after) = (arrival.before()?, arrival.after()?);
    if arrival.plan.is_direct() {
        // KASLR is anew with every load. Everything else is loaded as it was planned.
        let planned = Plan::parse(before.text("plan.out")?)?;
        let roles = |plan: &Plan| Vec::from_iter(plan.segments.iter().map(Row::size_and_kind));
        let sorted = |mut roles: Vec<_>| {
            roles.sort();
            roles
        };
        assert_eq!(sorted(roles(&planned)), sorted(roles(&arrival.plan)));
        assert_eq!(planned.map, arrival.plan.map);
        assert_eq!(planned.json["warnings"], arrival.plan.json["warnings"]);
    } else {
        assert_eq!(before.text("plan.out")?, before.text("load.out")?);
    }
    assert_eq!(arrival.plan.is_direct(), options.ends_with("--direct on"));
    let syscall = options.split(' ').next();
    assert_eq!(arrival.plan.json["syscall"]["name"].as_str(), syscall);
    assert_eq!(before.text("release")?, first.release);
    if uefi {
        let map = runtime_map(after)?;
        assert!(map.len() >= 20, "{map:?}");
        assert_eq!(map, runtime_map(before)?);
        assert_eq!(after.text("efi-variable")?, "still here");
    }
    Ok(())
}

/// /sys/firmware/efi/runtime-map, file by file.
pub(crate) fn runtime_map(stage: Stage<'_>) -> Result<Vec<&str>> {
    let mut lines: Vec<&str> = stage.text("efi-runtime-map")?.lines().collect();
    lines.sort_unstable();
    Ok(lines)
}

macro_rules! crosswise {
    ($($name:ident: $first:literal, $next:literal, uefi $uefi:literal, $syscall:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            crosswise(stringify!($name), $first, $next, $uefi, $syscall)
        }
    )*};
}

// Any two of the four choices meet in each of their four ways.
crosswise! {
    from_6_1_to_6_1_bios_kexec_load: "6.1", "6.1", uefi false, "kexec_load --direct off";
    from_6_1_to_6_12_uefi_kexec_file_load: "6.1", "6.12", uefi true, "kexec_file_load";
    from_6_12_to_6_1_uefi_kexec_file_load: "6.12", "6.1", uefi true, "kexec_file_load";
    from_6_12_to_6_12_bios_kexec_file_load: "6.12", "6.12", uefi false, "kexec_file_load";
    from_6_12_to_6_12_uefi_kexec_load: "6.12", "6.12", uefi true, "kexec_load --direct on";
}

/// The script of every stage of a chain: the guest packs the initrd for the
/// next stage from what it runs itself, so that all stages are alike.
fn chain_script(cmdline: &str, options: &str) -> String {
    let load = trip::load_script(&trip::request("/tmp/initrd", cmdline, options));
    format!(
        "cd /
         find init bin sbin lib lib64 etc next test payload $(ls -d usr 2>/dev/null) >/tmp/list
         mkdir -p proc sys dev tmp; echo proc >>/tmp/list
         printf 'sys\\ndev\\ntmp\\n' >>/tmp/list
         cpio -o -H newc -F /tmp/initrd </tmp/list
         sha256sum </tmp/initrd | record next-initrd-digest
         {load}
         try exec rkexec exec\n"
    )
}

/// One kexec of a chain.
struct Step {
    /// The system call.
    syscall: &'static str,
    /// Words for the next kernel's command line.
    words: &'static str,
    /// The loader unpacks and places the kernel itself.
    direct: bool,
}

const fn step(syscall: &'static str, words: &'static str, direct: bool) -> Step {
    Step {
        syscall,
        words,
        direct,
    }
}

/// Kexecs in a row, with the same script in each stage but the last.
fn chain(name: &str, uefi: bool, kernel: &Kernel, steps: &[Step]) -> Result<()> {
    let mut guest = Guest::new(name, kernel)
        .uefi(uefi)
        .append("retain_initrd")
        .file("payload", &trip::payload(kernel))
        .file("next/vmlinuz", &trip::host_file(&kernel.image())?);
    for (stage, step) in (1..).zip(steps) {
        let cmdline = format!(
            "{} {}",
            trip::chain_cmdline(&(stage + 1).to_string()),
            step.words
        );
        let script = chain_script(&cmdline, &format!("--syscall {}", step.syscall));
        guest = guest.file(&format!("test/stage-{stage}"), script.as_bytes());
    }
    let outcome = guest.run()?;

    let map = Plan::of(outcome.stage(1)?)?.map;
    for (number, step) in (1..).zip(steps) {
        let (before, after) = (outcome.stage(number)?, outcome.stage(number + 1)?);
        let plan = Plan::of(before)?;
        plan.kept(after)?;
        plan.runs_where_it_was_put(after)?;
        assert_eq!(plan.is_direct(), step.direct, "{}", plan.json["direct"]);
        assert_eq!(plan.map, map, "stage {number} hands over another map");
        assert_eq!(plan.json["cmdline"], after.text("cmdline")?);
        assert_eq!(
            before.digest("next-initrd-digest")?,
            after.digest("initrd-digest")?
        );
        assert_eq!(
            after.digest("payload-digest")?,
            trip::sha256(&trip::payload(kernel))
        );
        let five_levels = !step.words.contains("no5lvl");
        assert_eq!(
            after.text("cpu-flags")?.contains(" la57"),
            five_levels,
            "stage {}",
            number + 1
        );
        if uefi {
            assert_eq!(runtime_map(before)?, runtime_map(after)?);
        }
    }
    Ok(())
}

/// The first kernel runs with five levels of page tables, as the CPU has LA57;
/// then down to four, once more four, up again, and once more five.
#[test]
fn four_in_a_row_through_both_paging_modes() -> Result<()> {
    chain(
        "chain-bios",
        false,
        &Kernel::new("6.12")?,
        // Only the unpacker switches between five levels and four.
        &[
            step("kexec_load", "no5lvl", false),
            step("kexec_load", "no5lvl stay", true),
            step("kexec_load", "up", false),
            step("kexec_load", "stay", true),
        ],
    )
}

#[test]
fn two_in_a_row_with_uefi() -> Result<()> {
    chain(
        "chain-uefi",
        true,
        &Kernel::new("6.12")?,
        &[
            step("kexec_load", "a", true),
            step("kexec_file_load", "b", false),
        ],
    )
}

#[test]
fn a_cpu_without_la57() -> Result<()> {
    let (first, next) = (Kernel::new("6.12")?, Kernel::new("6.1")?);
    let guest = Guest::new("no-la57", &first).cpu("max,la57=off").cpus(2);
    let arrival = Trip::to(&next).run(guest)?;
    assert!(arrival.plan.is_direct(), "{}", arrival.plan.json["direct"]);
    for stage in [arrival.before()?, arrival.after()?] {
        assert!(!stage.text("cpu-flags")?.contains(" la57"));
    }
    Ok(())
}

/// `auto` decides by itself, says why, and arrives.
#[test]
fn auto_says_which_syscall_and_why() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let arrival = Trip::to(&kernel)
        .options("--syscall auto")
        .run(Guest::new("auto", &kernel))?;
    let syscall = &arrival.plan.json["syscall"];
    let name = syscall["name"].as_str().unwrap_or_default();
    assert!(trip::SYSCALLS.contains(&name), "{syscall}");
    assert!(
        syscall["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty())
    );
    Ok(())
}

/// screen_info and video mode of boot_params: the next kernel has the console
/// that the former has.
fn framebuffer(name: &str, guest: Guest, driver: &str, syscall: &str) -> Result<()> {
    let guest = guest.args(["-device", "VGA"]);
    let arrival = Trip::to(&Kernel::new("6.12")?)
        .options(&format!("--syscall {syscall}"))
        .run(guest)?;
    let (before, after) = (arrival.before()?, arrival.after()?);
    ensure!(
        before.text("framebuffer")?.contains(driver),
        "{name}: the first kernel has no {driver}"
    );
    assert_eq!(before.text("framebuffer")?, after.text("framebuffer")?);
    // struct screen_info (include/uapi/linux/screen_info.h): orig_video_isVGA
    // and everything of the linear framebuffer, up to ext_lfb_base
    let screen =
        |stage: Stage| Ok::<_, anyhow::Error>(stage.bytes("boot-params")?[0x0f..0x3e].to_vec());
    assert_eq!(screen(before)?, screen(after)?);
    Ok(())
}

#[test]
fn the_efi_framebuffer_survives_kexec_load() -> Result<()> {
    let guest = Guest::new("efifb", &Kernel::new("6.12")?).uefi(true);
    framebuffer("efifb", guest, "EFI VGA", "kexec_load")
}

#[test]
fn the_vesa_framebuffer_survives_kexec_load() -> Result<()> {
    // 0x317: 1024 x 768, 16 bits
    let guest = Guest::new("vesafb", &Kernel::new("6.12")?).append("vga=0x317");
    framebuffer("vesafb", guest, "VESA VGA", "kexec_load")
}

/// Three initrds, none of a size that is a multiple of four but the first.
#[test]
fn several_initrds_arrive_as_one() -> Result<()> {
    let kernel = Kernel::small()?;
    let archive = |path: &str, content: &[u8]| -> Result<Vec<u8>> {
        let mut archive = Archive::new();
        archive.file(path, 0o644, content);
        // The kernel skips zeroes between archives.
        let mut bytes = archive.finish();
        bytes.push(0);
        Ok(bytes)
    };
    let script = "sha256sum </second | record second\nsha256sum </third | record third\n";
    let mut overlay = Archive::new();
    overlay.file("test/stage-2", 0o644, script.as_bytes());
    let (second, third) = (trip::noise("second", 70_001), trip::noise("third", 5));
    let initrds = [
        initramfs::initrd(&kernel, overlay)?,
        archive("second", &second)?,
        archive("third", &third)?,
    ];
    let load = trip::load_script(&trip::request(
        "/next/0 --initrd /next/1 --initrd /next/2",
        &trip::chain_cmdline("2"),
        "--syscall $syscall",
    ));
    for syscall in trip::SYSCALLS {
        let mut guest = Guest::new(&format!("initrds-{syscall}"), &kernel)
            .file("next/vmlinuz", &trip::host_file(&kernel.image())?);
        for (number, initrd) in initrds.iter().enumerate() {
            guest = guest.file(&format!("next/{number}"), initrd);
        }
        let outcome = guest
            .script(&format!("syscall={syscall}\n{load}\ntry exec rkexec exec"))
            .run()?;
        let after = outcome.stage(2)?;
        assert_eq!(after.digest("second")?, trip::sha256(&second));
        assert_eq!(after.digest("third")?, trip::sha256(&third));
        let mut whole = Vec::new();
        for initrd in &initrds {
            whole.extend_from_slice(initrd);
            whole.resize(whole.len().next_multiple_of(4), 0);
        }
        assert_eq!(after.digest("initrd-digest")?, trip::sha256(&whole));
    }
    Ok(())
}
