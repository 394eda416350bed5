//! What is handed over, and kernels of which only the texts are known.

use super::*;
use crate::base::Syscall;
use crate::carry::capability::ConfigFact;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::host::Host;
use crate::image::decompress::{Compression, DecompressError};
use crate::image::probe;
use crate::plan::{Given, PlanError, plan as make};
use crate::request::{KhoChoice, LoadRequest, SyscallChoice};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::host::{Says as _, host};

const MIB: u64 = 1 << 20;
/// A line that gives everything back.
const ALL_ON: &str = "kho=on liveupdate=on";

/// A machine of 1 GiB that hands over by `luo`, with 64 MiB of scratch memory.
fn machine(luo: &str) -> Host {
    let mut host = host("00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n")
        .boot_e820([(0x1000, 0x9_ffff, 1), (MIB, 1024 * MIB - 1, 1)]);
    host.release = "7.2.13".to_owned();
    host.total_ram = 1024 * MIB;
    let kho = &mut host.security.kho;
    kho.on = true;
    kho.preserved = Some(vec!["LUO".to_owned()]);
    kho.state.format = Some("kho-v4".to_owned());
    kho.state.luo = Some(luo.to_owned());
    kho.state.sessions = Some(Vec::new());
    kho.state.scratch = Some(vec![PhysRange::new(256 * MIB, 64 * MIB).unwrap()]);
    host
}

fn with_session() -> Host {
    let mut host = machine("luo-v5");
    host.security.kho.state.sessions = Some(vec!["vm".to_owned()]);
    host
}

/// A kernel that reads those formats. An empty one: none of that part.
fn reads(formats: [&str; 4]) -> Capability {
    let reads = |format: &str| match format {
        "" => Reads::Nothing,
        one => Reads::One(one.to_owned()),
    };
    let [kho, luo, memfd, memblock] = formats.map(reads);
    let mut target = Capability::unknown();
    target.kho = KhoTarget {
        kho,
        luo,
        memfd,
        memblock,
        ..target.kho
    };
    target
}

fn current() -> Capability {
    reads(["kho-v4", "luo-v5", "memfd-v2", "memblock-v1"])
}

fn request(line: &str) -> LoadRequest {
    LoadRequest {
        cmdline: CmdlineRequest {
            base: CmdlineBase::Given(line.into()),
            ..CmdlineRequest::default()
        },
        ..LoadRequest::default()
    }
}

/// The warnings of a plan that names KHO, LUO or scratch memory; or why there is none.
fn planned(request: &LoadRequest, host: &Host, target: Capability) -> Result<Vec<String>, String> {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let plan = make(
        request,
        host,
        &image,
        &Given::initrds(&[&[7; 4096]]),
        || target,
    );
    let plan = plan.map_err(|error| {
        assert!(error.hint().is_some() && matches!(error, PlanError::Kho(_)));
        error.to_string()
    })?;
    assert_eq!(plan.syscall(), Syscall::KexecFileLoad);
    Ok(plan.warnings.clone())
}

#[track_caller]
fn assert_lost(host: &Host, line: &str, target: Capability, lost: &[&str]) {
    let warnings = planned(&request(line), host, target).unwrap();
    assert_eq!(warnings.len(), lost.len(), "{warnings:#?}");
    for (warning, lost) in warnings.iter().zip(lost) {
        assert!(warning.contains(lost), "{warning}");
    }
}

#[test]
fn what_fits_needs_no_word() {
    assert_lost(&machine("luo-v5"), ALL_ON, current(), &[]);
    assert_lost(&with_session(), ALL_ON, current(), &[]);
    // Nobody misses sessions that are not there.
    let without = reads(["kho-v4", "", "", "memblock-v1"]);
    assert_lost(&machine("luo-v5"), "quiet", without, &[]);
}

#[test]
fn another_format_of_live_update_is_never_loaded() {
    let old = || reads(["kho-v4", "luo-v1", "memfd-v2", "memblock-v1"]);
    for host in [machine("luo-v5"), with_session()] {
        for line in [ALL_ON, "kho=1", "quiet"] {
            let error = planned(&request(line), &host, old()).unwrap_err();
            assert!(
                error.starts_with("the new kernel reads luo-v1 and panics at boot on luo-v5"),
                "{error}"
            );
        }
    }
    // Without KHO it does not look, nor when it does not know the tree.
    assert_lost(&machine("luo-v5"), "kho=off", old(), &[]);
    let older = reads(["kho-v3", "luo-v1", "memfd-v2", "memblock-v1"]);
    let lost = "the new kernel reads kho-v3, and this kernel hands over kho-v4, which loses LUO";
    assert_lost(&machine("luo-v5"), ALL_ON, older, &[lost]);
}

#[test]
fn a_release_tells_where_debugfs_does_not() {
    let mut host = machine("luo-v5");
    host.security.kho.state.luo = None;
    host.security.kho.state.format = None;
    assert_lost(&host, ALL_ON, current(), &[]);
    let old = || reads(["kho-v4", "luo-v1", "memfd-v2", "memblock-v1"]);
    assert!(planned(&request(ALL_ON), &host, old()).is_err());
    host.release = "7.1.4".to_owned();
    assert_lost(&host, ALL_ON, old(), &[]);
    assert!(planned(&request(ALL_ON), &host, current()).is_err());
    host.release = "9.1.0".to_owned();
    let lost = "cannot tell in which format this kernel hands over live update";
    assert_lost(&host, ALL_ON, old(), &[lost]);
    // The tiny kernel's own release.
    host.release = "6.12.0-tiny".to_owned();
    assert_lost(&host, ALL_ON, old(), &[]);
}

#[test]
fn a_kernel_that_does_not_tell_is_not_loaded() {
    let host = machine("luo-v5");
    let mut target = current();
    target.kho.luo = Reads::OneOf(vec!["luo-v1".to_owned(), "luo-v5".to_owned()]);
    let error = planned(&request(ALL_ON), &host, target.clone()).unwrap_err();
    assert!(error.contains("(found luo-v1, luo-v5)"), "{error}");
    target.kho.luo = Reads::Unknown;
    let error = planned(&request(ALL_ON), &host, target.clone()).unwrap_err();
    assert!(error.contains("(no text in it tells)"), "{error}");
    target.unpacked = Err(DecompressError::Unsupported(Compression::Lzo));
    let error = planned(&request(ALL_ON), &host, target.clone()).unwrap_err();
    assert!(error.contains("cannot be unpacked: lzo"), "{error}");
    assert_lost(&host, "kho=off", target.clone(), &[]);
    let mut same = host;
    same.release = "6.12.0-tiny".to_owned();
    assert_lost(&same, ALL_ON, target, &[]);
}

#[test]
fn what_the_new_kernel_drops_is_named() {
    let host = with_session();
    let none = reads([""; 4]);
    let lost = "no Kexec Handover (CONFIG_KEXEC_HANDOVER): it drops LUO with the session vm";
    assert_lost(&host, ALL_ON, none, &[lost]);
    let lost = "the new kernel has no live update (CONFIG_LIVEUPDATE), which loses the session vm";
    let without = reads(["kho-v4", "", "", "memblock-v1"]);
    assert_lost(&host, ALL_ON, without, &[lost]);
    let lost = "has no memfd-v2 handler";
    let without = reads(["kho-v4", "luo-v5", "", "memblock-v1"]);
    assert_lost(&host, ALL_ON, without, &[lost]);
    let other = reads(["kho-v4", "luo-v5", "memfd-v3", "memblock-v1"]);
    assert_lost(&host, ALL_ON, other, &[lost]);
}

#[test]
fn the_new_line_must_turn_it_on() {
    let host = with_session();
    let (kho, luo) = ("does not turn on KHO", "does not turn on LUO");
    assert_lost(&host, "quiet", current(), &[kho, luo]);
    assert_lost(&host, "kho=on", current(), &[luo]);
    assert_lost(&host, "kho=on liveupdate=on kho=off", current(), &[kho]);
    // Unless the kernel does so by itself.
    let mut target = current();
    target.kho.default = ConfigFact {
        value: Fact::Yes,
        read_from: "a test".to_owned(),
    };
    assert_lost(&host, "liveupdate=1", target, &[]);
}

#[test]
fn pools_must_be_asked_for() {
    let mut host = machine("luo-v5").cmdline("kho=on reserve_mem=32M:2M:pool");
    host.security.kho.preserved = Some(vec!["memblock (reserve_mem=)".to_owned()]);
    assert_lost(&host, "kho=on reserve_mem=32M:2M:pool", current(), &[]);
    let lost = "no reserve_mem= of the new command line names pool (32 MiB)";
    assert_lost(&host, "quiet", current(), &[lost]);
    let lost = "reserve_mem=16M:2M:pool does not match pool (32 MiB): its contents are lost";
    assert_lost(&host, "reserve_mem=16M:2M:pool", current(), &[lost]);
    let without = reads(["kho-v4", "luo-v5", "memfd-v2", ""]);
    let lost = "takes no memory of reserve_mem= back";
    assert_lost(&host, "reserve_mem=32M:2M:pool", without, &[lost]);
    // It goes no further than to the next kernel.
    let end = "the next kernel takes pool back, and cannot hand it on: the new command line does not turn on KHO (kho=on)";
    assert_lost(&host, "kho=off reserve_mem=32M:2M:pool", current(), &[end]);
    let unknown = format!("{end}, and nothing shows that the new kernel does by itself");
    assert_lost(&host, "reserve_mem=32M:2M:pool", current(), &[&unknown]);
}

#[test]
fn the_new_kernel_lives_in_the_scratch_memory() {
    let host = machine("luo-v5");
    let with = |words: &str| format!("{ALL_ON} {words}");
    for fits in [
        "crashkernel=64M",
        "crashkernel=512M,cma",
        "crashkernel=4G-:256M",
        "hugepagesz=2M hugepages=9",
        "hugepagesz=1G",
        "reserve_mem=1M:4096:x",
        "cma=32M",
    ] {
        assert_lost(&host, &with(fits), current(), &[]);
    }
    for word in [
        "crashkernel=128M",
        "crashkernel=65M,high",
        "crashkernel=1G-4G:128M,4G-:256M",
        "hugepages=2 of 1 GiB",
        "reserve_mem=128M:4096:x",
        "cma=65M@0-4G",
        "hugetlb_cma=0:1G",
        "swiotlb=65536",
    ] {
        let lost = format!("{word} of the new command line does not fit into the scratch memory");
        let said = word.replace("hugepages=2 of 1 GiB", "hugepagesz=1G hugepages=2");
        assert_lost(&host, &with(&said), current(), &[&lost]);
    }
    // The other one is about segments.
    let segments = "it may use memory that the new command line takes";
    let outside = "crashkernel=32M@0x1000000 of the new command line lies outside the scratch memory, where alone";
    let over =
        "cma=32M@0x11000000 of the new command line takes that place whatever is handed over there";
    let lost = "memmap=1M$0x11000000 of the new command line takes away scratch memory";
    for (word, said) in [
        ("crashkernel=32M@0x11000000", &[segments][..]),
        ("crashkernel=32M@0x1000000", &[outside, segments]),
        ("cma=32M@0x11000000", &[over, segments]),
        ("memmap=1M$0x11000000", &[lost, segments]),
    ] {
        assert_lost(&host, &with(word), current(), said);
    }
}

#[test]
fn what_hands_nothing_over_is_not_checked() {
    let old = || reads(["kho-v4", "luo-v1", "memfd-v2", "memblock-v1"]);
    let check = |host: &Host, request: &LoadRequest| {
        let file = TinyBzImage::direct().build();
        let image = probe(&file).unwrap();
        let plan = make(request, host, &image, &Given::initrds(&[&[7; 4096]]), old).unwrap();
        plan.warnings.clone()
    };
    let dropped = LoadRequest {
        kho: KhoChoice::Drop,
        ..request(ALL_ON)
    };
    let warnings = check(&with_session(), &dropped);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("--kho drop: "), "{warnings:?}");
    let mut nothing = machine("luo-v5");
    nothing.security.kho.preserved = Some(Vec::new());
    let file = LoadRequest {
        syscall: SyscallChoice::Only(Syscall::KexecFileLoad),
        ..request(ALL_ON)
    };
    assert_eq!(check(&nothing, &file), [""; 0]);
}
