//! `rkexec report` on machines that received what the record says, or nearly.

use rkexec::carry::Protection;
use rkexec::carry::pool_node::pools_of;
use rkexec::carry::record::{Blob as Digested, PoolRecord, Record};
use rkexec::fdt::DeviceTree;
use rkexec::purgatory;
use serde_json::Value;

use crate::Lab;
use crate::blob::Blob;

const LINE: &str = "quiet pmpool=0x10000000,0x4000000 nokaslr";
const SETUP_DATA: &str = "m/sys/kernel/boot_params/setup_data";

fn tree(size: u64) -> Vec<u8> {
    Blob::new()
        .begin("chosen")
        .pool("default_pmpool", 0x1000_0000, size, 0x1000_0000)
        .end()
        .build()
}

/// The zero page with these e820 entries (Documentation/arch/x86/zero-page.rst).
fn zero_page(e820: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[0x1e8] = e820.len().try_into().unwrap();
    for (number, (start, size, kind)) in e820.iter().enumerate() {
        let entry = [
            &start.to_le_bytes()[..],
            &size.to_le_bytes(),
            &kind.to_le_bytes(),
        ];
        let at = 0x2d0 + number * 20;
        page[at..at + 20].copy_from_slice(&entry.concat());
    }
    page
}

const RAM: (u64, u64, u32) = (0x10_0000, 0x3ff0_0000, 1);

fn record() -> Record {
    let blob = tree(0x400_0000);
    Record {
        rkexec: "0.1.0".to_owned(),
        loaded_at: 1_800_000_000,
        from: "6.1.0-before".to_owned(),
        release: Some("6.12.0-tiny".to_owned()),
        cmdline: LINE.into(),
        e820: vec![RAM],
        e820_complete: true,
        setup_data: vec![(2, blob.len()), (9, 32)],
        device_tree: Some(Digested::new(&blob, &purgatory::digest(&blob))),
        kernel: None,
        initrd: Vec::new(),
        pools: vec![PoolRecord {
            name: "default_pmpool".to_owned(),
            base: 0x1000_0000,
            size: 0x400_0000,
            bitmap: 0x1000_0000,
            protection: Protection::Kernel,
        }],
    }
}

/// A machine `m` that received what the record says.
fn arrived() -> Lab {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/proc/cmdline", format!("{LINE}\n"));
    lab.write("m/sys/firmware/fdt", tree(0x400_0000));
    lab.write("m/sys/kernel/boot_params/data", zero_page(&[RAM]));
    // The kernel wipes the seed.
    let record = record().payload();
    for (number, kind, data) in [
        (0, "0x2", tree(0x400_0000)),
        (1, "0x9", Vec::new()),
        (2, "0x0", record),
    ] {
        lab.write(&format!("{SETUP_DATA}/{number}/type"), format!("{kind}\n"));
        lab.write(&format!("{SETUP_DATA}/{number}/data"), data);
    }
    lab
}

/// The same with `words` at the end of the line.
pub(super) fn with_words(words: &[u8]) -> Lab {
    let lab = arrived();
    let line = [LINE.as_bytes(), b" ", words].concat();
    lab.write("m/proc/cmdline", [&line[..], b"\n"].concat());
    let record = Record {
        cmdline: line.into(),
        ..record()
    };
    lab.write(&format!("{SETUP_DATA}/2/data"), record.payload());
    lab
}

/// The items that are not as planned, with their verdicts.
fn wrong(lab: &Lab) -> Vec<(String, String)> {
    let ended = lab.run(&["report", "--root", "m", "--output", "json"]);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    let items = report["items"].as_array().unwrap();
    assert!(items.len() >= 6, "{items:?}");
    let field = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let wrong: Vec<(String, String)> = items
        .iter()
        .map(|item| (field(item, "item"), field(item, "verdict")))
        .filter(|(_, verdict)| verdict != "as_planned" && verdict != "cannot_be_seen")
        .collect();
    assert_eq!(report["as_planned"], wrong.is_empty());
    if wrong.is_empty() {
        assert_eq!((ended.code, &*ended.err), (Some(0), ""));
    } else {
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains("not as planned"), "{}", ended.err);
        for (item, _) in &wrong {
            assert!(ended.err.contains(item), "{item} in {}", ended.err);
        }
    }
    wrong
}

#[track_caller]
fn only(lab: &Lab, wanted: &[(&str, &str)]) {
    let found = wrong(lab);
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (&**a, &**b)).collect();
    assert_eq!(found, wanted);
}

/// SHA-256 of an rkexec before rapidhash: its device tree is not told from another one
/// of that size.
#[test]
fn a_digest_of_an_older_version_is_no_difference() {
    let lab = arrived();
    let with_size = |size: usize| {
        let record = Record {
            device_tree: Some(Digested {
                size,
                digest: "ab".repeat(32),
            }),
            ..record()
        };
        lab.write(&format!("{SETUP_DATA}/2/data"), record.payload());
    };
    let size = tree(0x400_0000).len();
    with_size(size);
    only(&lab, &[]);
    let text = lab.succeeds(&["report", "--root", "m"]);
    let said = "device tree          cannot be checked here: it has the planned size; an older \
                rkexec loaded this kernel, and this version does not make its kind of digest\n";
    assert!(text.contains(said), "{text}");
    with_size(size + 1);
    only(&lab, &[("device tree", "differs")]);
}

#[test]
fn all_as_planned() {
    let lab = arrived();
    only(&lab, &[]);
    let text = lab.succeeds(&["report", "--root", "m"]);
    assert!(
        text.starts_with(
            "as planned\nloaded by rkexec 0.1.0 from kernel 6.1.0-before at 2027-01-15 08:00:00 UTC\n"
        ),
        "{text}"
    );
    assert!(text.contains("\n  random seed (RNG_SEED, 0 B)\n"), "{text}");
    assert!(text.contains("default_pmpool {"), "{text}");
    // The blob of the test is one that the program reads.
    assert_eq!(
        pools_of(&DeviceTree::read(&tree(0x400_0000)).unwrap())
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn every_difference_is_named() {
    let lab = arrived();
    lab.write("m/proc/sys/kernel/osrelease", "6.12.0-other\n");
    only(&lab, &[("kernel release", "differs")]);
    let text = lab.run(&["report", "--root", "m"]).out;
    assert!(
        text.starts_with("NOT as planned: kernel release differs\n"),
        "{text}"
    );

    let lab = arrived();
    lab.write("m/proc/cmdline", "quiet pmpool=0x10000000,0x4000000\n");
    only(&lab, &[("command line", "differs")]);

    let lab = arrived();
    let page = zero_page(&[(RAM.0, 0x1000_0000, 1), (0x2000_0000, 0x2000_0000, 1)]);
    lab.write("m/sys/kernel/boot_params/data", page);
    let pool = ("pool default_pmpool", "differs");
    only(&lab, &[("memory map", "differs"), pool]);

    let lab = arrived();
    let dir = lab.path().join(SETUP_DATA);
    std::fs::rename(dir.join("2"), dir.join("1x")).unwrap();
    std::fs::remove_dir_all(dir.join("1")).unwrap();
    std::fs::rename(dir.join("1x"), dir.join("1")).unwrap();
    only(&lab, &[("setup_data chain", "differs")]);

    // One byte of the size.
    let lab = arrived();
    lab.write(&format!("{SETUP_DATA}/0/data"), tree(0x400_1000));
    lab.write("m/sys/firmware/fdt", tree(0x400_1000));
    only(&lab, &[("device tree", "differs"), pool]);

    let lab = arrived();
    lab.write(&format!("{SETUP_DATA}/0/data"), tree(0x400_1000));
    only(&lab, &[("device tree", "differs")]);
}

#[test]
fn what_did_not_arrive_is_missing() {
    // The kernel ignored the node, or had none to read.
    let lab = arrived();
    std::fs::remove_file(lab.path().join("m/sys/firmware/fdt")).unwrap();
    // The chain has it: a kernel without CONFIG_OF.
    only(&lab, &[]);
    lab.write(&format!("{SETUP_DATA}/0/type"), "0x3\n");
    let wrong = wrong(&lab);
    for item in ["setup_data chain", "device tree", "pool default_pmpool"] {
        assert!(wrong.iter().any(|(name, _)| name == item), "{wrong:?}");
    }
    assert!(wrong.contains(&("device tree".to_owned(), "missing".to_owned())));
}

#[test]
fn a_machine_without_a_record() {
    let lab = arrived();
    lab.write(&format!("{SETUP_DATA}/2/data"), "of somebody else");
    let ended = lab.run(&["report", "--root", "m"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.out, "");
    let err = "rkexec: nothing to check: this kernel was not started by rkexec, \
               or it was loaded with kexec_file_load\n";
    assert_eq!(ended.err, err);
    let more = lab.run(&["report", "--root", "m", "-v"]);
    assert!(more.out.contains("device tree (DTB, 0x2, "), "{}", more.out);
    assert_eq!((more.code, &*more.err), (Some(1), err));
    let ended = lab.run(&["report", "--root", "m", "--output", "json"]);
    assert_eq!(ended.code, Some(1));
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(report["as_planned"], Value::Null);

    let mut cut = record().payload();
    cut.truncate(cut.len() - 1);
    lab.write(&format!("{SETUP_DATA}/2/data"), cut);
    let err = lab.fails(1, &["report", "--root", "m"]);
    assert!(err.contains("record"), "{err}");
}
