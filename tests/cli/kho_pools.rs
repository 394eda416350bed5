//! Pools that Kexec Handover preserves: what is planned for them, what is refused, and what
//! the next kernel's report says.

use serde_json::{Value, json};

use crate::blob::Blob;
use crate::common::bzimage::TinyBzImage;
use crate::common::contract::breaches;
use crate::common::elf;
use crate::report::{by_kho, only};
use crate::{Lab, captured};

/// A pool in the RAM of every captured machine.
const POOL: &str = "0x10000000,64M";

fn args<'a>(root: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let head = ["plan", "--root", root, "vmlinuz", "--pool", POOL];
    [&head, more].concat()
}

/// The texts of a kernel that takes pools back.
const READING: &[u8] = b"kho-v4\0luo-v5\0memfd-v2\0memblock-v1\0OF_NAME=\0";

/// A kernel that has these texts in it.
fn holding(texts: &[u8]) -> Vec<u8> {
    let kernel = elf::sections(&[(".rodata", elf::ALLOC, texts)]);
    TinyBzImage::holding(&kernel).build()
}

/// A lab with that kernel.
fn with_texts(texts: &[u8]) -> Lab {
    let lab = Lab::new();
    lab.write("vmlinuz", holding(texts));
    lab
}

/// A lab whose kernel takes pools back.
fn reading() -> Lab {
    with_texts(READING)
}

/// Why it is refused, with the hint.
#[track_caller]
fn refused(lab: &Lab, more: &[&str]) -> String {
    let root = captured("bios-512m");
    let wish = [&["--pool-protect", "kho"], more].concat();
    let err = lab.fails(1, &args(&root, &wish));
    let why = err.strip_prefix("rkexec: planning failed: ");
    assert!(why.is_some(), "{err}");
    why.unwrap().to_owned()
}

fn plan(lab: &Lab, root: &str, more: &[&str]) -> Value {
    let head = ["plan", "--root", root, "vmlinuz", "--output", "json"];
    let ended = lab.run(&[&head, more].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let plan = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(breaches(&plan), Vec::<String>::new());
    plan
}

fn number(address: &Value) -> u64 {
    u64::from_str_radix(&address.as_str().unwrap()[2..], 16).unwrap()
}

/// Start and end of each range in a list.
fn ranges(list: &Value, [start, size]: [&str; 2]) -> Vec<(u64, u64)> {
    let rows = list.as_array().unwrap().iter();
    let range = |row: &Value| {
        let start = number(&row[start]);
        (start, start + row[size].as_u64().unwrap())
    };
    rows.map(range).collect()
}

/// Where the next kernel takes pools back, and is not known to take them over itself, that
/// is what is done.
#[test]
fn a_pool_is_handed_over_by_default() {
    let lab = reading();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/sys/devices/system/cpu/possible", "0-1\n");
    let pools = ["--pool", POOL, "--pool", "0x18000000,1M,name=log"];
    let line = ["--cmdline", "quiet reserve_mem=1M:4K:log"];
    let plan = plan(&lab, "m", &[&pools[..], &line].concat());
    let protections = plan["pools"].as_array().unwrap().iter();
    let protections: Vec<_> = protections.map(|pool| &pool["protection"]).collect();
    assert_eq!(protections, ["kho", "kho"]);
    assert_eq!(
        plan["cmdline"],
        "quiet reserve_mem=1M:4K:log reserve_mem=64M:4K:default_pmpool"
    );
    let added = "reserve_mem=64M:4K:default_pmpool was added: by that the next kernel takes back what Kexec \
                 Handover preserves";
    let warnings = plan["warnings"].as_array().unwrap();
    assert_eq!(warnings.iter().filter(|said| *said == added).count(), 1);
    let kho = &plan["kho"];
    assert_eq!(kho["way"], "built");
    assert_eq!(kho["version"], "kho-v4");
    assert_eq!(kho["pools"], json!(["default_pmpool", "log"]));
    assert_eq!(kho["carried"], json!([]));
    let nodes = plan["setup_data"].as_array().unwrap();
    assert!(nodes.iter().any(|node| node["type"] == "KEXEC_KHO"));

    // Neither scratch memory nor a segment shares a byte with a pool.
    let pools = ranges(&plan["pools"], ["start", "size"]);
    let others = ranges(&kho["scratch"], ["start", "size"]);
    let others = [others, ranges(&plan["segments"], ["mem", "memsz"])].concat();
    for (start, end) in others {
        assert!(
            pools.iter().all(|pool| end <= pool.0 || pool.1 <= start),
            "{start:#x}-{end:#x}"
        );
    }
    let ram = plan["e820"].as_array().unwrap().iter();
    let ram = Value::Array(ram.filter(|row| row["type"] == 1).cloned().collect());
    for pool in pools {
        let mut ram = ranges(&ram, ["start", "size"]).into_iter();
        assert!(
            ram.any(|row| row.0 <= pool.0 && pool.1 <= row.1),
            "{pool:x?}"
        );
    }
}

/// A running kernel that was given the pool `p`, and hands it over itself.
fn handing_over() -> Lab {
    let lab = by_kho(None);
    // It was given no device tree.
    std::fs::remove_file(lab.path().join("m/sys/firmware/fdt")).unwrap();
    lab.write("m/sys/kernel/boot_params/setup_data/0/type", "0x3\n");
    let blob = Blob::new()
        .begin("p")
        .property("start", &0x2000_0000_u64.to_le_bytes())
        .property("size", &0x20_0000_u64.to_le_bytes())
        .end()
        .build();
    lab.write("m/sys/kernel/debug/kho/out/sub_fdts/memblock", blob);
    lab.write("m/proc/cmdline", "kho=on reserve_mem=2M:4K:p\n");
    lab.write("vmlinuz", holding(READING));
    lab
}

#[test]
fn a_pool_that_the_running_kernel_hands_over_stays_with_it() {
    let lab = handing_over();
    let plan = plan(&lab, "m", &["--cmdline", "quiet"]);
    assert_eq!(plan["syscall"]["name"], "kexec_file_load");
    assert_eq!(plan["cmdline"], "quiet reserve_mem=2M:4K:p");
    assert_eq!(plan["pools"], json!([]));
    // Nothing can be added to what it hands over.
    let more = [
        "--pool",
        "0x30000000,1M",
        "--pool-protect",
        "kho",
        "--cmdline",
        "quiet",
    ];
    let args = [&["plan", "--root", "m", "vmlinuz"], &more[..]].concat();
    let err = lab.fails(1, &args);
    assert!(err.contains("Kexec Handover"), "{err}");
    // It cannot move.
    let more = ["--pool", "0x30000000,2M,name=p", "--cmdline", "quiet"];
    let err = lab.fails(
        1,
        &[&["plan", "--root", "m", "vmlinuz"], &more[..]].concat(),
    );
    assert!(err.contains("a pool cannot move"), "{err}");
}

#[test]
fn scratch_memory_of_the_running_kernel_is_called_so() {
    let lab = handing_over();
    let shown = "m/sys/kernel/debug/kho/out";
    lab.write(&format!("{shown}/scratch_phys"), "0x10000000\n");
    lab.write(&format!("{shown}/scratch_len"), "0x4000000\n");
    let args = ["plan", "--root", "m", "vmlinuz", "--cmdline", "kho=on"];
    let text = lab.run(&args).out;
    let said = "64 MiB  scratch memory of the running kernel\n";
    assert!(text.contains(said) && !text.contains("scratch: "), "{text}");
}

/// A kernel that cannot be unpacked: nothing tells what it reads.
#[test]
fn a_kernel_that_nothing_is_known_of() {
    let lab = Lab::new();
    lab.write("vmlinuz", TinyBzImage::new(0x1000).build());
    let why = refused(&lab, &[]);
    assert_eq!(
        why,
        "--pool-protect kho is not possible: it is not known whether the next kernel reads kho-v4\n\
         hint: use --assume-kho kho-v4 if you know that it does; else --pool-protect indirect (Linux 5.5 and \
         later) or --pool-protect reserved (every kernel)\n"
    );
}

#[test]
fn a_kernel_that_reads_something_else() {
    for (texts, why) in [
        (
            &b"quiet\0"[..],
            "the next kernel has no Kexec Handover (CONFIG_KEXEC_HANDOVER)",
        ),
        (
            b"kho-v3\0memblock-v1\0",
            "the next kernel reads kho-v3, and rkexec writes kho-v4",
        ),
        (
            b"kho-v4\0",
            "the next kernel takes no memory of reserve_mem= back",
        ),
    ] {
        for assumed in [&[][..], &["--assume-kho", "kho-v4"]] {
            let said = refused(&with_texts(texts), assumed);
            let start = format!(
                "--pool-protect kho is not possible: {why}\nhint: use --pool-protect indirect"
            );
            assert!(said.starts_with(&start), "{said}");
        }
    }
}

#[test]
fn words_and_names_that_the_next_kernel_does_not_take() {
    let refused = |more: &[&str]| self::refused(&reading(), more);
    let why = refused(&["--cmdline", "reserve_mem=32M:4K:default_pmpool"]);
    assert_eq!(
        why,
        "reserve_mem=32M:4K:default_pmpool of the new command line does not match default_pmpool (64 MiB at \
         0x10000000): the size is another one\n\
         hint: correct it, or take it off the line with --remove reserve_mem: rkexec adds the right one\n"
    );
    let why = refused(&["--pool", "0x18000000,4K,name=sixteen-letters_"]);
    assert!(
        why.starts_with("the name of the pool sixteen-letters_ has 16 bytes"),
        "{why}"
    );
    let words = "reserve_mem=4K:4K:x ".repeat(8);
    let why = refused(&["--cmdline", words.trim()]);
    assert!(why.contains("9 words reserve_mem="), "{why}");
}

const LOG: &str = "\
6,0,0,-;Linux version 6.12.0-tiny
6,5,0,-;KHO: found kexec handover data.
6,6,0,-;Revived memory reservation 'p' from KHO
6,7,0,-;luo: Retrieved live update data, liveupdate number: 1
";

fn json(lab: &Lab) -> Value {
    let ended = lab.run(&["report", "--root", "m", "--output", "json"]);
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn what_arrived_is_reported_by_the_kernels_log() {
    let lab = by_kho(Some(LOG));
    lab.write("m/dev/liveupdate", "");
    only(&lab, &[]);
    let text = lab.succeeds(&["report", "--root", "m"]);
    for line in [
        "Kexec Handover       as planned: kho-v4: KHO: found kexec handover data.\n",
        "session rkexec       as planned: 1 file, 5 bytes: `rkexec retrieve DIR` writes them\n",
        "pool p               as planned: 20000000-201fffff, protection kho: Revived memory",
        "\nKexec Handover:\n  state                taken over\n",
        "  pools                p\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let kho = &json(&lab)["kho"];
    assert_eq!(kho["node"], true);
    assert_eq!(kho["taken_over"], true);
    assert_eq!(kho["sessions_taken_over"], true);
    assert_eq!(kho["pools"], json!(["p"]));
    assert_eq!(kho["log_is_whole"], true);
    assert_eq!(kho["log"].as_array().unwrap().len(), 3);
}

#[test]
fn what_was_refused_differs() {
    // Without live update.
    only(&by_kho(Some(LOG)), &[("session rkexec", "missing")]);
    let lab = by_kho(Some(
        "6,0,0,-;KHO: setup: handover FDT (0x1000) is incompatible with 'kho-v5': 1\n\
         6,1,0,-;KHO: disabling KHO revival\n",
    ));
    only(
        &lab,
        &[
            ("Kexec Handover", "missing"),
            ("session rkexec", "missing"),
            ("pool p", "differs"),
        ],
    );
    let text = lab.run(&["report", "--root", "m"]).out;
    assert!(text.contains("incompatible with 'kho-v5'"), "{text}");
    assert_eq!(json(&lab)["kho"]["taken_over"], false);
}

/// A log that has lost its beginning, and one that may not be read, are no failure.
#[test]
fn what_cannot_be_seen_is_said() {
    let late = "6,900,7,-;something else\n";
    for log in [None, Some(late)] {
        let lab = by_kho(log);
        lab.write("m/dev/liveupdate", "");
        only(&lab, &[]);
        let text = lab.succeeds(&["report", "--root", "m"]);
        for item in ["Kexec Handover", "session rkexec", "pool p"] {
            let line = format!("{item:<20} cannot be checked here: ");
            assert!(text.contains(&line), "{text}");
        }
        assert_eq!(json(&lab)["kho"]["taken_over"], Value::Null);
    }
}

/// Nobody asked for Kexec Handover, so a pool that it does not take is protected otherwise.
#[test]
fn what_kexec_handover_does_not_take_is_kept_without_it() {
    // It has no CONFIG_OF: no text of that is in it.
    let lab = with_texts(b"kho-v4\0luo-v5\0memfd-v2\0memblock-v1\0");
    let root = captured("bios-512m");
    let words = "reserve_mem=4K:4K:x ".repeat(8);
    let long = ["--pool", "0x18000000,4K,name=sixteen-letters_"];
    for (more, why) in [
        (
            &long[..],
            "the name of the pool sixteen-letters_ has 16 bytes",
        ),
        (
            &["--append", "reserve_mem=32M:4K:default_pmpool"],
            "reserve_mem=32M:4K:default_pmpool of the new command line does not match",
        ),
        (&["--append", words.trim()], "9 words reserve_mem="),
        // It is found out only when there is a place for everything else.
        (&["--append", "crashkernel=2G"], "no room for "),
    ] {
        let head = ["--cmdline", "quiet", "--pool", POOL];
        let plan = plan(&lab, &root, &[&head, more].concat());
        for pool in plan["pools"].as_array().unwrap() {
            assert_eq!(pool["protection"], "indirect", "{pool}");
            let reason = pool["reason"].as_str().unwrap();
            let said = "Kexec Handover does not preserve them: ";
            let told = reason.split_once(said).map(|(_, told)| told.contains(why));
            assert_eq!(told, Some(true), "{reason}");
        }
        assert_eq!(plan["kho"], Value::Null);
        let warned = plan["warnings"].to_string();
        let said = "the pools are protected by indirect, and not by Kexec Handover: no room for ";
        assert_eq!(warned.contains(said), why == "no room for ", "{warned}");
    }
    // Files need it as well.
    lab.write("file", "x");
    let more = ["--carry", "file", "--append", "crashkernel=2G"];
    let err = lab.fails(1, &args(&root, &more));
    assert!(err.contains("no room for "), "{err}");
}

/// A running kernel without Kexec Handover that took the pool `p` back by a word.
fn took_back() -> Lab {
    let lab = by_kho(None);
    std::fs::remove_file(lab.path().join("m/sys/firmware/fdt")).unwrap();
    lab.write("m/sys/kernel/boot_params/setup_data/0/type", "0x3\n");
    lab.write("m/proc/cmdline", "quiet reserve_mem=2M:4K:p ro\n");
    lab.write("m/sys/devices/system/cpu/possible", "0-1\n");
    lab.write("vmlinuz", holding(READING));
    lab
}

/// Without the pool the word would set other memory aside, by the name of the pool.
#[test]
fn the_word_of_a_pool_goes_with_it() {
    let lab = took_back();
    let kept = plan(&lab, "m", &["--reuse-cmdline"]);
    assert_eq!(kept["cmdline"], "quiet reserve_mem=2M:4K:p ro");
    assert_eq!(kept["kho"]["pools"], json!(["p"]));
    let forgotten = plan(&lab, "m", &["--reuse-cmdline", "--no-carry-pools"]);
    assert_eq!(forgotten["cmdline"], "quiet ro");

    let otherwise = |more: &[&str]| {
        let plan = plan(&lab, "m", &[&["--pool-protect", "reserved"], more].concat());
        let warnings = plan["warnings"].as_array().unwrap().clone();
        let about = |said: &Value| said.as_str().unwrap().starts_with("reserve_mem=");
        let said: Vec<Value> = warnings.into_iter().filter(about).collect();
        (plan["cmdline"].clone(), said)
    };
    let left_out = "reserve_mem=2M:4K:p of the running command line was left out: the pool p is protected by \
                    reserved, and the next kernel would set other memory aside by its name";
    assert_eq!(
        otherwise(&["--reuse-cmdline"]),
        (json!("quiet ro"), vec![json!(left_out)])
    );
    let stays = "reserve_mem=2M:4K:p of the new command line does not take the pool p back, which is protected \
                 by reserved: the next kernel sets other memory aside by that name";
    assert_eq!(
        otherwise(&["--cmdline", "reserve_mem=2M:4K:p"]),
        (json!("reserve_mem=2M:4K:p"), vec![json!(stays)])
    );
    assert_eq!(otherwise(&["--cmdline", "quiet"]), (json!("quiet"), vec![]));
}
