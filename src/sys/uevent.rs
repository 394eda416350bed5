//! Waits for the kernel's device events (kobject uevents, over netlink) and for
//! the signals that end this process, both at once.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

/// The multicast group that the kernel itself sends to; udev sends to another.
const KERNEL_GROUP: u32 = 1;
/// Longest message taken, bytes. The kernel's have at most 2048 (UEVENT_BUFFER_SIZE
/// of include/linux/kobject.h) and the device's path before that.
const MESSAGE: usize = 8192;
/// Bytes of unread messages that the kernel keeps, some thousand messages: none is read
/// while a crash kernel is loaded.
const BACKLOG: usize = 4 << 20;

/// One event of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// What happened: `add`, `remove`, `online`, `offline`, `change`, …
    pub action: String,
    /// The device below /sys.
    pub devpath: String,
    /// The subsystem: `memory`, `cpu`, …
    pub subsystem: String,
    /// The kernel's number of the event.
    pub seqnum: u64,
}

impl Uevent {
    /// Parses a message of the kernel: `ACTION@DEVPATH`, then `KEY=VALUE`, each
    /// with a NUL behind it. `None` when it is anything else, such as the
    /// messages that udev sends over the same kind of socket.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let message = std::str::from_utf8(message.strip_suffix(b"\0")?).ok()?;
        let mut strings = message.split('\0');
        let (action, devpath) = strings.next()?.split_once('@')?;
        let variables: Vec<(&str, &str)> = strings
            .map(|string| string.split_once('='))
            .collect::<Option<_>>()?;
        let value = |wanted| {
            let found = variables.iter().find(|(key, _)| *key == wanted);
            found.map(|(_, value)| *value)
        };
        if value("ACTION") != Some(action) || value("DEVPATH") != Some(devpath) {
            return None;
        }
        Some(Self {
            action: action.to_owned(),
            devpath: devpath.to_owned(),
            subsystem: value("SUBSYSTEM")?.to_owned(),
            seqnum: value("SEQNUM")?.parse().ok()?,
        })
    }
}

/// Why a wait is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// An event of some device.
    Event(Uevent),
    /// There were more events than the kernel keeps, and some are lost.
    Lost,
    /// SIGTERM or SIGINT came.
    Signal(&'static str),
    /// The time is over.
    Timeout,
}

/// Listens to the kernel's events and to the signals that end this process.
#[derive(Debug)]
pub struct Listener {
    events: OwnedFd,
    signals: SignalFd,
}

impl Listener {
    /// Starts to listen. From now on SIGTERM and SIGINT do not end this thread:
    /// they are found by [`Listener::wait`].
    ///
    /// # Errors
    /// When the kernel refuses a descriptor.
    pub fn open() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let events = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // Without privilege it stays as it is: a lost event is noticed anyway.
        let _ = setsockopt(&events, sockopt::RcvBufForce, &BACKLOG);
        bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { events, signals })
    }

    /// Waits for the next event or signal, or until `timeout` is over. Events
    /// that came before are found even when the time is over already.
    ///
    /// # Errors
    /// When the kernel does not let it wait or read.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Wake> {
        // A time beyond the clock's range means never.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(signal) = self.signal()? {
                return Ok(Wake::Signal(signal));
            }
            if let Some(wake) = self.event()? {
                return Ok(wake);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Wake::Timeout);
            }
            let mut both = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut both, poll_timeout(left)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn signal(&self) -> io::Result<Option<&'static str>> {
        let Some(info) = self.signals.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        Ok(Some(Signal::try_from(number)?.as_str()))
    }

    /// The next event that is one; `None` when none is there.
    fn event(&self) -> io::Result<Option<Wake>> {
        let mut buffer = [0; MESSAGE];
        loop {
            match recvfrom::<NetlinkAddr>(self.events.as_raw_fd(), &mut buffer) {
                Ok((size, sender)) => {
                    let message = buffer.get(..size).unwrap_or_default();
                    if let Some(event) = accept(sender, message) {
                        return Ok(Some(Wake::Event(event)));
                    }
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(Some(Wake::Lost)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The event in `message`, if the kernel sent it: its port is 0.
fn accept(sender: Option<NetlinkAddr>, message: &[u8]) -> Option<Uevent> {
    (sender?.pid() == 0).then(|| Uevent::parse(message))?
}

/// In whole milliseconds, rounded up: a wait that ends too early would be
/// repeated at once.
fn poll_timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else {
        return PollTimeout::NONE;
    };
    let milliseconds = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;
    use proptest::prelude::*;

    /// As `udevadm monitor --kernel --property` shows it of Linux 6.12.
    const OFFLINE: &[u8] = b"offline@/devices/system/memory/memory9\0ACTION=offline\0\
        DEVPATH=/devices/system/memory/memory9\0SUBSYSTEM=memory\0SEQNUM=1234\0";

    #[test]
    fn an_event_of_the_kernel() {
        assert_eq!(
            Uevent::parse(OFFLINE),
            Some(Uevent {
                action: "offline".to_owned(),
                devpath: "/devices/system/memory/memory9".to_owned(),
                subsystem: "memory".to_owned(),
                seqnum: 1234,
            })
        );
    }

    #[test]
    fn what_is_none() {
        let udev = b"libudev\0\xfe\xed\xca\xfe\x28\0\0\0\x28\0\0\0\xa6\0\0\0ACTION=add\0";
        for message in [
            &b""[..],
            b"\0",
            b"libudev\0",
            udev,
            b"add@/d\0",
            b"add@/d\0ACTION=add\0DEVPATH=/d\0SUBSYSTEM=cpu\0SEQNUM=x\0",
            b"add@/d\0ACTION=add\0DEVPATH=/d\0SUBSYSTEM=cpu\0",
            b"add@/d\0ACTION=add\0DEVPATH=/d\0SEQNUM=1\0",
            b"add@/d\0ACTION=remove\0DEVPATH=/d\0SUBSYSTEM=cpu\0SEQNUM=1\0",
            b"add@/d\0ACTION=add\0DEVPATH=/e\0SUBSYSTEM=cpu\0SEQNUM=1\0",
            b"add@/d\0ACTION=add\0DEVPATH=/d\0SUBSYSTEM=cpu\0SEQNUM=1\0x\0",
            b"add@/d\0ACTION=add\0DEVPATH=/d\0SUBSYSTEM=\xff\0SEQNUM=1\0",
            b"add@/d\0ACTION=add\0DEVPATH=/d\0SUBSYSTEM=cpu\0SEQNUM=1",
        ] {
            let shown = String::from_utf8_lossy(message);
            assert_eq!(Uevent::parse(message), None, "{shown:?}");
        }
    }

    #[test]
    fn only_the_kernel_is_believed() {
        let from = |pid| accept(Some(NetlinkAddr::new(pid, KERNEL_GROUP)), OFFLINE);
        assert!(from(0).is_some());
        assert_eq!(from(1234), None);
        assert_eq!(accept(None, OFFLINE), None);
    }

    #[test]
    fn time_is_rounded_up() {
        assert!(poll_timeout(None).is_none());
        let of = |time| poll_timeout(Some(time)).as_millis();
        assert_eq!(of(Duration::from_nanos(1_000_001)), Some(2));
        assert_eq!(of(Duration::from_secs(30)), Some(30_000));
        assert!(of(Duration::MAX).is_some());
    }

    #[test]
    fn a_signal_and_a_timeout_end_a_wait() {
        let listener = Listener::open().unwrap();
        // Devices of this machine may say something meanwhile.
        let wait = |timeout| {
            let mut wakes = std::iter::repeat_with(|| listener.wait(timeout).unwrap());
            wakes
                .find(|wake| !matches!(wake, Wake::Event(_) | Wake::Lost))
                .unwrap()
        };
        assert_eq!(wait(Some(Duration::ZERO)), Wake::Timeout);
        let start = Instant::now();
        assert_eq!(wait(Some(Duration::from_millis(20))), Wake::Timeout);
        assert!(start.elapsed() >= Duration::from_millis(20));
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(wait(None), Wake::Signal("SIGTERM"));
        raise(Signal::SIGINT).unwrap();
        assert_eq!(wait(Some(Duration::ZERO)), Wake::Signal("SIGINT"));
        assert_eq!(wait(Some(Duration::ZERO)), Wake::Timeout);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_none(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Uevent::parse(&message);
        }

        #[test]
        fn what_the_kernel_writes_is_read_back(
            action in "[a-z]{1,8}",
            devpath in "(/[^\0@/]{1,8}){1,4}",
            subsystem in "[a-z_]{1,10}",
            seqnum: u64,
            more in prop::collection::vec("[A-Z_]{1,6}X=[^\0]{0,8}", 0..4),
        ) {
            let mut message = format!(
                "{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0SUBSYSTEM={subsystem}\0"
            );
            for variable in more {
                message += &format!("{variable}\0");
            }
            message += &format!("SEQNUM={seqnum}\0");
            let event = Uevent { action, devpath, subsystem, seqnum };
            prop_assert_eq!(Uevent::parse(message.as_bytes()), Some(event));
        }
    }
}
