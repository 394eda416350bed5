use super::*;
use crate::carry::Capability;

const MIB: u64 = 1 << 20;

fn pool(text: &str) -> Pool {
    Pool::parse_option(text).unwrap()
}

fn pools(texts: &[&str]) -> Vec<kho::Pool> {
    let pools: Vec<Pool> = texts.iter().map(|text| pool(text)).collect();
    preserved(&pools).unwrap()
}

fn words_for(texts: &[&str], line: &str) -> Result<Vec<String>, KhoPoolError> {
    words(&pools(texts), BStr::new(line))
}

#[test]
fn a_word_for_each_pool_that_the_line_does_not_name() {
    let two = ["512M,64M", "1G,12K,name=b"];
    assert_eq!(
        words_for(&two, "quiet").unwrap(),
        ["reserve_mem=64M:4K:default_pmpool", "reserve_mem=12K:4K:b"]
    );
    // A kernel reads what is added as it was meant.
    for (text, word) in two.iter().zip(words_for(&two, "").unwrap()) {
        let [read] = &reserved::words(BStr::new(&word))[..] else {
            panic!("{word}");
        };
        let range = pool(text).range();
        assert_eq!(read.size, range.size());
        assert!(range.start().is_multiple_of(read.align));
        assert_eq!(words_for(&[text], &word).unwrap(), [""; 0]);
    }
    let there = "reserve_mem=64M:2M:default_pmpool reserve_mem=1M:4K:other";
    assert_eq!(words_for(&two, there).unwrap(), ["reserve_mem=12K:4K:b"]);
    assert_eq!(
        words_for(&["0x20001000,64K,name=c"], "reserve_mem=0x10000::c")
            .unwrap_err()
            .to_string(),
        "reserve_mem=0x10000::c of the new command line does not match c (64 KiB at 0x20001000): it is not SIZE:ALIGN:NAME, as in 64M:4K:pool"
    );
}

#[test]
fn a_word_that_asks_for_something_else() {
    let refused = |line| {
        words_for(&["0x28100000,32M,name=pool"], line)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("reserve_mem=16M:4K:pool"),
        "reserve_mem=16M:4K:pool of the new command line does not match pool (32 MiB at 0x28100000): the size is \
         another one"
    );
    assert_eq!(
        refused("reserve_mem=32M:2M:pool"),
        "reserve_mem=32M:2M:pool of the new command line does not match pool (32 MiB at 0x28100000): its address is \
         no multiple of 2 MiB"
    );
    // The first one counts.
    assert!(refused("reserve_mem=16M:4K:pool reserve_mem=32M:4K:pool").contains("the size"));
}

#[test]
fn names_and_numbers_that_a_kernel_does_not_take() {
    let long = pool("512M,64M,name=sixteen-letters_");
    assert_eq!(long.name().len(), MAX_POOL_NAME + 1);
    let error = preserved([&long]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the name of the pool sixteen-letters_ has 16 bytes, and reserve_mem= takes at most 15, as --pool-protect \
         kho needs"
    );
    assert!(error.hint().contains("name=a"));
    let seven = "reserve_mem=1M:4K:a ".repeat(7);
    assert!(words_for(&["512M,64M"], &seven).is_ok());
    let error = words_for(&["512M,64M", "1G,1M,name=b"], &seven).unwrap_err();
    assert_eq!(error, KhoPoolError::TooMany(9));
}

fn target(kho: Reads, memblock: Reads) -> KhoTarget {
    KhoTarget {
        kho,
        memblock,
        ..Capability::unknown().kho
    }
}

fn one(format: &str) -> Reads {
    Reads::One(format.to_owned())
}

#[test]
fn only_a_kernel_that_reads_what_is_written_takes_pools_back() {
    let told = |kho, memblock, assumed| revives(&target(kho, memblock), assumed);
    let (fact, why) = told(one("kho-v4"), one(FORMAT), None);
    assert_eq!(
        (fact, &*why),
        (Fact::Yes, "the next kernel reads kho-v4 and memblock-v1")
    );
    for (kho, memblock, said) in [
        (
            one("kho-v3"),
            one(FORMAT),
            "reads kho-v3, and rkexec writes kho-v4",
        ),
        (one("kho-v4"), one("memblock-v2"), "reads memblock-v2"),
        (
            Reads::Nothing,
            Reads::Nothing,
            "has no Kexec Handover (CONFIG_KEXEC_HANDOVER)",
        ),
        (
            one("kho-v4"),
            Reads::Nothing,
            "takes no memory of reserve_mem= back",
        ),
    ] {
        for assumed in [None, Some("kho-v4")] {
            let (fact, why) = told(kho.clone(), memblock.clone(), assumed);
            assert_eq!(fact, Fact::No);
            assert!(why.contains(said), "{why}");
        }
    }
    let several = Reads::OneOf(vec!["kho-v3".to_owned(), "kho-v4".to_owned()]);
    for kho in [several, Reads::Unknown] {
        assert_eq!(told(kho.clone(), Reads::Unknown, None).0, Fact::Unknown);
        assert_eq!(told(kho, Reads::Unknown, Some("kho-v4")).0, Fact::Yes);
    }
}

#[test]
fn what_is_asked_for_is_what_is_preserved() {
    let [one] = &pools(&["576M,64M"])[..] else {
        panic!()
    };
    assert_eq!(one.name.as_str(), "default_pmpool");
    assert_eq!((one.range.start(), one.range.size()), (576 * MIB, 64 * MIB));
}
