//! Dumps whose notes, words or segments are odd, and files that are no dumps.

use super::*;

#[test]
fn notes_may_be_merged_and_counted_elsewhere() {
    let ring = ring_with(3);
    let mut merged = ring.vmcore();
    let info = note(b"VMCOREINFO\0", ring.info().as_bytes());
    let others = [
        note(b"CORE\0", &[7; 336]),
        note(b"VMCOREINFO_XEN\0", b"x"),
        note(b"X\0", b""),
    ];
    merged.notes = vec![[others.concat(), info].concat()];
    check(&ring, &merged.build());
    merged.xnum = true;
    check(&ring, &merged.build());
    // One segment per CPU, in which an empty note is the last.
    merged
        .notes
        .splice(0..0, vec![[[0; 12], [9; 12]].concat(); 300]);
    check(&ring, &merged.build());
}

#[test]
fn notes_that_cannot_be() {
    let vmcore = ring_with(1).vmcore();
    let with = |notes: &[u8]| {
        let mut vmcore = vmcore.clone();
        vmcore.notes = vec![notes.to_vec()];
        vmcore.build()
    };
    let hint = refused(&with(&note(b"CORE\0", b"1234")), "without VMCOREINFO");
    assert!(hint.unwrap().contains("vmcoreinfo"));
    refused(&with(&[]), "without VMCOREINFO");
    refused(&with(&note(b"VMCOREINFO\0", b"")), "without VMCOREINFO");
    let mut long = note(b"VMCOREINFO\0", b"OSRELEASE=1\n");
    put(&mut long, 4, &u32::MAX.to_le_bytes());
    refused(&with(&long), "ends behind its segment");
    put(&mut long, 0, &u32::MAX.to_le_bytes());
    refused(&with(&long), "ends behind its segment");
    let huge = note(b"VMCOREINFO\0", &vec![b'\n'; (1 << 20) + 1]);
    refused(&with(&huge), "VMCOREINFO of 1048577 bytes");
    let endless = note(b"X\0", b"").repeat((1 << 20) + 1);
    refused(&with(&endless), "no end");
}

#[test]
fn vmcoreinfo_that_says_too_little_or_nonsense() {
    let ring = ring_with(1);
    let refused_with = |from: &str, to: &str, what: &str| {
        let info = ring.info().replace(from, to);
        assert_ne!(info, ring.info());
        refused(&TinyVmcore::new(ring.memory(), &info).build(), what)
    };
    for key in [
        "OFFSET(prb_desc.state_var)",
        "SIZE(printk_info)",
        "OFFSET(printk_info.seq)",
    ] {
        refused_with(key, "X", &format!("VMCOREINFO lacks {key}"));
    }
    let offset = "OFFSET(printk_info.text_len)=16";
    let name = "OFFSET(printk_info.text_len)";
    for (value, what) in [
        ("", "cannot be \"\""),
        ("-1", "cannot be \"-1\""),
        ("4097", "cannot be \"4097\""),
        ("99999999999999999999", "cannot be"),
        (
            "87",
            "printk_info.text_len ends behind printk_info, 88 bytes",
        ),
    ] {
        refused_with(offset, &format!("{name}={value}"), what);
    }
    refused_with("SIZE(prb_desc)=24", "SIZE(prb_desc)=0", "cannot be \"0\"");
    refused_with("SYMBOL(prb)=", "SYMBOL(prb)=x", "SYMBOL(prb) cannot be");
    refused_with(
        "SYMBOL(prb)=f",
        "SYMBOL(prb)=e",
        "does not hold the kernel's memory at 0xefff",
    );
    refused_with(
        "NUMBER(phys_base)=0",
        "NUMBER(phys_base)=1.5",
        "cannot be \"1.5\"",
    );
    assert!(refused_with("SYMBOL(prb)", "SYMBOL(log_buf)", "kernels before 5.10").is_some());
    refused_with("SYMBOL(prb)", "SYMBOL(x)", "6.1.0-tiny has no log");
}

#[test]
fn other_files_are_refused_by_name() {
    let file = ring_with(1).vmcore().build();
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        put(&mut file, at, bytes);
        file
    };
    for (file, what, hint) in [
        (
            b"makedumpfile\0\0\0\0\x01".to_vec(),
            "flattened",
            "makedumpfile -R",
        ),
        (
            b"KDUMP   \x06\0\0\0".to_vec(),
            "kdump-compressed",
            "--dump-dmesg",
        ),
        (
            b"DISKDUMP\x06\0\0\0".to_vec(),
            "kdump-compressed",
            "--dump-dmesg",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "gzip data", "unpack"),
        (patched(4, &[1]), "32-bit", "makedumpfile"),
        (patched(4, &[1])[..52].to_vec(), "32-bit", "makedumpfile"),
        (patched(5, &[2]), "big-endian", "makedumpfile"),
        (b"\n".to_vec(), "neither", "/proc/vmcore"),
        (b"\x7fEL".to_vec(), "neither", "/proc/vmcore"),
        (
            patched(16, &[2]),
            "of type 2 (EXEC), not a core",
            "/proc/vmcore",
        ),
        (
            patched(16, &[3]),
            "of type 3 (DYN), not a core",
            "/proc/vmcore",
        ),
        (file[..40].to_vec(), "cut short", "room"),
        (
            file[..200].to_vec(),
            "cut short: it ends before the program headers",
            "room",
        ),
    ] {
        let found = refused(&file, what).unwrap();
        assert!(found.contains(hint), "{found}: not {hint}");
    }
    for (file, what) in [
        (b"".to_vec(), "empty"),
        (patched(54, &[57]), "program headers of 57 bytes"),
    ] {
        assert_eq!(refused(&file, what), None);
    }
    // 2^32 - 1 program headers.
    let mut many = ring_with(1).vmcore();
    many.xnum = true;
    let mut many = many.build();
    put(&mut many, 64 + 44, &[0xff; 4]);
    refused(&many, "4294967295 program headers");
}

/// Puts page tables behind the memory that map it at [`IN_DIRECT`], small pages
/// with the second and the third exchanged; returns the address of the top one.
fn page_tables(memory: &mut Vec<u8>, levels: usize, encrypted: u64, large: bool) -> u64 {
    memory.resize(memory.len().next_multiple_of(4096), 0);
    if !large {
        memory[4096..12288].rotate_left(4096);
    }
    let top = memory.len();
    let mut table = top;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let last = level == 0 || (large && level == 1);
        memory.resize(table + 4096, 0);
        let pages: u64 = if level == 0 { 16 } else { 1 };
        for page in 0..pages {
            let target = match page {
                _ if !last => table as u64 + 4096,
                1 => 8192,
                2 => 4096,
                _ => page * 4096,
            };
            let entry = (PHYSICAL + target) | encrypted | if last && level > 0 { 0x81 } else { 1 };
            let index = usize::try_from((IN_DIRECT >> shift & 0x1ff) + page).unwrap();
            put(memory, table + 8 * index, &entry.to_le_bytes());
        }
        if last {
            break;
        }
        table += 4096;
    }
    IN_TEXT + top as u64
}

#[test]
fn addresses_that_no_segment_tells() {
    // As QEMU dumps a machine without paging: physical addresses alone.
    for (levels, encrypted, large) in [
        (4, 0, false),
        (4, 0, true),
        (5, 0, true),
        (4, 1_u64 << 51, false),
    ] {
        let mut ring = TinyRing::new(6, 12).dynamic(true);
        for number in 0..100_u8 {
            assert!(ring.write(&[number; 30], State::Finalized));
        }
        let mut memory = ring.memory();
        let top = page_tables(&mut memory, levels, encrypted, large);
        let info = format!(
            "{}SYMBOL(init_top_pgt)={top:x}\nNUMBER(pgtable_l5_enabled)={}\nNUMBER(sme_mask)={}\n",
            ring.info(),
            levels - 4,
            encrypted.cast_signed(),
        );
        let mut vmcore = TinyVmcore::new(memory, &info);
        vmcore.loads.truncate(1);
        vmcore.loads[0].vaddr = 0;
        check(&ring, &vmcore.build());
        // Without the tables, the arrays are not to be found.
        let mut vmcore = TinyVmcore::new(vmcore.memory, &ring.info());
        vmcore.loads.truncate(1);
        vmcore.loads[0].vaddr = 0;
        assert!(matches!(
            read(&vmcore.build()),
            Err(VmcoreError::Unmapped(_))
        ));
    }
}

#[test]
fn segments_that_are_split_overlap_or_end_in_zeros() {
    let ring = ring_with(20);
    let whole = ring.vmcore();
    let size = whole.memory.len() as u64;
    let load = |start: u64, filesz: u64, memsz: u64| Load {
        vaddr: IN_TEXT + start,
        paddr: PHYSICAL + start,
        start: usize::try_from(start).unwrap(),
        filesz,
        memsz,
    };
    for loads in [
        vec![
            load(0, 100, 100),
            load(100, 7, 7),
            load(107, size - 107, size),
        ],
        vec![load(500, size - 500, size), load(0, 500, u64::MAX)],
        vec![load(0, 10, 3000), load(5, size - 5, 0), load(0, size, size)],
        vec![load(0, size, 0), load(8, 0, u64::MAX)],
    ] {
        let mut vmcore = whole.clone();
        vmcore.loads = loads;
        check(&ring, &vmcore.build());
    }
    // Pages of zeros that a filter left out: no descriptor there was ever used.
    let mut ring = TinyRing::new(3, 8);
    assert!(ring.write(b"first", State::Finalized));
    let [_, _, text] = ring.places(0);
    let mut vmcore = ring.vmcore();
    let kept = text as u64 + 16;
    vmcore.loads = vec![load(0, kept, size)];
    vmcore.memory.truncate(text + 16);
    check(&ring, &vmcore.build());
}
