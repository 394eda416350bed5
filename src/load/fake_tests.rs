//! A running kernel that does what a test has it do, and somebody who is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use super::{RunningKernel, Tell};
use crate::base::{Syscall, Target};
use crate::host::{Host, HostError};
use crate::sys::kexec::WhenBusy;
use crate::sys::{Errno, FileFlags, Hotplug, KexecSegment};

/// What happens in one call, and its answer.
type Event = Box<dyn FnOnce(&FakeKernel) -> Result<(), i32>>;

/// The kernel of a machine: what is loaded is a fact of `host`, as in sysfs.
pub(crate) struct FakeKernel {
    pub(crate) host: RefCell<Host>,
    /// The facts cannot be read.
    pub(crate) is_mute: Cell<bool>,
    /// What happens in the next calls. After them, each call succeeds.
    events: RefCell<VecDeque<Event>>,
    /// The calls that were made: `kexec_load crash`.
    calls: RefCell<Vec<String>>,
    /// The segment that kexec_load was to enter: purgatory.
    pub(crate) entered: RefCell<Vec<u8>>,
}

impl FakeKernel {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host: RefCell::new(host),
            is_mute: Cell::new(false),
            events: RefCell::default(),
            calls: RefCell::default(),
            entered: RefCell::default(),
        }
    }

    /// `event` happens in the call after those that are told already.
    pub(crate) fn then(&self, event: impl FnOnce(&Self) -> Result<(), i32> + 'static) -> &Self {
        self.events.borrow_mut().push_back(Box::new(event));
        self
    }

    /// The next call fails, and changes nothing.
    pub(crate) fn then_fails(&self, errno: i32) -> &Self {
        self.then(move |_| Err(errno))
    }

    /// The next call fails, and what was loaded for a panic is gone.
    pub(crate) fn then_throws_out(&self, errno: i32) -> &Self {
        self.then(move |kernel| {
            kernel.host.borrow_mut().loaded.crash = Some(false);
            Err(errno)
        })
    }

    /// The calls since this was asked last.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.take()
    }

    fn call(&self, name: String, target: Target, loads: bool) -> Result<(), Errno> {
        self.calls.borrow_mut().push(format!("{name} {target}"));
        let event = self.events.borrow_mut().pop_front();
        event
            .map_or(Ok(()), |event| event(self))
            .map_err(Errno::new)?;
        let loaded = &mut self.host.borrow_mut().loaded;
        match target {
            Target::Normal => loaded.normal = Some(loads),
            Target::Crash => loaded.crash = Some(loads),
        }
        Ok(())
    }
}

impl RunningKernel for FakeKernel {
    fn facts(&self, target: Target) -> Result<Host, HostError> {
        if self.is_mute.get() {
            return Err(HostError::Hidden);
        }
        let mut host = self.host.borrow().clone();
        if target == Target::Normal {
            host.crash = Default::default();
        }
        Ok(host)
    }

    fn is_crash_loaded(&self) -> Result<Option<bool>, HostError> {
        Ok(self.host.borrow().loaded.crash)
    }

    fn kexec_load(
        &self,
        entry: u64,
        segments: &[KexecSegment<'_>],
        target: Target,
        _: Option<Hotplug>,
        _: WhenBusy,
    ) -> Result<(), Errno> {
        let mut segments = segments.iter();
        let has_entry = |segment: &&KexecSegment<'_>| {
            (segment.mem..segment.mem + segment.memsz).contains(&entry)
        };
        let entered = segments.find(has_entry).unwrap();
        *self.entered.borrow_mut() = entered.buf.to_vec();
        self.call("kexec_load".to_owned(), target, true)
    }

    fn kexec_file_load(
        &self,
        _: BorrowedFd<'_>,
        _: Option<BorrowedFd<'_>>,
        _: &CStr,
        target: Target,
        _: FileFlags,
        _: WhenBusy,
    ) -> Result<(), Errno> {
        self.call("kexec_file_load".to_owned(), target, true)
    }

    fn unload(&self, syscall: Syscall, target: Target, _: WhenBusy) -> Result<(), Errno> {
        self.call(format!("unload by {syscall}"), target, false)
    }
}

/// Keeps what the operator is told.
#[derive(Default)]
pub(crate) struct Told {
    warnings: RefCell<Vec<String>>,
    notes: RefCell<Vec<String>>,
}

impl Told {
    /// The warnings since this was asked last.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// The notes since this was asked last.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.take()
    }
}

impl Tell for Told {
    fn warn(&self, warning: &str) {
        self.warnings.borrow_mut().push(warning.to_owned());
    }

    fn note(&self, line: &str) {
        self.notes.borrow_mut().push(line.to_owned());
    }
}
