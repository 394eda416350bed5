//! Requested flags for kexec_file_load, reduced to those that the running kernel takes.

use super::Decision;
use crate::base::{Syscall, version};
use crate::host::Host;
use crate::request::LoadRequest;
use crate::sys::FileFlags;

/// The first kernel that takes them. 6.17 names KEXEC_FILE_NO_CMA and refuses it.
const SINCE: (u32, u32) = (6, 18);

/// `decision` with the flags that are taken in its reason, these flags, and a warning for
/// each that has no effect.
pub(super) fn of(
    mut decision: Decision,
    request: &LoadRequest,
    host: &Host,
) -> (Decision, FileFlags, Vec<String>) {
    let (flags, idle) = taken(request.file_flags, decision.name, host);
    for flag in flags.names() {
        decision.reason += ", with ";
        decision.reason += flag;
    }
    (decision, flags, idle)
}

/// Those of `asked` that `syscall` takes on `host`, and a warning for each that has no
/// effect.
fn taken(asked: FileFlags, syscall: Syscall, host: &Host) -> (FileFlags, Vec<String>) {
    let by_segments = syscall == Syscall::KexecLoad;
    let is_taken = version(&host.release) >= Some(SINCE);
    let options = [
        (
            asked.no_cma,
            "--no-cma",
            "kexec_load puts nothing into CMA memory",
        ),
        (
            asked.force_dtb,
            "--force-dtb",
            "it is for kexec_file_load, and kexec_load is taken; --dtb FILE hands over a tree",
        ),
    ];
    let mut warnings = Vec::new();
    for (_, option, why) in options.into_iter().filter(|(asked, ..)| *asked) {
        if by_segments {
            warnings.push(format!("{option} has no effect: {why}"));
        } else if !is_taken {
            warnings.push(format!(
                "{option} has no effect: the running kernel ({}) does not take the flag; \
                 Linux 6.18 and later do",
                host.release
            ));
        }
    }
    let flags = match is_taken && !by_segments {
        true => asked,
        false => FileFlags::default(),
    };
    (flags, warnings)
}
