//! What is left of a guest that ended.

use std::collections::VecDeque;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::witness::{Records, Stage};

/// Why a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It switched the power off through ACPI.
    PowerOff,
    /// It reset the machine: panic=-1, a triple fault, or reboot.
    Reset,
    /// The test ended it.
    Stopped,
    /// It was still running when its time was over.
    Timeout,
    /// QEMU ended for another reason; its exit code and last words.
    Qemu(String),
    /// QEMU itself broke down; its signal and last words.
    Died(String),
}

/// A guest that ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) records: Records,
    /// What the console showed.
    pub(crate) console: String,
    /// The directory of its logs.
    pub(crate) log: PathBuf,
}

impl Outcome {
    /// What stage `number` reported, in a guest whose every script succeeded
    /// and which then powered off.
    pub(crate) fn stage(&self, number: u32) -> Result<Stage<'_>> {
        self.stage_of_any_end(number)
            .and_then(|stage| {
                ensure!(self.end == End::PowerOff, "it did not switch off");
                self.records.all_ended_well()?;
                Ok(stage)
            })
            .with_context(|| self.story())
    }

    /// What stage `number` reported, however the guest ended.
    pub(crate) fn stage_of_any_end(&self, number: u32) -> Result<Stage<'_>> {
        self.records.stage(number)
    }

    /// Whether the guest broke down before the first kernel reported anything, a
    /// kernel died of what the emulation is known for, which no loader can make
    /// a kernel do twice, or QEMU itself broke down.
    pub(crate) fn broke_down(&self) -> bool {
        let never_came_up = self.end != End::PowerOff && self.records.is_empty();
        let qemu_died = matches!(self.end, End::Died(_));
        never_came_up || qemu_died || self.console.contains("double fault")
    }

    /// Where the logs are, and the console's last lines.
    pub(crate) fn story(&self) -> String {
        let mut last = VecDeque::new();
        for line in self.console.lines() {
            last.push_back(line);
            if last.len() > 30 {
                last.pop_front();
            }
        }
        let console = Vec::from(last).join("\n");
        format!(
            "the guest ended by {:?}, its logs: {}\nconsole:\n{console}",
            self.end,
            self.log.display()
        )
    }
}
