//! Tiny dumps: what is read of them, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::testing::vmcore::{
    Expected, IN_DIRECT, IN_TEXT, Load, PHYSICAL, State, TinyRing, TinyVmcore, caller_id, note,
    put, ts_nsec,
};

/// The records, and how many were left out as inconsistent.
fn read(file: &[u8]) -> Result<(Vec<Record>, u64), VmcoreError> {
    let vmcore = Vmcore::open(file)?;
    let mut log = vmcore.log()?;
    let records = log.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((records, log.inconsistent()))
}

fn expected(ring: &TinyRing) -> Vec<Record> {
    let record = |Expected { seq, text }| Record {
        seq,
        ts_nsec: ts_nsec(seq),
        caller_id: caller_id(seq),
        text,
    };
    ring.expected().into_iter().map(record).collect()
}

#[track_caller]
fn check(ring: &TinyRing, file: &[u8]) {
    let (records, inconsistent) = read(file).unwrap();
    assert_eq!(records, expected(ring));
    assert_eq!(inconsistent, 0);
}

/// A ring of 8 descriptors and 256 bytes with `number` records.
fn ring_with(number: usize) -> TinyRing {
    let mut ring = TinyRing::new(3, 8);
    for number in 0..number {
        let text = format!("record {number}");
        assert!(ring.write(text.as_bytes(), State::Finalized));
    }
    ring
}

fn texts(file: &[u8]) -> Vec<String> {
    let (records, _) = read(file).unwrap();
    let texts = records
        .into_iter()
        .map(|record| String::from_utf8(record.text));
    texts.map(Result::unwrap).collect()
}

#[track_caller]
fn refused(file: &[u8], what: &str) -> Option<&'static str> {
    let error = read(file).unwrap_err();
    assert!(error.to_string().contains(what), "{error}: not {what}");
    error.hint()
}

#[test]
fn an_empty_log() {
    let ring = TinyRing::new(3, 8);
    assert_eq!(ring.expected(), []);
    check(&ring, &ring.vmcore().build());
}

#[test]
fn descriptors_texts_and_ids_wrap() {
    // IDs overflow after 9 records, positions after 256 bytes: each record takes
    // 16 bytes or 24.
    for number in 1..100 {
        let ring = ring_with(number);
        assert_eq!(ring.expected().len(), number.min(8));
        check(&ring, &ring.vmcore().build());
    }
}

#[test]
fn the_layout_is_the_one_that_the_kernel_tells() {
    let mut ring = TinyRing::new(2, 7).shifted(8);
    for text in ["one", "two", "three", "four", "five"] {
        assert!(ring.write(text.as_bytes(), State::Finalized));
    }
    assert_eq!(
        texts(&ring.vmcore().build()),
        ["two", "three", "four", "five"]
    );
}

#[test]
fn only_what_is_finished_is_a_record() {
    let mut ring = TinyRing::new(3, 8);
    assert!(ring.write(b"finished", State::Finalized));
    assert!(ring.write(b"in the making", State::Reserved));
    assert!(ring.write(b"", State::Finalized));
    // There is no room for this one.
    assert!(ring.write(&[b'x'; 200], State::Finalized));
    assert!(ring.write(b"may go on", State::Committed));
    let file = ring.vmcore().build();
    assert_eq!(texts(&file), ["finished", "", "may go on"]);
    check(&ring, &file);
    assert!(ring.write(b"last", State::Reserved));
    ring.finish();
    let all = ["finished", "in the making", "", "may go on", "last"];
    assert_eq!(texts(&ring.vmcore().build()), all);
}

#[test]
fn a_block_that_ends_with_the_ring() {
    for tight in [false, true] {
        let mut ring = TinyRing::new(4, 7).tight(tight);
        // 4 x 32 bytes.
        for text in [b'a', b'b', b'c', b'd', b'e'] {
            assert!(ring.write(&[text; 24], State::Finalized));
        }
        check(&ring, &ring.vmcore().build());
    }
}

#[test]
fn a_log_in_memory_of_its_own() {
    let ring = ring_with(20).dynamic(true);
    check(&ring, &ring.vmcore().build());
}

#[test]
fn a_record_whose_parts_disagree_is_left_out() {
    let ring = ring_with(3);
    let vmcore = ring.vmcore();
    let [desc, info, text] = ring.places(1);
    let begin = desc + ring.offset("prb_desc.text_blk_lpos");
    let next = begin + ring.offset("prb_data_blk_lpos.next");
    let text_len = info + ring.offset("printk_info.text_len");
    // Each record takes 16 bytes, from the ring's beginning on.
    for (at, bytes) in [
        (text + 16, &[0][..]), // the ID in the block
        (info, &[2]),          // seq
        (text_len, &[9]),
        (text_len, &[0xff, 0xff]),
        (begin, &[0x11]),                     // not aligned
        (begin, &[0x18]),                     // in the middle of the text
        (begin, &[0, 0, 0, 0, 0, 0, 0, 1]),   // many rings behind
        (next, &[0x21]),                      // not aligned
        (next, &[0x10]),                      // no byte long
        (next, &[0x08]),                      // ends before it begins
        (next, &[0x20, 1, 0, 0, 0, 0, 0, 0]), // a ring too far
    ] {
        let mut damaged = vmcore.clone();
        put(&mut damaged.memory, at, bytes);
        let (records, inconsistent) = read(&damaged.build()).unwrap();
        let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
        assert_eq!((seqs, inconsistent), (vec![0, 2], 1), "{at} {bytes:?}");
    }
    // Another ID in the descriptor: no record of this round.
    let mut other = vmcore.clone();
    put(&mut other.memory, desc, &[8]);
    assert_eq!(texts(&other.build()), ["record 0", "record 2"]);
}

/// Where the ring buffer's own numbers lie in the memory.
fn in_prb(ring: &TinyRing, structure: &str, field: &str) -> usize {
    8 + ring.offset(&format!("printk_ringbuffer.{structure}")) + ring.offset(field)
}

#[test]
fn a_tail_that_is_damaged_leaves_the_newest_records() {
    let ring = ring_with(20);
    let mut vmcore = ring.vmcore();
    let tail = in_prb(&ring, "desc_ring", "prb_desc_ring.tail_id");
    put(&mut vmcore.memory, tail, &0x1234_5678_u64.to_le_bytes());
    check(&ring, &vmcore.build());
}

#[test]
fn rings_that_cannot_be() {
    let ring = ring_with(3);
    for (structure, field, bits, message) in [
        (
            "desc_ring",
            "prb_desc_ring.count_bits",
            27_u32,
            "2^27 records",
        ),
        (
            "desc_ring",
            "prb_desc_ring.count_bits",
            u32::MAX,
            "2^4294967295 records",
        ),
        (
            "text_data_ring",
            "prb_data_ring.size_bits",
            32,
            "2^32 bytes of text",
        ),
    ] {
        let mut vmcore = ring.vmcore();
        put(
            &mut vmcore.memory,
            in_prb(&ring, structure, field),
            &bits.to_le_bytes(),
        );
        assert_eq!(refused(&vmcore.build(), message), None);
    }
    // As many descriptors as there can be, and none of them is in the dump: the
    // search ends before each was looked for.
    let mut vmcore = ring.vmcore();
    for (field, value) in [
        ("prb_desc_ring.count_bits", 26_u64),
        ("prb_desc_ring.descs", 1 << 40),
        ("prb_desc_ring.head_id", 1 << 27),
    ] {
        let at = in_prb(&ring, "desc_ring", field);
        let bytes = value.to_le_bytes();
        let size = if field.ends_with("bits") { 4 } else { 8 };
        put(&mut vmcore.memory, at, &bytes[..size]);
    }
    let file = vmcore.build();
    let vmcore = Vmcore::open(&file[..]).unwrap();
    assert!(vmcore.log().unwrap().all(|record| record.is_err()));
    assert_eq!(vmcore.log().unwrap().count(), (1 << 16) + 1);
    // Larger than the memory that was dumped: what lies in there is found.
    let mut vmcore = ring.vmcore();
    let text_bits = in_prb(&ring, "text_data_ring", "prb_data_ring.size_bits");
    put(&mut vmcore.memory, text_bits, &31_u32.to_le_bytes());
    assert!(matches!(
        read(&vmcore.build()),
        Err(VmcoreError::Unmapped(_))
    ));
}

#[test]
fn one_record_that_is_not_there_does_not_end_the_log() {
    let ring = ring_with(3);
    let mut vmcore = ring.vmcore();
    // The text of the last one is not in the dump.
    let [_, _, text] = ring.places(0);
    for load in &mut vmcore.loads {
        load.filesz = text as u64 + 32;
        load.memsz = load.filesz;
    }
    let file = vmcore.build();
    let dump = Vmcore::open(&file[..]).unwrap();
    let records: Vec<_> = dump.log().unwrap().collect();
    assert_eq!(records.len(), 3);
    assert!(matches!(records[2], Err(VmcoreError::Unmapped(_))));

    // The same where the file ends too early.
    let file = ring.vmcore().build();
    let cut = ring.vmcore().memory_at() + text + 32;
    let dump = Vmcore::open(&file[..cut]).unwrap();
    assert_eq!(dump.end(), file.len() as u64);
    let records: Vec<_> = dump.log().unwrap().collect();
    assert_eq!(records.len(), 3);
    let error = records[2].as_ref().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cut short: it ends before a record's text")
    );
    assert!(error.hint().is_some());
}

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

#[test]
fn lines_are_those_of_makedumpfile() {
    let record = |ts_nsec, text: &[u8]| Record {
        seq: 0,
        ts_nsec,
        caller_id: 0,
        text: text.to_vec(),
    };
    for (record, line) in [
        (
            record(0, b"Linux version 6.1.0"),
            "[    0.000000] Linux version 6.1.0",
        ),
        (record(1_234_567_999, b""), "[    1.234567] "),
        (
            record(99_999_000_000_000, b"a\nb\n"),
            "[99999.000000] a\n               b\n               ",
        ),
        (
            record(123_456_000_001_000, b"a\nb"),
            "[123456.000001] a\n                b",
        ),
        (record(u64::MAX, b"x"), "[18446744073.709551] x"),
        (
            record(0, b"\t\r\x0b\x0c \x00\x1b[0m~\x7f\x80\xff\\"),
            "[    0.000000] \t\r\x0b\x0c \\x00\\x1b[0m~\\x7f\\x80\\xff\\",
        ),
    ] {
        assert_eq!(record.to_string(), line);
    }
}

/// What a writer does next.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<u8>, State),
    /// Ends what was reserved.
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    let text = prop::collection::vec(any::<u8>(), 0..70);
    let state = prop_oneof![
        6 => Just(State::Finalized),
        2 => Just(State::Committed),
        1 => Just(State::Reserved),
    ];
    prop_oneof![
        8 => (text, state).prop_map(|(text, state)| Step::Write(text, state)),
        1 => Just(Step::Finish),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        steps in prop::collection::vec(step(), 0..60),
        count_bits in 1..5_u32,
        size_bits in 5..10_u32,
        tight: bool,
        dynamic: bool,
        shift in prop_oneof![Just(0_usize), Just(8), Just(40)],
    ) {
        let mut ring = TinyRing::new(count_bits, size_bits).shifted(shift).tight(tight).dynamic(dynamic);
        for step in steps {
            match step {
                Step::Write(text, state) => { ring.write(&text, state); }
                Step::Finish => ring.finish(),
            }
            let (records, inconsistent) = read(&ring.vmcore().build()).unwrap();
            prop_assert_eq!(records, expected(&ring));
            prop_assert_eq!(inconsistent, 0);
        }
    }

    /// Whatever happens to descriptors and infos: what is printed was written, though
    /// it may be shorter or have a few more bytes of its block. Where nothing was
    /// written yet there are zeroes, and 0 is the number of the first record.
    #[test]
    fn damage_makes_no_text_up(
        number in 1..30_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let ring = ring_with(number);
        let mut vmcore = ring.vmcore();
        let [descriptors, _, text] = ring.places(0);
        for (at, byte) in changes {
            vmcore.memory[descriptors + at.index(text - descriptors)] = byte;
        }
        if let Ok((records, _)) = read(&vmcore.build()) {
            prop_assert!(records.len() <= 8);
            for record in records {
                let text = String::from_utf8_lossy(&record.text).into_owned();
                if text.bytes().all(|byte| byte == 0) {
                    continue;
                }
                let whole = (0..number).map(|number| format!("record {number}"));
                prop_assert!(whole.into_iter().any(|whole| whole.starts_with(&text)
                    || text.starts_with(&whole)), "{text:?}");
            }
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(
        number in 0..20_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 1..9_usize), 0..8),
        cut in any::<prop::sample::Index>(),
        cuts: bool,
    ) {
        let mut file = ring_with(number).vmcore().build();
        for (at, bytes, size) in changes {
            let at = at.index(file.len());
            let size = size.min(file.len() - at);
            put(&mut file, at, &bytes.to_le_bytes()[..size]);
        }
        if cuts {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(vmcore) = Vmcore::open(&file[..])
            && let Ok(log) = vmcore.log()
        {
            for record in log.take(1 << 12).flatten() {
                prop_assert!(record.text.len() <= file.len());
                prop_assert!(record.to_string().is_ascii());
            }
        }
    }
}
