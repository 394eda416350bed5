use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Size in MiB, number and place of what `line` sets aside on a machine of 4 GiB.
fn set_aside(line: &str) -> Vec<(u64, u64, Place)> {
    let pieces = pieces(line.into(), 4 * GIB);
    let of = |it: Pieces| (it.size / MIB, it.count, it.place);
    pieces.into_iter().map(of).collect()
}

#[test]
fn every_notation_is_read() {
    let at = |start, size| PhysRange::new(start, size).unwrap();
    for (line, pieces) in [
        ("quiet", &[][..]),
        ("crashkernel=64M", &[(64, 1, Place::LowFirst)]),
        ("crashkernel=1G-8G:64M,8G-:1G", &[(64, 1, Place::LowFirst)]),
        // The last one counts, and a suffix only where there is none without.
        (
            "crashkernel=64M crashkernel=32M crashkernel=9M,high",
            &[(32, 1, Place::LowFirst)],
        ),
        ("crashkernel=8G-:1G crashkernel=9M,high", &[]),
        ("crashkernel=64M,low", &[]),
        ("crashkernel=64M,cma", &[]),
        ("crashkernel=64M,high", &[(64, 1, Place::High)]),
        (
            "crashkernel=16M,low crashkernel=64M,high",
            &[(64, 1, Place::Anywhere), (16, 1, Place::Low)],
        ),
        (
            "crashkernel=64M@16M",
            &[(64, 1, Place::At(at(16 * MIB, 64 * MIB)))],
        ),
        ("crashkernel=64M@0", &[(64, 1, Place::LowFirst)]),
        ("cma=512M", &[(512, 1, Place::Anywhere)]),
        ("cma=512M@0-4G", &[(512, 1, Place::Low)]),
        ("cma=512M@4G-8G", &[(512, 1, Place::Anywhere)]),
        ("cma=512M@1G", &[(512, 1, Place::Over(at(GIB, GIB / 2)))]),
        ("cma=512M cma=0", &[]),
        ("hugetlb_cma=2G", &[(1024, 2, Place::Anywhere)]),
        ("hugetlb_cma=0:1G,1:1G", &[(1024, 2, Place::Anywhere)]),
        ("hugetlb_cma=512M", &[]),
        ("log_buf_len=16M", &[(16, 1, Place::Anywhere)]),
        ("swiotlb=65536,4", &[(128, 1, Place::Dma)]),
        ("swiotlb=force", &[(64, 1, Place::Dma)]),
        ("swiotlb=65536,force", &[(128, 1, Place::Dma)]),
        ("swiotlb=noforce", &[]),
        ("hugepages=2", &[]),
        ("hugepagesz=2M hugepages=2", &[]),
        ("hugepagesz=1G hugepages=2", &[(1024, 2, Place::Anywhere)]),
        (
            "hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=9",
            &[(1024, 2, Place::Anywhere)],
        ),
        (
            "default_hugepagesz=1G hugepages=2",
            &[(1024, 2, Place::Anywhere)],
        ),
        (
            "hugepages=2 default_hugepagesz=1G",
            &[(1024, 2, Place::Anywhere)],
        ),
        ("hugepages=2 hugepagesz=1G", &[]),
        (
            "hugepagesz=1G hugepages=0:1,1:2",
            &[(1024, 3, Place::Anywhere)],
        ),
        ("hugepagesz=1G hugepages=many", &[]),
    ] {
        assert_eq!(set_aside(line), pieces, "{line}");
    }
}

#[test]
fn sizes_that_are_larger_than_all_memory() {
    let max = u64::MAX;
    for line in [
        format!("swiotlb={max}"),
        format!("hugepagesz=1G hugepages={max}"),
        format!("hugepagesz=1G hugepages=0:{max},1:{max}"),
        format!("cma={max}@{max}"),
        format!("crashkernel={max}@{max}"),
        format!("hugetlb_cma={max}"),
    ] {
        let pieces = pieces(line.as_str().into(), GIB);
        assert_eq!(pieces.len(), 1, "{line}");
        for piece in pieces {
            assert!(piece.total() > GIB, "{line}");
        }
    }
}

#[test]
fn what_crashkernel_asks_for() {
    let ram = 1024 * MIB;
    for (value, size) in [
        ("64M", Some(64)),
        ("64M@16M", Some(64)),
        ("64M,low", Some(64)),
        ("64M,cma", None),
        ("512M-1G:64M,1G-:128M", Some(128)),
        ("512M-2G:64M,2G-:128M@16M", Some(64)),
        ("2G-:128M", None),
        ("", None),
        ("a-b:c", None),
    ] {
        assert_eq!(
            crashkernel(value, ram),
            size.map(|size: u64| size * MIB),
            "{value}"
        );
    }
}
