//! Files that the running kernel is to hand over, on a machine that is made up.

use super::*;
use crate::carry::{KhoTarget, Reads};
use crate::cmdline::CmdlineBase;
use crate::host::Host;
use crate::image::probe;
use crate::plan::keep::tests::{asks, machine, target, without_digest};
use crate::plan::{Checked, Given, Plan, plan as make};
use crate::request::{KhoChoice, LoadRequest};
use crate::testing::bzimage::TinyBzImage;

/// The plan for these files, as `then` sees it.
fn planned<T>(
    request: &LoadRequest,
    host: &Host,
    target: Capability,
    names: &[&str],
    then: impl FnOnce(&Checked<Plan<'_>>) -> T,
) -> Result<T, PlanError> {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let carried = names.iter().map(|name| Carried {
        name: (*name).into(),
        bytes: b"content",
    });
    let given = Given {
        initrds: &[&[7; 4096]],
        carried: &carried.collect::<Vec<_>>(),
    };
    make(request, host, &image, &given, || target).map(|plan| then(&plan))
}

fn line(line: &str, request: LoadRequest) -> LoadRequest {
    let mut request = request;
    request.cmdline.base = CmdlineBase::Given(line.into());
    request
}

#[track_caller]
fn refused(request: &LoadRequest, host: &Host, target: Capability, said: &str) {
    let error = planned(request, host, target, &["disk.img"], |_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(said), "{text}");
    assert!(error.hint().is_some());
}

#[test]
fn exec_hands_them_over() {
    for (request, way) in [
        (asks(KhoChoice::Auto), Way::AtExec),
        (without_digest(KhoChoice::Auto), Way::Forwarded),
    ] {
        let request = line("quiet kho=1", request);
        let (kho, line, warnings) = planned(&request, &machine(), target(), &["a", "b"], |plan| {
            let kho = plan.kho.clone().unwrap();
            (kho, plan.cmdline.to_string(), plan.warnings.clone())
        })
        .unwrap();
        assert_eq!(kho.way, way);
        let file = |name: &str, token| CarriedFile {
            name: name.into(),
            size: 7,
            token,
            sha256: None,
        };
        assert_eq!(kho.carried, [file("a", 1), file("b", 2)]);
        assert_eq!(line, "quiet kho=1 liveupdate=on");
        let said = |part: &str| warnings.iter().any(|said| said.contains(part));
        assert!(
            said("liveupdate=on was added to the command line"),
            "{warnings:?}"
        );
        assert!(said("their contents are those at exec"), "{warnings:?}");
        assert!(
            said("exec --shutdown and systemctl kexec do not"),
            "{warnings:?}"
        );
    }
}

#[test]
fn what_the_next_kernel_would_drop_is_refused() {
    let auto = asks(KhoChoice::Auto);
    let reads = |change: fn(&mut KhoTarget)| {
        let mut target = target();
        change(&mut target.kho);
        target
    };
    for (target, said) in [
        (
            reads(|target| target.kho = Reads::Nothing),
            "the new kernel has no Kexec Handover (CONFIG_KEXEC_HANDOVER): it would drop disk.img",
        ),
        (
            reads(|target| target.luo = Reads::Nothing),
            "the new kernel has no live update (CONFIG_LIVEUPDATE): it would drop disk.img",
        ),
        (
            reads(|target| target.memfd = Reads::Nothing),
            "the new kernel has no memfd-v2 handler: ",
        ),
        (
            reads(|target| target.kho = Reads::One("kho-v3".to_owned())),
            "the new kernel reads kho-v3, this kernel hands over kho-v4: disk.img would be lost",
        ),
        (
            reads(|target| target.memfd = Reads::OneOf(vec!["memfd-v2".into(), "memfd-v3".into()])),
            "cannot tell which handover version the new kernel reads (found memfd-v2, memfd-v3)",
        ),
        (
            reads(|target| target.kho = Reads::Unknown),
            "cannot tell which handover version the new kernel reads (",
        ),
    ] {
        refused(&auto, &machine(), target, said);
    }
    let assumed = LoadRequest {
        assume_kho: Some("kho-v4".to_owned()),
        ..auto.clone()
    };
    let unknown = reads(|target| target.kho = Reads::Unknown);
    planned(&assumed, &machine(), unknown, &["a"], |_| ()).unwrap();
    let mut hidden = machine();
    hidden.security.kho.state.format = None;
    let said = "cannot tell in which format this kernel hands over files: disk.img may be lost";
    refused(&auto, &hidden, target(), said);
}

#[test]
fn what_switches_it_off_is_named() {
    for word in ["kho", "liveupdate"] {
        let request = line(&format!("{word}=off"), asks(KhoChoice::Auto));
        let said = "the new command line switches ";
        refused(&request, &machine(), target(), said);
    }
    let mut pools_only = machine();
    pools_only.security.kho.preserved = Some(vec!["memblock".to_owned()]);
    let said = "this kernel hands over memblock with the session vm and has no live update, so that it cannot hand \
                over files as well";
    refused(&asks(KhoChoice::Auto), &pools_only, target(), said);
    let twice = planned(
        &asks(KhoChoice::Auto),
        &machine(),
        target(),
        &["a", "a"],
        |_| (),
    );
    let said = format!("{:#}", anyhow::Error::from(twice.unwrap_err()));
    assert_eq!(
        said,
        "the files cannot be carried: two files are called `a`"
    );
}

#[test]
fn files_that_do_not_fit_into_memory_are_refused() {
    let auto = asks(KhoChoice::Auto);
    let mut small = machine();
    // The two files have 7 bytes each.
    let said = |host: &Host| {
        let names = ["a", "b"];
        planned(&auto, host, target(), &names, |plan| plan.warnings.clone())
    };
    let about = |said: &String| said.starts_with("exec copies the files of --carry to memory: ");
    for (total, available, warned) in [(14, 14, false), (14, 13, true), (0, 0, false)] {
        (small.total_ram, small.available_ram) = (total, available);
        let warnings = said(&small).unwrap();
        assert_eq!(warnings.iter().any(about), warned, "{warnings:?}");
    }
    small.total_ram = 13;
    let error = said(&small).unwrap_err();
    assert_eq!(
        error.to_string(),
        "exec copies the files of --carry to memory: they are 14 B, and this machine has 13 B"
    );
    assert!(error.hint().is_some());
}

#[test]
fn large_pages_crash_a_kernel_without_them() {
    let mut large = machine();
    large.security.kho.state.large_memfds = Some("always".to_owned());
    let auto = asks(KhoChoice::Auto);
    let has = |value| {
        let mut target = target();
        target.kho.huge_pages.value = value;
        target
    };
    let about = |said: &String| said.starts_with("memfds of this kernel may have large pages (");
    let warned = |host: &Host, names: &[&str], value| {
        planned(&auto, host, has(value), names, |plan| {
            plan.warnings.iter().filter(|said| about(said)).count()
        })
    };
    // The machine has a session besides.
    for (names, yes, unknown) in [(&["a"][..], 0, 1), (&[], 0, 1)] {
        assert_eq!(warned(&large, names, Fact::Yes).unwrap(), yes);
        assert_eq!(warned(&large, names, Fact::Unknown).unwrap(), unknown);
        assert_eq!(warned(&machine(), names, Fact::No).unwrap(), 0);
    }
    assert_eq!(warned(&large, &[], Fact::No).unwrap(), 1);
    refused(
        &auto,
        &large,
        has(Fact::No),
        "memfds of this kernel may have large pages (/sys/kernel/mm/transparent_hugepage/shmem_enabled is always), \
         and the new kernel has no CONFIG_TRANSPARENT_HUGEPAGE: without it, it crashes",
    );
    // Nobody has a memfd to take back.
    large.security.kho.state.sessions = Some(Vec::new());
    assert_eq!(warned(&large, &[], Fact::No).unwrap(), 0);
    assert_eq!(warned(&large, &["a"], Fact::Unknown).unwrap(), 1);
}
