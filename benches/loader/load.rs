//! `load` and `load --panic` in a guest, beside kexec-tools: wall time and peak memory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::{INITRD_MIB, measure};

const ROUNDS: usize = 7;

/// A CPU without SHA-NI: QEMU 7.2 cannot emulate it, later ones can.
const CPU: &str = "max,-sha-ni";

/// What the guest does. `date` by its path, for busybox has one without
/// nanoseconds. The initrd lies in its root file system, in memory.
///
/// Memory is counted by the kernel: the peak of a control group that holds the
/// loader alone. The files' page cache belongs to the root group, where they
/// were written; anonymous memory and page tables are the loader's. So the
/// number is never below the anonymous memory.
const SCRIPT: &str = r#"
dd if=/dev/urandom of=/next/initrd bs=1M count=INITRD_MIB 2>/tmp/err
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
group=/sys/fs/cgroup/loader

rkexec() { /bin/rkexec load RKEXEC /next/vmlinuz --initrd /next/initrd --cmdline quiet --syscall kexec_load; }
kexec() { /sbin/kexec -c KEXEC /next/vmlinuz --initrd=/next/initrd --command-line=quiet; }

empty() {
  /bin/rkexec unload RKEXEC >/dev/null
  [ "$(cat /sys/kernel/LOADED)" = 0 ]
}

timed() {
  empty
  before=$(/bin/date +%s%N)
  $1 >/tmp/out 2>&1
  after=$(/bin/date +%s%N)
  [ "$(cat /sys/kernel/LOADED)" = 1 ]
  echo "$1 $((after - before))" >>/tmp/times
}

peak() {
  empty
  mkdir $group
  (
    echo 0 >$group/cgroup.procs
    $1 >/tmp/out 2>&1
  )
  [ "$(cat /sys/kernel/LOADED)" = 1 ]
  echo "$1 $(cat $group/memory.peak)" >>/tmp/peaks
  rmdir $group
}

# The first of each warms the cache up, and does not count.
timed rkexec
timed kexec
rm /tmp/times
round=0
while [ $round -lt ROUNDS ]; do
  timed rkexec
  timed kexec
  round=$((round + 1))
done
record times </tmp/times
peak rkexec
peak kexec
record peaks </tmp/peaks
"#;

/// One kind of load, by both.
struct Case {
    /// What it is called here.
    name: &'static str,
    initrd_mib: usize,
    rkexec: &'static str,
    kexec: &'static str,
    /// The file below /sys/kernel that tells whether it is loaded.
    loaded: &'static str,
    append: &'static str,
    /// The ratio of the times that is wanted.
    wanted: f64,
}

/// For `exec`, with a large initrd.
const LOAD: Case = Case {
    name: "load",
    initrd_mib: INITRD_MIB,
    rkexec: "",
    kexec: "-l",
    loaded: "kexec_loaded",
    append: "",
    wanted: 0.45,
};

/// A crash kernel, with an initrd as kdump-tools makes them.
const ARM: Case = Case {
    name: "load --panic",
    initrd_mib: 32,
    rkexec: "--panic",
    kexec: "-p",
    loaded: "kexec_crash_loaded",
    append: "crashkernel=512M",
    wanted: 0.5,
};

pub(crate) fn run(_rkexec: &Path, kernel: &Kernel) -> Result<()> {
    LOAD.run(kernel)?;
    ARM.run(kernel)
}

impl Case {
    fn run(&self, kernel: &Kernel) -> Result<()> {
        let Self {
            name,
            initrd_mib,
            wanted,
            ..
        } = self;
        println!(
            "{name}: a kernel and {initrd_mib} MiB of initrd in a guest (TCG, one CPU, no SHA-NI)"
        );
        let script = SCRIPT
            .replace("INITRD_MIB", &initrd_mib.to_string())
            .replace("ROUNDS", &ROUNDS.to_string())
            .replace("RKEXEC", self.rkexec)
            .replace("KEXEC", self.kexec)
            .replace("LOADED", self.loaded);
        let outcome = Guest::new(&format!("bench-{}", self.loaded), kernel)
            .cpu(CPU)
            .memory("2G")
            .append(self.append)
            .program("/bin/date")?
            .program("/sbin/kexec")?
            .file("next/vmlinuz", &std::fs::read(kernel.image())?)
            .script(&script)
            .timeout(Duration::from_secs(600))
            .run()?;
        let stage = outcome.stage(1)?;
        ensure!(
            !stage
                .text("cpu-flags")?
                .split(' ')
                .any(|flag| flag == "sha_ni"),
            "the guest's CPU has SHA-NI"
        );

        let times = |tool| -> Result<Vec<Duration>> {
            let times = numbers(stage.text("times")?, tool)?;
            Ok(times.into_iter().map(Duration::from_nanos).collect())
        };
        let (ours, theirs) = (times("rkexec")?, times("kexec")?);
        measure::show(&format!("rkexec {name} --syscall kexec_load"), &ours);
        measure::show(&format!("kexec -c {}", self.kexec), &theirs);
        println!(
            "{name} of {initrd_mib} MiB without SHA-NI: {:.2} x kexec-tools (wanted: at most {wanted})",
            measure::ratio(&ours, &theirs)
        );

        let peak = |tool| -> Result<f64> {
            let peaks = numbers(stage.text("peaks")?, tool)?;
            let bytes = *peaks.first().context("no peak")?;
            Ok(f64::from(u32::try_from(bytes >> 10)?) / 1024.0)
        };
        let unpacked = unpacked(kernel)?;
        println!(
            "memory of {name} at its peak, MiB: {:.1} besides the unpacked kernel ({unpacked:.1}), kexec-tools {:.1} \
             (wanted: at most 16)",
            peak("rkexec")? - unpacked,
            peak("kexec")?
        );
        Ok(())
    }
}

/// Size of the kernel inside of the file, MiB.
fn unpacked(kernel: &Kernel) -> Result<f64> {
    let file = std::fs::read(kernel.image())?;
    let image = rkexec::image::bzimage::parse(&file)?.context("no bzImage")?;
    let bytes = image.unpacked()?.len();
    Ok(f64::from(u32::try_from(bytes >> 10)?) / 1024.0)
}

/// The numbers on the lines `TOOL NUMBER`.
fn numbers(text: &str, tool: &str) -> Result<Vec<u64>> {
    text.lines()
        .filter_map(|line| line.strip_prefix(tool)?.strip_prefix(' '))
        .map(|number| Ok(number.trim().parse()?))
        .collect()
}
