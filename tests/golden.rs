//! What the verbs print about the captured machines: as text against the files in
//! tests/golden, as JSON against the contract and, for one plan, against a file.
//! `SNAPSHOTS=overwrite cargo test --test golden` writes the files anew; look at the
//! difference before it is committed.
//!
//! The size of purgatory depends on the compiler that built it, so its place
//! and the sums it is part of are left out.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::bzimage::TinyBzImage;
use common::contract::breaches;
use serde_json::Value;
use snapbox::data::DataFormat;
use snapbox::{Assert, Data};

fn tests(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

/// Names of the directories or files below `dir`, sorted.
fn names(dir: &Path, directories: bool) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir() == directories)
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What the program prints for a machine, and its warnings.
fn run(machine: &str, args: &[&str]) -> (String, String) {
    let lab = tempfile::tempdir().unwrap();
    fs::write(lab.path().join("vmlinuz"), TinyBzImage::direct().build()).unwrap();
    let mut initrd = include_bytes!("data/initrd/cpio").to_vec();
    initrd.resize(5000, 0);
    fs::write(lab.path().join("initrd"), initrd).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rkexec"))
        .args(args)
        .arg("--root")
        .arg(tests("machines").join(machine))
        .current_dir(lab.path())
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(0), "{machine}: {err}");
    (out, err)
}

const PLAN: [&str; 5] = ["plan", "vmlinuz", "--initrd", "initrd", "--reuse-cmdline"];

/// Everything that people see of a machine, each behind the command that prints it.
fn text(machine: &str, args: &[&str]) -> String {
    let plan = [&PLAN[..], args].concat();
    let explained = [&plan[..], &["--explain"]].concat();
    let mut doctor = plan.clone();
    doctor[0] = "doctor";
    let mut commands = vec![plan, explained, doctor];
    if args.is_empty() {
        commands.extend([vec!["memmap"], vec!["status", "-v"], vec!["doctor"]]);
    }
    let mut all = String::new();
    for command in commands {
        let (out, err) = run(machine, &command);
        all += &format!("$ rkexec {}\n{err}{}\n", command.join(" "), masked(&out));
    }
    all
}

/// Without what depends on purgatory's size.
fn masked(text: &str) -> String {
    let mut below_purgatory = false;
    let lines = text.lines().map(|line| {
        let of_purgatory = std::mem::replace(&mut below_purgatory, line.ends_with("  purgatory"));
        if below_purgatory {
            "  [PLACE]  purgatory".to_owned()
        } else if of_purgatory && line.contains(';') {
            line.split_once(';').unwrap().0.to_owned()
        } else if line.starts_with("entry:") {
            "entry:     [ADDRESS] (purgatory)".to_owned()
        } else if line.starts_with("segments (") {
            "segments:".to_owned()
        } else {
            line.to_owned()
        }
    });
    lines.map(|line| line + "\n").collect()
}

fn json(machine: &str, args: &[&str]) -> Value {
    let json = [&PLAN[..], args, &["--output", "json"]].concat();
    let (out, err) = run(machine, &json);
    assert_eq!(err, "", "warnings are a field of the JSON");
    serde_json::from_str(&out).unwrap()
}

/// A plan in full, but for what depends on purgatory's size.
fn masked_json(mut plan: Value) -> String {
    plan["entry"] = "[ADDRESS]".into();
    let segments = plan["segments"].as_array_mut().unwrap();
    let purgatory = segments
        .iter_mut()
        .find(|segment| segment["role"] == "purgatory")
        .unwrap();
    for field in ["mem", "memsz", "bufsz"] {
        purgatory[field] = "[PURGATORY]".into();
    }
    format!("{plan:#}\n")
}

/// The plans: a name, its machine, and options.
fn plans() -> Vec<(String, String, &'static [&'static str])> {
    let machines = names(&tests("machines"), true);
    assert!(machines.len() >= 5);
    let plans = machines
        .into_iter()
        .map(|machine| (machine.clone(), machine, &[][..]));
    // Of the machine with a reservation also the crash kernel.
    let crash = ("big-panic".to_owned(), "big".to_owned(), &["--panic"][..]);
    // Of the one with EFI also pools.
    let pools = &["--pool", "512M,64M", "--assume-pmpool"][..];
    let pools = ("ovmf-1g-pool".to_owned(), "ovmf-1g".to_owned(), pools);
    plans.chain([crash, pools]).collect()
}

/// The plan whose JSON is kept in full.
const IN_FULL: &str = "big-panic";

#[test]
fn the_captured_machines_for_people() {
    let golden = tests("golden");
    let assert = Assert::new().action_env("SNAPSHOTS");
    let mut expected = vec![format!("{IN_FULL}.json")];
    for (name, machine, args) in plans() {
        let file = format!("{name}.txt");
        let known = Data::read_from(&golden.join(&file), Some(DataFormat::Text)).raw();
        assert.eq(Data::text(text(&machine, args)).raw(), known);
        expected.push(file);
    }
    expected.sort();
    assert_eq!(names(&golden, false), expected, "a file of no machine");
}

#[test]
fn the_captured_machines_for_programs() {
    for (name, machine, args) in plans() {
        let plan = json(&machine, args);
        assert_eq!(breaches(&plan), [""; 0], "{name}");
        if name == IN_FULL {
            let path = tests("golden").join(format!("{name}.json"));
            let known = Data::read_from(&path, Some(DataFormat::Text)).raw();
            let assert = Assert::new().action_env("SNAPSHOTS");
            assert.eq(Data::text(masked_json(plan)).raw(), known);
        }
    }
}

#[test]
fn the_contract_can_be_broken() {
    let plan = json("ovmf-1g", &["--pool", "512M,64M", "--assume-pmpool"]);
    type Break = fn(&mut Value);
    let breaks: [(Break, &str); 8] = [
        (|plan| plan["schema"] = 2.into(), "schema is not 1"),
        (
            |plan| plan["new"] = 1.into(),
            "plan has new, which is in no contract",
        ),
        (
            |plan| drop(plan.as_object_mut().unwrap().remove("e820")),
            "plan has no e820",
        ),
        (
            |plan| plan["entry"] = 4096.into(),
            "plan.entry is 4096, not Address",
        ),
        (
            |plan| plan["segments"][0]["mem"] = "0x0100".into(),
            "plan.segments[0].mem is \"0x0100\", not Address",
        ),
        (
            |plan| plan["segments"][0]["memsz"] = "4096".into(),
            "plan.segments[0].memsz is \"4096\", not Size",
        ),
        (
            |plan| plan["segments"][0]["role"] = "backup".into(),
            "plan.segments[0].role is \"backup\", not OneOf",
        ),
        (
            |plan| plan["pools"] = Value::Null,
            "plan.pools is null, not List",
        ),
    ];
    assert_eq!(breaches(&plan), [""; 0]);
    for (break_it, said) in breaks {
        let mut plan = plan.clone();
        break_it(&mut plan);
        let breaches = breaches(&plan);
        assert!(
            matches!(breaches.as_slice(), [one] if one.starts_with(said)),
            "{said}: {breaches:?}"
        );
    }
}

/// The rows of a map fit a terminal, also above 4 GiB.
#[test]
fn the_rows_of_memmap_fit_100_columns() {
    for machine in names(&tests("machines"), true) {
        let (out, _) = run(&machine, &["memmap"]);
        let rows: Vec<&str> = out.lines().filter(|line| line.starts_with("0x")).collect();
        assert!(rows.len() > 5, "{out}");
        for row in rows {
            assert!(row.chars().count() <= 100, "{machine}: {row}");
        }
    }
}
