use super::*;

/// The traces that `lines` of a log leave, which is whole.
fn logged(lines: &[&str]) -> HandedOver {
    HandedOver {
        node: Some(true),
        log: Some(Log {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            whole: true,
        }),
        blobs: None,
        device: true,
    }
}

const GOOD: [&str; 4] = [
    "KHO: found kexec handover data.",
    "luo: Retrieved live update data, liveupdate number: 1",
    "Revived memory reservation 'pool' from KHO",
    "KHO: exec from: 7.2.13 (count 1)",
];

fn lost(fate: &Fate) -> &str {
    match fate {
        Fate::Lost(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_that_says_all() {
    let all = logged(&GOOD);
    assert_eq!(all.tree(), Fate::Taken(GOOD[0].to_owned()));
    assert_eq!(all.sessions(), Fate::Taken(GOOD[1].to_owned()));
    assert_eq!(all.pool("pool"), Fate::Taken(GOOD[2].to_owned()));
    assert_eq!(all.revived(), ["pool"]);
    // The name of another pool is not in it.
    assert_eq!(
        lost(&all.pool("poo")),
        "this kernel's log does not say that it took the pool back"
    );
}

#[test]
fn a_tree_that_is_refused_takes_all_with_it() {
    let other = logged(&[
        "KHO: setup: handover FDT (0x1000) is incompatible with 'kho-v4': 1",
        "KHO: disabling KHO revival",
    ]);
    for fate in [other.tree(), other.sessions(), other.pool("pool")] {
        assert!(lost(&fate).contains("incompatible"), "{fate:?}");
    }
    let without = "Passed KHO data, but CONFIG_KEXEC_HANDOVER not set. Ignoring.";
    assert_eq!(lost(&logged(&[without]).tree()), without);
    let bare = "KHO: disabling KHO revival";
    assert_eq!(lost(&logged(&[bare]).tree()), bare);
    let no_node = HandedOver {
        node: Some(false),
        ..logged(&GOOD)
    };
    assert!(lost(&no_node.tree()).contains("no setup_data node"));
}

#[test]
fn parts_that_are_refused() {
    for line in [
        "KHO reserve-mem 'pool' has wrong size (0x2000000 != 0x1000000)",
        "KHO reserve-mem 'pool' has wrong alignment (0x10000000, 0x28000000)",
        "FDT 'memblock' has no child 'pool': -1",
        "FDT 'memblock' is incompatible with 'memblock-v1': 1",
    ] {
        assert_eq!(lost(&logged(&[GOOD[0], line]).pool("pool")), line);
    }
    let off = "luo: Disabling liveupdate because KHO is disabled";
    assert_eq!(lost(&logged(&[GOOD[0], off]).sessions()), off);
    let no_device = HandedOver {
        device: false,
        ..logged(&GOOD)
    };
    assert_eq!(lost(&no_device.sessions()), "/dev/liveupdate is not there");
}

/// What is not there was never written, or is gone.
#[test]
fn a_log_that_lost_its_beginning_tells_nothing() {
    let gone = HandedOver {
        log: Some(Log::default()),
        ..logged(&[])
    };
    let none = HandedOver {
        log: None,
        ..logged(&[])
    };
    for traces in [gone, none] {
        for fate in [traces.tree(), traces.sessions(), traces.pool("pool")] {
            assert!(matches!(fate, Fate::Hidden(_)), "{fate:?}");
        }
    }
    for fate in [logged(&[]).tree(), logged(&[]).sessions()] {
        assert!(lost(&fate).contains("does not say"), "{fate:?}");
    }
}

#[test]
fn the_traces_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::at(dir.path());
    assert_eq!(HandedOver::read(&root).unwrap(), HandedOver::default());
    let write = |path: &str, content: &[u8]| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let log = "6,0,0,-;Linux version 7.2.13\n\
               6,9,0,-;KHO: found kexec handover data.\n\
               12,10,1,-;KHO: disabling KHO revival, says a program\n\
               6,11,2,-;Revived memory reservation 'a' from KHO\n";
    write("dev/kmsg", log.as_bytes());
    write("dev/liveupdate", b"");
    write("sys/kernel/debug/kho/in/sub_fdts/memblock", b"x");
    let read = HandedOver::read(&root).unwrap();
    assert_eq!(
        read.lines(),
        [GOOD[0], "Revived memory reservation 'a' from KHO"]
    );
    assert!(read.device && read.log.as_ref().is_some_and(|log| log.whole));
    assert_eq!(read.blobs, Some(vec!["memblock".to_owned()]));
    assert_eq!(read.node, None);
    assert_eq!(read.revived(), ["a"]);
    write("dev/kmsg", b"6,7,0,-;KHO: found kexec handover data.\n");
    let cut = HandedOver::read(&root).unwrap();
    assert!(cut.log.is_some_and(|log| !log.whole));
}
