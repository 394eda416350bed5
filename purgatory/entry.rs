//! The entry and exit code, the exception stubs, and the memory functions that
//! rustc expects from a C library.

use core::arch::{asm, global_asm};
use core::mem::{offset_of, size_of};

use crate::abi::{FLAG_EBX, FLAG_PROTECTED_MODE, Params};

/// Stops this CPU for ever. The other ones were stopped by the old kernel.
pub fn halt() -> ! {
    loop {
        // SAFETY: ring 0, and nothing else is to run.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

// The kernel enters with IF clear and the identity map on, but without a GDT or
// IDT worth the name, and with CR4.OSFXSR clear: an SSE instruction would be
// #UD, which without an IDT is a reset.
global_asm!(
    r#"
    .section .params, "aw", @progbits
    .balign 4096
    .hidden purgatory_params
    .globl purgatory_params
purgatory_params:
    .zero {params}

    .section .text.entry, "ax", @progbits
    .globl purgatory_entry
purgatory_entry:
    cli
    cld
    lea     rsp, [rip + purgatory_stack_end]

    // GDT: the selectors are those the 64-bit boot protocol asks for,
    // __BOOT_CS and __BOOT_DS.
    lea     rax, [rip + purgatory_gdt]
    mov     [rip + purgatory_gdt_pointer + 2], rax
    lgdt    [rip + purgatory_gdt_pointer]
    mov     eax, 0x18
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    mov     fs, eax
    mov     gs, eax
    push    0x10
    lea     rax, [rip + 1f]
    push    rax
    retfq
1:
    // IDT: gate n leads to stub n, 8 bytes each.
    lea     rdi, [rip + purgatory_idt]
    lea     rax, [rip + purgatory_stubs]
    mov     ecx, 32
2:
    mov     [rdi], ax                       // offset 0..16
    mov     dword ptr [rdi + 2], 0x8e000010 // selector 0x10, IST 0, present, interrupt gate
    mov     rdx, rax
    shr     rdx, 16
    mov     [rdi + 6], dx                   // offset 16..32
    shr     rdx, 16
    mov     [rdi + 8], edx                  // offset 32..64
    mov     dword ptr [rdi + 12], 0
    add     rdi, 16
    add     rax, 8
    dec     ecx
    jnz     2b
    lea     rax, [rip + purgatory_idt]
    mov     [rip + purgatory_idt_pointer + 2], rax
    lidt    [rip + purgatory_idt_pointer]

    // SSE on: CR0.EM and TS clear, MP set; CR4.OSFXSR and OSXMMEXCPT.
    mov     rbx, cr0
    mov     r12, cr4
    mov     rax, rbx
    and     rax, ~0xc
    or      rax, 2
    mov     cr0, rax
    mov     rax, r12
    or      rax, 0x600
    mov     cr4, rax

    call    purgatory_main

    // As it was. An IDT without gates, as the old kernel left it: this one
    // lies in memory that the next kernel is going to use.
    mov     cr4, r12
    mov     cr0, rbx
    mov     word ptr [rip + purgatory_idt_pointer], 0
    mov     qword ptr [rip + purgatory_idt_pointer + 2], 0
    lidt    [rip + purgatory_idt_pointer]

    test    dword ptr [rip + purgatory_params + {flags}], {protected_mode}
    jnz     purgatory_leave_long_mode

    mov     rsi, [rip + purgatory_params + {boot_params}]
    xor     eax, eax
    xor     ebx, ebx
    xor     ecx, ecx
    xor     edx, edx
    xor     edi, edi
    xor     ebp, ebp
    xor     r8d, r8d
    xor     r9d, r9d
    xor     r10d, r10d
    xor     r11d, r11d
    xor     r12d, r12d
    xor     r13d, r13d
    xor     r14d, r14d
    xor     r15d, r15d
    lea     rsp, [rip + purgatory_stack_end]
    jmp     qword ptr [rip + purgatory_params + {entry}]

    // The other exit. This code, its stack and all that is reached from here lie
    // below 4 GiB, by the loader's word, and virtual addresses are physical ones:
    // nothing moves when paging ends. Interrupts are off, and an NMI would be a
    // reset from here on, as the gates that ignored it are gone.
purgatory_leave_long_mode:
    lea     rsp, [rip + purgatory_stack_end]
    // A Linux has boot_params in ESI, a multiboot kernel its information in EBX;
    // the other one of the two is 0. EBP holds what EAX becomes.
    mov     esi, [rip + purgatory_params + {boot_params}]
    xor     ebx, ebx
    test    dword ptr [rip + purgatory_params + {flags}], {ebx}
    jz      5f
    xchg    ebx, esi
5:
    mov     ebp, [rip + purgatory_params + {eax}]
    mov     edi, [rip + purgatory_params + {entry}]
    // __BOOT_CS, 0x10, becomes the 32-bit code segment. CS keeps the descriptor it
    // was loaded with until the far return below loads the new one.
    mov     rax, [rip + purgatory_gdt + 0x20]
    mov     [rip + purgatory_gdt + 0x10], rax
    push    0x10
    lea     rax, [rip + 6f]
    push    rax
    retfq

    .code32
6:
    // Compatibility mode: 32-bit code, and the old kernel's page tables still.
    // Bases and limits count again, so all data segments are loaded anew.
    mov     eax, 0x18
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    mov     fs, eax
    mov     gs, eax
    // Paging off: that ends long mode (EFER.LMA), and only then may LME go, and
    // PAE and LA57 with CR4. 0 is what a firmware leaves in both.
    mov     eax, cr0
    and     eax, 0x7fffffff
    mov     cr0, eax
    mov     ecx, 0xc0000080                 // EFER
    xor     eax, eax
    xor     edx, edx
    wrmsr
    mov     cr4, eax
    // Protected mode, flat, no paging.
    mov     eax, ebp
    push    edi
    xor     ecx, ecx
    xor     edi, edi
    xor     ebp, ebp
    ret
    .code64

    // Stub n: `push n` (2 bytes), `jmp` (5), and one byte of padding.
    .balign 8
purgatory_stubs:
    .set    vector, 0
    .rept   32
    .byte   0x6a, vector
    .byte   0xe9
    .long   purgatory_trap - . - 4
    .byte   0x90
    .set    vector, vector + 1
    .endr

purgatory_trap:
    // An NMI that the old kernel did not silence must not cost the boot.
    cmp     qword ptr [rsp], 2
    jne     2f
    add     rsp, 8
    iretq
2:
    cld
    // A second exception, such as the #VC of the port I/O below, only halts.
    cmp     byte ptr [rip + purgatory_trapped], 0
    jne     3f
    mov     byte ptr [rip + purgatory_trapped], 1
    mov     rdi, [rsp]
    // Vectors 8, 10 to 14, 17, 21, 29 and 30 push an error code first.
    mov     rsi, [rsp + 8]
    mov     eax, 0x60227d00
    bt      eax, edi
    jnc     4f
    mov     rsi, [rsp + 16]
4:
    mov     rdx, cr2
    lea     rsp, [rip + purgatory_stack_end]
    call    purgatory_exception
3:
    cli
    hlt
    jmp     3b

    .hidden memcpy
    .globl  memcpy
    .hidden memmove
    .globl  memmove
    .hidden memset
    .globl  memset
    .hidden memcmp
    .globl  memcmp
    .hidden bcmp
    .globl  bcmp
memmove:
    mov     rax, rdi
    sub     rax, rsi
    cmp     rax, rdx
    jae     memcpy
    // The target begins within the source: from the end.
    mov     rax, rdi
    mov     rcx, rdx
    lea     rdi, [rdi + rdx - 1]
    lea     rsi, [rsi + rdx - 1]
    std
    rep     movsb
    cld
    ret
memcpy:
    mov     rax, rdi
    mov     rcx, rdx
    rep     movsb
    ret
memset:
    mov     r8, rdi
    mov     eax, esi
    mov     rcx, rdx
    rep     stosb
    mov     rax, r8
    ret
memcmp:
bcmp:
    xor     eax, eax
    mov     rcx, rdx
    test    rcx, rcx
    jz      5f
    repe    cmpsb
    jz      5f
    movzx   eax, byte ptr [rdi - 1]
    movzx   ecx, byte ptr [rsi - 1]
    sub     eax, ecx
5:
    ret

    .section .data.entry, "aw", @progbits
    .balign 16
purgatory_gdt:
    .quad   0
    .quad   0
    .quad   0x00af9b000000ffff              // 0x10: 64-bit code, execute and read
    .quad   0x00cf93000000ffff              // 0x18: data, read and write
    .quad   0x00cf9b000000ffff              // 0x20: 32-bit code, what 0x10 becomes for it
purgatory_gdt_pointer:
    .word   39
    .quad   0
purgatory_idt_pointer:
    .word   32 * 16 - 1
    .quad   0
purgatory_trapped:
    .byte   0

    .section .bss.entry, "aw", @nobits
    .balign 16
purgatory_idt:
    .zero   32 * 16
    .balign 4096
    .zero   16384
purgatory_stack_end:
    "#,
    params = const size_of::<Params>(),
    flags = const offset_of!(Params, flags),
    protected_mode = const FLAG_PROTECTED_MODE,
    ebx = const FLAG_EBX,
    entry = const offset_of!(Params, entry),
    boot_params = const offset_of!(Params, boot_params),
    eax = const offset_of!(Params, eax),
);
