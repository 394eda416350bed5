//! /proc/cpuinfo, /proc/meminfo and the clock source: the few facts that decide something.

use bstr::BStr;

use super::{HostError, Root};
use crate::cmdline;

const CPUINFO: &str = "/proc/cpuinfo";
const MEMINFO: &str = "/proc/meminfo";
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const CLOCK_SOURCES: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
/// The time stamp counter as a clock source, before and after the kernel has measured it
/// well (arch/x86/kernel/tsc.c).
const TSC: [&str; 2] = ["tsc-early", "tsc"];

/// What this CPU, as the running kernel uses it, can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// 5-level paging is on: flag `la57` and no `no5lvl` on the command line.
    pub la57: bool,
    /// Confidential guest (`tdx_guest`, `sev_snp`, …), by its flag.
    pub confidential: Option<&'static str>,
    /// The time stamp counter keeps its rate: the CPU says so (flags `constant_tsc` and
    /// `nonstop_tsc`), or the kernel keeps its own time by it, and would have dropped it
    /// for a drift.
    pub steady_tsc: bool,
}

impl Cpu {
    /// The facts in the text of /proc/cpuinfo: the `flags` of its first processor.
    ///
    /// # Errors
    /// When there is no such line.
    pub fn parse(cpuinfo: &[u8], line: &BStr) -> Result<Self, String> {
        let cpuinfo = String::from_utf8_lossy(cpuinfo);
        let flags = cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim_end() == "flags")
            .map(|(_, flags)| flags)
            .ok_or_else(|| "no line `flags`".to_owned())?;
        let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
        Ok(Self {
            la57: has("la57") && !cmdline::has(line, "no5lvl"),
            confidential: confidential(has),
            steady_tsc: has("constant_tsc") && has("nonstop_tsc"),
        })
    }
}

fn confidential(has: impl Fn(&str) -> bool) -> Option<&'static str> {
    if has("tdx_guest") {
        return Some("tdx_guest");
    }
    // A host that can run such guests shows the sev flags, too. Only a guest also has
    // the flag `hypervisor`.
    if !has("hypervisor") {
        return None;
    }
    ["sev_snp", "sev_es", "sev"]
        .into_iter()
        .find(|flag| has(flag))
}

/// How many CPUs are online, where the file shows them.
pub(super) fn count(root: &Root) -> Result<Option<u64>, HostError> {
    let Some(cpuinfo) = root.read_permitted(CPUINFO)? else {
        return Ok(None);
    };
    let cpuinfo = String::from_utf8_lossy(&cpuinfo);
    let keys = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let count = keys
        .filter(|(key, _)| key.trim_end() == "processor")
        .count() as u64;
    Ok((count > 0).then_some(count))
}

pub(super) fn read(root: &Root, line: &BStr) -> Result<Cpu, HostError> {
    let mut cpu = Cpu::parse(&root.read(CPUINFO)?, line)
        .map_err(|what| HostError::malformed(CPUINFO, what))?;
    let source = root.read_line_permitted(CLOCK_SOURCE)?;
    cpu.steady_tsc |= source.is_some_and(|source| TSC.contains(&source.as_str()));
    Ok(cpu)
}

/// By what the running kernel keeps its time, and what it could keep it by.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn clock_sources(root: &Root) -> Result<(Option<String>, Vec<String>), HostError> {
    let available = root.read_line_permitted(CLOCK_SOURCES)?.unwrap_or_default();
    let available = available.split_ascii_whitespace().map(str::to_owned);
    Ok((root.read_line_permitted(CLOCK_SOURCE)?, available.collect()))
}

/// What /proc/meminfo says, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// `MemTotal`.
    pub(super) total: u64,
    /// `MemAvailable`, 0 when not stated.
    pub(super) available: u64,
}

impl Memory {
    pub(super) fn read(root: &Root) -> Result<Self, HostError> {
        Self::parse(&root.read(MEMINFO)?).map_err(|what| HostError::malformed(MEMINFO, what))
    }

    fn parse(meminfo: &[u8]) -> Result<Self, String> {
        let meminfo = String::from_utf8_lossy(meminfo);
        Ok(Self {
            total: field(&meminfo, "MemTotal")?.ok_or_else(|| "no line `MemTotal`".to_owned())?,
            available: field(&meminfo, "MemAvailable")?.unwrap_or(0),
        })
    }
}

/// Bytes of memory that programs can still take, MemAvailable of /proc/meminfo; `None` when
/// not known.
#[must_use]
pub fn available(root: &Root) -> Option<u64> {
    let memory = Memory::read(root).ok()?;
    Some(memory.available).filter(|available| *available != 0)
}

/// Cached bytes not yet written to disk or server; `None` when not known.
#[must_use]
pub fn unwritten(root: &Root) -> Option<u64> {
    let meminfo = root.read(MEMINFO).ok()?;
    let meminfo = String::from_utf8_lossy(&meminfo);
    let field = |key| field(&meminfo, key).ok()?;
    Some(field("Dirty")? + field("Writeback")?)
}

/// What /proc/meminfo says of the scratch memory of Kexec Handover, bytes; 0 where it
/// does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Scratch {
    /// CMA memory that is free beyond what all areas of CMA have together: scratch memory
    /// is in none of them.
    pub(super) free: u64,
    /// `MemTotal`, of which it is a part.
    pub(super) of: u64,
}

impl Scratch {
    pub(super) fn read(root: &Root) -> Self {
        let meminfo = root.read(MEMINFO).unwrap_or_default();
        let meminfo = String::from_utf8_lossy(&meminfo);
        let field = |key| field(&meminfo, key).ok().flatten().unwrap_or(0);
        Self {
            free: field("CmaFree").saturating_sub(field("CmaTotal")),
            of: field("MemTotal"),
        }
    }
}

/// The line `KEY:   N kB`, in bytes.
fn field(meminfo: &str, key: &str) -> Result<Option<u64>, String> {
    for (index, line) in meminfo.lines().enumerate() {
        let Some(value) = line
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(':'))
        else {
            continue;
        };
        return value
            .trim()
            .strip_suffix(" kB")
            .and_then(|number| number.parse::<u64>().ok()?.checked_mul(1024))
            .map(Some)
            .ok_or_else(|| {
                format!(
                    "line {}: `{}` is not `{key}: N kB`",
                    index + 1,
                    line.escape_debug()
                )
            });
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(flags: &str, line: &str) -> Cpu {
        let text = format!(
            "processor\t: 0\nmodel name\t: x flags\nflags\t\t: {flags}\nbugs\t\t:\n\n\
             processor\t: 1\nflags\t\t: la57\n"
        );
        Cpu::parse(text.as_bytes(), line.into()).unwrap()
    }

    #[test]
    fn flags_of_the_first_processor() {
        assert_eq!(cpu("fpu sse", ""), Cpu::default());
        assert!(cpu("fpu la57", "quiet").la57);
        assert!(cpu("fpu la57", "no5lvlx").la57);
        assert!(!cpu("fpu la57", "quiet no5lvl").la57);
        assert!(cpu("fpu la57", "x=\"a no5lvl b\" -- no5lvl").la57);
    }

    #[test]
    fn confidential_guests_and_hosts_of_them() {
        assert_eq!(cpu("fpu tdx_guest", "").confidential, Some("tdx_guest"));
        assert_eq!(
            cpu("hypervisor sev sev_es sev_snp", "").confidential,
            Some("sev_snp")
        );
        assert_eq!(cpu("hypervisor sev", "").confidential, Some("sev"));
        assert_eq!(cpu("sme sev sev_es sev_snp", "").confidential, None);
        assert_eq!(cpu("hypervisor", "").confidential, None);
    }

    #[test]
    fn a_counter_that_keeps_its_rate() {
        let steady = |flags| cpu(flags, "").steady_tsc;
        assert!(steady("tsc constant_tsc nonstop_tsc"));
        assert!(!steady("tsc constant_tsc") && !steady("tsc nonstop_tsc") && !steady("tsc"));
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let read = || read(&root, "".into()).unwrap().steady_tsc;
        write(CPUINFO, "flags : tsc\n");
        assert!(!read());
        for (source, is_steady) in [
            ("tsc", true),
            ("tsc-early", true),
            ("hpet", false),
            ("kvm-clock", false),
        ] {
            write(CLOCK_SOURCE, &format!("{source}\n"));
            assert_eq!(read(), is_steady, "{source}");
        }
    }

    #[test]
    fn a_file_without_flags_is_malformed() {
        assert_eq!(
            Cpu::parse(b"processor : 0\n", "".into()),
            Err("no line `flags`".to_owned())
        );
        assert!(Cpu::parse(b"\xff\xfe", "".into()).is_err());
    }

    #[test]
    fn meminfo_is_in_bytes() {
        let memory =
            Memory::parse(b"MemTotal:         496872 kB\nMemTotalX: 1 kB\nMemAvailable:    1 kB\n");
        assert_eq!(
            memory,
            Ok(Memory {
                total: 496_872 << 10,
                available: 1024
            })
        );
        assert_eq!(Memory::parse(b"MemTotal: 1 kB\n").unwrap().available, 0);
        assert_eq!(
            Memory::parse(b"MemFree: 1 kB\n"),
            Err("no line `MemTotal`".to_owned())
        );
        assert_eq!(
            Memory::parse(b"a: 1 kB\nMemTotal: 12\n"),
            Err("line 2: `MemTotal: 12` is not `MemTotal: N kB`".to_owned())
        );
        assert!(Memory::parse(b"MemTotal: 18446744073709551615 kB\n").is_err());
    }
}
