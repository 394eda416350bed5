use proptest::prelude::*;

use super::*;
use crate::cli::kexec::options;

fn line(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn command(text: &str) -> Command {
    read(&line(text)).unwrap()
}

fn run(text: &str) -> Run {
    match command(text) {
        Command::Run(run) => run,
        other => panic!("{text}: {other:?}"),
    }
}

fn load(text: &str) -> (Load, Then) {
    match run(text).action {
        Action::Load(load, then) => (*load, then),
        other => panic!("{text}: {other:?}"),
    }
}

fn refusal(text: &str) -> String {
    read(&line(text)).unwrap_err().to_string()
}

#[test]
fn the_order_of_options_does_not_matter() {
    for text in ["-u -p", "-p -u", "-s -p -u", "-u -s -p", "-pu", "-d -u -p"] {
        assert_eq!(run(text).action, Action::Unload(Target::Crash), "{text}");
    }
    // kexec-tools: a -d makes it the normal kernel's status.
    for text in [
        "-S", "-d -S", "-S -d", "-p -S", "-S -p", "-l -p -S", "-S -u", "-S -e",
    ] {
        assert_eq!(command(text), Command::Status(Target::Crash), "{text}");
    }
    for text in ["-l -S", "-S -l", "-d -S -l", "-S -f", "-l -S /k"] {
        assert_eq!(command(text), Command::Status(Target::Normal), "{text}");
    }
    // kexec-tools: the command line is empty after the second option.
    let both = [
        load("-l /k --append=x --noefi").0,
        load("-l /k --noefi --append=x").0,
    ];
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].options.command_line.as_deref(), Some("x".as_ref()));
    let with_debug = load("-d -p /k").0;
    assert_eq!(with_debug, load("-p /k -d").0);
    assert_eq!(with_debug.target, Target::Crash);
}

#[test]
fn what_is_done() {
    assert_eq!(load("/k").1, Then::Shutdown);
    assert_eq!(load("/k -l").1, Then::Stay);
    assert_eq!(load("-f /k").1, Then::Exec);
    assert_eq!(load("-f -l /k").1, Then::Stay);
    assert_eq!(load("-l -f /k").1, Then::Exec);
    assert_eq!(load("-p /k").1, Then::Stay);
    assert_eq!(load("-p -l /k").0.target, Target::Crash);
    assert_eq!(run("-e").action, Action::Exec);
    assert_eq!(run("-l -f -e").action, Action::Exec);
    assert_eq!(run("-u").action, Action::Unload(Target::Normal));
    let with_kernel = run("-u /k");
    assert_eq!(with_kernel.action, Action::Unload(Target::Normal));
    assert_eq!(with_kernel.notes, ["/k is ignored: -u takes no kernel"]);
    assert!(run("-e -y").no_sync && !run("-e").no_sync);
    assert!(run("-l /k --dry-run").dry_run);
}

#[test]
fn what_ends_the_reading() {
    assert_eq!(command("-h --bogus"), Command::Help { fails: false });
    assert_eq!(command("-l -?"), Command::Help { fails: true });
    assert_eq!(command("-vh"), Command::Version);
    assert_eq!(command("-p --print-ckr-size /k"), Command::CrashSize);
    assert_eq!(refusal("--bogus -h"), "unrecognized option '--bogus'");
}

#[test]
fn the_first_kernel_counts() {
    assert_eq!(load("-l /k /j /i").0.kernel, PathBuf::from("/k"));
    assert_eq!(
        run("-l /k /j /i").notes,
        [
            "/j is ignored: one kernel is loaded, and /k comes first",
            "/i is ignored: one kernel is loaded, and /k comes first"
        ]
    );
}

#[test]
fn contradictions() {
    assert_eq!(refusal("-l"), "no kernel specified");
    assert_eq!(refusal(""), "no kernel specified");
    assert_eq!(refusal("-e -u"), "-u and -e do not go together");
    assert_eq!(refusal("-u -l /k"), "-u and -l do not go together");
    assert_eq!(refusal("-e -p"), "-p and -e do not go together");
    assert_eq!(refusal("-p -f /k"), "-p and -f do not go together");
    assert_eq!(
        refusal("-l /k -e"),
        "-e takes no kernel, and \"/k\" is one: -f loads and boots at once"
    );
}

#[test]
fn the_last_value_counts() {
    let text = "-l /k --append=a --initrd=i --command-line=b --ramdisk=j -s -c -t uki -t bzImage64";
    let (load, _) = load(text);
    assert_eq!(load.syscall, Some(Syscall::KexecLoad));
    assert_eq!(load.options.command_line.as_deref(), Some("b".as_ref()));
    assert_eq!(load.options.initrd, Some("j".into()));
    assert_eq!(load.options.kind, Some(ImageType::BzImage64));
    let replaced = |option: &str| format!("{option} is given more than once: the last one counts");
    assert_eq!(
        run(text).notes,
        ["--append", "--initrd", "--type"].map(replaced)
    );
    let same = "-l /k --initrd=i --ramdisk=i --module=a --module=b";
    assert_eq!(run(same).notes, [""; 0]);
    assert_eq!(self::load("-l /k -s -a").0.syscall, None);
}

#[test]
fn values_are_read_as_kexec_tools_reads_them() {
    let options = |text: &str| load(&format!("-l /k {text}")).0.options;
    assert_eq!(options("--mem-min=0x100000").mem_min, Some(1 << 20));
    assert_eq!(options("--mem-min=010").mem_min, Some(8));
    assert_eq!(options("--mem-max=0").mem_max, Some(0));
    assert_eq!(options("--mem-max=10G").mem_max, Some(10 << 30));
    assert_eq!(options("--serial=ttyS1").serial, Some(0x2f8));
    assert_eq!(options("--serial=0x3e8").serial, Some(0x3e8));
    assert_eq!(
        refusal("-l /k --mem-min=08"),
        "--mem-min \"08\": not a number of bytes: write it like 64M or 0x4000000 (suffix K, M, G or T, no MiB, no decimal point)"
    );
    for port in ["ttyS4", "0", "0x10000", "usb", ""] {
        assert_eq!(
            refusal(&format!("-l /k --serial={port}")),
            format!(
                "--serial {port:?}: neither ttyS0 to ttyS3 nor the number of an I/O port (0x1 to 0xffff)"
            )
        );
    }
    let baud = run("-l /k --serial-baud=57600");
    assert_eq!(
        baud.notes,
        ["--serial-baud is ignored: the port keeps the rate that the running kernel set"]
    );
    for rate in ["4800", "100000", "x", "230400"] {
        assert!(refusal(&format!("-l /k --serial-baud={rate}")).starts_with("--serial-baud"));
    }
    assert_eq!(
        refusal("-l /k -t arm"),
        "--type \"arm\": unknown type; known are bzImage64, bzImage, elf-x86_64, elf-x86, multiboot-x86, multiboot2-x86, uki"
    );
    assert!(refusal("-l /k -t nbi-x86").contains("not supported"));
}

#[test]
fn what_is_dropped_is_named() {
    assert_eq!(
        refusal("-l /k --real-mode"),
        "--real-mode is not supported: a BIOS is in no state to be called after Linux ran"
    );
    let ignored = run("-l /k --reset-vga --console-vga --hotplug -x");
    let names: Vec<_> = ignored
        .notes
        .iter()
        .filter_map(|note| note.split(' ').next())
        .collect();
    assert_eq!(names, ["--reset-vga", "--console-vga", "--hotplug"]);
    assert!(load("-p /k --hotplug").0.options.hotplug);
    // Every option of the table that is taken without effect says so, or says why it need not.
    for option in options::all() {
        let value = option.value.map_or("", |_| "=1");
        let text = format!("-l /k {}{value}", option.shown());
        match option.does {
            Does::Ignored(why) => {
                assert_eq!(run(&text).notes, [super::ignored(&option.shown(), why)])
            }
            Does::Refused(why) => assert!(refusal(&text).ends_with(why), "{text}"),
            Does::Anyway => assert_eq!(run(&text), run("-l /k"), "{text}"),
            _ => {}
        }
    }
}

proptest! {
    /// Flags that neither end the reading nor are refused, in any order: the
    /// last of -l, -f, -a, -s, -c aside, they commute.
    #[test]
    fn flags_commute(letters in proptest::sample::subsequence(vec!["-d", "-y", "-i", "-x", "--noefi", "--append=x",
        "--reuse-cmdline", "--initrd=i", "--mem-min=1", "--hotplug", "--reset-vga", "-p", "/k", "--dry-run"], 0..14).prop_shuffle()) {
        let mut sorted = letters.clone();
        sorted.sort_unstable();
        let read = |letters: &[&str]| {
            read(&line(&letters.join(" "))).map(|command| match command {
                Command::Run(mut run) => {
                    run.notes.sort();
                    Command::Run(run)
                }
                other => other,
            })
        };
        prop_assert_eq!(read(&letters), read(&sorted));
    }
}
