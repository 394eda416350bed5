//! Tiny dumps: what is read of them, and what is refused.

mod files;

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
