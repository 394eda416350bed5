use super::*;
use crate::carry::Protection;
use crate::carry::record::CarriedName;
use crate::host::handed_over::Log;
use crate::testing::host::host;

fn record() -> KhoRecord {
    KhoRecord {
        format: "kho-v4".to_owned(),
        session: Some("rkexec".to_owned()),
        files: vec![
            (CarriedName("a".into()), 5),
            (CarriedName("b".into()), 777_777),
        ],
        pools: vec!["pool".to_owned()],
    }
}

fn planned() -> PoolRecord {
    PoolRecord {
        name: "pool".to_owned(),
        base: 0x2800_0000,
        size: 0x20_0000,
        bitmap: 0x2800_0000,
        protection: Protection::Kho,
    }
}

fn logged(lines: &[&str], whole: bool) -> HandedOver {
    HandedOver {
        node: Some(true),
        log: Some(Log {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            whole,
        }),
        blobs: None,
        device: true,
    }
}

const TREE: &str = "KHO: found kexec handover data.";
const SESSIONS: &str = "luo: Retrieved live update data, liveupdate number: 1";
const POOL: &str = "Revived memory reservation 'pool' from KHO";

#[track_caller]
fn verdicts(handed: &HandedOver) -> Vec<(String, Verdict)> {
    let items = items(&record(), handed).into_iter();
    let items = items.chain([pool(&planned(), &machine(), handed)]);
    items.map(|item| (item.item, item.verdict)).collect()
}

fn machine() -> Host {
    host("00100000-3fffffff : System RAM\n")
}

#[test]
fn what_arrived_is_as_planned_and_what_is_gone_is_not() {
    use Verdict::{AsPlanned, CannotBeSeen, Differs, Missing};
    let of = |tree, session, pool| {
        [
            ("Kexec Handover".to_owned(), tree),
            ("session rkexec".to_owned(), session),
            ("pool pool".to_owned(), pool),
        ]
    };
    let found = |lines: &[&str], whole| verdicts(&logged(lines, whole));
    let all = found(&[TREE, SESSIONS, POOL], true);
    assert_eq!(all, of(AsPlanned, AsPlanned, AsPlanned));
    assert_eq!(found(&[TREE], true), of(AsPlanned, Missing, Differs));
    assert_eq!(found(&[], true), of(Missing, Missing, Differs));
    let gone = of(CannotBeSeen, CannotBeSeen, CannotBeSeen);
    assert_eq!(found(&[], false), gone);
}

#[test]
fn the_details() {
    let items = items(&record(), &logged(&[TREE, SESSIONS], true));
    assert_eq!(items[0].detail, format!("kho-v4: {TREE}"));
    assert_eq!(
        items[1].detail,
        "2 files, 777782 bytes: `rkexec retrieve DIR` writes them"
    );
    let found = pool(&planned(), &machine(), &logged(&[TREE, POOL], true));
    assert_eq!(
        found.detail,
        format!("28000000-281fffff, protection kho: {POOL}")
    );
}

/// What the kernel itself hands on says more than its log.
#[test]
fn memory_that_the_kernel_hands_on_has_a_place() {
    let mut machine = machine();
    let blob = |start: u64| {
        let mut writer = vm_fdt::FdtWriter::new().unwrap();
        let top = writer.begin_node("").unwrap();
        let node = writer.begin_node("pool").unwrap();
        writer.property("start", &start.to_le_bytes()).unwrap();
        let size = 0x20_0000_u64.to_le_bytes();
        writer.property("size", &size).unwrap();
        writer.end_node(node).unwrap();
        writer.end_node(top).unwrap();
        writer.finish().unwrap()
    };
    let nothing = logged(&[TREE], true);
    machine.security.kho.state.memblock = Some(blob(0x2800_0000));
    assert_eq!(
        pool(&planned(), &machine, &nothing).verdict,
        Verdict::AsPlanned
    );
    machine.security.kho.state.memblock = Some(blob(0x3000_0000));
    let other = pool(&planned(), &machine, &logged(&[TREE, POOL], true));
    assert_eq!(other.verdict, Verdict::Differs);
    assert!(
        other.detail.contains("2 MiB at 0x30000000"),
        "{}",
        other.detail
    );
}

/// The kernel before handed over itself: the record has no files, and pools by name only.
#[test]
fn what_was_passed_on() {
    let passed_on = KhoRecord {
        files: Vec::new(),
        pools: vec!["pool".to_owned(), "own".to_owned(), "gone".to_owned()],
        ..record()
    };
    let own = "Revived memory reservation 'own' from KHO";
    let handed = logged(&[TREE, SESSIONS, POOL, own], true);
    let session = &items(&passed_on, &handed)[1];
    assert_eq!(session.detail, "`rkexec retrieve DIR` writes its files");
    let found = own_pools(&passed_on, &[planned()], &handed);
    let found: Vec<(&str, Verdict)> = found.iter().map(|it| (&*it.item, it.verdict)).collect();
    let wanted = [
        ("pool own", Verdict::AsPlanned),
        ("pool gone", Verdict::Missing),
    ];
    assert_eq!(found, wanted);
}
