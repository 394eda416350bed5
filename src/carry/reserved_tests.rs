//! Words and blobs of `reserve_mem=`.

use super::*;

/// A blob as mm/memblock.c makes it.
pub(crate) fn blob(pools: &[(&str, u64, u64)]) -> Vec<u8> {
    let mut writer = vm_fdt::FdtWriter::new().unwrap();
    let root = writer.begin_node("").unwrap();
    writer.property_string("compatible", "memblock-v1").unwrap();
    for (name, start, size) in pools {
        let node = writer.begin_node(name).unwrap();
        writer
            .property_string("compatible", "reserve-mem-v1")
            .unwrap();
        writer.property("start", &start.to_le_bytes()).unwrap();
        writer.property("size", &size.to_le_bytes()).unwrap();
        writer.end_node(node).unwrap();
    }
    writer.end_node(root).unwrap();
    writer.finish().unwrap()
}

fn pool(start: Option<u64>) -> Reserved {
    Reserved {
        name: "pool".to_owned(),
        start,
        size: 32 << 20,
    }
}

#[test]
fn the_blob_goes_before_the_line() {
    let line = "reserve_mem=16M:4096:other".into();
    let found = reserved(Some(&blob(&[("pool", 0x2800_0000, 32 << 20)])), line);
    assert_eq!(found, [pool(Some(0x2800_0000))]);
    assert_eq!(found[0].to_string(), "32 MiB at 0x28000000");
    for unreadable in [None, Some(&b"memblock-v1\0"[..])] {
        let found = reserved(unreadable, "reserve_mem=32M:2M:pool".into());
        assert_eq!(found, [pool(None)]);
        assert_eq!(found[0].to_string(), "32 MiB");
    }
}

#[test]
fn a_word_must_match_in_all() {
    let asked = |value: &str| {
        let line = format!("quiet reserve_mem={value} -- reserve_mem=1M:1M:x");
        let words = words(line.as_str().into());
        (words.len() == 1).then(|| pool(Some(0x2820_0000)).is_asked_by(&words[0]))
    };
    for fits in ["32M:2M:pool", "0x2000000:0:pool", "32768K:4096:pool"] {
        assert_eq!(asked(fits), Some(true), "{fits}");
    }
    for differs in ["16M:2M:pool", "32M:4M:pool", "32M:2M:other"] {
        assert_eq!(asked(differs), Some(false), "{differs}");
    }
    for no_word in [
        "32M",
        "32M:2M",
        "32M:2M:",
        "0:2M:pool",
        "32M:2M:sixteen-letters.",
    ] {
        assert_eq!(asked(no_word), None, "{no_word}");
    }
}

#[test]
fn the_kernel_reads_eight_words() {
    let line: String = (0..9).map(|n| format!("reserve_mem=1M:1M:n{n} ")).collect();
    assert_eq!(words(line.as_str().into()).len(), MAX_POOLS);
}
