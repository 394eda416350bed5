//! Requested flags for kexec_file_load, reduced to those that the running kernel takes.

use super::Plan;
use crate::base::{Syscall, version};
use crate::host::Host;
use crate::request::LoadRequest;
use crate::sys::FileFlags;

/// The first kernel that takes them. 6.17 names KEXEC_FILE_NO_CMA and refuses it.
const SINCE: (u32, u32) = (6, 18);

impl Plan<'_> {
    /// Takes the flags of `request`, and warns of those that have no effect.
    pub(super) fn take_file_flags(&mut self, request: &LoadRequest, host: &Host) {
        let asked = request.file_flags;
        let by_segments = self.syscall.name == Syscall::KexecLoad;
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
        for (_, option, why) in options.into_iter().filter(|(asked, ..)| *asked) {
            if by_segments {
                self.warnings.push(format!("{option} has no effect: {why}"));
            } else if !is_taken {
                self.warnings.push(format!(
                    "{option} has no effect: the running kernel ({}) does not take the flag; \
                     Linux 6.18 and later do",
                    host.release
                ));
            }
        }
        if !by_segments && is_taken {
            self.file_flags = asked;
            for name in asked.names() {
                self.syscall.reason += ", with ";
                self.syscall.reason += name;
            }
        }
    }

    /// Whether the running kernel hands over its own device tree.
    pub(super) const fn keeps_the_running_tree(&self) -> bool {
        let FileFlags { force_dtb, .. } = self.file_flags;
        force_dtb
    }
}
