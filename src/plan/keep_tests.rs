//! What becomes of the state of a running kernel that is made up.

use super::*;
use crate::abi::x86::setup_data::SETUP_KEXEC_KHO;
use crate::boot::Protocol;
use crate::carry::pool::Pool;
use crate::carry::record::{KhoRecord, Record};
use crate::carry::{Capability, KhoTarget, Protection, Reads};
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::host::security::Lockdown;
use crate::image::probe;
use crate::kho::forward::Tree;
use crate::kho::{File, Name, Session, State, encode};
use crate::layout::Role;
use crate::plan::{Carried, Checked, Given, Plan, plan as make};
use crate::request::{LoadRequest, SyscallChoice};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::host::{Says as _, host};

const MIB: u64 = 1 << 20;

/// A machine of 1 GiB whose kernel hands over a session, with 64 MiB of scratch memory.
pub(in crate::plan) fn machine() -> Host {
    let mut host = host("00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n")
        .boot_e820([(0x1000, 0x9_ffff, 1), (MIB, 1024 * MIB - 1, 1)]);
    host.release = "7.2.13".to_owned();
    host.total_ram = 1024 * MIB;
    let session = Session {
        name: Name::new("vm").unwrap(),
        files: vec![File { token: 1, size: 1 }],
    };
    let state = State {
        sessions: vec![session],
        ..State::default()
    };
    let pages = (0..64).map(|page| 0x3000_0000 + page * 4096);
    let kho = &mut host.security.kho;
    kho.on = true;
    kho.why = "kho=on on the command line".to_owned();
    kho.preserved = Some(vec!["LUO".to_owned()]);
    kho.state.format = Some("kho-v4".to_owned());
    kho.state.luo = Some("luo-v5".to_owned());
    kho.state.sessions = Some(vec!["vm".to_owned()]);
    kho.state.scratch = Some(vec![PhysRange::new(256 * MIB, 64 * MIB).unwrap()]);
    kho.state.tree = Some(encode(&state, pages).unwrap().tree);
    kho.state.blobs = vec![("LUO".to_owned(), 32), ("kexec-metadata".to_owned(), 73)];
    host
}

/// The same, whose kernel was itself given state.
pub(in crate::plan) fn taken_over() -> Host {
    let mut host = machine();
    host.security.kho.state.taken_over = true;
    host.security.kho.state.tree = None;
    host
}

pub(in crate::plan) fn target() -> Capability {
    let reads = |format: &str| Reads::One(format.to_owned());
    let mut target = Capability::unknown();
    target.kho = KhoTarget {
        kho: reads("kho-v4"),
        luo: reads("luo-v5"),
        memfd: reads("memfd-v2"),
        memblock: reads("memblock-v1"),
        ..target.kho
    };
    target
}

pub(in crate::plan) fn asks(kho: KhoChoice) -> LoadRequest {
    let line = "kho=on liveupdate=on";
    LoadRequest {
        cmdline: CmdlineRequest {
            base: CmdlineBase::Given(line.into()),
            ..CmdlineRequest::default()
        },
        kho,
        ..LoadRequest::default()
    }
}

/// What only kexec_load can do.
pub(in crate::plan) fn without_digest(kho: KhoChoice) -> LoadRequest {
    LoadRequest {
        no_digest: true,
        ..asks(kho)
    }
}

fn by(syscall: Syscall, kho: KhoChoice) -> LoadRequest {
    LoadRequest {
        syscall: SyscallChoice::Only(syscall),
        ..asks(kho)
    }
}

/// What `then` sees of the plan.
fn planned<T>(
    request: &LoadRequest,
    host: &Host,
    then: impl FnOnce(&Checked<Plan<'_>>) -> T,
) -> Result<T, PlanError> {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let given = Given::initrds(&[&[7; 4096]]);
    make(request, host, &image, &given, target).map(|plan| then(&plan))
}

/// The call, the way and the warnings of KHO.
fn outcome(request: &LoadRequest, host: &Host) -> (Syscall, Option<Way>, Vec<String>) {
    let outcome = |plan: &Checked<Plan<'_>>| {
        let way = plan.kho.as_ref().map(|kho| kho.way);
        let warnings = plan.warnings.iter().filter(|said| said.contains("--kho"));
        (plan.syscall(), way, warnings.cloned().collect())
    };
    planned(request, host, outcome).unwrap()
}

#[track_caller]
fn refused(request: &LoadRequest, host: &Host, said: &str) -> Option<String> {
    let error = planned(request, host, |_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(said), "{text}");
    error.hint()
}

#[test]
fn the_running_kernel_hands_over_where_it_can() {
    let (syscall, way, warnings) = outcome(&asks(KhoChoice::Auto), &machine());
    assert_eq!((syscall, way), (Syscall::KexecFileLoad, Some(Way::Kept)));
    assert_eq!(warnings, [""; 0]);
    let (syscall, way, _) = outcome(&asks(KhoChoice::Auto), &taken_over());
    assert_eq!((syscall, way), (Syscall::KexecFileLoad, Some(Way::Kept)));
    let mut off = machine();
    off.security.kho = Kho::default();
    let (syscall, way, _) = outcome(&asks(KhoChoice::Auto), &off);
    assert_eq!((syscall, way), (Syscall::KexecLoad, None));
}

#[test]
fn the_tree_is_passed_on_where_only_kexec_load_can() {
    for request in [
        without_digest(KhoChoice::Auto),
        asks(KhoChoice::Forward),
        by(Syscall::KexecLoad, KhoChoice::Auto),
    ] {
        let (syscall, way, _) = outcome(&request, &machine());
        assert_eq!((syscall, way), (Syscall::KexecLoad, Some(Way::Forwarded)));
    }
    let reason = |plan: &Checked<Plan<'_>>| plan.decision().reason;
    let reason = planned(&without_digest(KhoChoice::Auto), &machine(), reason).unwrap();
    assert_eq!(
        reason,
        "--no-digest needs it: the running kernel's purgatory always verifies; what the running kernel hands \
         over is passed on with it"
    );
}

/// The nodes in the plan's tables: kind, where the payload lies, payload.
fn nodes(plan: &Plan<'_>) -> Vec<(u32, u64, Vec<u8>)> {
    let read = |at: u64, size: u64| {
        let mut segments = plan.segments().iter();
        let segment = segments
            .find(|segment| segment.mem.contains(at))
            .expect("an address in a segment");
        let start = usize::try_from(at - segment.mem.start()).unwrap();
        segment.buf[start..start + usize::try_from(size).unwrap()].to_vec()
    };
    let u64_at = |at: u64| u64::from_le_bytes(read(at, 8).try_into().unwrap());
    let u32_at = |at: u64| u32::from_le_bytes(read(at, 4).try_into().unwrap());
    let mut tables = plan.segments().iter();
    let zero_page = tables.find(|segment| segment.role == Role::BootParams);
    // setup_data of setup_header (Documentation/arch/x86/boot.rst).
    let mut at = u64_at(zero_page.unwrap().mem.start() + 0x250);
    let mut nodes = Vec::new();
    while at != 0 {
        nodes.push((
            u32_at(at + 8),
            at + 16,
            read(at + 16, u32_at(at + 12).into()),
        ));
        at = u64_at(at);
    }
    nodes
}

#[test]
fn everything_lies_in_scratch_memory_and_the_node_leads_to_the_tree() {
    let host = machine();
    let state = &host.security.kho.state;
    let (base, payload, segments) = planned(&without_digest(KhoChoice::Auto), &host, |plan| {
        let mut nodes = nodes(plan).into_iter();
        let kho = nodes.find(|(kind, ..)| *kind == SETUP_KEXEC_KHO);
        let (_, base, payload) = kho.unwrap();
        let segments = plan.segments().iter().map(|segment| segment.mem);
        (base, payload, segments.collect::<Vec<_>>())
    })
    .unwrap();
    let scratch = state.scratch.clone().unwrap();
    assert!(segments.len() > 3 && segments.iter().all(|range| scratch[0].covers(*range)));
    let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    let at = |address: u64| usize::try_from(address - base).unwrap();
    let (tree, size) = (at(word(0)), usize::try_from(word(8)).unwrap());
    let given = Tree::read(&payload[tree..tree + size], &state.blobs).unwrap();
    let own = Tree::read(state.tree.as_deref().unwrap(), &state.blobs).unwrap();
    assert_eq!(given, own);
    let array = at(word(16));
    assert_eq!(word(24), 16);
    let region = (scratch[0].start(), scratch[0].size());
    assert_eq!((word(array), word(array + 8)), region);
}

/// The next kernel's report has nothing else to hold against what arrived.
#[test]
fn the_record_has_what_is_passed_on() {
    let mut host = machine();
    host.cmdline = "reserve_mem=1M:4K:pool reserve_mem=1M:4K:other".into();
    host.security.kho.preserved = Some(vec!["LUO".to_owned(), "memblock".to_owned()]);
    let mut request = without_digest(KhoChoice::Auto);
    request.cmdline.append = vec!["reserve_mem=1M:4K:pool".into()];
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let carried = [Carried {
        name: "a".into(),
        bytes: b"content",
    }];
    for (carried, session) in [(&[][..], None), (&carried, Some("rkexec".to_owned()))] {
        let given = Given {
            initrds: &[],
            carried,
        };
        let plan = make(&request, &host, &image, &given, target).unwrap();
        let nodes = nodes(&plan).into_iter();
        let mut records = nodes.filter_map(|(_, _, payload)| Record::parse(&payload).unwrap());
        assert_eq!(
            records.next().unwrap().kho,
            Some(KhoRecord {
                format: "kho-v4".to_owned(),
                session,
                files: Vec::new(),
                pools: vec!["pool".to_owned()],
            })
        );
    }
}

#[test]
fn what_cannot_be_passed_on_is_not_lost() {
    let host = taken_over();
    let itself = "this kernel was itself started with handed-over state and does not show its tree: only \
                  kexec_file_load keeps it";
    let auto = without_digest(KhoChoice::Auto);
    let neither = format!(
        "cannot load: Kexec Handover (KHO) preserves LUO with the session vm, and kexec_load would drop it, \
         and kexec_file_load cannot do --no-digest (the running kernel's purgatory always verifies); and it \
         cannot be passed on: {itself}"
    );
    let hint = refused(&auto, &host, &neither).unwrap();
    assert_eq!(
        hint,
        "leave --no-digest out: only kexec_load can do it; --kho drop loses LUO with the session vm"
    );
    refused(&asks(KhoChoice::Forward), &host, itself);
    let forced = by(Syscall::KexecLoad, KhoChoice::Auto);
    let lost = format!("kexec_load would drop it; it cannot be passed on: {itself}");
    let hint = refused(&forced, &host, &lost).unwrap();
    assert!(hint.contains("--kho drop loses it"), "{hint}");

    let mut hidden = machine();
    hidden.security.kho.state.scratch = None;
    hidden.security.kho.state.tree = None;
    for request in [&auto, &asks(KhoChoice::Forward), &forced] {
        let hint = refused(request, &hidden, "mount debugfs to forward KHO state").unwrap();
        assert!(hint.contains("mount -t debugfs"), "{hint}");
    }
    let mut part = machine();
    part.security.kho.state.blobs.push(("test".to_owned(), 1));
    refused(&auto, &part, "debugfs shows only part of the tree: test");
    let mut off = machine();
    off.security.kho = Kho::default();
    refused(
        &asks(KhoChoice::Forward),
        &off,
        "this kernel hands over nothing",
    );
}

#[test]
fn a_pool_lies_where_nothing_is_preserved() {
    let mut request = asks(KhoChoice::Auto);
    request.handover.pools = vec![Pool::parse_option("0x8000000,16M").unwrap()];
    request.handover.protect = Some(Protection::Reserved);
    let in_use = "the pool default_pmpool lies in RAM that this kernel uses, where what it preserves may lie";
    let hint = refused(&request, &machine(), in_use).unwrap();
    assert!(hint.contains("memmap=SIZE$BASE"), "{hint}");
    // Set aside by a word of the running kernel's command line.
    let rows = [
        "00001000-0009ffff : System RAM",
        "00100000-07ffffff : System RAM",
        "08000000-08ffffff : Reserved",
        "09000000-3fffffff : System RAM",
    ];
    let mut host = host(&(rows.join("\n") + "\n"))
        .firmware([(MIB, 1024 * MIB - 1, "System RAM")])
        .boot_e820([(0x1000, 0x9_ffff, 1), (MIB, 1024 * MIB - 1, 1)]);
    let own = machine();
    (host.security, host.total_ram, host.release) = (own.security, own.total_ram, own.release);
    let (syscall, way, _) = outcome(&request, &host);
    assert_eq!((syscall, way), (Syscall::KexecLoad, Some(Way::Forwarded)));
}

#[test]
fn a_call_that_is_forbidden_passes_nothing_on() {
    let mut host = machine();
    host.security.lockdown = Some(Lockdown::Integrity);
    for request in [without_digest(KhoChoice::Auto), asks(KhoChoice::Forward)] {
        refused(&request, &host, "kernel lockdown forbids kexec_load");
    }
    let both = by(Syscall::KexecFileLoad, KhoChoice::Forward);
    refused(
        &both,
        &machine(),
        "--kho forward does not work with kexec_file_load: with kexec_file_load the running kernel would hand \
         over its own tree",
    );
}

#[test]
fn what_is_dropped_is_said() {
    let dropped = outcome(&asks(KhoChoice::Drop), &machine());
    let said = "--kho drop: LUO with the session vm is lost, which Kexec Handover (KHO) preserves";
    assert_eq!(
        dropped,
        (
            Syscall::KexecLoad,
            Some(Way::Dropped),
            vec![said.to_owned()]
        )
    );
    let (syscall, way, said) = outcome(&by(Syscall::KexecFileLoad, KhoChoice::Drop), &machine());
    assert_eq!((syscall, way), (Syscall::KexecFileLoad, Some(Way::Kept)));
    assert!(said[0].contains("the running kernel hands over LUO with the session vm itself"));
    let mut off = machine();
    off.security.kho = Kho::default();
    let (_, way, said) = outcome(&asks(KhoChoice::Drop), &off);
    assert_eq!(way, None);
    assert!(
        said[0].starts_with("--kho drop has no effect: "),
        "{said:?}"
    );
}

#[test]
fn the_next_kernel_must_take_what_is_passed_on() {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let mut other = target();
    other.kho.luo = Reads::One("luo-v1".to_owned());
    let given = Given::initrds(&[&[7; 4096]]);
    let request = asks(KhoChoice::Forward);
    let error = make(&request, &machine(), &image, &given, || other).unwrap_err();
    assert!(
        matches!(&error, PlanError::Kho(KhoError::Panics { .. })),
        "{error}"
    );
    let hint = error.hint().unwrap();
    assert!(hint.contains("--kho drop hands nothing over"), "{hint}");
}

#[test]
fn scratch_memory_may_be_too_small() {
    let mut host = machine();
    host.security.kho.state.scratch = Some(vec![PhysRange::new(256 * MIB, 4 * MIB).unwrap()]);
    let said = "where everything must lie while this kernel hands over state, is too small";
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let given: &[&[u8]] = &[&vec![7; 8 << 20]];
    let carried = [Carried {
        name: "a".into(),
        bytes: b"content",
    }];
    // Both ways, and with a file that exec hands over.
    for request in [without_digest(KhoChoice::Auto), asks(KhoChoice::Auto)] {
        for carried in [&[][..], &carried] {
            let given = Given {
                initrds: given,
                carried,
            };
            let error = make(&request, &host, &image, &given, target).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.hint().unwrap().contains("kho_scratch="));
        }
    }
    // Where it is not visible, the running kernel's own answer says more.
    host.security.kho.state.scratch = None;
    let given = Given::initrds(given);
    make(&asks(KhoChoice::Auto), &host, &image, &given, target).unwrap();
}

#[test]
fn only_linux_takes_anything_over() {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    assert!(Protocol::of(&image).takes_kho());
}
