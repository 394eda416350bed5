//! One guest: QEMU under emulation, its console in a file, its records on a
//! second serial port, and QMP to learn why it ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::num::NonZero;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
pub(crate) use crate::outcome::{End, Outcome};
use crate::witness::{Records, Stage};

/// A command line of the lab's kernels: what all of them have in common, then the
/// words given.
///
/// Emulation on a busy host fails the check that `no_timer_check` leaves out (KVM
/// guests know that by themselves). The rest is time that no test looks at: self-tests
/// of ciphers and a key derivation take a quarter of a boot under emulation, BPF's
/// reading of its types a tenth, and the jitter of an emulated clock may not satisfy
/// `jent_mod_init` for many seconds.
macro_rules! line {
    ($words:literal) => {
        concat!(
            "console=ttyS0 panic=-1 no_timer_check cryptomgr.notests \
             initcall_blacklist=jent_mod_init,crypto_kdf108_init,bpf_tcp_ca_kfunc_init,\
             bpf_dummy_struct_ops_init ",
            $words
        )
    };
}
pub(crate) use line;

/// Longest life of a guest that does not say otherwise.
const TIMEOUT: Duration = Duration::from_secs(240);
/// The flag of RFLAGS that lets interrupts through.
const INTERRUPTS: u32 = 1 << 9;

/// A guest to be started.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    name: String,
    kernel: Kernel,
    memory: String,
    cpu: String,
    cpus: u32,
    uefi: bool,
    append: String,
    args: Vec<String>,
    overlay: Archive,
    /// Whether `overlay` is the whole initramfs.
    whole: bool,
    disk: Option<PathBuf>,
    /// The firmware starts what is on the disk, and QEMU brings no kernel.
    own_loader: bool,
    timeout: Duration,
    /// It mostly sleeps.
    sleeps: bool,
}

/// A guest that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    qmp: std::process::ChildStdin,
    port: UnixStream,
    events: mpsc::Receiver<Event>,
    records: Records,
    end: Option<End>,
    /// What QEMU's monitor answered.
    answer: Option<String>,
    started: Instant,
    /// When each stage sent its first record, and QEMU's CPU time until then.
    stages: BTreeMap<u32, (f64, f64)>,
    deadline: Instant,
    log: PathBuf,
    /// Firmware may draw on the record port at every boot.
    own_loader: bool,
    _place: Option<Place>,
    /// Holds the socket of the record port.
    _sockets: tempfile::TempDir,
}

#[derive(Debug)]
enum Event {
    /// A line from the record port.
    Record(String),
    /// A line from QMP.
    Qmp(String),
    /// QMP is closed: QEMU has ended.
    Closed,
}

impl Guest {
    /// A guest that boots `kernel` first; `name` is its log's directory.
    pub(crate) fn new(name: &str, kernel: &Kernel) -> Self {
        Self {
            name: name.to_owned(),
            kernel: kernel.clone(),
            memory: "1G".to_owned(),
            cpu: "max".to_owned(),
            cpus: 1,
            uefi: false,
            append: String::new(),
            args: Vec::new(),
            overlay: Archive::new(),
            whole: false,
            disk: None,
            own_loader: false,
            timeout: TIMEOUT,
            sleeps: false,
        }
    }

    /// The Debian system of the lab, on a disk of which this guest changes a
    /// copy. Its files and scripts come on a second disk, below /run/test; when
    /// it resets it boots again, and every boot that comes up is a stage.
    pub(crate) fn debian(name: &str) -> Result<Self> {
        let kernel = Kernel::new("debian12")?;
        let mut guest = Self::new(name, &kernel).append("root=/dev/vda rw");
        guest.disk = Some(kernel.file("root.img"));
        guest
            .overlay
            .file("init", 0o755, include_bytes!("debian/init"));
        guest
            .overlay
            .file("functions", 0o644, include_bytes!("functions"));
        Ok(guest)
    }

    /// A machine that boots from `disk` by a boot loader of its own, of which this
    /// guest changes a copy. `files` come on a second disk, as an archive. When it
    /// resets it boots again.
    pub(crate) fn from_disk(name: &str, disk: &Path, files: Archive) -> Result<Self> {
        let mut guest = Self::new(name, &Kernel::new("6.12")?);
        guest.disk = Some(disk.to_owned());
        guest.own_loader = true;
        guest.overlay = files;
        Ok(guest)
    }

    /// The value of `-m`.
    pub(crate) fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.memory);
        self
    }

    /// The value of `-cpu`.
    pub(crate) fn cpu(mut self, cpu: &str) -> Self {
        cpu.clone_into(&mut self.cpu);
        self
    }

    pub(crate) fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// OVMF instead of SeaBIOS.
    pub(crate) fn uefi(mut self, uefi: bool) -> Self {
        self.uefi = uefi;
        self
    }

    /// Words for the first kernel's command line.
    pub(crate) fn append(mut self, words: &str) -> Self {
        self.append = format!("{} {words}", self.append);
        self
    }

    /// More arguments for QEMU.
    pub(crate) fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(str::to_owned));
        self
    }

    /// A file in the first kernel's initramfs.
    pub(crate) fn file(mut self, path: &str, content: &[u8]) -> Self {
        self.overlay.file(path, 0o644, content);
        self
    }

    /// A program in the first kernel's initramfs.
    pub(crate) fn executable(mut self, path: &str, content: &[u8]) -> Self {
        self.overlay.file(path, 0o755, content);
        self
    }

    /// A program of this machine, with its libraries.
    pub(crate) fn program(mut self, path: &str) -> Result<Self> {
        self.overlay.program(Path::new(path), path)?;
        Ok(self)
    }

    /// What /init runs when the first kernel has reported.
    pub(crate) fn script(self, script: &str) -> Self {
        self.file("test/stage-1", script.as_bytes())
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs beside the guests that have places: it sleeps most of the time, and takes no
    /// processor away from them.
    pub(crate) fn mostly_sleeps(mut self) -> Self {
        self.sleeps = true;
        self
    }

    /// Nothing but `archive`, and what follows, in the first kernel's initramfs.
    pub(crate) fn initramfs(mut self, archive: Archive) -> Self {
        self.overlay = archive;
        self.whole = true;
        self
    }

    /// Runs the guest to its end.
    pub(crate) fn run(self) -> Result<Outcome> {
        self.conduct(|_| Ok(()))
    }

    /// Runs the guest to its end; `host` is this machine's part in it.
    ///
    /// QEMU 7.2's emulation breaks a kernel once in some hundred boots (a
    /// double fault with garbage in EFLAGS). Before the first kernel has
    /// reported, rkexec had no part in it. Then, and when the console shows that
    /// fault or QEMU itself breaks down, the guest is given a second try, and only
    /// one: what rkexec does wrong it does wrong again.
    pub(crate) fn conduct(
        self,
        mut host: impl FnMut(&mut Running) -> Result<()>,
    ) -> Result<Outcome> {
        let (mut done, mut outcome) = self.clone().once(&mut host)?;
        if outcome.broke_down() {
            let (name, story) = (&self.name, outcome.story());
            eprintln!("{name}: a second try, as something broke down\n{story}");
            (done, outcome) = self.once(&mut host)?;
        }
        done.with_context(|| outcome.story())?;
        Ok(outcome)
    }

    fn once(
        self,
        host: &mut impl FnMut(&mut Running) -> Result<()>,
    ) -> Result<(Result<()>, Outcome)> {
        let mut guest = self.start()?;
        let done = host(&mut guest);
        if done.is_err() {
            guest.quit()?;
        }
        Ok((done, guest.finish()?))
    }

    /// QEMU's command line.
    fn command(&self, log: &Path, initrd: &Path, disks: Vec<String>, records: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-qmp", "stdio"])
            .args(["-cpu", &self.cpu, "-m", &self.memory])
            .args(["-smp", &self.cpus.to_string()])
            .arg("-serial")
            .arg(format!("file:{}", log.join("console").display()))
            .arg("-chardev")
            .arg(format!("socket,id=records,path={}", records.display()))
            .args(["-serial", "chardev:records"])
            .args(disks)
            .args(&self.args);
        if !self.own_loader {
            command
                .arg("-kernel")
                .arg(self.kernel.image())
                .arg("-initrd")
                .arg(initrd)
                .arg("-append")
                .arg(format!("{}{}", line!("quiet"), self.append));
        }
        if self.uefi {
            command.args(["-bios", "/usr/share/ovmf/OVMF.fd"]);
        }
        command
    }

    /// Starts the guest, when there is a place for it.
    fn start(mut self) -> Result<Running> {
        let overlay = std::mem::replace(&mut self.overlay, Archive::new());
        let log = lab::logs(&self.name);
        match fs::remove_dir_all(&log) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e)?,
            _ => fs::create_dir_all(&log)?,
        }
        let (initrd, disks) = match &self.disk {
            None => {
                let initrd = log.join("initrd");
                let bytes = match self.whole {
                    true => overlay.finish(),
                    false => initramfs::initrd(&self.kernel, overlay)?,
                };
                fs::write(&initrd, bytes)?;
                (initrd, vec!["-no-reboot".to_owned()])
            }
            Some(disk) => (
                self.kernel.file("initrd"),
                disks(disk, &overlay.finish(), &log)?,
            ),
        };

        let sockets = tempfile::tempdir()?;
        let socket = sockets.path().join("records");
        let listener = UnixListener::bind(&socket)?;
        let place = (!self.sleeps).then(Place::wait);

        let mut command = self.command(&log, &initrd, disks, &socket);
        fs::write(log.join("command"), format!("{command:?}\n"))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log.join("qemu"))?)
            .spawn()
            .context("starting qemu-system-x86_64: run tests/vm/setup first")?;
        let qmp = child.stdin.take().context("QMP's input")?;
        let replies = child.stdout.take().context("QMP's output")?;

        // QEMU connects before it says anything, or it ends at once.
        listener.set_nonblocking(true)?;
        let port = loop {
            match listener.accept() {
                Ok((port, _)) => break port,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => Err(e)?,
            }
            if let Some(status) = child.try_wait()? {
                bail!("QEMU: {status}: {}", fs::read_to_string(log.join("qemu"))?);
            }
            thread::sleep(Duration::from_millis(10));
        };
        port.set_nonblocking(false)?;

        let events = events(port.try_clone()?, replies);
        let mut running = Running {
            child,
            qmp,
            port,
            events,
            records: Records::default(),
            end: None,
            answer: None,
            started: Instant::now(),
            stages: BTreeMap::new(),
            deadline: Instant::now() + self.timeout,
            log,
            own_loader: self.own_loader,
            _place: place,
            _sockets: sockets,
        };
        running.execute("qmp_capabilities", &json!({}))?;
        Ok(running)
    }
}

/// The disks of a guest with a system of its own: a copy of `system` that holds
/// only what changes, and `files`, as QEMU's arguments.
fn disks(system: &Path, files: &[u8], log: &Path) -> Result<Vec<String>> {
    let copy = log.join("disk");
    lab::output(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([system, &copy]),
    )?;
    let list = log.join("files");
    fs::write(&list, files)?;
    // Nobody wants the copy when the guest is gone.
    Ok(vec![
        "-drive".to_owned(),
        format!(
            "file={},if=virtio,format=qcow2,cache=unsafe",
            copy.display()
        ),
        "-drive".to_owned(),
        format!("file={},if=virtio,format=raw,readonly=on", list.display()),
    ])
}

impl Running {
    /// Waits for the guest's end.
    fn finish(mut self) -> Result<Outcome> {
        let mut closed = false;
        while !closed {
            closed = matches!(self.next_event()?, Event::Closed);
        }
        // What was still on its way when QEMU closed QMP.
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(500)) {
            self.take(&event)?;
        }
        // Before it is reaped, else its CPU time is gone.
        let end_times = self.times();
        let status = self.child.wait()?;
        let end = match self.end.take() {
            Some(end) => end,
            None => {
                let words = fs::read_to_string(self.log.join("qemu"))?;
                let words = format!("{status}: {words}");
                match status.signal() {
                    Some(_) => End::Died(words),
                    None => End::Qemu(words),
                }
            }
        };
        self.note_times(end_times, &end)?;
        if end == End::PowerOff {
            // Large, and of no more use; after another end they are kept for a
            // second look with the command beside them.
            for name in ["initrd", "disk", "files"] {
                match fs::remove_file(self.log.join(name)) {
                    Err(e) if e.kind() != ErrorKind::NotFound => Err(e)?,
                    _ => {}
                }
            }
        }
        Ok(Outcome {
            end,
            records: std::mem::take(&mut self.records),
            console: self.console()?,
            log: self.log.clone(),
        })
    }

    /// Seconds since the start, and of them those of CPU time that QEMU had.
    fn times(&self) -> (f64, f64) {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        (self.started.elapsed().as_secs_f64(), ticks / 100.0)
    }

    /// Leaves for `tests/run` how long this took, and when each stage reported.
    fn note_times(&self, (wall, cpu): (f64, f64), end: &End) -> Result<()> {
        let mut line = format!("{wall:.1} {cpu:.1}");
        for (stage, (wall, cpu)) in &self.stages {
            line += &format!(" {stage}@{wall:.1}/{cpu:.1}");
        }
        let end = match end {
            End::Qemu(_) => "QEMU",
            End::Died(_) => "died",
            End::PowerOff => "off",
            End::Reset => "reset",
            End::Stopped => "stopped",
            End::Timeout => "timeout",
        };
        Ok(fs::write(self.log.join("time"), format!("{line} {end}\n"))?)
    }

    /// Waits until stage `stage` has sent the record `name`.
    pub(crate) fn wait_for(&mut self, stage: u32, name: &str) -> Result<Vec<u8>> {
        loop {
            if let Some(content) = self.records.get(stage, name) {
                return Ok(content.to_vec());
            }
            let event = self.next_event()?;
            ensure!(
                !matches!(event, Event::Closed),
                "{:?} before stage {stage} sent {name}",
                self.end
            );
        }
    }

    /// What stage `stage` has sent so far.
    pub(crate) fn stage(&self, stage: u32) -> Result<Stage<'_>> {
        self.records.stage(stage)
    }

    /// Waits until the console shows `text`.
    pub(crate) fn wait_for_console(&mut self, text: &str) -> Result<()> {
        let mut closed = false;
        while !self.console()?.contains(text) {
            ensure!(
                !closed && Instant::now() < self.deadline,
                "the console never showed {text:?}"
            );
            closed = match self.events.recv_timeout(Duration::from_millis(200)) {
                Ok(event) => {
                    self.take(&event)?;
                    matches!(event, Event::Closed)
                }
                Err(mpsc::RecvTimeoutError::Timeout) => false,
                Err(mpsc::RecvTimeoutError::Disconnected) => true,
            };
        }
        Ok(())
    }

    /// Waits until the CPU waits for an interrupt with interrupts off: nothing that
    /// this guest does ends that.
    pub(crate) fn wait_for_halt(&mut self) -> Result<()> {
        loop {
            self.answer = None;
            let registers = json!({ "command-line": "info registers" });
            self.execute("human-monitor-command", &registers)?;
            let registers = loop {
                if let Some(registers) = self.answer.take() {
                    break registers;
                }
                let event = self.next_event()?;
                ensure!(
                    !matches!(event, Event::Closed),
                    "{:?}, not halted",
                    self.end
                );
            };
            let flags = registers
                .split("RFL=")
                .nth(1)
                .and_then(|rest| rest.get(..8));
            let flags = u32::from_str_radix(flags.context("no flags")?, 16)?;
            if registers.contains("HLT=1") && flags & INTERRUPTS == 0 {
                return Ok(());
            }
        }
    }

    /// What the console showed so far.
    pub(crate) fn console(&self) -> Result<String> {
        let bytes = fs::read(self.log.join("console"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A line for the guest's `from_host`.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        Ok(self.port.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Has QEMU write the guest's memory to `path`, as an ELF core; done when QEMU
    /// has done what comes next.
    pub(crate) fn dump_memory(&mut self, path: &Path) -> Result<()> {
        let command = serde_json::json!({
            "execute": "dump-guest-memory",
            "arguments": { "paging": false, "protocol": format!("file:{}", path.display()) },
        });
        Ok(writeln!(self.qmp, "{command}")?)
    }

    /// Ends the guest, if it has not ended itself.
    pub(crate) fn quit(&mut self) -> Result<()> {
        match self.execute("quit", &json!({})) {
            // QEMU is gone, and the outcome says by what.
            Err(e) if is_broken_pipe(&e) => Ok(()),
            done => done,
        }
    }

    /// Gives QEMU a command. That it failed is seen when the next event is waited for.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let message = json!({ "execute": command, "arguments": arguments });
        Ok(writeln!(self.qmp, "{message}")?)
    }

    /// The next event; at the deadline the guest is killed.
    fn next_event(&mut self) -> Result<Event> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let event = match self.events.recv_timeout(left) {
            Ok(event) => event,
            Err(mpsc::RecvTimeoutError::Disconnected) => Event::Closed,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.end = Some(End::Timeout);
                self.child.kill()?;
                // Its pipes close now.
                self.deadline = Instant::now() + Duration::from_secs(10);
                return self.next_event();
            }
        };
        self.take(&event)?;
        Ok(event)
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        match event {
            // Every stage begins with an empty line; before the first one, and
            // between cold boots, the port belongs to the firmware.
            Event::Record(line) if line.trim().is_empty() => {}
            Event::Record(line)
                if (self.own_loader || self.records.is_empty()) && !line.starts_with("record ") => {
            }
            Event::Record(line) => {
                let (stage, name) = self
                    .records
                    .take(line)
                    .with_context(|| format!("see {}", self.log.display()))?;
                if !self.stages.contains_key(&stage) {
                    self.stages.insert(stage, self.times());
                }
                let dir = self.log.join(format!("stage-{stage}"));
                fs::create_dir_all(&dir)?;
                let content = self.records.get(stage, &name).unwrap_or_default();
                fs::write(dir.join(name.replace('/', "_")), content)?;
            }
            Event::Qmp(line) => {
                let message: Value = serde_json::from_str(line)?;
                ensure!(message["error"].is_null(), "QEMU refuses: {message}");
                if let Some(answer) = message["return"].as_str() {
                    self.answer = Some(answer.to_owned());
                }
                if message["event"] == "SHUTDOWN" && self.end.is_none() {
                    self.end = Some(match message["data"]["reason"].as_str() {
                        Some("guest-shutdown") => End::PowerOff,
                        Some("guest-reset") => End::Reset,
                        Some("host-qmp-quit") => End::Stopped,
                        _ => End::Qemu(line.clone()),
                    });
                }
            }
            Event::Closed => {}
        }
        Ok(())
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

impl Drop for Running {
    /// No guest outlives its test.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the places for guests.
#[derive(Debug)]
struct Place;

static TAKEN: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

impl Place {
    /// One for each processor: more guests would only wait for each other.
    fn wait() -> Self {
        let places = thread::available_parallelism().map_or(1, NonZero::get);
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = LEFT
            .wait_while(taken, |taken| *taken >= places)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}

/// What the guest records and what QEMU answers, as it comes.
fn events(port: UnixStream, replies: ChildStdout) -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel();
    let records = BufReader::new(port);
    let from_port = sender.clone();
    thread::spawn(move || {
        // Bytes that are not UTF-8 come from a guest that broke down: let it be seen.
        for line in records.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if from_port.send(Event::Record(line)).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for line in BufReader::new(replies).lines().map_while(Result::ok) {
            if sender.send(Event::Qmp(line)).is_err() {
                return;
            }
        }
        let _ = sender.send(Event::Closed);
    });
    events
}
