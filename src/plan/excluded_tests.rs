//! What the new command line takes away holds no segment and no pool.

use super::*;
use crate::base::{Syscall, Target};
use crate::carry::{Capability, Pool, Protection};
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::host::security::Lockdown;
use crate::image::probe;
use crate::layout::PlaceError;
use crate::plan::{Given, PlanError, plan as make};
use crate::request::{LoadRequest, SyscallChoice};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::host::{Says as _, host, range, tell_for_a_dump};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// 6 GiB, 4 of them above 4 GiB, with a reservation for a crash kernel.
fn machine() -> Host {
    let mut host = host(
        "00001000-0009ffff : System RAM\n\
         00100000-7fffffff : System RAM\n\
         \x20 10000000-1fffffff : Crash kernel\n\
         100000000-1ffffffff : System RAM\n",
    )
    .boot_e820([
        (0x1000, 0x9_ffff, 1),
        (MIB, 2 * GIB - 1, 1),
        (4 * GIB, 8 * GIB - 1, 1),
    ]);
    host.loaded.crash_size = Some(256 * MIB);
    tell_for_a_dump(&mut host);
    host
}

fn line(text: &str) -> LoadRequest {
    LoadRequest {
        cmdline: CmdlineRequest {
            base: CmdlineBase::Given(text.into()),
            ..CmdlineRequest::default()
        },
        ..LoadRequest::default()
    }
}

/// What of a plan outlives its files.
#[derive(Debug)]
struct Made {
    segments: Vec<PhysRange>,
    excluded: Vec<Excluded>,
    warnings: Vec<String>,
}

fn planned(request: &LoadRequest, host: &Host) -> Result<Made, PlanError> {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let initrd = vec![7; 8 << 20];
    let target = || Capability {
        setup_type_max: Some(0x8000_0009),
        ..Capability::unknown()
    };
    let plan = make(request, host, &image, &Given::initrds(&[&initrd]), target)?;
    Ok(Made {
        segments: plan.segments().iter().map(|segment| segment.mem).collect(),
        excluded: plan.excluded.clone(),
        warnings: plan.warnings.clone(),
    })
}

fn refused(request: &LoadRequest, host: &Host) -> String {
    let error = planned(request, host).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    error.to_string()
}

/// What the line keeps free, by word.
fn kept_free(made: &Made) -> Vec<(PhysRange, &str)> {
    let by_line = made.excluded.iter().filter(|it| it.reason == BY_LINE);
    by_line.map(|it| (it.range, it.name.as_str())).collect()
}

#[test]
fn no_segment_lies_in_what_the_line_takes() {
    for word in [
        "memmap=1G$7G",
        "memmap=1G!7G",
        "memmap=1G#7G",
        "memmap=1G%7G-1+2",
        "memmap=1G%7G-1",
        "mem=7G",
        "memmap=7G",
        "crashkernel=1G@7G",
        "cma=1G@7G",
        "pmpool=7G,1G",
    ] {
        let mut request = line(word);
        request.handover.no_carry = true;
        let made = planned(&request, &machine()).unwrap();
        assert_eq!(
            kept_free(&made),
            [(range(7 * GIB, 8 * GIB - 1), word)],
            "{word}"
        );
        // The next place below it.
        assert!(made.segments.iter().all(|it| it.end() <= 7 * GIB), "{word}");
        assert_eq!(made.segments.last().unwrap().end(), 7 * GIB, "{word}");
    }
    let exact = "memmap=exactmap memmap=640K@0 memmap=1G@1M";
    let made = planned(&line(exact), &machine()).unwrap();
    assert!(made.segments.iter().all(|it| it.end() <= GIB + MIB));
    let free = planned(&line("quiet"), &machine()).unwrap();
    assert_eq!(kept_free(&free), []);
    assert_eq!(free.segments.last().unwrap().end(), 8 * GIB);
}

#[test]
fn what_does_not_fit_for_a_word_is_refused_by_that_word() {
    assert_eq!(
        refused(&line("quiet memmap=exactmap memmap=8M@1M"), &machine()),
        "not enough free memory for the kernel: it needs 24 MiB in one piece, aligned to 2 MiB, between 0x1000000 and 0x3fffffffefff; \
         nothing is free there; it would fit without memmap=exactmap on the new command line"
    );
    let many = [0, 1, 4, 5, 6, 7].map(|gib| format!("memmap=1G${gib}G"));
    assert!(refused(&line(&many.join(" ")), &machine()).ends_with(
        "it would fit without memmap=1G$0G memmap=1G$1G memmap=1G$4G memmap=1G$5G and 2 more on the new command line"
    ));
    // Another reason stays one.
    let mut request = line("memmap=1G$7G");
    request.mem_min = Some(9 * GIB);
    let error = planned(&request, &machine()).unwrap_err();
    assert!(
        matches!(error, PlanError::Place(PlaceError::NoHole(_))),
        "{error}"
    );
}

#[test]
fn with_kexec_file_load_it_is_a_warning_or_a_refusal() {
    let file_load = |text| LoadRequest {
        syscall: SyscallChoice::Only(Syscall::KexecFileLoad),
        ..line(text)
    };
    let made = planned(&file_load("memmap=1G$7G quiet"), &machine()).unwrap();
    assert_eq!(
        kept_free(&made),
        [(range(7 * GIB, 8 * GIB - 1), "memmap=1G$7G")]
    );
    let said = |made: &Made| {
        let mut warnings = made.warnings.iter();
        warnings.any(|it| it.contains("places the segments") && it.contains("(memmap=1G$7G; first"))
    };
    assert!(said(&made), "{:?}", made.warnings);
    let made = planned(&file_load("memmap=1G$9G quiet"), &machine()).unwrap();
    assert!(!said(&made) && kept_free(&made).is_empty());
    let error = refused(&file_load("mem=16M"), &machine());
    assert!(
        error.ends_with("it would fit without mem=16M on the new command line"),
        "{error}"
    );
    // The same where nothing else is possible.
    let mut locked = machine();
    locked.security.lockdown = Some(Lockdown::Integrity);
    let made = planned(&line("memmap=1G$7G"), &locked).unwrap();
    assert!(made.segments.is_empty() && said(&made));
}

#[test]
fn a_crash_kernels_line_is_held_against_its_reservation() {
    for syscall in [Syscall::KexecLoad, Syscall::KexecFileLoad] {
        let crash = |text| LoadRequest {
            target: Target::Crash,
            syscall: SyscallChoice::Only(syscall),
            ..line(text)
        };
        // It names the memory that the capture kernel lies in, and finds it in use.
        let made = planned(&crash("crashkernel=256M@256M mem=2G"), &machine()).unwrap();
        assert_eq!(kept_free(&made), []);
        let word = "memmap=64M$448M";
        let made = planned(&crash(word), &machine()).unwrap();
        assert_eq!(kept_free(&made), [(range(0x1c00_0000, 0x1fff_ffff), word)]);
        assert!(made.segments.iter().all(|it| it.end() <= 0x1c00_0000));
        let error = refused(&crash("mem=256M"), &machine());
        assert!(error.starts_with("the crash kernel does not fit the memory reserved for it: "));
        assert!(error.ends_with("it would fit without mem=256M on the new command line"));
    }
}

#[test]
fn a_pool_that_the_line_takes_is_refused() {
    let with = |protect, text: &str| {
        let mut request = line(text);
        request.handover.pools = vec![Pool::parse_option("5G,64M").unwrap()];
        request.handover.protect = Some(protect);
        request.handover.assume_pmpool = true;
        planned(&request, &machine())
    };
    let all = [
        Protection::Kernel,
        Protection::Indirect,
        Protection::Reserved,
    ];
    let takes = |protect, text| match with(protect, text) {
        Err(PlanError::Handover(error)) => {
            let takes = "on the new command line takes the memory of the pool default_pmpool at \
                         0x140000000-0x143ffffff away";
            assert_eq!(error.to_string(), format!("{text} {takes}"));
            assert!(error.hint().is_some());
            true
        }
        other => {
            other.unwrap();
            false
        }
    };
    for protect in all {
        for text in ["memmap=1M!5G", "memmap=1G%5G", "memmap=exactmap"] {
            assert!(takes(protect, text), "{protect} {text}");
        }
        for text in [
            "memmap=1G$7G",
            "quiet",
            "pmpool=5G,64M",
            "crashkernel=64M@6G",
        ] {
            assert!(!takes(protect, text), "{protect} {text}");
        }
        let reserved = protect == Protection::Reserved;
        for text in ["memmap=1G$5G", "mem=5G", "crashkernel=64M@5G", "cma=1M@5G"] {
            assert_eq!(takes(protect, text), !reserved, "{protect} {text}");
        }
        assert_eq!(takes(protect, "memmap=1M%5G-2+1"), reserved, "{protect}");
    }
}
