//! What `rkexec::kho` makes, given to a real kernel by hand: a kernel without Kexec
//! Handover loads it with kexec_load, and the kernel that reads it is the witness.

use anyhow::{Context as _, Result, ensure};
use rkexec::base::PhysRange;
use rkexec::kho::{File, Name, Node, Pool, Session, State, encode};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::trip::{self, host_file};

/// Where things lie in a guest of 1 GiB: scratch memory with kernel, initrd and tables in
/// it, and outside of it what is handed over.
const SCRATCH: (u64, u64) = (0x1000_0000, 0x1000_0000);
const TABLES: u64 = 0x1100_0000;
const KERNEL: u64 = 0x1200_0000;
const INITRD: u64 = 0x1800_0000;
const POOL: (u64, u64) = (0x2800_0000, 2 << 20);
const AREA: u64 = 0x3000_0000;
const PAGE: u64 = 4096;
/// SETUP_KEXEC_KHO.
const KHO: u32 = 10;

/// Loads by kexec_load what lies in files: the tables get boot_params of the running
/// kernel, with the header of the next one (Documentation/arch/x86/boot.rst).
const LOAD: &str = r#"
sub slurp {
  open(my $file, "<", $_[0]) or die "$_[0]: $!";
  binmode($file);
  local $/;
  return scalar <$file>;
}
my ($tables, $kernel, $initrd) = map { hex } @ARGV;
my $image = slurp("/next/vmlinuz");
my $setup = (unpack("C", substr($image, 0x1f1, 1)) + 1) * 512;
my $ird = slurp("/next/initrd");
my $bp = slurp("/sys/kernel/boot_params/data");
substr($bp, 0x1ef, 1) = "\0";
substr($bp, 0x0c0, 12) = "\0" x 12;
substr($bp, 0x1c0, 32) = "\0" x 32;
my $header = substr($image, 0x1f1, 0x202 + unpack("C", substr($image, 0x201, 1)) - 0x1f1);
substr($bp, 0x1f1, length $header) = $header;
substr($bp, 0x210, 1) = "\xff";
substr($bp, 0x218, 8) = pack("LL", $initrd, length $ird);
substr($bp, 0x228, 4) = pack("L", $tables + 4096);
substr($bp, 0x250, 8) = pack("Q", $tables + 8192);
my $page = sub { $_[0] . "\0" x (4096 - length $_[0]) };
# cli; mov rsi, boot_params; mov rax, entry; jmp rax
my $jump = pack("CCCQCCQCC", 0xfa, 0x48, 0xbe, $tables, 0x48, 0xb8, $kernel + 0x200, 0xff, 0xe0);
my $misc = $bp . $page->(slurp("/next/cmdline")) . $page->(slurp("/next/node")) . $page->($jump);
my $up = sub { ($_[0] + 4095) & ~4095 };
my @parts = (
  [$misc, $tables, length $misc],
  [substr($image, $setup), $kernel, unpack("L", substr($image, 0x260, 4))],
  [$ird, $initrd, length $ird],
  map { my $at = hex; my $bytes = slurp("/next/$_"); [$bytes, $at, length $bytes] } split(" ", slurp("/next/parts"))
);
my $segments = join "", map {
  pack("QQQQ", unpack("Q", pack("P", $_->[0])), length $_->[0], $_->[1], $up->($_->[2]))
} @parts;
my $number = @parts;
syscall(246, $tables + 3 * 4096, $number, $segments, 62 << 16) == 0 or die "kexec_load: $!";
"#;

/// Takes the files out of their session (include/uapi/linux/liveupdate.h).
const RETRIEVE: &str = r#"
open(my $device, "+<", "/dev/liveupdate") or die "open: $!";
my $call = pack("Lla64", 72, 0, "carried");
ioctl($device, 0xBA01, $call) or die "session: $!";
open(my $session, "+<&=", (unpack("Ll", $call))[1]) or die "session: $!";
foreach my $token (1, 2, 3) {
  $call = pack("LlQ", 16, 0, $token);
  ioctl($session, 0xBA41, $call) or die "file $token: $!";
  open(my $file, "+<&=", (unpack("Ll", $call))[1]) or die "file $token: $!";
  binmode($file);
  open(my $copy, ">", "/tmp/file-$token") or die "copy: $!";
  binmode($copy);
  local $/ = \65536;
  print $copy $_ while <$file>;
}
$call = pack("LL", 8, 0);
ioctl($session, 0xBA42, $call) or die "finish: $!";
"#;

/// The files that are handed over, by token from 1 on.
fn files() -> [Vec<u8>; 3] {
    [
        trip::noise("kho-large", 5 << 20),
        trip::noise("kho-small", 777_777),
        Vec::new(),
    ]
}

/// The setup_data node, and what lies at [`AREA`].
fn encoded(files: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<u8>)> {
    let of_session = files.iter().zip(1..).map(|(file, token)| File {
        token,
        size: file.len() as u64,
    });
    let state = State {
        sessions: vec![Session {
            name: Name::new("carried").context("name")?,
            files: of_session.collect(),
        }],
        pools: vec![Pool {
            name: Name::new("pool").context("name")?,
            range: PhysRange::new(POOL.0, POOL.1)?,
        }],
        release: Some("6.12.0-encoder".to_owned()),
    };
    let encoded = encode(&state, (0..4096).map(|page| AREA + page * PAGE))?;

    let mut area = Vec::new();
    let mut put = |page: u64, bytes: &[u8]| -> Result<()> {
        let at = usize::try_from(page - AREA)?;
        area.resize(area.len().max(at + 4096), 0);
        area[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    };
    for (page, bytes) in &encoded.pages {
        put(*page, bytes)?;
    }
    for content in &encoded.contents {
        let file = &files[content.file];
        let start = usize::try_from(content.offset)?;
        put(content.page, &file[start..file.len().min(start + 4096)])?;
    }
    let scratch = vec![PhysRange::new(SCRATCH.0, SCRATCH.1)?];
    let node = Node::new(scratch, encoded.tree).context("a large node")?;
    let data = node.bytes_at(TABLES + 2 * PAGE + 16);
    let size = u32::try_from(data.len())?.to_le_bytes();
    let header = [&0_u64.to_le_bytes()[..], &KHO.to_le_bytes(), &size].concat();
    Ok(([header, data].concat(), area))
}

/// The initrd of the next kernel, which takes everything out.
fn next_initrd(next: &Kernel) -> Result<Vec<u8>> {
    let mut overlay = Archive::new();
    overlay.program(std::path::Path::new("/usr/bin/perl"), "/usr/bin/perl")?;
    overlay.file("retrieve", 0o644, RETRIEVE.as_bytes());
    let after = format!(
        "dd if=/dev/mem bs=4096 skip={} count={} 2>/dev/null | sha256sum | record pool
         try retrieve perl /retrieve
         for token in 1 2 3; do sha256sum /tmp/file-$token | record file-$token; done",
        POOL.0 / PAGE,
        POOL.1 / PAGE,
    );
    overlay.file("test/stage-2", 0o644, after.as_bytes());
    initramfs::initrd(next, overlay)
}

/// Three files, one of them empty, and memory for `reserve_mem=` arrive in a kernel that
/// chooses its place at random.
#[test]
fn a_kernel_takes_over_what_is_encoded() -> Result<()> {
    let (first, next) = (Kernel::new("6.12")?, Kernel::new("kho")?);
    let files = files();
    let (node, area) = encoded(&files)?;
    let pool = trip::noise("kho-pool", usize::try_from(POOL.1)?);
    let line = format!(
        "{} kho=on liveupdate=on reserve_mem=2M:2M:pool\0",
        trip::chain_cmdline("2")
    );
    let script = format!(
        "try load perl /test/load.pl {TABLES:x} {KERNEL:x} {INITRD:x}
         rkexec exec"
    );
    let outcome = Guest::new("kho-encoder", &first)
        .program("/usr/bin/perl")?
        .file("next/vmlinuz", &host_file(&next.image())?)
        .file("next/initrd", &next_initrd(&next)?)
        .file("next/cmdline", line.as_bytes())
        .file("next/node", &node)
        .file("next/parts", format!("{:x} {AREA:x}", POOL.0).as_bytes())
        .file(&format!("next/{:x}", POOL.0), &pool)
        .file(&format!("next/{AREA:x}"), &area)
        .file("test/load.pl", LOAD.as_bytes())
        .script(&script)
        .run()?;

    let stage = outcome.stage(2)?;
    assert_eq!(stage.text("release")?, next.release);
    let log = stage.text("dmesg")?;
    for said in [
        "KHO: found kexec handover data",
        "KHO: exec from: 6.12.0-encoder (count 1)",
        "luo: Retrieved live update data",
        "Revived memory reservation 'pool' from KHO",
    ] {
        ensure!(log.contains(said), "{said}: {log}");
    }
    assert_eq!(stage.digest("pool")?, trip::sha256(&pool));
    for (file, token) in files.iter().zip(1..) {
        let digest = stage.digest(&format!("file-{token}"))?;
        assert_eq!(digest, trip::sha256(file), "file {token}");
    }
    Ok(())
}
