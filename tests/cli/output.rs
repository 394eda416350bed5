//! What is printed: JSON by the contract, pictures, documentation.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::common::contract::breaches;
use crate::{Ended, Lab, captured};

/// `plan --output json` on a captured machine.
fn plan(lab: &Lab, machine: &str, args: &[&str]) -> Value {
    let root = captured(machine);
    let head = ["plan", "--output", "json", "--root", &root, "vmlinuz"];
    serde_json::from_str(&lab.succeeds(&[&head, args].concat())).unwrap()
}

fn is_address(value: &Value) -> bool {
    value
        .as_str()
        .and_then(|text| text.strip_prefix("0x"))
        .is_some_and(|hex| u64::from_str_radix(hex, 16).is_ok())
}

/// Every field of the contract is there, and of its type.
fn check_contract(plan: &Value) {
    assert_eq!(breaches(plan), [""; 0], "{plan}");
    assert_eq!(plan["image"]["format"], "bzImage");
    assert!(plan["image"]["version"].is_string());
    let map = plan["memory_map"].as_array().unwrap();
    assert!(!map.is_empty());
    for region in map {
        assert!(!region["sources"].as_array().unwrap().is_empty());
    }
}

#[test]
fn the_fields_of_a_plan() {
    let lab = Lab::new();
    lab.write("initrd", [1; 5000]);
    for machine in [
        "big",
        "bios-512m",
        "many-e820",
        "ovmf-1g",
        "pmem-kmem",
        "reserved",
        "virtio-mem",
    ] {
        let plan = plan(&lab, machine, &["--cmdline", "quiet", "--initrd", "initrd"]);
        check_contract(&plan);
        assert_eq!(plan["syscall"]["name"], "kexec_load");
        assert!(is_address(&plan["entry"]));
        assert_eq!(plan["cmdline"], "quiet");
        let roles: BTreeSet<&str> = plan["segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|segment| segment["role"].as_str().unwrap())
            .collect();
        assert_eq!(
            roles,
            BTreeSet::from(["kernel", "initrd", "boot_params", "setup_data", "purgatory"])
        );
    }
}

#[test]
fn the_fields_where_the_running_kernel_places_everything() {
    let lab = Lab::new();
    let plan = plan(
        &lab,
        "big",
        &["--syscall", "kexec_file_load", "--cmdline", "x"],
    );
    check_contract(&plan);
    assert_eq!(plan["syscall"]["name"], "kexec_file_load");
    assert_eq!(plan["syscall"]["reason"], "asked for with --syscall");
    assert!(plan["entry"].is_null());
    assert!(plan["segments"].as_array().unwrap().is_empty());
}

#[test]
fn every_verb_prints_one_json_object() {
    let lab = Lab::new();
    let root = captured("big");
    for args in [
        &["memmap"][..],
        &["status"],
        &["inspect", "vmlinuz"],
        &["capture", "copy"],
        &["plan", "vmlinuz", "--quiet"],
    ] {
        let args = [args, &["--root", &root, "--output", "json"]].concat();
        let object: Value = serde_json::from_str(&lab.succeeds(&args)).unwrap();
        assert_eq!(object["schema"], 1, "{args:?}");
    }
    assert_eq!(
        lab.succeeds(&["memmap", "--root", "copy"]),
        lab.succeeds(&["memmap", "--root", &root])
    );
}

#[test]
fn what_inspect_tells() {
    let lab = Lab::new();
    let json: Value =
        serde_json::from_str(&lab.succeeds(&["inspect", "vmlinuz", "--output", "json"])).unwrap();
    assert_eq!(json["format"], "bzImage");
    assert_eq!(json["release"], "6.12.0-tiny");
    assert_eq!(json["protocol"], "2.15");
    assert_eq!(json["alignment"], 0x20_0000);
    assert_eq!(json["init_size"], 0x180_0000);
    assert_eq!(json["compression"], "lz4");
    assert_eq!(json["direct"]["possible"], true);
    assert_eq!(json["direct"]["kaslr"], false);
    assert_eq!(json["xloadflags"].as_array().unwrap().len(), 7);
    let text = lab.succeeds(&["inspect", "vmlinuz"]);
    assert!(text.contains("6.12.0-tiny (builder@host) #1 SMP"), "{text}");
}

#[test]
fn the_running_command_line_is_reused_without_what_belongs_to_its_boot() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write(
        "m/proc/cmdline",
        "BOOT_IMAGE=/vmlinuz root=/dev/vda quiet initrd=\\x crashkernel=256M\n",
    );
    let line = |args: &[&str]| {
        let head = ["plan", "--output", "json", "--root", "m", "vmlinuz"];
        let plan: Value = serde_json::from_str(&lab.succeeds(&[&head, args].concat())).unwrap();
        plan["cmdline"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        line(&["--reuse-cmdline"]),
        "root=/dev/vda quiet crashkernel=256M"
    );
    assert_eq!(
        line(&[
            "--reuse-cmdline",
            "--append",
            "a b",
            "--remove",
            "quiet",
            "--append",
            "c",
            "--remove",
            "crashkernel"
        ]),
        "root=/dev/vda a b c"
    );
    assert_eq!(line(&["--cmdline", " x  y "]), " x  y ");
    assert_eq!(line(&[]), "");
}

#[test]
fn quiet_prints_nothing_for_people() {
    let lab = Lab::new();
    let root = captured("big");
    for args in [&["memmap"][..], &["status"], &["plan", "vmlinuz"]] {
        assert_eq!(lab.succeeds(&[args, &["-q", "--root", &root]].concat()), "");
    }
}

#[test]
fn explain_says_why() {
    let lab = Lab::new();
    let root = captured("pmem-kmem");
    let plan = |more: &[&str]| {
        let args = ["plan", "--root", &root, "vmlinuz", "--cmdline", "x"];
        lab.succeeds(&[&args, more].concat())
    };
    let (short, explained, full) = (plan(&[]), plan(&["--explain"]), plan(&["-v"]));
    for line in [
        "0x48000000-0x5fffffff        384 MiB  System RAM (kmem)           Persistent (legacy)  no    [5]\n",
        "[5] not passed on as RAM: its driver adds it again after boot\n",
        "      highest free address that the kernel allows (from 0x1000000 on, a multiple of 2 MiB); it needs all of the 2.3 MiB to start; 12 KiB of it are loaded, the rest is zero\n",
    ] {
        assert!(explained.contains(line), "{line}: {explained}");
        assert!(!short.contains(line), "{short}");
    }
    let sources =
        "    iomem: System RAM (kmem); firmware map: System RAM (1); boot e820: System RAM (1)\n";
    assert!(full.contains(sources), "{full}");
    assert!(!explained.contains(sources), "{explained}");
    // It adds lines, and replaces none but the ones that have less in them.
    for line in short.lines().filter(|line| !line.starts_with("passed on:")) {
        assert!(explained.contains(line), "{line}: {explained}");
    }
}

#[test]
fn the_first_lines_of_a_plan_are_the_answer() {
    let lab = Lab::new();
    lab.write("initrd", include_bytes!("../data/initrd/cpio"));
    lab.write("more", include_bytes!("../data/initrd/cpio.zst"));
    let root = captured("big");
    let args = ["plan", "--root", &root, "vmlinuz", "--initrd", "initrd"];
    let run = |more: &[&str]| lab.run(&[&args, more].concat());
    let plan = run(&["--initrd", "more", "--cmdline", "quiet"]);
    let head = [
        "can be loaded: 6.12.0-tiny, for exec, through kexec_load",
        "kernel:    vmlinuz (68 KiB, bzImage, protocol 2.15)",
        "initrd:    initrd (2 KiB)",
        "           more (1.1 KiB)",
        "cmdline:   quiet",
        "RAM:       5.9 GiB in 3 ranges for the next kernel; 4 KiB not given",
    ];
    let lines: Vec<&str> = plan.out.lines().take(head.len()).collect();
    assert_eq!(lines, head);
    assert_eq!(plan.err, "");

    let crash = run(&["--panic", "--cmdline", "quiet"]);
    let head = "can be loaded: 6.12.0-tiny, as the crash kernel, through kexec_load (1 warning)\n";
    assert!(crash.out.starts_with(head), "{}", crash.out);
    assert!(crash.err.starts_with("rkexec: warning: "), "{}", crash.err);
    assert!(!crash.out.contains("warning:"), "{}", crash.out);
    // For programs a warning is a field, and for nobody it is nothing.
    assert_eq!(
        run(&["--panic", "--cmdline", "quiet", "--output", "json"]).err,
        ""
    );
    assert_eq!(run(&["--panic", "--cmdline", "quiet", "-q"]).err, "");
}

#[test]
fn columns_stand_under_each_other() {
    let lab = Lab::new();
    for machine in ["big", "virtio-mem", "pmem-kmem"] {
        let root = captured(machine);
        let map = lab.succeeds(&["memmap", "--root", &root]);
        let mut lines = map.lines();
        assert!(lines.next().unwrap().starts_with("RAM: "), "{map}");
        let table: Vec<&str> = lines.skip(1).take_while(|line| !line.is_empty()).collect();
        let [head, rows @ ..] = table.as_slice() else {
            panic!("{map}");
        };
        for title in ["KIND", "NEXT-KERNEL", "LOAD", "WHY"] {
            let at = head.find(title).unwrap();
            for row in rows {
                assert_eq!(row.as_bytes()[at - 1], b' ', "{title}: {row}");
                assert_ne!(row.as_bytes()[at], b' ', "{title}: {row}");
            }
        }
        // All addresses are above 4 GiB in the last row.
        assert!(
            rows.iter()
                .any(|row| row.starts_with("0x100000000-") || row.starts_with("0xfd00000000-"))
        );
    }
}

#[test]
fn more_is_said_or_it_is_said_that_there_is_no_more() {
    let lab = Lab::new();
    let root = captured("big");
    for args in [
        &["plan", "vmlinuz", "--cmdline", "x"][..],
        &["memmap"],
        &["status"],
    ] {
        let args = [args, &["--root", &root]].concat();
        let more = lab.succeeds(&[&args[..], &["-v"]].concat());
        assert!(
            more.len() > lab.succeeds(&args).len() + 100,
            "{args:?}: {more}"
        );
    }
    let none = lab.run(&["inspect", "vmlinuz", "-v"]);
    assert_eq!(none.err, "rkexec: warning: -v has no effect on this verb\n");
    assert_eq!(none.code, Some(0));
}

#[test]
fn several_files_are_inspected() {
    let lab = Lab::new();
    lab.write("none", "no kernel at all");
    let text = lab.succeeds(&["inspect", "vmlinuz", "./vmlinuz"]);
    assert!(
        text.starts_with("vmlinuz:\nformat:        bzImage"),
        "{text}"
    );
    assert!(
        text.contains("\n\n./vmlinuz:\nformat:        bzImage"),
        "{text}"
    );
    let ended = lab.run(&[
        "inspect",
        "vmlinuz",
        "none",
        "./vmlinuz",
        "--output",
        "json",
    ]);
    let paths: Vec<Value> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].clone())
        .collect();
    assert_eq!(paths, ["vmlinuz", "./vmlinuz"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("reading none failed: "), "{}", ended.err);
    assert!(
        ended
            .err
            .ends_with("rkexec: inspect failed for 1 of 3 files\n"),
        "{}",
        ended.err
    );
}

/// The names of all elements, or why this is no well-formed XML: enough of the
/// rules for what has neither declarations nor comments.
fn elements(xml: &str) -> Result<Vec<String>, String> {
    let mut rest = xml.trim_end();
    let (mut open, mut names) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (text, tag) = rest.split_once('<').unwrap_or((rest, ""));
        check_text(text)?;
        if tag.is_empty() {
            return Err(format!("text at the end: {text}"));
        }
        let (tag, after) = tag.split_once('>').ok_or("a tag does not end")?;
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name.to_owned()) {
                return Err(format!("</{name}> closes something else"));
            }
        } else {
            let is_empty = tag.ends_with('/');
            let tag = tag.trim_end_matches('/');
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            check_attributes(attributes)?;
            if open.is_empty() && !names.is_empty() {
                return Err("two roots".to_owned());
            }
            names.push(name.to_owned());
            if !is_empty {
                open.push(name.to_owned());
            }
        }
    }
    open.is_empty()
        .then_some(names)
        .ok_or("not all is closed".to_owned())
}

fn check_text(text: &str) -> Result<(), String> {
    let entities = ["amp;", "lt;", "gt;", "quot;"];
    let known = |after: &str| entities.iter().any(|name| after.starts_with(name));
    if text.contains('>') || !text.split('&').skip(1).all(known) {
        return Err(format!("not escaped: {text}"));
    }
    Ok(())
}

fn check_attributes(attributes: &str) -> Result<(), String> {
    let mut rest = attributes.trim();
    let mut seen = BTreeSet::new();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").ok_or(format!("attribute {rest}"))?;
        let (value, after) = value.split_once('"').ok_or(format!("attribute {rest}"))?;
        check_text(value)?;
        if !seen.insert(name.trim()) || name.trim().contains(['"', ' ']) {
            return Err(format!("attribute {name}"));
        }
        rest = after.trim();
    }
    Ok(())
}

#[test]
fn the_xml_check_can_fail() {
    for bad in [
        "<a>",
        "<a></b>",
        "<a b=c/>",
        "<a b=\"1\" b=\"2\"/>",
        "<a/><b/>",
        "<a>&</a>",
        "<a/>x",
        "<a>1 > 0</a>",
    ] {
        assert!(elements(bad).is_err(), "{bad}");
    }
    assert_eq!(elements("<a b=\"1\"><c/>&lt;</a>\n").unwrap(), ["a", "c"]);
}

#[test]
fn a_picture_is_well_formed() {
    let lab = Lab::new();
    for machine in ["big", "many-e820", "ovmf-1g", "pmem-kmem"] {
        let plan = plan(&lab, machine, &["--cmdline", "x", "--svg", "plan.svg"]);
        let svg = fs::read_to_string(lab.path().join("plan.svg")).unwrap();
        let elements = elements(&svg).unwrap();
        assert_eq!(elements[0], "svg");
        // The background, every stretch, and every segment beside it.
        let count = |name: &str| elements.iter().filter(|element| *element == name).count();
        let (regions, segments) = (
            plan["memory_map"].as_array().unwrap().len(),
            plan["segments"].as_array().unwrap().len(),
        );
        assert!(count("rect") > regions + segments, "{machine}");
        for segment in plan["segments"].as_array().unwrap() {
            let role = segment["role"].as_str().unwrap();
            assert!(svg.contains(&format!(">{role}, ")), "{role}");
        }
    }
}

#[test]
fn a_picture_says_what_it_shows() {
    let lab = Lab::new();
    let root = captured("big");
    let args = [
        "plan",
        "--root",
        &root,
        "vmlinuz",
        "--cmdline",
        "x",
        "--svg",
        "-",
    ];
    let svg = lab.succeeds(&args);
    assert_eq!(elements(&svg).unwrap()[0], "svg");
    for text in [
        ">Memory of big, and what the next kernel 6.12.0-tiny gets of it<",
        ">not given to the next kernel<",
        ">loaded part<",
        ">0xfd00000000-0xffffffffff<",
        ">System RAM, 2.9 GiB<",
    ] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    let plan: Value =
        serde_json::from_str(&lab.succeeds(&[&args[..6], &["--output", "json"]].concat())).unwrap();
    for segment in plan["segments"].as_array().unwrap() {
        let start = u64::from_str_radix(&segment["mem"].as_str().unwrap()[2..], 16).unwrap();
        let last = start + segment["memsz"].as_u64().unwrap() - 1;
        assert!(
            svg.contains(&format!(">{start:#x}-{last:#x}<")),
            "{segment}"
        );
    }
    assert!(!lab.path().join("-").exists());
}

#[test]
fn documentation_from_the_parsers_definitions() {
    let lab = Lab::new();
    let man = lab.succeeds(&["generate", "man"]);
    assert!(man.contains(".TH RKEXEC 8"), "{man}");
    for verb in [
        "load", "plan", "exec", "unload", "status", "memmap", "inspect", "capture",
    ] {
        assert!(man.contains(&format!("rkexec\\-{verb}")), "{verb}");
        let page = lab.succeeds(&["generate", "man", verb]);
        assert!(
            page.contains(".SH NAME") && page.contains(".SH OPTIONS"),
            "{verb}"
        );
    }
    let page = lab.succeeds(&["generate", "man", "plan"]);
    assert!(page.contains("\\-\\-reuse\\-cmdline"), "{page}");
    assert_eq!(
        lab.fails(2, &["generate", "man", "nothing"]),
        "rkexec: generate failed: unknown verb \"nothing\"; rkexec --help lists the verbs\n"
    );
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = lab.succeeds(&["generate", "completions", shell]);
        assert!(
            script.contains("rkexec") && script.contains("reuse-cmdline"),
            "{shell}"
        );
        let script = lab.succeeds(&["generate", "completions", shell, "kexec"]);
        assert!(script.contains("load-panic"), "{shell}");
    }
}

/// What bash offers where a word begins with `start`, by the script for `kexec`.
fn offered(lab: &Lab, words: &[&str]) -> String {
    lab.write(
        "kexec.bash",
        lab.succeeds(&["generate", "completions", "bash", "kexec"]),
    );
    let ask = "compopt() { :; }; source ./kexec.bash; COMP_WORDS=(kexec \"$@\"); COMP_CWORD=$#
               _kexec kexec \"${COMP_WORDS[$#]}\" \"${COMP_WORDS[$#-1]}\"
               echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.current_dir(lab.path())
        .args(["-c", ask, "bash"])
        .args(words);
    let ended: Ended = bash.output().unwrap().into();
    assert_eq!((ended.code, &*ended.err), (Some(0), ""));
    ended.out.trim_end().to_owned()
}

#[test]
fn bash_completes_the_drop_in() {
    let lab = Lab::new();
    assert_eq!(offered(&lab, &["--load"]), "--load --load-panic");
    assert_eq!(offered(&lab, &["-l", "--ram"]), "--ramdisk");
    assert_eq!(
        offered(&lab, &["-l", "--type", "elf"]),
        "elf-x86_64 elf-x86"
    );
    assert!(offered(&lab, &["-l", "--initrd", "vm"]).contains("vmlinuz"));
    // Nothing of its own for the kernel: then bash offers files.
    assert_eq!(offered(&lab, &["-l", "vm"]), "");
    // What is refused is not offered.
    assert_eq!(offered(&lab, &["--real"]), "");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let lab = Lab::new();
    let root = captured("big");
    for args in [
        &["plan", "--root", &root, "vmlinuz", "--cmdline", "x"][..],
        &["memmap", "--root", &root, "--output", "json"],
        &["generate", "completions", "bash"],
        &["generate", "man"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended: Ended = lab.command(args).stdout(writer).output().unwrap().into();
        assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn an_error_that_nobody_reads_keeps_its_exit_code() {
    let lab = Lab::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = lab.command(&["inspect", "missing"]).stderr(writer).output();
    assert_eq!(ended.unwrap().status.code(), Some(1));
}

/// What a command writes to a terminal.
fn on_a_terminal(lab: &Lab, args: &str, environment: &[(&str, &str)]) -> String {
    let program = env!("CARGO_BIN_EXE_rkexec");
    let mut script = Command::new("script");
    script
        .args(["-q", "-c", &format!("{program} {args}"), "/dev/null"])
        .current_dir(lab.path())
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .envs(environment.iter().copied())
        .stdin(std::process::Stdio::null());
    String::from_utf8(script.output().unwrap().stdout).unwrap()
}

#[test]
fn warnings_hints_and_errors_are_coloured_on_a_terminal() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    let args = format!("plan vmlinuz --root {root}");
    let warning = "rkexec: \u{1b}[1m\u{1b}[33mwarning:\u{1b}[0m the command line is empty";
    let shown = on_a_terminal(&lab, &args, &[]);
    assert!(shown.contains(warning), "{shown:?}");
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = on_a_terminal(&lab, &args, &[environment]);
        assert!(shown.contains("rkexec: warning: the command"), "{shown:?}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
    // On standard output, and each stream by itself.
    let args = format!("status --root {root}");
    let hint = "  \u{1b}[1m\u{1b}[36mhint:\u{1b}[0m add crashkernel=";
    let shown = on_a_terminal(&lab, &args, &[]);
    assert!(shown.contains(hint), "{shown:?}");
    let shown = on_a_terminal(&lab, &format!("{args} | cat"), &[]);
    assert!(shown.contains("  hint: add crashkernel="), "{shown:?}");
    let error = "\u{1b}[1m\u{1b}[31mrkexec:\u{1b}[0m opening the file failed";
    let shown = on_a_terminal(&lab, "inspect missing", &[]);
    assert!(shown.contains(error), "{shown:?}");
}
