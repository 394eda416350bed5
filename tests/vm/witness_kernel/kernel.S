/* A multiboot kernel that writes what it was given to the first serial port, in
   lines `multiboot NAME HEX`, and ends QEMU through isa-debug-exit.
   VERSION is 1 or 2. It relies on nothing that the specifications do not promise:
   no stack, no GDT, and with version 2 no address. */

#define COM1 0x3f8
#define DEBUG_EXIT 0xf4

        .code32
        .section .header, "a"
#if VERSION == 1
        .balign 4
        .long   0x1badb002
        .long   3                       /* page-aligned modules, memory */
        .long   -(0x1badb002 + 3)
#else
        .balign 8
header:
        .long   0xe85250d6
        .long   0
        .long   header_end - header
        .long   -(0xe85250d6 + (header_end - header))
        .short  1, 0                    /* is to be told, or it does not start: */
        .long   24
        .long   1, 3, 4, 6
        .short  6, 0                    /* modules on pages */
        .long   8
        .short  10, 0                   /* relocatable: 32 MiB to 512 MiB, as high as can be */
        .long   24
        .long   0x2000000, 0x1fffffff, 0x400000, 2
        .short  7, 1                    /* could do with EFI's boot services */
        .long   8
        .short  0, 0
        .long   8
header_end:
#endif

        .text
        .globl  _start
_start:
        /* One call tells where this is; its stack is the information's own first
           word, which is put back. */
        mov     (%ebx), %ecx
        lea     4(%ebx), %esp
        call    1f
1:      pop     %ebp
        sub     $1b, %ebp
        mov     %ecx, (%ebx)
        lea     stack_end(%ebp), %esp
        cld

        mov     %eax, saved(%ebp)
        mov     %ebx, saved+4(%ebp)
        lea     _start(%ebp), %ecx
        mov     %ecx, saved+8(%ebp)
        pushf
        pop     saved+12(%ebp)
        mov     %cr0, %ecx
        mov     %ecx, saved+16(%ebp)
        mov     %cr4, %ecx
        mov     %ecx, saved+20(%ebp)
        mov     $0xc0000080, %ecx
        rdmsr
        mov     %eax, saved+24(%ebp)

        lea     n_state(%ebp), %edi
        lea     saved(%ebp), %esi
        mov     $28, %ecx
        call    dump

        /* Was this file loaded as it is, and is the rest zero? */
        lea     n_data(%ebp), %edi
        lea     pattern(%ebp), %esi
        mov     $pattern_end - pattern, %ecx
        call    dump
        lea     bss(%ebp), %esi
        mov     $bss_end - bss, %ecx
        xor     %edx, %edx
2:      lodsb
        or      %al, %dl
        loop    2b
        mov     %edx, saved(%ebp)
        lea     n_bss(%ebp), %edi
        lea     saved(%ebp), %esi
        mov     $4, %ecx
        call    dump

#if VERSION == 1
        lea     n_information(%ebp), %edi
        mov     %ebx, %esi
        mov     $116, %ecx
        call    dump
        lea     n_cmdline(%ebp), %edi
        mov     16(%ebx), %esi
        call    string
        lea     n_loader(%ebp), %edi
        mov     64(%ebx), %esi
        call    string
        lea     n_map(%ebp), %edi
        mov     48(%ebx), %esi
        mov     44(%ebx), %ecx
        call    dump
        mov     20(%ebx), %edx
        mov     24(%ebx), %ebx
3:      test    %edx, %edx
        jz      done
        lea     n_string(%ebp), %edi
        mov     8(%ebx), %esi
        call    string
        lea     n_module(%ebp), %edi
        mov     (%ebx), %esi
        mov     4(%ebx), %ecx
        sub     %esi, %ecx
        call    dump
        add     $16, %ebx
        dec     %edx
        jmp     3b
#else
        lea     n_information(%ebp), %edi
        mov     %ebx, %esi
        mov     (%ebx), %ecx
        call    dump
        mov     (%ebx), %edx
        add     %ebx, %edx              /* end */
        add     $8, %ebx
3:      cmp     %edx, %ebx
        jae     done
        cmpl    $3, (%ebx)
        jne     4f
        lea     n_module(%ebp), %edi
        mov     8(%ebx), %esi
        mov     12(%ebx), %ecx
        sub     %esi, %ecx
        call    dump
4:      mov     4(%ebx), %eax
        add     $7, %eax
        and     $~7, %eax
        add     %eax, %ebx
        jmp     3b
#endif
done:
        lea     n_end(%ebp), %edi
        xor     %ecx, %ecx
        call    dump
        mov     $DEBUG_EXIT, %dx
        mov     $0x21, %eax
        out     %eax, %dx
5:      hlt
        jmp     5b

/* The C string at ESI as a line named EDI. */
string:
        push    %esi
        xor     %ecx, %ecx
1:      lodsb
        test    %al, %al
        jz      2f
        inc     %ecx
        jmp     1b
2:      pop     %esi

/* The ECX bytes at ESI as a line named EDI; EBX, EDX and EBP stay. */
dump:
        push    %edx
        push    %esi
        lea     n_prefix(%ebp), %esi
        call    text
        mov     %edi, %esi
        call    text
        pop     %esi
        test    %ecx, %ecx
        jz      2f
1:      movzbl  (%esi), %eax
        inc     %esi
        push    %eax
        shr     $4, %eax
        mov     digits(%ebp, %eax), %al
        call    put
        pop     %eax
        and     $15, %eax
        mov     digits(%ebp, %eax), %al
        call    put
        loop    1b
2:      mov     $'\n', %al
        call    put
        pop     %edx
        ret

/* The C string at ESI. */
text:
        lodsb
        test    %al, %al
        jz      1f
        call    put
        jmp     text
1:      ret

/* The character AL. */
put:
        push    %eax
        mov     $COM1 + 5, %dx
1:      in      %dx, %al
        test    $0x20, %al
        jz      1b
        pop     %eax
        mov     $COM1, %dx
        out     %al, %dx
        ret

        .data
digits: .ascii  "0123456789abcdef"
n_prefix: .asciz "multiboot "
n_state: .asciz "state "
n_data: .asciz  "data "
n_bss:  .asciz  "bss "
n_information: .asciz "information "
n_cmdline: .asciz "cmdline "
n_loader: .asciz "loader "
n_map:  .asciz  "map "
n_string: .asciz "string "
n_module: .asciz "module "
n_end:  .asciz  "end "
pattern:
        .ascii  "loaded from the file to the last byte"
pattern_end:

        .bss
        .balign 16
saved:  .skip   32
stack:  .skip   512
stack_end:
bss:    .skip   20000
bss_end:
