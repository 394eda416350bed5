//! The image entered in QEMU as the kernel enters it: no GDT, no IDT, CR4.PAE
//! alone. A payload in place of the next kernel reports the registers it got.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "support for tests: nobody is there to handle an error"
)]

use std::arch::global_asm;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rkexec::base::PhysRange;
use rkexec::purgatory::{self, Mode, Request};

/// Where the stub, the payload, the image and a segment are loaded.
const STUB: u64 = 0x10_0000;
const PAYLOAD: u64 = 0x200_0000;
const SEGMENT: u64 = 0x400_0000;
const IMAGE: u64 = 0x500_0000;
/// The page tables show the first GiB here as well.
const ALIAS: u64 = 31 << 30;
const BOOT_PARAMS: u64 = 0x1234_5678_9abc_d000;
const TIMEOUT: Duration = Duration::from_secs(60);

// The first quad is the address to go to. Linked into this test, but run at STUB
// only: hence no absolute symbols.
global_asm!(
    r#"
    .pushsection .rodata.stub, "a"
    .balign 8
    .globl stub_begin, stub_end, payload_begin, payload_end, payload32_begin, payload32_end
stub_begin:
    .quad   0
    .code32
    cli
    # Tables at 0x200000: 4 GiB by pages of 2 MiB, the first GiB at 31 GiB too.
    mov     $0x200000, %edi
    xor     %eax, %eax
    mov     $6 * 1024, %ecx
    rep     stosl
    movl    $0x201003, 0x200000
    movl    $0x202003, 0x201000
    movl    $0x203003, 0x201008
    movl    $0x204003, 0x201010
    movl    $0x205003, 0x201018
    movl    $0x202003, 0x2010f8
    mov     $0x202000, %edi
    mov     $0x83, %eax
    mov     $2048, %ecx
2:  mov     %eax, (%edi)
    add     $0x200000, %eax
    add     $8, %edi
    dec     %ecx
    jnz     2b
    mov     $0x20, %eax
    mov     %eax, %cr4
    mov     $0x200000, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx
    rdmsr
    or      $0x900, %eax
    wrmsr
    lgdt    stub_pointer - stub_begin + {stub}
    mov     $0x80000001, %eax
    mov     %eax, %cr0
    .byte   0xea
    .long   stub_long - stub_begin + {stub}
    .word   8
    .code64
stub_long:
    mov     $16, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    lgdt    stub_nothing(%rip)
    lidt    stub_nothing(%rip)
    mov     $0x80000, %esp
    pushq   $0
    pushq   stub_begin(%rip)
    xor     %eax, %eax
    xor     %ecx, %ecx
    xor     %edx, %edx
    xor     %edi, %edi
    ret
    .balign 8
stub_gdt:
    .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff
stub_pointer:
    .word   23
    .long   stub_gdt - stub_begin + {stub}
stub_nothing:
    .word   0
    .quad   0
stub_end:

    .balign 8
payload_begin:
    mov     %rax, 6f(%rip)
    mov     %rbx, 6f+8(%rip)
    mov     %rcx, 6f+16(%rip)
    mov     %rdx, 6f+24(%rip)
    mov     %rdi, 6f+32(%rip)
    mov     %rbp, 6f+40(%rip)
    mov     %r8, 6f+48(%rip)
    mov     %r9, 6f+56(%rip)
    mov     %r10, 6f+64(%rip)
    mov     %r11, 6f+72(%rip)
    mov     %r12, 6f+80(%rip)
    mov     %r13, 6f+88(%rip)
    mov     %r14, 6f+96(%rip)
    mov     %r15, 6f+104(%rip)
    mov     %rsi, 6f+112(%rip)
    mov     %rsp, 6f+120(%rip)
    pushfq
    pop     6f+128(%rip)
    mov     %cr0, %rax
    mov     %rax, 6f+136(%rip)
    mov     %cr4, %rax
    mov     %rax, 6f+144(%rip)
    mov     %cs, 6f+152(%rip)
    mov     %ds, 6f+154(%rip)
    mov     %es, 6f+156(%rip)
    mov     %ss, 6f+158(%rip)
    sidt    6f+160(%rip)
    sgdt    6f+176(%rip)
    lea     6f(%rip), %rsi
    mov     $192, %ecx
    mov     $0xe9, %edx
    rep     outsb
    mov     $0xf4, %edx
    mov     $16, %al
    out     %al, %dx
    hlt
6:
payload_end:

    .balign 8
payload32_begin:
    .code32
    mov     %eax, payload32_end - payload32_begin + {payload}
    mov     %ebx, payload32_end - payload32_begin + {payload} + 4
    mov     %ecx, payload32_end - payload32_begin + {payload} + 8
    mov     %edx, payload32_end - payload32_begin + {payload} + 12
    mov     %esi, payload32_end - payload32_begin + {payload} + 16
    mov     %edi, payload32_end - payload32_begin + {payload} + 20
    mov     %ebp, payload32_end - payload32_begin + {payload} + 24
    mov     %esp, payload32_end - payload32_begin + {payload} + 28
    pushf
    pop     payload32_end - payload32_begin + {payload} + 32
    mov     %cr0, %eax
    mov     %eax, payload32_end - payload32_begin + {payload} + 36
    mov     %cr4, %eax
    mov     %eax, payload32_end - payload32_begin + {payload} + 40
    mov     $0xc0000080, %ecx
    rdmsr
    mov     %eax, payload32_end - payload32_begin + {payload} + 44
    mov     %cs, payload32_end - payload32_begin + {payload} + 48
    mov     %ds, payload32_end - payload32_begin + {payload} + 50
    mov     %es, payload32_end - payload32_begin + {payload} + 52
    mov     %ss, payload32_end - payload32_begin + {payload} + 54
    mov     %fs, payload32_end - payload32_begin + {payload} + 56
    mov     %gs, payload32_end - payload32_begin + {payload} + 58
    sidt    payload32_end - payload32_begin + {payload} + 60
    # Limits of the segments in use: to the last byte of 4 GiB.
    mov     %cs, %eax
    lsl     %eax, %eax
    mov     %eax, payload32_end - payload32_begin + {payload} + 68
    mov     %ds, %eax
    lsl     %eax, %eax
    mov     %eax, payload32_end - payload32_begin + {payload} + 72
    mov     $payload32_end - payload32_begin + {payload}, %esi
    mov     $76, %ecx
    mov     $0xe9, %edx
    rep     outsb
    mov     $0xf4, %edx
    mov     $16, %al
    out     %al, %dx
    hlt
    .code64
payload32_end:
    .popsection
    "#,
    stub = const STUB,
    payload = const PAYLOAD,
    options(att_syntax)
);

unsafe extern "C" {
    static stub_begin: u8;
    static stub_end: u8;
    static payload_begin: u8;
    static payload_end: u8;
    static payload32_begin: u8;
    static payload32_end: u8;
}

fn between(begin: *const u8, end: *const u8) -> Vec<u8> {
    let length = end.addr() - begin.addr();
    // SAFETY: both symbols are of one section, in this order.
    unsafe { std::slice::from_raw_parts(begin, length) }.to_vec()
}

/// An ELF file that QEMU's `-kernel` enters in 32-bit mode (PVH).
fn stub(target: u64) -> Vec<u8> {
    let mut code = between(&raw const stub_begin, &raw const stub_end);
    code[..8].copy_from_slice(&target.to_le_bytes());
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let base = u32::try_from(STUB).unwrap();
    let size = u32::try_from(code.len()).unwrap();
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    elf.extend(words(&[1, base + 8, 52, 0, 0]));
    for half in [52_u16, 32, 2, 40, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // PT_LOAD, then PT_NOTE: XEN_ELFNOTE_PHYS32_ENTRY.
    elf.extend(words(&[1, 0x1000, base, base, size, size, 7, 0x1000]));
    elf.extend(words(&[4, 116, 0, 0, 20, 20, 4, 4]));
    elf.extend(words(&[4, 4, 18, u32::from_le_bytes(*b"Xen\0"), base + 8]));
    elf.resize(0x1000, 0);
    elf.extend(code);
    elf
}

/// What to do to the image before it is entered, at which virtual address.
struct Machine {
    request: Request,
    alias: u64,
    damage: fn(&mut Vec<u8>),
    segment: u64,
    wrong_digest: bool,
}

impl Machine {
    fn new() -> Self {
        Self {
            request: Request {
                entry: PAYLOAD,
                argument: BOOT_PARAMS,
                serial_port: Some(0x3f8),
                ..super::REQUEST
            },
            alias: 0,
            damage: |_| {},
            segment: SEGMENT,
            wrong_digest: false,
        }
    }

    fn start(&self, directory: &Path) -> Child {
        let write = |name: &str, bytes: &[u8]| fs::write(directory.join(name), bytes).unwrap();
        let payload = match self.request.mode {
            Mode::Long => between(&raw const payload_begin, &raw const payload_end),
            Mode::Protected | Mode::Multiboot { .. } => {
                between(&raw const payload32_begin, &raw const payload32_end)
            }
        };
        let segment = super::noise((3 << 20) + 12_345);
        let range = |start, bytes: &[u8]| PhysRange::new(start, bytes.len() as u64).unwrap();
        let mut digest = purgatory::digest(&segment);
        digest[7] ^= u8::from(self.wrong_digest);
        let digests = [
            (range(PAYLOAD, &payload), purgatory::digest(&payload)),
            (range(self.segment, &segment), digest),
        ];
        let mut image = purgatory::image(&self.request, &digests).unwrap();
        (self.damage)(&mut image);
        write("stub", &stub(self.alias + IMAGE + purgatory::ENTRY));
        write("payload", &payload);
        write("segment", &segment);
        write("image", &image);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.current_dir(directory);
        qemu.args(["-accel", "tcg", "-cpu", "qemu64", "-m", "256", "-no-reboot"]);
        qemu.args(["-nodefaults", "-display", "none", "-kernel", "stub"]);
        qemu.args(["-serial", "file:serial", "-debugcon", "file:registers"]);
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        for (file, address) in [("payload", PAYLOAD), ("segment", SEGMENT), ("image", IMAGE)] {
            qemu.arg("-device");
            qemu.arg(format!("loader,file={file},addr={address:#x},force-raw=on"));
        }
        qemu.stdin(Stdio::null());
        qemu.spawn()
            .expect("starting qemu-system-x86_64: run tests/vm/setup")
    }

    /// Runs until the payload ends the machine; the registers it saw.
    fn registers(&self) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let mut qemu = self.start(directory.path());
        let end = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = qemu.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                qemu.kill().unwrap();
                qemu.wait().unwrap();
                panic!("no answer; serial: {}", serial(directory.path()));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        // isa-debug-exit: 16 << 1 | 1. A triple fault gives 0.
        assert_eq!(status.code(), Some(33), "{}", serial(directory.path()));
        assert_eq!(serial(directory.path()), "");
        fs::read(directory.path().join("registers")).unwrap()
    }

    /// Runs until the purgatory says that it halted; all it said.
    fn message(&self) -> String {
        let directory = tempfile::tempdir().unwrap();
        let mut qemu = self.start(directory.path());
        let end = Instant::now() + TIMEOUT;
        let mut ended = None;
        while ended.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            ended = qemu.try_wait().unwrap();
            if serial(directory.path()).ends_with("halted\r\n") {
                break;
            }
        }
        assert_eq!(ended, None, "ended: {}", serial(directory.path()));
        qemu.kill().unwrap();
        qemu.wait().unwrap();
        let registers = fs::read(directory.path().join("registers")).unwrap();
        assert!(registers.is_empty(), "the next kernel was entered");
        serial(directory.path())
    }
}

fn serial(directory: &Path) -> String {
    String::from_utf8(fs::read(directory.join("serial")).unwrap_or_default()).unwrap()
}

#[test]
fn the_next_kernel_gets_the_promised_state() {
    let verified = Machine::new();
    let mut unverified = Machine::new();
    unverified.request.verify = false;
    unverified.wrong_digest = true;
    let mut high = Machine::new();
    high.alias = ALIAS;
    for machine in [verified, unverified, high] {
        let bytes = machine.registers();
        let quad = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(bytes[..112], [0; 112], "rax to r15 but rsi and rsp");
        assert_eq!(quad(112), BOOT_PARAMS, "rsi");
        assert_eq!(
            quad(120),
            machine.alias + IMAGE + purgatory::size(),
            "rsp: the end of the purgatory's stack"
        );
        assert_eq!(quad(128) & 0x600, 0, "IF and DF");
        assert_eq!(quad(136), 0x8000_0011, "cr0 as it was");
        assert_eq!(quad(144), 0x20, "cr4 as it was");
        assert_eq!(bytes[152..160], [0x10, 0, 0x18, 0, 0x18, 0, 0x18, 0]);
        assert_eq!(bytes[160..170], [0; 10], "an empty IDT");
        assert_eq!(bytes[176..178], [39, 0], "a GDT of five entries");
    }
}

/// "I386 machine state" of both Multiboot specifications, section 3.2.
#[test]
fn a_multiboot_kernel_gets_protected_mode() {
    let mut machine = Machine::new();
    machine.request.mode = Mode::Multiboot { eax: 0x36d7_6289 };
    machine.request.argument = 0xfedc_ba98;
    let bytes = machine.registers();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(4)), (0x36d7_6289, 0xfedc_ba98), "eax, ebx");
    assert_eq!(bytes[8..28], [0; 20], "ecx, edx, esi, edi, ebp");
    check_protected_mode(&bytes);
}

/// "32-bit Boot Protocol" of Documentation/arch/x86/boot.rst.
#[test]
fn a_32_bit_linux_gets_boot_params_in_esi() {
    let mut machine = Machine::new();
    machine.request.mode = Mode::Protected;
    machine.request.argument = 0xfedc_ba98;
    let bytes = machine.registers();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(bytes[..16], [0; 16], "eax, ebx, ecx, edx");
    assert_eq!(word(16), 0xfedc_ba98, "esi");
    assert_eq!(bytes[20..28], [0; 8], "edi, ebp");
    check_protected_mode(&bytes);
}

/// What holds for every kernel that is entered in protected mode.
#[track_caller]
fn check_protected_mode(bytes: &[u8]) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(u64::from(word(28)), IMAGE + purgatory::size(), "esp");
    // VM, DF and IF.
    assert_eq!(word(32) & 0x2_0600, 0, "eflags");
    assert_eq!(word(36), 0x11, "cr0: protected mode, no paging");
    assert_eq!((word(40), word(44)), (0, 0), "cr4, efer");
    // __BOOT_CS and __BOOT_DS.
    assert_eq!(bytes[48..52], [0x10, 0, 0x18, 0], "cs, ds");
    assert_eq!(bytes[52..60], [0x18, 0, 0x18, 0, 0x18, 0, 0x18, 0]);
    assert_eq!(bytes[60..66], [0; 6], "an empty IDT");
    assert_eq!((word(68), word(72)), (u32::MAX, u32::MAX), "flat segments");
}

#[test]
fn a_wrong_digest_is_told_on_the_serial_port_and_stops() {
    let mut machine = Machine::new();
    machine.wrong_digest = true;
    let message = machine.message();
    assert!(
        message.starts_with(
            "\r\nrkexec purgatory: segment at 0x4000000, 0x303039 bytes: digest mismatch: expected "
        ),
        "{message}"
    );
    let hex: Vec<_> = message
        .split_whitespace()
        .filter(|word| word.len() == 16 && u64::from_str_radix(word, 16).is_ok())
        .collect();
    assert_eq!(hex.len(), 2, "{message}");
    assert_ne!(hex[0], hex[1]);
}

#[test]
fn other_faults_are_told_too() {
    let mut magic = Machine::new();
    magic.damage = |image| image[7] = b'0';
    let mut version = Machine::new();
    version.damage = |image| image[8] = 9;
    let mut unmapped = Machine::new();
    unmapped.segment = 5 << 30;
    for (machine, expected) in [
        (
            magic,
            "bad magic in the parameter block: 0x3047525550584b52",
        ),
        (version, "parameter block of version 0x9, wanted 0x6"),
        (unmapped, "CPU exception 0xe at 0x"),
    ] {
        let message = machine.message();
        let start = format!("\r\nrkexec purgatory: {expected}");
        assert!(message.starts_with(&start), "{message}");
    }
}
