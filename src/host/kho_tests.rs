//! Kexec Handover, on machines that are made up.

use super::*;

/// A kernel with KHO of which nothing else is known.
fn new(cmdline: &str) -> Facts {
    Facts {
        release: "7.2.13-amd64".to_owned(),
        cmdline: cmdline.into(),
        ..Facts::default()
    }
}

fn built(default: bool) -> RunningConfig {
    RunningConfig {
        kexec_handover: Some(true),
        kexec_handover_default: Some(default),
        kexec_handover_debugfs: Some(true),
        ..RunningConfig::default()
    }
}

#[test]
fn the_last_valid_word_counts() {
    for on in ["kho=on", "quiet kho=1\n", "kho=y", "kho=off kho=on"] {
        assert_eq!(new(on).on(), (true, "kho=on on the command line".into()));
    }
    for off in ["", "kho=off", "kho=0", "kho=on kho=n", "kho", "xkho=on"] {
        assert!(!new(off).on().0, "{off}");
    }
}

#[test]
fn a_kernel_without_it_does_not_mind_the_word() {
    let old = |release: &str| {
        let facts = Facts {
            release: release.to_owned(),
            ..new("kho=on")
        };
        facts.on()
    };
    assert_eq!(
        old("6.1.0-51-amd64"),
        (
            false,
            "Linux 6.1.0-51-amd64 has none: it came with 6.16".into()
        )
    );
    assert!(!old("6.15.9").0 && old("6.16.0").0);
    let without = Facts {
        config: RunningConfig {
            kexec_handover: Some(false),
            ..RunningConfig::default()
        },
        ..new("kho=on")
    };
    assert_eq!(
        without.on(),
        (false, "the running kernel is built without it".into())
    );
    // A distributor may bring it to an older kernel.
    let backported = Facts {
        release: "6.12.0-99.el10".to_owned(),
        config: built(false),
        ..new("kho=on")
    };
    assert!(backported.on().0);
}

#[test]
fn on_by_default() {
    let mut facts = Facts {
        config: built(true),
        ..new("")
    };
    assert_eq!(
        facts.on(),
        (true, "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT".into())
    );
    // debugfs would show it.
    facts.debugfs = true;
    assert!(!facts.on().0);
    facts.shown = true;
    assert!(facts.on().0);
    facts.cmdline = "kho=off".into();
    assert!(!facts.on().0);
    let off = Facts {
        config: built(false),
        scratch: cpu::Scratch {
            free: 1 << 20,
            of: 1 << 30,
        },
        ..new("")
    };
    assert!(!off.on().0);
}

#[test]
fn what_shows_where_no_configuration_is_found() {
    let scratch = Facts {
        scratch: cpu::Scratch {
            free: 1 << 20,
            of: 1 << 30,
        },
        ..new("")
    };
    assert!(scratch.on().1.contains("CmaFree"));
    let chained = Facts {
        booted_with: true,
        ..new("")
    };
    assert!(chained.on().0);
    // A kernel without KHO shows the node as well.
    let old = Facts {
        release: "6.12.1".to_owned(),
        booted_with: true,
        ..new("")
    };
    assert!(!old.on().0);
    let captured = new("kho=on elfcorehdr=0x1000");
    assert!(captured.on().0);
    let captured = Facts {
        release: "7.3.4".to_owned(),
        ..captured
    };
    assert!(!captured.on().0);
}

#[test]
fn what_is_preserved_forbids_kexec_load() {
    let kho = |preserved: Option<&[&str]>| Kho {
        on: true,
        why: "kho=on".into(),
        shown: true,
        preserved: preserved.map(|names| names.iter().map(|&name| name.into()).collect()),
        state: State::default(),
    };
    assert_eq!(kho(Some(&[])).forbids_kexec_load(), None);
    assert_eq!(
        kho(Some(&["LUO", "memblock"]))
            .forbids_kexec_load()
            .unwrap(),
        "Kexec Handover (KHO) preserves LUO and memblock, and kexec_load would drop it"
    );
    assert_eq!(kho(None).in_words(), "what this kernel preserves");
    let mut open = kho(Some(&["LUO"]));
    open.state.sessions = Some(vec!["a".into()]);
    assert_eq!(open.in_words(), "LUO with the session a");
    open.state.sessions = Some(["a", "b", "c"].map(str::to_owned).into());
    let why = open.forbids_kexec_load().unwrap();
    assert!(
        why.contains("LUO with the sessions a, b and c, and kexec_load"),
        "{why}"
    );
    let unknown = kho(None).forbids_kexec_load().unwrap();
    assert!(unknown.contains("debugfs"), "{unknown}");
    assert_eq!(Kho::default().forbids_kexec_load(), None);
}

#[test]
fn files_below_a_root() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, content: &[u8]| {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let read = || Kho::read(&Root::at(dir.path()), &RunningConfig::default()).unwrap();
    write("proc/sys/kernel/osrelease", b"7.2.13\n");
    write("proc/cmdline", b"quiet\n");
    write("proc/meminfo", b"CmaTotal: 0 kB\nCmaFree: 0 kB\n");
    assert!(!read().on);
    write("proc/meminfo", b"CmaTotal: 0 kB\nCmaFree: 65536 kB\n");
    assert_eq!((read().on, read().preserved), (true, None));
    write("proc/cmdline", b"liveupdate=on reserve_mem=1M:4K:log\n");
    assert_eq!(
        read().preserved.unwrap(),
        ["LUO (liveupdate=)", "memblock (reserve_mem=)"]
    );
    write("sys/kernel/debug/kho/out/sub_fdts/kexec-metadata", b"x");
    assert_eq!(read().preserved, Some(Vec::new()));
    write("sys/kernel/debug/kho/out/sub_fdts/LUO", b"x");
    assert_eq!(read().preserved.unwrap(), ["LUO"]);
    // Without debugfs and scratch, by the node that it was started with.
    std::fs::remove_dir_all(dir.path().join("sys")).unwrap();
    write("proc/meminfo", b"MemTotal: 1 kB\n");
    write("sys/kernel/boot_params/data", &[0; 4096]);
    write("sys/kernel/boot_params/setup_data/0/type", b"0xa\n");
    write("sys/kernel/boot_params/setup_data/0/data", &[0; 32]);
    assert!(read().why.contains("handed-over state"));
}

/// A machine of which each test writes what it is about.
struct Machine(tempfile::TempDir);

impl Machine {
    /// One with KHO on.
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write("proc/sys/kernel/osrelease", b"7.2.13\n");
        machine.write("proc/cmdline", b"kho=on liveupdate=on\n");
        machine.write(
            "proc/meminfo",
            b"MemTotal: 1000000 kB\nCmaTotal: 0 kB\nCmaFree: 65536 kB\n",
        );
        machine
    }

    fn write(&self, file: &str, content: &[u8]) {
        let path = self.0.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn shows(&self, file: &str, content: &[u8]) {
        self.write(&format!("sys/kernel/debug/kho/{file}"), content);
    }

    fn root(&self) -> Root {
        Root::at(self.0.path())
    }

    fn read(&self) -> Result<Kho, HostError> {
        Kho::read(&self.root(), &RunningConfig::default())
    }

    fn state(&self) -> State {
        self.read().unwrap().state
    }
}

fn metadata(count: u8) -> Vec<u8> {
    let mut blob = vec![0; 73];
    (blob[0], blob[69]) = (1, count);
    blob
}

#[test]
fn what_debugfs_shows() {
    let machine = Machine::new();
    machine.shows("out/scratch_phys", b"0x1000000\n0x10000000\n0x3ec00000\n");
    machine.shows("out/scratch_len", b"0x1000000\n0x4000000\n0x0\n");
    machine.shows("out/sub_fdts/LUO", b"luo-v5\0\0\x01\0\0\0");
    machine.shows("out/sub_fdts/kexec-metadata", &metadata(1));
    machine.shows("out/sub_fdts/memblock", b"a tree");
    // The names of the properties are cut off, and this one's value is not.
    machine.shows("out/fdt", b"\xd0\x0d\xfe\xed\0\0kho-v4\0\0prese");
    let state = machine.state();
    assert_eq!((state.taken_over, state.generation), (false, Some(1)));
    assert_eq!(state.format.as_deref(), Some("kho-v4"));
    assert_eq!(state.luo.as_deref(), Some("luo-v5"));
    assert_eq!(state.memblock.as_deref(), Some(&b"a tree"[..]));
    let scratch = state.scratch.clone().unwrap();
    assert_eq!(scratch.len(), 2);
    assert_eq!(scratch[1], PhysRange::new(0x1000_0000, 64 << 20).unwrap());
    assert_eq!(state.scratch_size(), Some((80 << 20, true)));
    assert_eq!(state.ram, 1_000_000 << 10);
    let kho = machine.read().unwrap();
    assert!(kho.preserves_luo() && kho.preserves_pools());
    // The same machine, captured.
    let recorder = machine.root().recorder();
    Kho::read(&recorder, &RunningConfig::default()).unwrap();
    let record = recorder.into_recording();
    assert!(
        record
            .files
            .contains_key("/sys/kernel/debug/kho/out/scratch_len")
    );
}

#[test]
fn a_kernel_that_took_state_over() {
    let machine = Machine::new();
    machine.shows("in/fdt", b"kho-v4\0");
    machine.shows("out/sub_fdts/kexec-metadata", &metadata(3));
    let state = machine.state();
    assert_eq!((state.taken_over, state.generation), (true, Some(3)));
    assert_eq!(state.format.as_deref(), Some("kho-v4"));
    // The kernel before handed over no count.
    machine.shows("out/sub_fdts/kexec-metadata", &metadata(1));
    assert_eq!(machine.state().generation, Some(2));
    machine.shows("out/sub_fdts/kexec-metadata", b"x");
    assert_eq!(machine.state().generation, None);
}

#[test]
fn without_debugfs() {
    let machine = Machine::new();
    let kho = machine.read().unwrap();
    assert!(kho.preserves_luo() && !kho.preserves_pools());
    assert_eq!(kho.state.generation, Some(1));
    assert_eq!(kho.state.scratch, None);
    assert_eq!(kho.state.scratch_size(), Some((64 << 20, false)));
    assert_eq!((kho.state.format, kho.state.luo), (None, None));
    machine.write("sys/kernel/boot_params/data", &[0; 4096]);
    machine.write("sys/kernel/boot_params/setup_data/0/type", b"0xa\n");
    machine.write("sys/kernel/boot_params/setup_data/0/data", &[0; 32]);
    let state = machine.state();
    assert_eq!((state.taken_over, state.generation), (true, None));
    // What is off hands nothing over, and has no state.
    machine.write("proc/cmdline", b"kho=off liveupdate=on\n");
    let kho = machine.read().unwrap();
    assert_eq!(kho.state, State::default());
    assert!(!kho.preserves_luo());
}

#[test]
fn open_sessions_have_names() {
    let machine = Machine::new();
    assert_eq!(machine.state().sessions, Some(Vec::new()));
    let link = |file: &str, link: &[u8]| machine.write(&format!("proc/{file}"), link);
    link("12/fd/3", b"anon_inode:[luo_session] vm two");
    link("7/fd/0", b"anon_inode:[luo_session] one");
    link("7/fd/1", b"anon_inode:[luo_session] one");
    link("7/fd/2", b"anon_inode:[eventfd]");
    link("self/fd/2", b"anon_inode:[luo_session] twice");
    let sessions = ["one", "vm two"].map(str::to_owned);
    assert_eq!(machine.state().sessions, Some(sessions.into()));
    let recorder = machine.root().recorder();
    Kho::read(&recorder, &RunningConfig::default()).unwrap();
    let files = recorder.into_recording().files;
    let links = files.keys().filter(|file| file.contains("/fd/"));
    assert_eq!(
        links.collect::<Vec<_>>(),
        ["/proc/12/fd/3", "/proc/7/fd/0", "/proc/7/fd/1"]
    );
    // Without LUO there are none.
    machine.shows("out/sub_fdts/memblock", b"a tree");
    assert_eq!(machine.state().sessions, Some(Vec::new()));
}

#[test]
fn what_is_malformed_names_its_file() {
    let machine = Machine::new();
    let error = |starts: &[u8], sizes: &[u8]| {
        machine.shows("out/scratch_phys", starts);
        machine.shows("out/scratch_len", sizes);
        machine.read().unwrap_err().to_string()
    };
    assert_eq!(
        error(b"0x1000\n0x2000\n", b"0x1000\n"),
        "/sys/kernel/debug/kho/out/scratch_len: 1 lines, and \
         /sys/kernel/debug/kho/out/scratch_phys has 2"
    );
    assert!(error(b"0x1000\n", b"0xffffffffffffffff\n").contains("ends beyond"));
    assert!(error(b"one\n", b"0x1000\n").contains("`one` is not a number"));
}

#[test]
fn memfds_with_large_pages() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::at(dir.path());
    assert_eq!(large_memfds(&root).unwrap(), None);
    let path = root.path(LARGE_MEMFDS);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let words = ["always", "within_size", "advise", "never", "deny", "force"];
    for word in words {
        let line = words.join(" ").replace(word, &format!("[{word}]"));
        std::fs::write(&path, line + "\n").unwrap();
        let large = ["always", "within_size", "force"].contains(&word);
        let found = large_memfds(&root).unwrap();
        assert_eq!(found.as_deref(), large.then_some(word));
    }
}
