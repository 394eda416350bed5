//! The running kernel's log: when it says that init was started, and its lines.
//!
//! Format: Documentation/ABI/testing/dev-kmsg. A record is one line,
//! `PRIORITY,NUMBER,MICROSECONDS,FLAGS[,…];TEXT`, and lines about its device, which begin
//! with a blank.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use super::Root;

const PATH: &str = "/dev/kmsg";
/// A read gives one record, and fails when the buffer is too small for it
/// (PRINTK_MESSAGE_MAX of kernel/printk/internal.h is 2048).
const RECORD: usize = 8192;
/// First priority of another facility than the kernel's own (LOG_USER of syslog(3)): a
/// program wrote the record.
const OF_PROGRAMS: u32 = 1 << 3;

/// When the kernel started init, on CLOCK_MONOTONIC: the time since boot. `None` when the
/// log cannot be read, or does not tell.
///
/// The log has a clock of its own, which begins at another moment. The kernel says how far
/// they are apart when its log's clock is a steady one; else they are taken to be the same.
#[must_use]
pub fn init_started(root: &Root) -> Option<Duration> {
    parse(&log(root)?)
}

/// What the kernel itself wrote.
pub(super) struct Lines {
    /// The lines, in order; those that are not UTF-8 are left out.
    pub lines: Vec<String>,
    /// Whether the first record of all is among them.
    pub whole: bool,
}

/// The lines that the kernel itself wrote; `None` when the log cannot be read.
pub(super) fn own_lines(root: &Root) -> Option<Lines> {
    let log = log(root)?;
    let mut whole = false;
    let mut lines = Vec::new();
    for line in log.split(|byte| *byte == b'\n') {
        whole |= number(line) == Some(0);
        lines.extend(record(line).map(|(_, text)| text.to_owned()));
    }
    Some(Lines { lines, whole })
}

fn log(root: &Root) -> Option<Vec<u8>> {
    match root.is_system() {
        true => read().ok(),
        false => root.read_permitted(PATH).ok()?,
    }
}

/// All records that the kernel still has.
fn read() -> io::Result<Vec<u8>> {
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(PATH)?;
    let mut log = Vec::new();
    let mut record = [0; RECORD];
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(log),
            Ok(size) => log.extend_from_slice(record.get(..size).unwrap_or_default()),
            // There is no more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(log),
            // EPIPE: records were overwritten before they were read. The rest follows.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The time of the last record by the kernel itself that says `Run PATH as init process`
/// (init/main.c, `run_init_process`). An earlier one is about a program that could not be
/// started.
fn parse(log: &[u8]) -> Option<Duration> {
    let mut records = log.split(|byte| *byte == b'\n').rev().filter_map(record);
    let is_start = |text: &str| {
        text.strip_prefix("Run ")
            .is_some_and(|rest| rest.ends_with(" as init process"))
    };
    let (logged, _) = records.by_ref().find(|(_, text)| is_start(text))?;
    let offset = records.find_map(|(_, text)| log_offset(text)).unwrap_or(0);
    let apart = Duration::from_nanos(offset.unsigned_abs());
    match offset < 0 {
        true => logged.checked_add(apart),
        false => logged.checked_sub(apart),
    }
}

/// The number of the record in `line`, counted from the first that was ever written.
/// `None`: the line is about the device of a record.
fn number(line: &[u8]) -> Option<u64> {
    line.first().filter(|byte| byte.is_ascii_digit())?;
    let mut fields = line.split(|byte| *byte == b',');
    std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
}

/// Time and text of a record by the kernel itself.
fn record(line: &[u8]) -> Option<(Duration, &str)> {
    let (head, text) = std::str::from_utf8(line).ok()?.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let microseconds = fields.nth(1)?.parse().ok()?;
    (priority < OF_PROGRAMS).then(|| (Duration::from_micros(microseconds), text))
}

/// What the clock of the log shows more than CLOCK_MONOTONIC, nanoseconds:
/// `sched_clock: Marking stable (A, OFFSET)->(B, C)` of kernel/sched/clock.c.
fn log_offset(text: &str) -> Option<i64> {
    let (numbers, _) = text
        .strip_prefix("sched_clock: Marking stable (")?
        .split_once(')')?;
    let (_, offset) = numbers.split_once(", ")?;
    offset.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
6,0,0,-;Linux version 6.12.0 (gcc)
6,300,2100000,-;Run /sbin/nothing as init process
3,301,2100100,-;Failed to execute /sbin/nothing (error -2)
6,302,2123456,-,caller=T1;Run /init as init process
 SUBSYSTEM=x
7,303,2123457,-;  with arguments:
";

    #[test]
    fn the_last_start_of_init_counts() {
        let at = |log: &str| parse(log.as_bytes());
        let started = Some(Duration::from_micros(2_123_456));
        assert_eq!(at(LOG), started);
        for junk in [
            "12,304,9000000,-;Run /x as init process\n",
            "6,304,9000000,-;Run /x as init process, they said\n",
            "6,304,9000000,-;I Run /x as init process\n",
            " Run /x as init process\n",
            "6,304,-;Run /x as init process\n",
            "6,304,x,-;Run /x as init process\n",
            "6,304,18446744073709551616,-;Run /x as init process\n",
            ";Run /x as init process\n",
        ] {
            assert_eq!(at(&format!("{LOG}{junk}")), started, "{junk}");
        }
        let bytes = [LOG.as_bytes(), b"6,1,2,-;Run /caf\xe9\n"].concat();
        assert_eq!(parse(&bytes), started);
        assert_eq!(at("6,300,2100000,-;Run"), None);
        assert_eq!(at(""), None);
    }

    /// Both clocks began at different moments.
    #[test]
    fn the_clock_of_the_log_is_corrected() {
        let with = |line: &str| parse(format!("6,200,1900000,-;{line}\n{LOG}").as_bytes());
        for (offset, microseconds) in [("-27095936", 2_150_551), ("1000000000", 1_123_456)] {
            let line = format!("sched_clock: Marking stable (6557914728, {offset})->(8355, -18)");
            let time = with(&line).unwrap();
            assert_eq!(time.as_micros(), microseconds);
        }
        let plain = parse(LOG.as_bytes());
        for junk in [
            "sched_clock: Marking stable",
            "sched_clock: Marking stable (1)->(2, 3)",
            "sched_clock: Marking stable (1, x)->(2, 3)",
            "sched_clock: Marking stable (1, 99999999999999999999)->(2, 3)",
        ] {
            assert_eq!(with(junk), plain, "{junk}");
        }
        let before_boot = "sched_clock: Marking stable (1, 9000000000)->(2, 3)";
        assert_eq!(with(before_boot), None);
    }

    #[test]
    fn a_captured_machine_may_have_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(init_started(&root), None);
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        std::fs::write(dir.path().join("dev/kmsg"), LOG).unwrap();
        assert_eq!(init_started(&root), Some(Duration::from_micros(2_123_456)));
    }
}
