//! Kexecs in a row in one guest, all stages alike. The kernels and initrds that
//! the stages load lie in memory that the first command line reserves, so that no
//! stage has to pack its own.

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::{Guest, Outcome};
use crate::ram::Ram;
use crate::trip;
use crate::witness::Stage;

/// Room for kernels and initrds, bytes.
pub(crate) const SUPPLIES: usize = 96 << 20;

const PAGE: usize = 4096;

/// So many kexecs of one kernel into itself, or of two kernels into each other.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    name: String,
    kernel: &'a Kernel,
    /// The kernel of the stages with even numbers.
    other: &'a Kernel,
    /// The kernel of the first stage.
    first: &'a Kernel,
    trips: u32,
    supplies: u64,
    first_words: String,
    words: String,
    first_options: String,
    options: String,
    turns: Vec<String>,
    uefi: bool,
    before: String,
    files: Vec<(String, Vec<u8>)>,
    until: Option<String>,
}

impl<'a> Chain<'a> {
    /// `supplies` is the address of [`SUPPLIES`] bytes that nobody else needs.
    pub(crate) fn new(name: &str, kernel: &'a Kernel, trips: u32, supplies: u64) -> Self {
        Self {
            name: name.to_owned(),
            kernel,
            other: kernel,
            first: kernel,
            trips,
            supplies,
            first_words: String::new(),
            words: String::new(),
            first_options: String::new(),
            options: String::new(),
            turns: Vec::new(),
            uefi: false,
            before: String::new(),
            files: Vec::new(),
            until: None,
        }
    }

    /// Every second stage is `other`.
    pub(crate) fn crosswise(mut self, other: &'a Kernel) -> Self {
        self.other = other;
        self
    }

    /// The first stage is `first`.
    pub(crate) fn from(mut self, first: &'a Kernel) -> Self {
        self.first = first;
        self
    }

    /// What every stage does before it loads the next kernel.
    pub(crate) fn before(mut self, script: &str) -> Self {
        script.clone_into(&mut self.before);
        self
    }

    /// Words for the first kernel's command line.
    pub(crate) fn first_words(mut self, words: &str) -> Self {
        words.clone_into(&mut self.first_words);
        self
    }

    /// Words for the command lines of the kernels that follow.
    pub(crate) fn words(mut self, words: &str) -> Self {
        self.words = format!(" {words}");
        self
    }

    /// Load options of the first stage.
    pub(crate) fn first_options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.first_options);
        self
    }

    /// Load options of every stage.
    pub(crate) fn options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.options);
        self
    }

    /// More load options, which the stages take in turn, the first one the first.
    pub(crate) fn turns(mut self, options: &[&str]) -> Self {
        self.turns = options.iter().map(|&options| options.to_owned()).collect();
        self
    }

    /// OVMF starts the first stage.
    pub(crate) fn uefi(mut self) -> Self {
        self.uefi = true;
        self
    }

    /// A file for the first stage.
    pub(crate) fn file(mut self, path: &str, content: Vec<u8>) -> Self {
        self.files.push((path.to_owned(), content));
        self
    }

    /// Ends the chain in the stage whose kernel logs `message`.
    pub(crate) fn until(mut self, message: &str) -> Self {
        self.until = Some(message.to_owned());
        self
    }

    /// What is asked for as the command line of stage `stage`.
    pub(crate) fn cmdline(&self, stage: &str) -> String {
        format!("{} iomem=relaxed{}", trip::chain_cmdline(stage), self.words)
    }

    /// Runs the chain in `ram`. `reported` is called with every stage when its
    /// kernel has reported, before it loads the next one.
    pub(crate) fn run(
        &self,
        ram: &Ram,
        reported: impl FnMut(Stage<'_>) -> Result<()>,
    ) -> Result<Outcome> {
        self.run_with(ram, reported, |_| Ok(()))
    }

    /// As `run`; `loaded` is called with every stage but the last when the next
    /// kernel is loaded, before it is entered.
    pub(crate) fn run_with(
        &self,
        ram: &Ram,
        mut reported: impl FnMut(Stage<'_>) -> Result<()>,
        mut loaded: impl FnMut(Stage<'_>) -> Result<()>,
    ) -> Result<Outcome> {
        let script = self.script();
        self.supply(ram, &script)?;

        let mut guest = ram
            .attach(Guest::new(&self.name, self.first))
            .uefi(self.uefi)
            .timeout(Duration::from_secs(60 * u64::from(self.trips + 2)))
            .append(&format!(
                "iomem=relaxed memmap={}M${:#x} {}",
                SUPPLIES >> 20,
                self.supplies,
                self.first_words
            ))
            .script(&script);
        for (path, content) in &self.files {
            guest = guest.file(path, content);
        }
        guest.conduct(|guest| {
            for stage in 1..=self.trips + 1 {
                // What /init reports last.
                let log = guest.wait_for(stage, "dmesg")?;
                let log = String::from_utf8_lossy(&log);
                reported(guest.stage(stage)?)?;
                if self.until.as_ref().is_some_and(|end| log.contains(end)) {
                    return guest.say("stop");
                }
                guest.say("go")?;
                if stage <= self.trips {
                    guest.wait_for(stage, "loaded")?;
                    loaded(guest.stage(stage)?)?;
                    guest.say("exec")?;
                }
            }
            Ok(())
        })
    }

    /// Writes what the stages load into `ram`, behind a page that says where it is.
    fn supply(&self, ram: &Ram, script: &str) -> Result<()> {
        let mut overlay = Archive::new();
        overlay.file("test/each-stage", 0o644, script.as_bytes());
        let mut at = 1;
        let mut write = |bytes: &[u8]| -> Result<String> {
            let (start, pages) = (at, bytes.len().div_ceil(PAGE));
            at += pages;
            ensure!(at * PAGE <= SUPPLIES, "no room");
            let place = self.supplies + (start * PAGE) as u64;
            ram.file().write_all_at(bytes, place)?;
            Ok(format!("{start} {pages} {}", bytes.len()))
        };
        let mut table = String::new();
        for (number, kernel) in [self.other, self.kernel].into_iter().enumerate() {
            let image = write(&std::fs::read(kernel.image())?)?;
            let initrd = write(&initramfs::initrd(kernel, overlay.clone())?)?;
            table += &format!("kernel_{number}='{image} {initrd}'\n");
        }
        ram.file().write_all_at(table.as_bytes(), self.supplies)?;
        Ok(())
    }

    /// The script of every stage.
    fn script(&self) -> String {
        let Self {
            trips,
            first_options,
            options,
            before,
            ..
        } = self;
        let turns: String = (1..)
            .zip(&self.turns)
            .map(|(turn, options)| {
                let turn = turn % self.turns.len();
                format!("{turn}) options=\"$options {options}\" ;;\n")
            })
            .collect();
        let count = self.turns.len().max(1);
        let page = self.supplies / PAGE as u64;
        let load = trip::load_script(&trip::request(
            "/next/initrd",
            &self.cmdline("'$next'"),
            "$options",
        ));
        format!(
            "go=$(from_host)
            dd if=/proc/kcore bs={PAGE} count=1 2>/dev/null | record kcore
            if [ $stage -gt 1 ]; then refused report rkexec report --output json; fi
            {before}
            if [ $stage -le {trips} ] && [ $go = go ]; then
              page() {{ dd if=/dev/mem bs={PAGE} skip=$(({page} + $1)) count=$2 2>/dev/null; }}
              eval \"$(page 0 1 | tr -d '\\000')\"
              eval \"set -- \\$kernel_$((next % 2))\"
              mkdir -p /next
              page $1 $2 >/next/vmlinuz
              truncate -s $3 /next/vmlinuz
              page $4 $5 >/next/initrd
              truncate -s $6 /next/initrd
              options='{options}'
              if [ $stage = 1 ]; then options='{options} {first_options}'; fi
              case $((stage % {count})) in
                {turns}
              esac
              {load}
              from_host | record entered
              try exec rkexec exec
            fi\n"
        )
    }
}
