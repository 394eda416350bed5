//! The plans for the captured machines, as text and as JSON, against the files
//! in tests/golden. `SNAPSHOTS=overwrite cargo test --test golden` writes them
//! anew; look at the difference before it is committed.
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

/// What `rkexec plan` prints for a machine.
fn plan(machine: &str, args: &[&str]) -> String {
    let lab = tempfile::tempdir().unwrap();
    fs::write(
        lab.path().join("vmlinuz"),
        TinyBzImage::new(0x1_0000).build(),
    )
    .unwrap();
    let mut initrd = include_bytes!("data/initrd/cpio").to_vec();
    initrd.resize(5000, 0);
    fs::write(lab.path().join("initrd"), initrd).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rkexec"))
        .args(["plan", "vmlinuz", "--initrd", "initrd", "--reuse-cmdline"])
        .arg("--root")
        .arg(tests("machines").join(machine))
        .args(args)
        .current_dir(lab.path())
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*err), (Some(0), ""), "{machine}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(machine: &str, args: &[&str]) -> String {
    let mut below_purgatory = false;
    let lines = plan(machine, &[args, &["--explain"]].concat());
    let lines = lines.lines().map(|line| {
        let of_purgatory = std::mem::replace(&mut below_purgatory, line.ends_with("  purgatory"));
        if below_purgatory {
            "  [PLACE]  purgatory".to_owned()
        } else if of_purgatory {
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

fn json(machine: &str, args: &[&str]) -> String {
    let plan = plan(machine, &[args, &["--output", "json"]].concat());
    let mut plan: Value = serde_json::from_str(&plan).unwrap();
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

#[test]
fn plans_of_the_captured_machines() {
    let machines = names(&tests("machines"), true);
    assert!(machines.len() >= 5);
    let golden = tests("golden");
    let assert = Assert::new().action_env("SNAPSHOTS");
    // Of the machine with a reservation also the crash kernel.
    let plans = machines
        .iter()
        .map(|machine| (machine.clone(), machine, &[][..]));
    let crash = ("big-panic".to_owned(), &"big".to_owned(), &["--panic"][..]);
    let plans: Vec<_> = plans.chain([crash]).collect();
    for (name, machine, args) in &plans {
        for (extension, actual) in [("txt", text(machine, args)), ("json", json(machine, args))] {
            let path = golden.join(format!("{name}.{extension}"));
            let expected = Data::read_from(&path, Some(DataFormat::Text)).raw();
            assert.eq(Data::text(actual).raw(), expected);
        }
    }
    let mut expected: Vec<String> = plans
        .iter()
        .flat_map(|(name, ..)| [format!("{name}.json"), format!("{name}.txt")])
        .collect();
    expected.sort();
    assert_eq!(names(&golden, false), expected, "a plan of no machine");
}
