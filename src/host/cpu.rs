//! /proc/cpuinfo and /proc/meminfo: the few facts that decide something.

use bstr::BStr;

use super::{HostError, Root};
use crate::cmdline;

const CPUINFO: &str = "/proc/cpuinfo";
const MEMINFO: &str = "/proc/meminfo";

/// What this CPU, as the running kernel uses it, can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// 5-level paging is on: flag `la57` and no `no5lvl` on the command line.
    pub la57: bool,
    /// Confidential guest (`tdx_guest`, `sev_snp`, …), by its flag.
    pub confidential: Option<&'static str>,
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

pub(super) fn read(root: &Root, line: &BStr) -> Result<Cpu, HostError> {
    Cpu::parse(&root.read(CPUINFO)?, line).map_err(|what| HostError::malformed(CPUINFO, what))
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

/// Cached bytes not yet written to disk or server; `None` when not known.
#[must_use]
pub fn unwritten(root: &Root) -> Option<u64> {
    let meminfo = root.read(MEMINFO).ok()?;
    let meminfo = String::from_utf8_lossy(&meminfo);
    let field = |key| field(&meminfo, key).ok()?;
    Some(field("Dirty")? + field("Writeback")?)
}

/// Whether more CMA memory is free than all areas of CMA have together: the rest is
/// scratch memory of Kexec Handover, which is in none of them.
pub(super) fn has_unaccounted_cma(root: &Root) -> bool {
    let meminfo = root.read(MEMINFO).unwrap_or_default();
    let meminfo = String::from_utf8_lossy(&meminfo);
    let field = |key| field(&meminfo, key).ok()?;
    field("CmaFree") > field("CmaTotal")
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
