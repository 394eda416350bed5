//! The kernel runs out of memory in the middle of kexec_load and kexec_file_load: every
//! allocation of the call fails once, by the kernel's fault injection (fail-nth). What
//! was loaded stays or is loaded again, the record says so, and nothing is leaked.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use crate::interrupted::{KNOWN, tiny};
use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::soak::meminfo;
use crate::trip::compiled;
use crate::witness::Stage;

/// Fails each allocation of the call that `faults NAME TARGET OPTIONS` makes. One line
/// each: its number, what came of it, the call's answer, rkexec's exit code, what is
/// known then, and the message.
const FAULTS: &str = r#"
faults() {
  local n=1 what=injected target=$2 code
  load="rkexec load /next/vmlinuz --initrd /next/initrd $3"
  : >/tmp/faults
  while [ $what = injected ]; do
    case $(known $target) in
      "1 "*" old") ;;
      *) $load --cmdline old ;;
    esac
    code=0
    step fail $n $load --cmdline new >/dev/null 2>/tmp/err || code=$?
    read what answer </tmp/step
    echo "$n $what $answer $code $(known $target) $(tr '\n' ' ' </tmp/err)" >>/tmp/faults
    n=$((n + 1))
  done
  record faults-$1 </tmp/faults
}
"#;

const INJECT: &str = "
for attribute in failslab fail_page_alloc; do
  cd /sys/kernel/debug/$attribute
  echo N >ignore-gfp-wait
  echo 0 >verbose
done
echo N >ignore-gfp-highmem
echo 0 >min-order
cd /
mkdir -p /run
";

/// The calls, and the images.
const LOADS: [(&str, &str, &str); 4] = [
    ("load", "normal", "--syscall kexec_load"),
    ("file-load", "normal", "--syscall kexec_file_load"),
    ("panic-load", "crash", "--panic --syscall kexec_load"),
    (
        "panic-file-load",
        "crash",
        "--panic --syscall kexec_file_load",
    ),
];

/// Bytes by which free memory and the slab may differ in the end. A leak in each of the
/// failed calls would be a page in each of some hundred.
const SLACK: u64 = 128 << 10;

/// One failed allocation.
struct Fault<'a> {
    line: &'a str,
    what: &'a str,
    answer: i32,
    code: &'a str,
    loaded: &'a str,
    check: &'a str,
    recorded: &'a str,
    message: &'a str,
}

impl<'a> Fault<'a> {
    fn of(line: &'a str) -> Result<Self> {
        let words: Vec<&str> = line.splitn(8, ' ').collect();
        let &[
            _,
            what,
            answer,
            code,
            loaded,
            check,
            recorded,
            ref rest @ ..,
        ] = &*words
        else {
            anyhow::bail!("{line}");
        };
        let answer = answer.parse().with_context(|| line.to_owned())?;
        let message = rest.first().copied().unwrap_or("");
        Ok(Self {
            line,
            what,
            answer,
            code,
            loaded,
            check,
            recorded,
            message,
        })
    }

    /// Holds what was said and what is recorded to what happened.
    fn is_told(&self, is_crash: bool) -> Result<()> {
        let failed = self.code == "1";
        ensure!(failed || self.code == "0", "exit code");
        ensure!(failed == (self.answer != 0), "the call's answer");
        // An allocation that the kernel can do without loads the new image.
        let expected = if failed { "old" } else { "new" };
        ensure!(self.loaded == "1", "nothing is loaded");
        ensure!(self.recorded == expected, "the record");
        ensure!(self.check == if is_crash { "0" } else { "3" }, "the check");
        if !failed {
            return Ok(());
        }
        ensure!(self.message.contains("memory"), "the cause");
        ensure!(self.message.contains("hint: "), "no way out");
        let armed = ["stays armed", "is armed again"];
        let says = armed.iter().any(|words| self.message.contains(words));
        ensure!(says == is_crash, "whether it is armed");
        ensure!(!self.message.contains("NOT armed"), "NOT armed");
        Ok(())
    }
}

/// The allocations that failed, and the errors of the call.
fn faults(stage: Stage<'_>, name: &str, is_crash: bool) -> Result<(usize, BTreeSet<i32>)> {
    let lines = stage.text(&format!("faults-{name}"))?;
    let faults: Vec<Fault<'_>> = lines.lines().map(Fault::of).collect::<Result<_>>()?;
    let (last, failed) = faults.split_last().context("no faults")?;
    // The call made fewer allocations, and passed.
    ensure!(last.what == "left" && last.answer == 0, "{}", last.line);
    for fault in failed {
        ensure!(fault.what == "injected", "{}", fault.line);
    }
    for fault in &faults {
        let told = fault.is_told(is_crash);
        told.with_context(|| format!("{name}: {}", fault.line))?;
    }
    let answers = failed.iter().map(|fault| fault.answer).collect();
    Ok((failed.len(), answers))
}

#[test]
#[ignore = "it takes many minutes: tests/faults runs it"]
fn every_allocation_of_the_calls_fails_once() -> Result<()> {
    let kernel = Kernel::new("kho")?;
    let mut script = format!("{INJECT}{KNOWN}{FAULTS}");
    // What is taken once and kept is no leak.
    for (name, target, options) in LOADS {
        let look = "echo 3 >/proc/sys/vm/drop_caches; record meminfo-";
        let load = format!("rkexec load /next/vmlinuz --initrd /next/initrd {options}");
        let unload = if target == "crash" { "--panic" } else { "" };
        script += &format!(
            "for again in 1 2 3; do {load} --cmdline old; done
             rkexec unload {unload}
             {look}before-{name} </proc/meminfo
             faults {name} {target} '{options}'
             rkexec unload {unload}
             {look}after-{name} </proc/meminfo\n"
        );
    }
    let outcome = Guest::new("faults", &kernel)
        .append("crashkernel=64M slub_debug=-")
        .executable("bin/step", &compiled("step")?)
        .file("next/vmlinuz", &tiny())
        .file("next/initrd", &[7; 5000])
        .timeout(std::time::Duration::from_secs(1200))
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    for (name, target, _) in LOADS {
        let is_crash = target == "crash";
        let (count, answers) = faults(stage, name, is_crash)?;
        eprintln!("{name}: {count} allocations failed, the call's answers: {answers:?}");
        // The pages of a crash kernel are reserved, and the call takes few others.
        ensure!(
            count >= if is_crash { 4 } else { 20 },
            "{name}: {count} faults"
        );
        ensure!(answers.contains(&-libc::ENOMEM), "{name}: {answers:?}");
        let key = |when: &str, key: &str| meminfo(stage, &format!("meminfo-{when}-{name}"), key);
        let (before, after) = (key("before", "MemFree:")?, key("after", "MemFree:")?);
        eprintln!("{name}: MemFree {before} before, {after} after");
        ensure!(
            before <= after + SLACK,
            "{name}: free {before} then {after}"
        );
        let (before, after) = (key("before", "Slab:")?, key("after", "Slab:")?);
        ensure!(after <= before + SLACK, "{name}: slab {before}, {after}");
    }
    Ok(())
}
