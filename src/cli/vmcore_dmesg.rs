//! `rkexec vmcore-dmesg`: the log of a kernel that crashed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::render::stream;
use super::{Context, Output};
use crate::base::human;
use crate::vmcore::{Log, ReadAt, Record, Vmcore, VmcoreError};

/// What is printed, for the man page and `--help`.
const OUTPUT: &str = "\
The lines are those of makedumpfile --dump-dmesg: seconds since boot and the text, whose further lines are indented; \
bytes that are neither printable ASCII nor white space are written as \\xNN.

As JSON: the `release` of the crashed kernel, and `lines`, one for every record, with its number `seq`, the time \
`ts_nsec` in nanoseconds, the `caller` (T and the thread's ID, or C and the CPU's number) and the `text`, in which only \
bytes that are no UTF-8 are written as \\xNN.

What is damaged or missing is left out: damaged records with a warning; for what cannot be read the exit code is 1, when \
all the rest is printed.";

/// The verb, and the program of kexec-tools that it takes the place of.
pub(super) const NAME: &str = "vmcore-dmesg";

/// Whether the program was called by that name.
pub(super) fn is_name(program: &OsString) -> bool {
    Path::new(program).file_name() == Some(NAME.as_ref())
}

/// `rkexec vmcore-dmesg`.
#[derive(Debug, Args)]
#[command(after_long_help = OUTPUT)]
pub(super) struct VmcoreDmesgArgs {
    /// /proc/vmcore, or a copy of it in ELF format.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Why `vmcore-dmesg` ends in exit code 1 after it has printed something.
#[derive(Debug, thiserror::Error)]
#[error("records of the log that cannot be read: {count}; the first")]
struct Unreadable {
    count: u64,
    #[source]
    first: VmcoreError,
}

pub(super) fn run(context: &Context, args: &VmcoreDmesgArgs) -> anyhow::Result<()> {
    let reading = || {
        format!(
            "reading {} failed",
            crate::base::bytes::shown_name(&args.file)
        )
    };
    let file = open(&args.file).with_context(reading)?;
    let size = file.metadata().with_context(reading)?.len();
    let vmcore = Vmcore::open(file).with_context(reading)?;
    // A block device has no size of that kind.
    if size > 0 && size < vmcore.end() {
        let missing = vmcore.end() - size;
        context.warn(&format!(
            "the dump is incomplete: {} are missing at its end",
            human(missing)
        ));
    }
    let mut log = vmcore.log().with_context(reading)?;

    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = match context.global.output {
        Output::Text if context.global.quiet => write_text(&mut log, &mut io::sink()),
        Output::Text => write_text(&mut log, &mut out),
        Output::Json => write_json(&mut log, vmcore.release(), &mut out),
    };
    let unreadable = match written.and_then(|unreadable| out.flush().map(|()| unreadable)) {
        // The reader has gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        other => other.context("writing the log failed")?,
    };
    let damaged = log.inconsistent();
    if damaged > 0 {
        context.warn(&format!(
            "damaged records of the log that are left out: {damaged}"
        ));
    }
    unreadable.map_or(Ok(()), |unreadable| Err(unreadable).with_context(reading))
}

/// Opens a regular file or a block device, on which a dump may lie as well.
fn open(path: &Path) -> anyhow::Result<File> {
    // O_NONBLOCK, so that a pipe without a writer is refused, not waited for.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => VmcoreError::Foreign {
            what: "no such file".to_owned(),
            hint: (path == Path::new("/proc/vmcore"))
                .then_some("/proc/vmcore exists only in the crash kernel, after a crash"),
        }
        .into(),
        _ => anyhow::Error::new(error),
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        bail!("it is a directory, not a file");
    }
    if !kind.is_file() && !kind.is_block_device() {
        bail!("it is neither a regular file nor a block device");
    }
    Ok(file)
}

/// Writes what can be read, and says what cannot.
fn write_records<R: ReadAt>(
    log: &mut Log<'_, R>,
    mut write: impl FnMut(&Record) -> io::Result<()>,
) -> io::Result<Option<Unreadable>> {
    let mut unreadable: Option<Unreadable> = None;
    for record in log {
        match record {
            Ok(record) => write(&record)?,
            Err(first) => {
                let so_far = unreadable.get_or_insert(Unreadable { count: 0, first });
                so_far.count += 1;
            }
        }
    }
    Ok(unreadable)
}

fn write_text<R: ReadAt>(
    log: &mut Log<'_, R>,
    out: &mut impl Write,
) -> io::Result<Option<Unreadable>> {
    write_records(log, |record| writeln!(out, "{record}"))
}

/// One object, record by record: the log may be larger than the memory here.
fn write_json<R: ReadAt>(
    log: &mut Log<'_, R>,
    release: Option<&str>,
    out: &mut impl Write,
) -> io::Result<Option<Unreadable>> {
    write!(out, "{{\"schema\": 1, \"release\": ")?;
    stream::compact(&mut *out, &release)?;
    write!(out, ", \"lines\": [")?;
    let mut between = "\n";
    let unreadable = write_records(log, |record| {
        let line = json!({
            "seq": record.seq,
            "ts_nsec": record.ts_nsec,
            "caller": caller(record.caller_id),
            "text": text(&record.text),
        });
        write!(out, "{between}")?;
        stream::compact(&mut *out, &line)?;
        between = ",\n";
        Ok(())
    })?;
    writeln!(out, "\n]}}")?;
    Ok(unreadable)
}

/// As kernels with CONFIG_PRINTK_CALLER print it.
fn caller(id: u32) -> String {
    const CPU: u32 = 1 << 31;
    if id & CPU == 0 {
        format!("T{id}")
    } else {
        format!("C{}", id & !CPU)
    }
}

/// UTF-8 as it is, other bytes as `\xNN`.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}
