//! `vmcore-dmesg`: what is printed of a dump, and what is refused.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::vmcore::{State, TinyRing, put};
use crate::{Ended, Lab};

/// Two records, of two lines and of bytes that are no text.
fn ring() -> TinyRing {
    let mut ring = TinyRing::new(3, 8);
    assert!(ring.write(b"Linux version 6.1\nCommand line: quiet", State::Finalized));
    assert!(ring.write("caf\u{e9} \u{1b}\t\\".as_bytes(), State::Finalized));
    assert!(ring.write(b"last \xff", State::Committed));
    ring
}

const TEXT: &str = "[    0.000000] Linux version 6.1\n               Command line: quiet\n\
    [    1.500001] caf\\xc3\\xa9 \\x1b\t\\\n[    3.000002] last \\xff\n";

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("vmcore", ring().vmcore().build());
    lab
}

#[test]
fn lines_and_records() {
    let lab = lab();
    assert_eq!(lab.succeeds(&["vmcore-dmesg", "vmcore"]), TEXT);
    assert_eq!(lab.succeeds(&["vmcore-dmesg", "vmcore", "-q"]), "");
    let json = lab.succeeds(&["vmcore-dmesg", "vmcore", "--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let line = |seq: u64, caller: &str, text: &str| json!({ "seq": seq, "ts_nsec": seq * 1_500_001_000, "caller": caller, "text": text });
    let expected = json!({
        "schema": 1,
        "release": "6.1.0-tiny",
        "lines": [
            line(0, "T7", "Linux version 6.1\nCommand line: quiet"),
            line(1, "C7", "caf\u{e9} \u{1b}\t\\"),
            line(2, "T7", "last \\xff"),
        ],
    });
    assert_eq!(json, expected);
}

/// As kexec-tools' program of that name.
#[test]
fn it_is_a_program_of_its_own() {
    let lab = lab();
    let program = lab.path().join("vmcore-dmesg");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rkexec"), &program).unwrap();
    let output = Command::new(&program)
        .arg(lab.path().join("vmcore"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), TEXT);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_log_without_records() {
    let lab = Lab::new();
    let vmcore = TinyRing::new(3, 8).vmcore();
    lab.write("vmcore", vmcore.build());
    assert_eq!(lab.succeeds(&["vmcore-dmesg", "vmcore"]), "");
    let json = lab.succeeds(&["vmcore-dmesg", "vmcore", "--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["lines"], json!([]));
}

#[test]
fn what_is_damaged_or_missing() {
    let lab = lab();
    let ring = ring();
    let whole = ring.vmcore();
    let [_, _, text] = ring.places(0);

    // The ID in the first block.
    let mut damaged = whole.clone();
    put(&mut damaged.memory, text, &[9]);
    lab.write("damaged", damaged.build());
    let rest: String = TEXT.split_inclusive('\n').skip(2).collect();
    let ended = lab.run(&["vmcore-dmesg", "damaged"]);
    let warning = "rkexec: warning: damaged records of the log that are left out: 1\n";
    assert_eq!(
        (ended.code, &*ended.out, &*ended.err),
        (Some(0), &*rest, warning)
    );

    // All but the end, where nothing was written yet.
    let file = whole.build();
    lab.write("cut", &file[..file.len() - 100]);
    let ended = lab.run(&["vmcore-dmesg", "cut"]);
    let warning = "rkexec: warning: the dump is incomplete: 100 B are missing at its end\n";
    assert_eq!(
        (ended.code, &*ended.out, &*ended.err),
        (Some(0), TEXT, warning)
    );

    // The last text: 48 + 24 bytes are before it.
    let cut = whole.memory_at() + text + 72;
    lab.write("cut", &file[..cut]);
    let expected = format!(
        "rkexec: warning: the dump is incomplete: {} B are missing at its end\n\
         rkexec: reading cut failed: records of the log that cannot be read: 1; the first: \
         the dump is cut short: it ends before a record's text at offset {cut:#x}\n\
         hint: was there room enough where the dump was saved?\n",
        file.len() - cut
    );
    for output in ["text", "json"] {
        let ended = lab.run(&["vmcore-dmesg", "cut", "--output", output]);
        assert_eq!((ended.code, &*ended.err), (Some(1), &*expected));
        if output == "text" {
            assert!(TEXT.starts_with(&ended.out) && ended.out.ends_with("\\\n"));
        } else {
            let json: Value = serde_json::from_str(&ended.out).unwrap();
            assert_eq!(json["lines"].as_array().unwrap().len(), 2);
        }
    }

    // The headers.
    lab.write("cut", &file[..100]);
    let err = lab.fails(1, &["vmcore-dmesg", "cut"]);
    assert_eq!(
        err,
        "rkexec: reading cut failed: the dump is cut short: \
         it ends before the program headers at offset 0x80\n\
         hint: was there room enough where the dump was saved?\n"
    );
}

#[test]
fn files_that_are_no_dumps() {
    let lab = lab();
    lab.write("flat", b"makedumpfile\0\0\0\0");
    lab.write("old", {
        let info = ring().info().replace("SYMBOL(prb)", "SYMBOL(log_buf)");
        crate::common::vmcore::TinyVmcore::new(Vec::new(), &info).build()
    });
    let fifo = lab.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for (name, why) in [
        (".", "it is a directory, not a file\n"),
        ("fifo", "it is neither a regular file nor a block device\n"),
        (
            "/dev/null",
            "it is neither a regular file nor a block device\n",
        ),
        ("missing", "no such file\n"),
        (
            "vmlinuz",
            "this is neither /proc/vmcore nor an ELF dump\n\
             hint: FILE must be /proc/vmcore in the crash kernel, or a copy of it\n",
        ),
        ("vmcore/x", "Not a directory (os error 20)\n"),
        (
            "flat",
            "a dump in makedumpfile's flattened format\nhint: makedumpfile -R DUMP <FILE \
             rearranges it, makedumpfile --dump-dmesg DUMP LOG reads that\n",
        ),
        (
            "old",
            "the dump of kernel 6.1.0-tiny, with the log of kernels before 5.10\n\
             hint: makedumpfile --dump-dmesg FILE LOG, or vmcore-dmesg of kexec-tools, may read it\n",
        ),
    ] {
        let err = lab.fails(1, &["vmcore-dmesg", name]);
        assert_eq!(err, format!("rkexec: reading {name} failed: {why}"));
    }
    assert!(lab.fails(2, &["vmcore-dmesg"]).contains("<FILE>"));
}

#[test]
fn a_reader_that_goes() {
    // More than fits in a pipe.
    let mut ring = TinyRing::new(10, 18);
    for _ in 0..500 {
        assert!(ring.write(&[b'x'; 500], State::Finalized));
    }
    let lab = Lab::new();
    lab.write("vmcore", ring.vmcore().build());
    for output in ["text", "json"] {
        let mut command = lab.command(&["vmcore-dmesg", "vmcore", "--output", output]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 100]).unwrap();
        drop(out);
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!((ended.code, &*ended.err), (Some(0), ""));
    }
    let mut command = lab.command(&["vmcore-dmesg", "vmcore"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ended = Ended::from(command.stdout(full).output().unwrap());
    let err = "rkexec: writing the log failed: No space left on device (os error 28)\n";
    assert_eq!((ended.code, &*ended.err), (Some(1), err));
}
