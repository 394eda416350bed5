use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const END: u64 = u64::MAX;

/// What `line` takes of RAM: start, end, word.
fn of_ram(line: &str) -> Vec<(u64, u64, String)> {
    rows(line, Told::RAM)
}

fn rows(line: &str, told: Told) -> Vec<(u64, u64, String)> {
    let taken = taken(line.as_bytes(), told).into_iter();
    let row = |it: Taken| {
        assert!(it.word.starts_with(it.parameter), "{it:?}");
        (it.range.start(), it.range.end(), it.word)
    };
    taken.map(row).collect()
}

fn row(start: u64, end: u64, word: &str) -> (u64, u64, String) {
    (start, end, word.to_owned())
}

#[test]
fn what_is_no_longer_ram_is_taken() {
    for mark in ['$', '#', '!'] {
        let word = format!("memmap=1G{mark}7G");
        let line = format!("quiet {word} x");
        assert_eq!(of_ram(&line), [row(7 * GIB, 8 * GIB, &word)]);
    }
    for (word, start, end) in [
        ("memmap=1G%7G", 7 * GIB, 8 * GIB),
        ("memmap=1G%7G-1", 7 * GIB, 8 * GIB),
        ("memmap=1G%7G-1+2", 7 * GIB, 8 * GIB),
        ("memmap=1G%7G+0xefffffff", 7 * GIB, 8 * GIB),
        ("memmap=0x40000000%0x1c0000000-1+13", 7 * GIB, 8 * GIB),
        ("mem=4G", 4 * GIB, END),
        ("mem=4Gjunk", 4 * GIB, END),
        ("memmap=4G", 4 * GIB, END),
        ("memmap=4Gjunk", 4 * GIB, END),
        ("memmap=G", 0, END),
        ("memmap=exactmap", 0, END),
        ("memmap=exactmaps", 0, END),
        ("memmap=64K$18446744073709550592", END - 1023, END),
        ("memmap=1g$07", 7, 7 + GIB),
        ("memmap=1k$1T", 1 << 40, (1 << 40) + 1024),
        ("crashkernel=256M@512M", 512 * MIB, 768 * MIB),
        ("cma=64M@1G", GIB, GIB + 64 * MIB),
        ("cma=64M@1G-1088M", GIB, GIB + 64 * MIB),
        ("pmpool=0x8000000,64M", 128 * MIB, 192 * MIB),
    ] {
        assert_eq!(of_ram(word), [row(start, end, word)]);
    }
}

#[test]
fn what_stays_ram_is_not_taken() {
    for line in [
        "",
        "mem",
        "mem=",
        "mem=0",
        "mem=nopentium",
        "memmap",
        "memmap=",
        "memmap=,",
        "memmap=x",
        "memmap=1G@7G",
        "memmap=1G%7G+1",
        "memmap=1G%7G-2",
        "memmap=1G%7G-2+1",
        "memmap=1G%7G-2+3",
        "memmap=1G%7G-1+2x",
        "memmap=0$7G",
        "xmemmap=1G$7G",
        "-- memmap=1G$7G mem=1G cma=1G@1G",
        "x=\"a memmap=1G$7G\"",
        "crashkernel=256M",
        "crashkernel=256M@0",
        "crashkernel=256M@1G,high",
        "crashkernel=256M,high crashkernel=72M,low",
        "crashkernel=256Mx@1G",
        "cma=64M",
        "cma=64M@1G-2G",
        "pmpool=1",
        "reserve_mem=64M:4096:x",
        "efi_fake_mem=4G@9G:0x40000",
    ] {
        assert_eq!(of_ram(line), [], "{line}");
    }
}

#[test]
fn words_add_up_in_the_order_of_the_line() {
    // Each of them names its own memory.
    assert_eq!(
        of_ram("memmap=1M$1G,2M!2G mem=4G"),
        [
            row(GIB, GIB + MIB, "memmap=1M$1G"),
            row(2 * GIB, 2 * GIB + 2 * MIB, "memmap=2M!2G"),
            row(4 * GIB, END, "mem=4G"),
        ]
    );
    // What was removed can be added again, and only afterwards.
    let exact = "memmap=exactmap";
    assert_eq!(
        of_ram("memmap=exactmap memmap=640K@0 memmap=1G@1M"),
        [row(640 << 10, MIB, exact), row(GIB + MIB, END, exact)]
    );
    assert_eq!(of_ram("memmap=1G@1M memmap=exactmap").len(), 1);
    assert_eq!(of_ram("mem=2G memmap=1G@2G"), [row(3 * GIB, END, "mem=2G")]);
    assert_eq!(of_ram("memmap=1G@2G mem=2G")[0].0, 2 * GIB);
    // What was reserved can't: the larger type wins.
    assert_eq!(of_ram("memmap=1G$7G memmap=1G@7G").len(), 1);
    // But it can be taken back.
    assert_eq!(of_ram("memmap=1G$7G memmap=1G%7G-2"), []);
    assert_eq!(of_ram("memmap=1G$7G memmap=1G%7G-2+1"), []);
    assert_eq!(
        of_ram("memmap=1G$7G memmap=512M%7G-2+1"),
        [row(7 * GIB + 512 * MIB, 8 * GIB, "memmap=1G$7G")]
    );
    assert_eq!(of_ram("memmap=1G$7G memmap=1G%7G memmap=1G@7G"), []);
}

#[test]
fn the_last_one_of_those_with_an_address_counts() {
    assert_eq!(
        of_ram("crashkernel=1M@1G crashkernel=2M@2G crashkernel=9M,high"),
        [row(2 * GIB, 2 * GIB + 2 * MIB, "crashkernel=2M@2G")]
    );
    assert_eq!(of_ram("crashkernel=1M@1G crashkernel=2M"), []);
    assert_eq!(
        of_ram("cma=1M@1G cma=2M@2G pmpool=1G,1M pmpool=3G,1M"),
        [
            row(2 * GIB, 2 * GIB + 2 * MIB, "cma=2M@2G"),
            row(3 * GIB, 3 * GIB + MIB, "pmpool=3G,1M"),
        ]
    );
    // By memory size: the largest.
    let list = "crashkernel=512M-2G:64M,2G-:256M@1G";
    assert_eq!(of_ram(list), [row(GIB, GIB + 256 * MIB, list)]);
    // Found by its letters alone, and up to a space.
    assert_eq!(of_ram("x=\"a crashkernel=1M@1G -- b").len(), 1);
    assert_eq!(of_ram("-- crashkernel=1M@1G").len(), 1);
}

#[test]
fn quotes_are_taken_off_as_the_kernel_does() {
    for line in ["memmap=\"1G$7G\"", "\"memmap=1G$7G\""] {
        assert_eq!(of_ram(line), [row(7 * GIB, 8 * GIB, "memmap=1G$7G")]);
    }
    let line = b"caf\xe9 memmap=1G$7G\xa0mem=8G";
    assert_eq!(taken(line, Told::RAM).len(), 2);
}

#[test]
fn reserved_memory_is_lost_when_it_becomes_something_else() {
    let of = |line| rows(line, Told::RESERVED);
    // It is no RAM, and stays what it is.
    for line in [
        "memmap=1G$7G",
        "memmap=1G@7G",
        "mem=1G",
        "memmap=1G%7G-1",
        "memmap=1G%7G+1",
        "crashkernel=1G@7G cma=1G@7G pmpool=7G,1G",
    ] {
        assert_eq!(of(line), [], "{line}");
    }
    for word in [
        "memmap=1G%7G-2+1",
        "memmap=1G%7G-2",
        "memmap=1G%7G",
        "memmap=1G!7G",
    ] {
        assert_eq!(of(word), [row(7 * GIB, 8 * GIB, word)]);
    }
    assert_eq!(of("memmap=exactmap").len(), 1);
}

#[test]
fn numbers_are_read_as_the_kernel_reads_them() {
    let read = |text: &'static str| {
        let (number, rest) = memparse(text.as_bytes());
        (number, std::str::from_utf8(rest).unwrap())
    };
    assert_eq!(read("0x1eG@"), (0x1e * GIB, "@"));
    assert_eq!(read("0x1E"), (0x1e, ""));
    assert_eq!(read("1E"), (1 << 60, ""));
    assert_eq!(read("010"), (8, ""));
    assert_eq!(read("08"), (0, "8"));
    assert_eq!(read("0x"), (0, "x"));
    assert_eq!(read("K"), (0, ""));
    assert_eq!(read(""), (0, ""));
    assert_eq!(read("-1"), (0, "-1"));
    assert_eq!(read("1kk"), (1024, "k"));
    assert_eq!(read("18446744073709551617"), (1, ""));
}

proptest! {
    /// In order, apart from each other, and each by a word of the line.
    #[test]
    fn any_line_is_answered(line in "((mem|memmap|cma)=([0-9]{1,2}[KMG]?[@$!#%,-]?){1,6} ?){0,9}") {
        let taken = taken(line.as_bytes(), Told::RAM);
        for one in &taken {
            let value = one.word.split_once('=').unwrap().1;
            prop_assert!(line.contains(value));
        }
        let of_map: Vec<&Taken> = taken.iter().filter(|it| it.parameter != "cma").collect();
        for pair in of_map.windows(2) {
            prop_assert!(pair[0].range.end() <= pair[1].range.start());
        }
    }
}
