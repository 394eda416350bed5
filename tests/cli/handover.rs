//! Pools and device trees: what is planned for them, and what is refused.

use serde_json::Value;

use crate::blob::Blob;
use crate::{Lab, captured};

/// A pool in the RAM of every captured machine.
const POOL: &str = "0x10000000,64M";
/// What is known of the tiny kernel: it understands pools.
const KNOWS: &str = "CONFIG_X86_64=y\nCONFIG_OF=y\nCONFIG_PMPOOL=y\nCONFIG_RANDOMIZE_BASE=y\n";
const HINT: &str = "hint: use --pool-protect indirect (Linux 5.5 and later, the pool stays RAM) or \
                    --pool-protect reserved (every kernel); --assume-pmpool if you know that it has \
                    CONFIG_OF and CONFIG_PMPOOL\n";

/// A lab whose kernel is known to understand pools.
fn knowing() -> Lab {
    let lab = Lab::new();
    lab.write("config-6.12.0-tiny", KNOWS);
    lab
}

/// `plan` on a captured machine.
fn plan(lab: &Lab, machine: &str, args: &[&str]) -> (Value, String) {
    let root = captured(machine);
    let head = ["plan", "--output", "json", "--root", &root, "vmlinuz"];
    let ended = lab.run(&[&head, args].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    (serde_json::from_str(&ended.out).unwrap(), ended.err)
}

/// `plan` on a captured machine, which must fail to plan; why, and the hint.
#[track_caller]
fn refused(lab: &Lab, machine: &str, args: &[&str]) -> String {
    let root = captured(machine);
    let err = lab.fails(1, &[&["plan", "--root", &root, "vmlinuz"], args].concat());
    let why = err.strip_prefix("rkexec: planning failed: ");
    assert!(why.is_some(), "{err}");
    why.unwrap().to_owned()
}

#[test]
fn a_target_that_nothing_is_known_of() {
    let lab = Lab::new();
    for wish in [&[][..], &["--pool-protect", "kernel"]] {
        let why = refused(&lab, "bios-512m", &[&["--pool", POOL], wish].concat());
        assert!(why.contains("CONFIG_OF"), "{why}");
        assert!(why.ends_with(HINT), "{why}");
    }
    let (assumed, _) = plan(&lab, "bios-512m", &["--pool", POOL, "--assume-pmpool"]);
    assert_eq!(assumed["pools"][0]["protection"], "kernel");
    for protection in ["reserved", "indirect"] {
        let args = ["--pool", POOL, "--pool-protect", protection];
        let (plan, _) = plan(&lab, "bios-512m", &args);
        assert_eq!(plan["pools"][0]["protection"], protection);
    }
}

#[test]
fn a_target_that_knows_pools() {
    let (plan, err) = plan(
        &knowing(),
        "bios-512m",
        &["--pool", POOL, "--cmdline", "quiet"],
    );
    let pool = &plan["pools"][0];
    assert_eq!(pool["protection"], "kernel");
    assert_eq!(pool["name"], "default_pmpool");
    assert_eq!(pool["bitmap"], "0x10000000");
    // The loader places the kernel itself, off the pool.
    assert_eq!(plan["cmdline"], "quiet pmpool=0x10000000,0x4000000");
    assert_eq!(
        (err.as_str(), &plan["warnings"]),
        ("", &Value::Array(Vec::new()))
    );
    let itself = ["--pool", POOL, "--cmdline", "quiet", "--direct", "off"];
    let (plan, err) = self::plan(&knowing(), "bios-512m", &itself);
    assert_eq!(plan["cmdline"], "quiet pmpool=0x10000000,0x4000000 nokaslr");
    // It is said aloud: `load` prints the warnings of its plan.
    assert_eq!(err, "");
    let warning = plan["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("nokaslr was added"), "{warning}");
    // Nothing is added twice, nor what is there written anew.
    let line = "pmpool=256M,64M nokaslr quiet";
    let args = ["--pool", POOL, "--cmdline", line];
    let (again, _) = self::plan(&knowing(), "bios-512m", &args);
    assert_eq!(again["cmdline"], line);
    assert_eq!(again["warnings"], Value::Array(Vec::new()));
}

#[test]
fn a_target_that_ignores_pools() {
    let lab = Lab::new();
    lab.write(
        "config-6.12.0-tiny",
        "CONFIG_X86_64=y\n# CONFIG_OF is not set\n",
    );
    let (plan, _) = plan(&lab, "bios-512m", &["--pool", POOL, "--cmdline", "quiet"]);
    assert_eq!(plan["pools"][0]["protection"], "indirect");
    let reason = plan["pools"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("config-6.12.0-tiny"), "{reason}");
    assert_eq!(plan["cmdline"], "quiet");
    for assume in [&[][..], &["--assume-pmpool"]] {
        let wish = ["--pool", POOL, "--pool-protect", "kernel"];
        let why = refused(&lab, "bios-512m", &[&wish, assume].concat());
        assert_eq!(
            why,
            "--pool-protect kernel is not possible: the next kernel has no CONFIG_OF \
             (config-6.12.0-tiny beside the image), and would overwrite the pools\n\
             hint: use --pool-protect indirect (Linux 5.5 and later) or --pool-protect reserved (every kernel)\n"
        );
    }
}

#[test]
fn another_pmpool_on_the_command_line() {
    for (line, why) in [
        (
            "pmpool=0x10000000,32M",
            "the new command line says pmpool=0x10000000,32M, but the pool default_pmpool is at \
             0x10000000,0x4000000\n\
             hint: correct it, or leave it out with --remove pmpool\n",
        ),
        (
            "pmpool=0x10000000",
            "pmpool= on the new command line names no pool: \"0x10000000\": the size is missing; use BASE,SIZE, for example 512M,64M\n",
        ),
    ] {
        let args = ["--pool", POOL, "--cmdline", line];
        assert_eq!(refused(&knowing(), "bios-512m", &args), why);
    }
}

#[test]
fn a_parameter_goes_where_the_kernel_reads_it() {
    let args = [
        "--pool",
        POOL,
        "--cmdline",
        "quiet -- single",
        "--direct",
        "off",
    ];
    let (plan, _) = plan(&knowing(), "bios-512m", &args);
    let line = "quiet pmpool=0x10000000,0x4000000 nokaslr -- single";
    assert_eq!(plan["cmdline"], line);
    let args = ["--pool", POOL, "--cmdline", "quiet x=\"y"];
    assert!(refused(&knowing(), "bios-512m", &args).contains("a double quote in it is not closed"));
}

#[test]
fn a_pmpool_that_is_no_pool() {
    let line = "pmpool=0x1000000,64M";
    let why = refused(&Lab::new(), "bios-512m", &["--cmdline", line]);
    assert!(
        why.starts_with(
            "the new command line says pmpool=0x1000000,64M, but no pool is passed to the next kernel there\n"
        ),
        "{why}"
    );
    // The one that is handed over has another name.
    let named = ["--pool", "0x1000000,64M,name=other", "--cmdline", line];
    let why = refused(&knowing(), "bios-512m", &named);
    assert!(
        why.contains("no pool is passed to the next kernel there"),
        "{why}"
    );
    // Forgotten on purpose: said, and done.
    let args = ["--cmdline", line, "--no-carry-pools"];
    let (plan, _) = plan(&Lab::new(), "bios-512m", &args);
    let warning = plan["warnings"][0].as_str().unwrap();
    assert!(warning.contains("what lies there is lost"), "{warning}");
}

#[test]
fn a_pool_that_pmpool_does_not_name_is_protected_otherwise() {
    let args = ["--pool", POOL, "--pool", "0x18000000,4M,name=second"];
    let (plan, _) = plan(&knowing(), "bios-512m", &args);
    let protections = [0, 1].map(|at| plan["pools"][at]["protection"].clone());
    assert_eq!(protections, ["kernel", "indirect"]);
    let nodes = plan["setup_data"].as_array().unwrap();
    assert_eq!(
        nodes
            .iter()
            .filter(|node| node["type"] == "INDIRECT")
            .count(),
        1
    );
}

#[test]
fn pools_that_overlap() {
    for second in ["0x13fff000,1M", "0xc000000,256M", "0x11000000,4K"] {
        let second = format!("{second},name=second");
        let why = refused(
            &knowing(),
            "bios-512m",
            &["--pool", POOL, "--pool", &second],
        );
        assert!(why.contains("overlap\n"), "{why}");
        assert!(
            why.contains("second") && why.contains("default_pmpool"),
            "{why}"
        );
    }
    let beside = ["--pool", POOL, "--pool", "0x14000000,4M,name=second"];
    let (plan, _) = plan(&knowing(), "bios-512m", &beside);
    assert_eq!(plan["pools"].as_array().unwrap().len(), 2);
}

#[test]
fn pools_where_none_can_be() {
    for (machine, pool, why) in [
        (
            "virtio-mem",
            "0x100000000,64M",
            "is in memory of the driver virtio_mem, which may remove it",
        ),
        (
            "pmem-kmem",
            "0x50000000,64M",
            "is in memory of the driver kmem, which may remove it",
        ),
        // The pmem in front of what kmem has.
        ("pmem-kmem", "0x40000000,64M", "is outside the RAM"),
        // Ends beyond the RAM, begins before it, lies where nothing is.
        ("bios-512m", "0x1c000000,128M", "is outside the RAM"),
        ("bios-512m", "0,64M", "is outside the RAM"),
        ("bios-512m", "0x40000000,64M", "is outside the RAM"),
        ("bios-512m", "0x10000000000,64M", "is outside the RAM"),
        // Across what the kernel was told to set aside, and RAM on both sides:
        // all of it is the firmware's RAM.
        ("reserved", "0x1c000000,192M", ""),
        // The firmware's own.
        ("reserved", "0x3fc00000,4M", "is outside the RAM"),
    ] {
        let args = ["--pool", pool, "--pool-protect", "reserved"];
        if why.is_empty() {
            plan(&Lab::new(), machine, &args);
        } else {
            let found = refused(&Lab::new(), machine, &args);
            assert!(found.contains(why), "{pool} on {machine}: {found}");
            assert!(found.starts_with("the pool default_pmpool at "), "{found}");
        }
    }
}

#[test]
fn no_segment_lies_in_a_pool() {
    // All RAM from 16 MiB on but the last 64 MiB.
    let pool = "0x1000000,432M";
    for protection in ["kernel", "reserved", "indirect"] {
        let args = ["--pool", pool, "--pool-protect", protection];
        let (plan, _) = plan(&knowing(), "bios-512m", &args);
        let segments = plan["segments"].as_array().unwrap();
        assert!(segments.len() > 2);
        for segment in segments {
            let mem = segment["mem"].as_str().unwrap();
            let mem = u64::from_str_radix(mem.trim_start_matches("0x"), 16).unwrap();
            let end = mem + segment["memsz"].as_u64().unwrap();
            assert!(end <= 0x100_0000 || mem >= 0x1c00_0000, "{segment}");
        }
    }
    let args = ["--pool", "0x1000000,495M", "--pool-protect", "reserved"];
    let why = refused(&knowing(), "bios-512m", &args);
    assert!(
        why.contains("not enough free memory for the kernel"),
        "{why}"
    );
}

/// `depth` nodes in each other, the root not counted.
fn deep(depth: usize) -> Vec<u8> {
    let mut blob = Blob::new();
    for _ in 0..depth {
        blob = blob.begin("deeper");
    }
    for _ in 0..depth {
        blob = blob.end();
    }
    blob.build()
}

/// `count` nodes, each the interrupt parent of the one before it, and the first
/// one of the last.
fn circle(count: u32) -> Vec<u8> {
    let nodes = 1..=count;
    let blob = nodes.fold(Blob::new(), |blob, phandle| {
        blob.begin(&format!("node-{phandle}"))
            .cell("phandle", phandle)
            .cell("interrupt-parent", phandle % count + 1)
            .end()
    });
    blob.build()
}

#[test]
fn trees_that_no_kernel_should_see() {
    let lab = Lab::new();
    let good = Blob::new().property("note", b"kept\0").build();
    let mut damaged = good.clone();
    damaged[0x28 + 0x10] = 0xff;
    for (blob, why) in [
        (
            Blob::new().property("big", &[0x5a; 256 << 10]).build(),
            "a kernel maps no more than",
        ),
        (good[..good.len() - 1].to_vec(), "cut off"),
        (good[..0x20].to_vec(), "cut off"),
        (b"not a tree".to_vec(), "not a device tree blob"),
        (damaged, "malformed"),
        (circle(2), "cycle"),
        (circle(7), "cycle"),
        (deep(100), "levels"),
    ] {
        lab.write("dtb", blob);
        let found = refused(&lab, "bios-512m", &["--dtb", "dtb"]);
        assert!(found.contains(why), "{why:?} in {found}");
    }
    // An offset more, or a level less, and it is another matter.
    lab.write("dtb", deep(30));
    plan(&lab, "bios-512m", &["--dtb", "dtb"]);
    lab.write("dtb", good);
    plan(&lab, "bios-512m", &["--dtb", "dtb"]);
}

/// A machine that was given `tree`, and runs with `cmdline`.
fn machine(lab: &Lab, tree: Option<&[u8]>, cmdline: &str) {
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/proc/cmdline", format!("{cmdline}\n"));
    if let Some(tree) = tree {
        lab.write("m/sys/firmware/fdt", tree);
    }
}

/// The pools that are planned on the machine `m`: name, start, bitmap, origin.
fn pools(lab: &Lab, args: &[&str]) -> Vec<[String; 4]> {
    let head = ["plan", "--output", "json", "--root", "m", "vmlinuz"];
    let tail = ["--pool-protect", "indirect"];
    let ended = lab.run(&[&head, args, &tail].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let plan: Value = serde_json::from_str(&ended.out).unwrap();
    let pools = plan["pools"].as_array().unwrap();
    let pools = pools.iter().map(|pool| {
        ["name", "start", "bitmap", "origin"].map(|field| pool[field].as_str().unwrap().to_owned())
    });
    pools.collect()
}

#[test]
fn pools_are_carried_over() {
    let lab = Lab::new();
    let tree = Blob::new()
        .begin("chosen")
        .pool("default_pmpool", 0x1000_0000, 0x400_0000, 0x1000_0000)
        .pool("other", 0x2000_0000, 0x400_0000, 0x2100_0000)
        .end()
        .build();
    machine(&lab, Some(&tree), "pmpool=0x10000000,64M");
    let carried = pools(&lab, &[]);
    let [first, other] = &carried[..] else {
        panic!("{carried:?}");
    };
    assert_eq!(first[..3], ["default_pmpool", "0x10000000", "0x10000000"]);
    assert_eq!(other[..3], ["other", "0x20000000", "0x21000000"]);
    assert!(other[3].contains("device tree"), "{other:?}");
    // Naming one again changes nothing, moving it is refused.
    assert_eq!(pools(&lab, &["--pool", POOL]), carried);
    let args = ["plan", "--root", "m", "vmlinuz", "--pool", "0x11000000,64M"];
    let err = lab.fails(1, &args);
    assert!(
        err.contains("(the running kernel's device tree), and --pool puts it at 0x11000000-0x14ffffff (64 MiB)"),
        "{err}"
    );
    assert!(err.contains("a pool cannot move"), "{err}");
    assert!(err.contains("hint: --no-carry-pools"), "{err}");
    assert!(pools(&lab, &["--no-carry-pools"]).is_empty());
    // A new one beside them.
    let third = ["--pool", "0x30000000,4M,name=third"];
    assert_eq!(pools(&lab, &third).len(), 3);
}

#[test]
fn a_pool_is_carried_over_by_the_command_line_alone() {
    let lab = Lab::new();
    machine(&lab, None, "quiet pmpool=256M,64M");
    let carried = pools(&lab, &[]);
    assert_eq!(carried.len(), 1);
    assert_eq!(carried[0][1], "0x10000000");
    assert!(carried[0][3].contains("command line"), "{carried:?}");
}

#[test]
fn what_the_firmware_reserves_is_no_pool_by_a_word_on_the_command_line() {
    let lab = Lab::new();
    machine(&lab, None, "pmpool=0x3ff00000,1M");
    lab.write(
        "m/proc/iomem",
        "00100000-3fefffff : System RAM\n3ff00000-3fffffff : Reserved\n",
    );
    let err = lab.fails(1, &["plan", "--root", "m", "vmlinuz"]);
    assert!(
        err.contains("is outside the RAM of this machine: 0x3ff00000-0x3fffffff is \"Reserved\""),
        "{err}"
    );
}

#[test]
fn a_malformed_carried_pool_is_not_forgotten_silently() {
    let lab = Lab::new();
    let outside = Blob::new()
        .begin("chosen")
        .pool("default_pmpool", 0x1000_0000, 0x400_0000, 0x2000_0000)
        .end()
        .build();
    let args = ["plan", "--root", "m", "vmlinuz"];
    machine(&lab, Some(&outside), "quiet");
    let err = lab.fails(1, &args);
    assert!(err.contains("default_pmpool"), "{err}");
    assert!(err.contains("hint: --no-carry-pools"), "{err}");
    assert!(pools(&lab, &["--no-carry-pools"]).is_empty());

    let lab = Lab::new();
    machine(&lab, None, "pmpool=256M");
    let err = lab.fails(1, &args);
    assert!(err.contains("pmpool="), "{err}");
    assert!(pools(&lab, &["--no-carry-pools"]).is_empty());
}

/// The running kernel's pools have nothing to do with it, and the hint does not name them.
#[test]
fn two_pools_of_one_name_on_the_command_line() {
    let pools = ["--pool", "0x21c00000,64M", "--pool", "0x10000000,64M"];
    let err = refused(&knowing(), "bios-512m", &pools);
    assert_eq!(
        err,
        "two pools have the name default_pmpool: 0x21c00000-0x25bfffff (64 MiB) (--pool) and \
         0x10000000-0x13ffffff (64 MiB) (--pool)\n\
         hint: give each --pool a name of its own, for example --pool 512M,64M,name=a\n"
    );
}
