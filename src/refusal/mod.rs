//! From an errno to its cause and a way out.
//!
//! The kernel answers a dozen different refusals with the same EPERM or EINVAL.
//! The facts of the machine tell them apart: `checks` walks the kernel's own
//! checks in the kernel's order (kernel/kexec.c, kernel/kexec_core.c,
//! kernel/kexec_file.c) as far as facts decide them. The same list says before
//! a call that it must fail, so that no load limit is used up on it and no
//! loaded crash kernel is lost. Where no fact decides, the candidates are named
//! and none of them is claimed.

pub mod live_update;
mod refused;
mod signature;
#[cfg(test)]
mod tests;
pub mod watchdog;

use std::fmt;

use crate::base::{PAGE_SIZE, Syscall, Target, human};
use crate::host::loaded::Loaded;
use crate::host::security::{Lockdown, Security};
use crate::sys::errno::{ENOTSUPP, Errno};
use crate::sys::kexec::{Hotplug, SEGMENT_MAX};

/// What kexec_file_load keeps free at the end of every command line on x86 for
/// `elfcorehdr=`: MAX_ELFCOREHDR_STR_LEN of arch/x86/kernel/kexec-bzimage64.c.
const ELFCOREHDR_ROOM: u64 = 30;
/// Largest file kexec_file_load reads: KEXEC_FILE_SIZE_MAX of kernel/kexec_file.c.
const FILE_MAX: u64 = 4 << 30;

/// The facts of a call that is to be made or has failed: what decides about it.
///
/// Start from [`CallFacts::new`], and set what is known; a 0 or `None` is not known.
#[derive(Debug, Clone, Copy)]
pub struct CallFacts<'a> {
    /// The system call.
    pub syscall: Syscall,
    /// The image it is about.
    pub target: Target,
    /// The call unloads.
    pub unload: bool,
    /// What may forbid it, read before the call.
    pub security: &'a Security,
    /// What was loaded before the call.
    pub loaded: &'a Loaded,
    /// EFI Secure Boot is on.
    pub efi_secure_boot: Option<bool>,
    /// The hotplug flag given to kexec_load.
    pub hotplug: Option<Hotplug>,
    /// The kernel file carries a signature, valid or not.
    pub signed: Option<bool>,
    /// The kernel file is a part of a UKI, whose signature covers the whole.
    pub in_uki: bool,
    /// Length of the command line in bytes, with its NUL.
    pub cmdline_size: u64,
    /// The image's own limit, `cmdline_size` of its setup_header in bytes.
    pub cmdline_limit: Option<u64>,
    /// Number of segments.
    pub segments: usize,
    /// Sum of all memsz, bytes; for kexec_file_load at least what the kernel will need.
    pub bytes: u64,
    /// What kexec_file_load holds of the files besides, until it has copied them into the
    /// segments (`kimage_file_prepare_segments` in kernel/kexec_file.c), bytes; else 0.
    pub held: u64,
    /// The largest memsz, bytes.
    pub largest: u64,
    /// The largest input file, bytes.
    pub largest_file: u64,
    /// MemTotal in bytes.
    pub total_ram: u64,
    /// MemAvailable in bytes.
    pub available_ram: u64,
}

impl<'a> CallFacts<'a> {
    /// A load with these facts and no others.
    #[must_use]
    pub fn new(
        syscall: Syscall,
        target: Target,
        security: &'a Security,
        loaded: &'a Loaded,
    ) -> Self {
        Self {
            syscall,
            target,
            unload: false,
            security,
            loaded,
            efi_secure_boot: None,
            hotplug: None,
            signed: None,
            in_uki: false,
            cmdline_size: 0,
            cmdline_limit: None,
            segments: 0,
            bytes: 0,
            held: 0,
            largest: 0,
            largest_file: 0,
            total_ram: 0,
            available_ram: 0,
        }
    }

    /// Whether the kernel itself tells that it is built without what the configuration lacks:
    /// the configuration is its own, or /sys/kernel shows no kexec.
    #[must_use]
    pub fn kernel_tells_what_is_built(&self) -> bool {
        let has_none = self.loaded.has_sysfs && self.loaded.normal.is_none();
        self.security.config.is_own || has_none
    }

    /// The kernel is locked down, and how.
    fn lockdown(&self) -> Option<&'static str> {
        match self.security.lockdown {
            Some(Lockdown::Integrity) => Some("integrity"),
            Some(Lockdown::Confidentiality) => Some("confidentiality"),
            Some(Lockdown::None) | None => None,
        }
    }

    /// Whether no known fact forbids loading the same image through kexec_load, which
    /// checks no signature.
    fn kexec_load_is_open(&self) -> bool {
        self.security
            .forbids_kexec_load(self.efi_secure_boot)
            .is_none()
    }

    /// Whether `bytes` are more than the kernel loads. Tables are not counted.
    fn too_large(&self, bytes: u64) -> bool {
        exceeds_half_of_ram(bytes, self.total_ram)
    }
}

/// Whether `bytes` of one segment, or of all together, exceed half of the RAM, which is
/// the kernel's limit (`sanity_check_segment_list` of kexec_core.c). `total` is 0 where
/// the amount of RAM is not known.
#[must_use]
pub const fn exceeds_half_of_ram(bytes: u64, total: u64) -> bool {
    total != 0 && bytes.div_ceil(PAGE_SIZE) > total / PAGE_SIZE / 2
}

/// Why a call failed or must fail, and what the operator can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The cause, or the candidates; no capital letter, no full stop.
    pub why: String,
    /// Something the operator can do.
    pub hint: Option<String>,
    /// Where the facts behind it were read, if it follows from facts.
    pub evidence: Option<&'static str>,
}

impl Cause {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            hint: None,
            evidence: None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    fn read_from(self, evidence: &'static str) -> Self {
        Self {
            evidence: Some(evidence),
            ..self
        }
    }

    /// The facts leave several causes open.
    fn one_of(candidates: &[&str]) -> Self {
        Self::new(format!("one of: {}", candidates.join("; ")))
    }

    /// A call that a correct loader does not make.
    fn ours(why: impl fmt::Display) -> Self {
        Self::new(format!("{why}, a fault of rkexec itself"))
            .hint("please report this, with the output of `rkexec plan --output json`")
    }
}

/// A system call that failed, or was not made because it must fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    /// What was being done: `kexec_load`, `unload by kexec_load`, `load`, `exec`.
    what: String,
    /// The errno, `None` when no call was made.
    pub errno: Option<Errno>,
    /// The cause and the way out.
    pub cause: Cause,
}

impl SysError {
    /// The call of `facts` failed with `errno`.
    #[must_use]
    pub fn failed(facts: &CallFacts<'_>, errno: Errno) -> Self {
        let syscall = facts.syscall;
        Self {
            what: if facts.unload {
                format!("unload by {syscall}")
            } else {
                syscall.to_string()
            },
            errno: Some(errno),
            cause: explain(facts, errno),
        }
    }

    /// The call of `facts` must fail: the error to report instead of making it.
    #[must_use]
    pub fn forbidden(facts: &CallFacts<'_>) -> Option<Self> {
        forbidden(facts).map(|cause| Self {
            what: if facts.unload { "unload" } else { "load" }.to_owned(),
            errno: None,
            cause,
        })
    }

    /// reboot(LINUX_REBOOT_CMD_KEXEC) failed with `errno`.
    #[must_use]
    pub fn reboot(security: &Security, loaded: &Loaded, errno: Errno) -> Self {
        Self {
            what: "exec".to_owned(),
            errno: Some(errno),
            cause: explain_reboot(security, loaded, errno),
        }
    }

    /// Something the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.cause.hint.as_deref()
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.what, self.cause.why)?;
        match self.errno {
            Some(errno) => write!(f, " ({errno})"),
            None => f.write_str(" (the system call was not made)"),
        }
    }
}

impl std::error::Error for SysError {}

/// What facts tell before the call: why it must fail.
///
/// A missing system call is not among it: asking costs no limit, and a kernel
/// configuration found on disk may be another kernel's.
#[must_use]
pub fn forbidden(facts: &CallFacts<'_>) -> Option<Cause> {
    checks(facts)
        .into_iter()
        .find(|(errno, _)| *errno != libc::ENOSYS)
        .map(|(_, cause)| cause)
}

/// Why the call is missing, by the configuration that was found for this kernel: for those who
/// do not make the call.
#[must_use]
pub fn missing(facts: &CallFacts<'_>) -> Option<Cause> {
    refused::not_built(facts)
}

/// Why the call failed with `errno`.
#[must_use]
pub fn explain(facts: &CallFacts<'_>, errno: Errno) -> Cause {
    let decided = checks(facts)
        .into_iter()
        .find(|(number, _)| *number == errno.number());
    if let Some((_, cause)) = decided {
        return cause;
    }
    let file = facts.syscall == Syscall::KexecFileLoad;
    match errno.number() {
        libc::EPERM => refused::not_permitted(facts),
        libc::EACCES => refused::access_denied(facts),
        libc::ENOSYS => refused::no_such_call(facts),
        libc::EBUSY => busy(facts),
        libc::EFAULT => Cause::new(
            "the kernel could not read what it was to load: an input file became shorter meanwhile, or its \
             disk has a read error",
        )
        .hint("load again when nobody is writing the kernel and the initrd; `dmesg` names a disk that fails"),
        libc::ENOMEM => no_memory(facts),
        libc::EINVAL => invalid(facts),
        libc::EADDRNOTAVAIL => no_address(facts),
        libc::EOPNOTSUPP => Cause::new(
            "this kernel does not support kexec on this machine (as on some TDX hosts)",
        )
        .hint("`dmesg` says why; reboot through the firmware instead"),
        libc::EIO if file => Cause::one_of(&[
            "an input file was cut short while the kernel read it",
            "its disk has a read error",
        ])
        .hint("compare the kernel and the initrd with their package, and look into `dmesg`"),
        libc::ETXTBSY if file => {
            Cause::new("some process has the kernel or an initrd open for writing").hint(
                "`fuser -v FILE` names it; wait for it (an initramfs generator, a copy), then load again",
            )
        }
        libc::EFBIG if file => Cause::new("an input file is larger than 4 GiB")
            .hint("--syscall kexec_load has no such limit"),
        libc::EBADF if file => {
            Cause::ours("a file was given to the kernel that is not open for reading")
        }
        libc::ENOEXEC if file => not_executable(facts),
        libc::ENOENT if file => Cause::new("this kernel has no SHA-256 for its purgatory")
            .hint("--syscall kexec_load brings its own"),
        libc::ELIBBAD | libc::ENODATA | libc::EMSGSIZE | libc::EBADMSG | libc::ENOPKG
        | libc::ENOKEY | libc::EKEYREJECTED | ENOTSUPP
            if file =>
        {
            signature::rejected(facts, errno)
        }
        _ => unknown(&facts.syscall.to_string(), errno),
    }
}

/// Why reboot(LINUX_REBOOT_CMD_KEXEC) failed with `errno`.
#[must_use]
pub fn explain_reboot(security: &Security, loaded: &Loaded, errno: Errno) -> Cause {
    match errno.number() {
        libc::EPERM => refused::reboot_not_permitted(security),
        libc::EINVAL if loaded.normal == Some(false) => {
            Cause::new("no kernel is loaded").hint("`rkexec load KERNEL` first")
        }
        libc::EINVAL if loaded.normal == Some(true) => Cause::one_of(&[
            "this process is in a PID namespace of its own (a container), where reboot does not reach the machine",
            "the kernel was unloaded meanwhile",
        ])
        .hint("run `rkexec exec` outside of the container; `rkexec status` says what is loaded"),
        libc::EINVAL => Cause::one_of(&[
            "no kernel is loaded",
            "this process is in a PID namespace of its own (a container)",
            "this kernel is built without kexec (CONFIG_KEXEC_CORE)",
        ])
        .hint("`rkexec status` says what is loaded"),
        libc::EBUSY => Cause::new("a load, or an update after hotplug, is going on")
            .hint("try again in a moment"),
        libc::ENOSYS => refused::reboot_filtered(),
        _ => Cause::new(format!(
            "the kernel stopped before the jump: {} (since Linux 6.19 the live update \
             of open files is done first, and may refuse)",
            errno.description()
        ))
        .hint("the running kernel goes on; `dmesg` says what refused"),
    }
}

/// The checks of the kernel that facts decide, in its order: errno and cause of
/// each that must fail.
fn checks(facts: &CallFacts<'_>) -> Vec<(i32, Cause)> {
    let mut found = Vec::new();
    found.extend(refused::environment(facts).map(|cause| (libc::EOPNOTSUPP, cause)));
    found.extend(refused::crash_support(facts).map(|cause| (libc::EADDRNOTAVAIL, cause)));
    found.extend(refused::not_built(facts).map(|cause| (libc::ENOSYS, cause)));
    found.extend(refused::denied(facts).map(|cause| (libc::EPERM, cause)));
    if facts.unload {
        return found;
    }
    if facts.syscall == Syscall::KexecLoad && facts.segments > SEGMENT_MAX {
        found.push((libc::EINVAL, too_many(facts)));
    }
    if facts.target == Target::Crash && facts.loaded.crash_size == Some(0) {
        found.push((libc::EADDRNOTAVAIL, no_reservation()));
    }
    if facts.syscall == Syscall::KexecFileLoad {
        if facts.largest_file > FILE_MAX {
            let cause = Cause::new(format!(
                "an input file has {}, and kexec_file_load reads at most 4 GiB",
                human(facts.largest_file)
            ))
            .hint("--syscall kexec_load has no such limit")
            .read_from("the sizes of the kernel and the initrds");
            found.push((libc::EFBIG, cause));
        }
        found.extend(signature::missing(facts));
        found.extend(cmdline_too_long(facts).map(|cause| (libc::EINVAL, cause)));
    }
    found.extend(half_of_memory(facts).map(|cause| (libc::EINVAL, cause)));
    found
}

fn too_many(facts: &CallFacts<'_>) -> Cause {
    Cause::new(format!(
        "the image has {} segments, and the running kernel accepts at most {SEGMENT_MAX}",
        facts.segments
    ))
    .hint("give fewer modules")
}

/// What to do where no memory is reserved for a crash kernel. One size for all: a kernel
/// and an initrd of Debian 12 need about 300 MiB together to run. A plan for a reservation
/// that is there calculates its own number.
pub const MAKE_ROOM: &str = "add crashkernel=512M to the kernel's command line and reboot; that is enough for the kernel \
    and the initrd of most distributions";

fn no_reservation() -> Cause {
    Cause::new("no memory is reserved for a crash kernel")
        .hint(MAKE_ROOM)
        .read_from("/sys/kernel/kexec_crash_size: 0")
}

fn cmdline_too_long(facts: &CallFacts<'_>) -> Option<Cause> {
    let limit = facts.cmdline_limit?;
    let needed = facts.cmdline_size.saturating_add(ELFCOREHDR_ROOM);
    if facts.cmdline_size == 0 || needed <= limit {
        return None;
    }
    let length = facts.cmdline_size - 1;
    let cause = if facts.cmdline_size > limit {
        Cause::new(format!(
            "the command line is too long: {length} bytes, and the kernel accepts {limit}"
        ))
        .hint("shorten it: --remove PARAM")
    } else {
        Cause::new(format!(
            "the command line is too long for kexec_file_load: {length} bytes, and {ELFCOREHDR_ROOM} of the \
             {limit} that the kernel accepts are kept free for elfcorehdr="
        ))
        .hint("shorten it (--remove PARAM), or use --syscall kexec_load")
    };
    Some(
        cause.read_from("the new command line; the kernel's own limit: cmdline_size of its header"),
    )
}

fn half_of_memory(facts: &CallFacts<'_>) -> Option<Cause> {
    let what = if facts.too_large(facts.largest) {
        format!("one segment takes {}", human(facts.largest))
    } else if facts.too_large(facts.bytes) {
        format!("the image takes {}", human(facts.bytes))
    } else {
        return None;
    };
    Some(
        Cause::new(format!(
            "{what}, more than half of the {} of this machine",
            human(facts.total_ram)
        ))
        .hint("use a smaller initrd, or give the machine more memory")
        .read_from("the plan (rkexec plan); /proc/meminfo: MemTotal"),
    )
}

fn busy(facts: &CallFacts<'_>) -> Cause {
    let why = match facts.target {
        Target::Normal => "another load or a crash is going on",
        Target::Crash => {
            "another load, or an update of the crash kernel after hotplug, is going on"
        }
    };
    let cause = Cause::new(why);
    match facts.security.load_limit(facts.target) {
        Some(left) if left >= 0 => cause.hint(format!(
            "try again in a moment; it was not repeated because each call uses up one of \
             kernel.{} (there were {left})",
            refused::limit_name(facts.target)
        )),
        _ => cause.hint("it was repeated for two seconds; see what else loads kernels (kdump, udev) and try again"),
    }
}

/// Why the memory that is available now may not be enough for the load; `None`: it is, or
/// the amount is not known. A crash kernel is copied into its reservation.
#[must_use]
pub fn short_of_memory(facts: &CallFacts<'_>) -> Option<Cause> {
    let available = facts.available_ram;
    let bytes = facts.bytes.saturating_add(facts.held);
    let is_short = facts.target == Target::Normal && available != 0 && bytes > available;
    is_short.then(|| {
        let held = match facts.held {
            0 => String::new(),
            held => format!(" and holds the files, {}, until then", human(held)),
        };
        Cause::new(format!(
            "the kernel copies the whole image, {}{held}, and only {} of memory are available",
            human(facts.bytes),
            human(available)
        ))
        .hint("stop a large program, or use a smaller initrd")
        .read_from("/proc/meminfo: MemAvailable")
    })
}

fn no_memory(facts: &CallFacts<'_>) -> Cause {
    if facts.unload {
        return Cause::new("the kernel had no memory for the call").hint("free memory");
    }
    if facts.target == Target::Crash {
        let reserved = match facts.loaded.crash_size {
            Some(bytes) => format!("reservation of {}", human(bytes)),
            None => "reservation".to_owned(),
        };
        return Cause::one_of(&[
            &format!(
                "the segments ({}) leave no room in the crash kernel's {reserved} for page tables \
                 and control pages",
                human(facts.bytes)
            ),
            "the running kernel has no memory for its work on them",
            "a signal ended the load",
        ])
        .hint("use a smaller initrd or a larger crashkernel=");
    }
    let available = facts.available_ram;
    if let Some(cause) = short_of_memory(facts) {
        return cause;
    }
    Cause::one_of(&[
        &format!(
            "memory is short or in pieces: the kernel copies the whole image, {} ({} were available)",
            human(facts.bytes),
            human(available)
        ),
        "a signal ended the load",
    ])
    .hint("stop a large program, or use a smaller initrd; `dmesg` shows failed allocations")
}

fn invalid(facts: &CallFacts<'_>) -> Cause {
    let flags = match facts.hotplug {
        Some(Hotplug::UpdateElfcorehdr) => {
            Some("this kernel does not know KEXEC_UPDATE_ELFCOREHDR (Linux 6.6)")
        }
        Some(Hotplug::CrashHotplugSupport) => {
            Some("this kernel does not know KEXEC_CRASH_HOTPLUG_SUPPORT (Linux 6.10)")
        }
        None => None,
    };
    match (facts.syscall, facts.unload, flags) {
        (_, true, _) => Cause::new("this kernel does not know a flag of the call"),
        (Syscall::KexecLoad, false, Some(flag)) => Cause::one_of(&[
            flag,
            "two segments overlap",
            "the image takes more than half of the memory",
        ])
        .hint("`rkexec plan` shows the segments; compare them with MemTotal in /proc/meminfo"),
        (Syscall::KexecLoad, false, None) => Cause::one_of(&[
            "the image takes more than half of the memory",
            "two segments overlap or one is larger than its destination (a fault of rkexec)",
            "this kernel does not know a flag of the call",
        ])
        .hint("`rkexec plan` shows the segments; compare them with MemTotal in /proc/meminfo"),
        (Syscall::KexecFileLoad, false, _) => Cause::one_of(&[
            "the kernel or the initrd became empty or is no regular file",
            "the command line is longer than the kernel accepts, less 30 bytes",
            "the image takes more than half of the memory",
            "the image needs more than 16 segments",
            "this kernel does not know a flag of the call",
        ])
        .hint(
            "`dmesg` may say which; of these limits, --syscall kexec_load has only the one of the memory",
        ),
    }
}

fn no_address(facts: &CallFacts<'_>) -> Cause {
    match (facts.syscall, facts.target, facts.loaded.crash_size) {
        (_, Target::Crash, None) => Cause::one_of(&[
            "no memory is reserved for a crash kernel",
            "the image does not fit into the reservation",
        ])
        .hint("`grep 'Crash kernel' /proc/iomem` shows the reservation; crashkernel= makes it"),
        (Syscall::KexecLoad, Target::Crash, Some(reserved)) => Cause::one_of(&[
            &format!(
                "the crash kernel's reservation ({}) is not where it was when the load was planned",
                human(reserved)
            ),
            "a segment or the entry lies outside of it (a fault of rkexec)",
        ])
        .hint("load again; `rkexec status` shows the reservation"),
        (Syscall::KexecFileLoad, Target::Crash, Some(reserved)) => Cause::new(format!(
            "the kernel found no place for the image in the crash kernel's reservation of {}",
            human(reserved)
        ))
        .hint("use a smaller initrd or a larger crashkernel="),
        (Syscall::KexecLoad, Target::Normal, _) => Cause::ours(
            "a segment is not aligned to pages or lies beyond the memory this kernel can address",
        ),
        (Syscall::KexecFileLoad, Target::Normal, _) if facts.security.kho.on => Cause::new(
            "the image does not fit into the scratch memory of Kexec Handover, the only place \
             where the kernel may put it",
        )
        .hint("boot with a larger kho_scratch=, or use a smaller initrd"),
        (Syscall::KexecFileLoad, Target::Normal, _) => {
            let cause = Cause::new("the kernel found no free range large enough for the image");
            if facts.kexec_load_is_open() {
                cause.hint(
                    "--syscall kexec_load places the segments itself: `rkexec plan` shows where",
                )
            } else {
                cause.hint("use a smaller initrd")
            }
        }
    }
}

fn not_executable(facts: &CallFacts<'_>) -> Cause {
    let cause = Cause::one_of(&[
        "the file is no bzImage of boot protocol 2.12 or later, or is cut short",
        "it is a zImage",
        "it has no 64-bit entry (XLF_KERNEL_64)",
        "it cannot be loaded above 4 GiB (XLF_CAN_BE_LOADED_ABOVE_4G)",
        "this machine's EFI is a 32-bit one",
        "this machine runs with 5-level paging and the image cannot (XLF_5LEVEL)",
    ]);
    if facts.kexec_load_is_open() {
        cause.hint(
            "`rkexec inspect KERNEL` and `dmesg` show which; --syscall kexec_load works without the \
             4 GiB and with a 32-bit EFI",
        )
    } else {
        cause.hint("`rkexec inspect KERNEL` and `dmesg` show which")
    }
}

fn unknown(what: &str, errno: Errno) -> Cause {
    Cause::new(format!(
        "the kernel says \"{}\", an error that {what} is not known to have",
        errno.description()
    ))
    .hint("`dmesg` may say more; a security module or a filter of this container may be the cause")
}
