//! Memory that is not ordinary RAM: what is a driver's, persistent or reserved
//! stays so, and no segment lies there.

use std::fmt::Write as _;
use std::os::unix::fs::FileExt as _;

use anyhow::{Result, ensure};

use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::ram::Ram;
use crate::trip::{self, Trip};
use crate::witness::{Row, Stage};

/// Plugs what virtio-mem offers: the driver adds memory blocks, which stay
/// offline in Debian's configuration until somebody asks for them.
pub(crate) const PLUG_VIRTIO_MEM: &str = "
modules virtio_pci virtio_mem
for fifth in $(seq 50); do
  grep -q 'System RAM (virtio_mem)' /proc/iomem && break
  sleep 0.2
done
sleep 1
for state in /sys/devices/system/memory/memory*/state; do
  grep -q offline $state && echo online_movable >$state
done
record plugged </proc/iomem
";

/// Gives the legacy pmem of memmap=…!… to the kernel as RAM, through dax/kmem.
/// The namespace's mode is kept in the pmem itself: the next kernel finds it.
pub(crate) const PLUG_KMEM: &str = "
echo offline >/sys/devices/system/memory/auto_online_blocks
modules nd_e820 nd_pmem dax_pmem device_dax kmem
for fifth in $(seq 50); do
  ls /sys/bus/nd/devices/namespace0.0 >/dev/null 2>&1 && break
  sleep 0.2
done
if ! [ -e /dev/dax0.0 ]; then
  try namespace ndctl create-namespace -f -e namespace0.0 -m devdax --map=mem -a 2M
fi
try reconfigure daxctl reconfigure-device --mode=system-ram dax0.0
record plugged </proc/iomem
";

/// Rows of the record `plugged`, which has the form of /proc/iomem, that are
/// called `kind`.
fn plugged(stage: Stage, kind: &str) -> Result<Vec<Row>> {
    let rows: Vec<Row> = stage
        .rows("plugged")?
        .into_iter()
        .filter(|row| row.kind == kind)
        .collect();
    ensure!(
        !rows.is_empty(),
        "no {kind} here:\n{}",
        stage.text("plugged")?
    );
    Ok(rows)
}

/// Whether the next kernel was told of none of `rows` as RAM.
fn not_ram(after: Stage, rows: &[Row]) -> Result<()> {
    for told in after.firmware_map()? {
        ensure!(
            told.kind != "System RAM" || !rows.iter().any(|row| row.overlaps(&told)),
            "{told:x?} is handed over as RAM"
        );
    }
    Ok(())
}

fn virtio_mem(name: &str, first: &str, next: &str, syscall: &str) -> Result<()> {
    let (first, next) = (Kernel::new(first)?, Kernel::new(next)?);
    let guest = Guest::new(name, &first)
        .memory("1G,slots=4,maxmem=8G")
        .args(["-object", "memory-backend-ram,id=v0,size=1G"])
        .args(["-device", "virtio-mem-pci,memdev=v0,requested-size=512M"]);
    let arrival = Trip::to(&next)
        .options(&format!("--syscall {syscall}"))
        .before(PLUG_VIRTIO_MEM)
        .after(PLUG_VIRTIO_MEM)
        .run(guest)?;
    let (before, after) = (arrival.before()?, arrival.after()?);
    let memory = plugged(before, "System RAM (virtio_mem)")?;
    arrival.plan.keeps_off(&memory)?;
    not_ram(after, &memory)?;
    // The device offers the same memory to the driver that comes next.
    let size = |rows: &[Row]| rows.iter().map(|row| row.end - row.start).sum::<u64>();
    let again = plugged(after, "System RAM (virtio_mem)")?;
    assert_eq!(size(&memory), 512 << 20);
    assert_eq!(size(&again), 512 << 20);
    Ok(())
}

#[test]
fn virtio_mem_is_left_to_its_driver_by_6_1_and_kexec_load() -> Result<()> {
    virtio_mem("virtio-mem-6.1", "6.1", "6.12", "kexec_load")
}

#[test]
fn virtio_mem_is_left_to_its_driver_by_6_12_and_kexec_file_load() -> Result<()> {
    virtio_mem(
        "virtio-mem-kexec_file_load",
        "6.12",
        "6.1",
        "kexec_file_load",
    )
}

fn kmem(name: &str, first: &str, next: &str) -> Result<()> {
    let (first, next) = (Kernel::new(first)?, Kernel::new(next)?);
    let tools = ["/usr/bin/ndctl", "/usr/bin/daxctl"];
    let mut guest = Guest::new(name, &first)
        .memory("2G")
        .append("memmap=512M!1G");
    for tool in tools {
        guest = guest.program(tool)?;
    }
    let arrival = Trip::to(&next)
        .programs(&tools)
        .before(PLUG_KMEM)
        .after(PLUG_KMEM)
        .run(guest)?;
    let (before, after) = (arrival.before()?, arrival.after()?);
    let memory = plugged(before, "System RAM (kmem)")?;
    let pmem = plugged(before, "Persistent Memory (legacy)")?;
    assert_eq!((pmem[0].start, pmem[0].end), (1 << 30, 3 << 29));
    arrival.plan.keeps_off(&memory)?;
    arrival.plan.keeps_off(&pmem)?;
    not_ram(after, &pmem)?;
    // Legacy pmem stays what it is, and the driver has its memory again.
    assert_eq!(plugged(after, "Persistent Memory (legacy)")?, pmem);
    assert_eq!(plugged(after, "System RAM (kmem)")?, memory);
    assert!(
        after.text("namespace.out").is_err(),
        "the namespace was lost"
    );
    Ok(())
}

#[test]
fn kmem_and_its_pmem_are_left_alone() -> Result<()> {
    kmem("kmem-6.12", "6.12", "6.12")
}

#[test]
fn kmem_and_its_pmem_are_left_alone_by_6_1() -> Result<()> {
    kmem("kmem-6.1", "6.1", "6.12")
}

/// A range that the first command line reserves, with a pattern in it that the
/// host wrote before the guest started.
#[test]
fn a_reservation_and_what_is_in_it_survive() -> Result<()> {
    const START: u64 = 0x2000_0000;
    const SIZE: u64 = 64 << 20;
    let pattern = trip::noise("reservation", 64 << 20);
    let ram = Ram::new(1 << 30)?;
    ram.file().write_all_at(&pattern, START)?;

    // dd reads Reserved memory in spite of CONFIG_STRICT_DEVMEM.
    let look = "dd if=/dev/mem bs=1M skip=512 count=64 2>/dev/null | sha256sum | record pattern\n";
    let guest = Guest::new("reservation", &Kernel::new("6.12")?)
        .append("memmap=64M$0x20000000 iomem=relaxed");
    let arrival = Trip::to(&Kernel::new("6.12")?)
        .append("iomem=relaxed")
        .before(look)
        .after(look)
        .run(ram.attach(guest))?;
    let reservation = Row {
        start: START,
        end: START + SIZE,
        kind: "Reserved".to_owned(),
    };
    let (before, after) = (arrival.before()?, arrival.after()?);
    let digest = trip::sha256(&pattern);
    assert_eq!(before.digest("pattern")?, digest);
    assert_eq!(after.digest("pattern")?, digest);
    arrival.plan.keeps_off(std::slice::from_ref(&reservation))?;
    let told = after.firmware_map()?;
    assert!(told.contains(&reservation), "{told:x?}");
    assert!(after.iomem()?.contains(&reservation));

    let mut end = vec![0; pattern.len()];
    ram.file().read_exact_at(&mut end, START)?;
    assert!(end == pattern, "the pattern changed in the next kernel");
    Ok(())
}

/// Seventy reservations of a page cut RAM into more entries than the 128 of
/// boot_params: the rest travels as SETUP_E820_EXT.
#[test]
fn more_than_128_entries_all_arrive() -> Result<()> {
    let mut words = String::new();
    for number in 0..70u64 {
        write!(words, "memmap=4K${:#x} ", 0x1000_0000 + number * 0x2_0000)?;
    }
    let kernel = Kernel::new("6.12")?;
    let guest = Guest::new("e820-ext", &kernel).append(&words);
    // The plan decides for kexec_load by itself: kexec_file_load drops what is
    // beyond 128 entries.
    let arrival = Trip::to(&kernel).options("--syscall auto").run(guest)?;
    assert_eq!(arrival.plan.json["syscall"]["name"], "kexec_load");
    let after = arrival.after()?;
    let map = after.firmware_map()?;
    assert!(map.len() > 140, "{} entries", map.len());
    assert_eq!(after.boot_e820()?.len(), 128);
    Ok(())
}

/// What the new command line takes away holds no segment. `nokaslr`: the kernel that
/// chooses its own place would not show where setup_data lies.
#[test]
fn what_the_new_command_line_takes_holds_no_segment() -> Result<()> {
    const GIB: u64 = 1 << 30;
    let kernel = Kernel::new("6.12")?;
    // Of 6 GiB this machine has the upper half from 4 GiB on: 6 to 7 GiB is where
    // segments go when nobody says otherwise.
    let guest = Guest::new("taken-by-the-line", &kernel).memory("6G");
    let arrival = Trip::to(&kernel)
        .append("nokaslr memmap=1G$6G,512M!5G crashkernel=128M@0x20000000")
        .run(guest)?;
    let row = |start, end, kind: &str| Row {
        start,
        end,
        kind: kind.to_owned(),
    };
    let taken = [
        row(6 * GIB, 7 * GIB, "Reserved"),
        row(5 * GIB, 11 * GIB / 2, "Persistent Memory (legacy)"),
        row(GIB / 2, GIB / 2 + (128 << 20), "Crash kernel"),
    ];
    arrival.plan.keeps_off(&taken)?;
    let iomem = arrival.after()?.iomem()?;
    for row in &taken {
        ensure!(iomem.contains(row), "{row:x?} is not in {iomem:x?}");
    }
    // The first map has all of it: the next one is told so, and its words do the rest.
    let told = arrival.after()?.firmware_map()?;
    let all = told.iter().filter(|row| row.kind == "System RAM");
    ensure!(all.map(|row| row.end).max() == Some(7 * GIB), "{told:x?}");
    Ok(())
}
