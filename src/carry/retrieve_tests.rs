use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::*;

fn wanted(token: u64, name: &str, content: &[u8]) -> Wanted {
    let proof = Proof {
        size: content.len() as u64,
        sha256: Sha256::digest(content).into(),
    };
    Wanted {
        token,
        name: name.into(),
        proof: Some(proof),
    }
}

/// A file in memory, as the kernel gives it: its position is anywhere.
fn memory(content: &[u8]) -> File {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn files_arrive_with_their_holes() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("d");
    let noise: Vec<u8> = (0..777_777_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    // Data at the start, in the middle across two pieces, and a tail of zeroes.
    let mut sparse = vec![0; 5 * PIECE + 5];
    sparse[0] = 1;
    sparse[3 * PIECE - 7..3 * PIECE + 7].fill(2);
    let contents = [&noise[..], b"", &sparse];
    let wanted: Vec<Wanted> = ["noise", "empty", "sparse"]
        .iter()
        .zip(1..)
        .zip(contents)
        .map(|((name, token), content)| wanted(token, name, content))
        .collect();
    let tree = NewTree::claim(&dir).unwrap();
    let open = |token| Ok(memory(contents[usize::try_from(token).unwrap() - 1]));
    let all = write(&tree, &wanted, open).unwrap();
    assert!(all.iter().all(Retrieved::is_verified), "{all:?}");
    for (wanted, content) in wanted.iter().zip(contents) {
        let path = dir.join(wanted.name.to_string());
        assert!(fs::read(&path).unwrap() == content, "{}", wanted.name);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert_eq!(names(&dir), ["empty", "noise", "sparse"]);
    let blocks = fs::metadata(dir.join("sparse")).unwrap().blocks();
    assert!(blocks * 512 < 512 << 10, "{blocks} blocks of a sparse file");
}

#[test]
fn a_file_that_differs_is_named_and_the_others_arrive() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("d");
    let all = [
        wanted(1, "good", b"good"),
        wanted(2, "other", b"other"),
        wanted(3, "longer", b"longer"),
        wanted(4, "lost", b"lost"),
        Wanted {
            proof: None,
            ..wanted(5, "unknown", b"")
        },
    ];
    let tree = NewTree::claim(&dir).unwrap();
    let all = write(&tree, &all, |token| match token {
        1 => Ok(memory(b"good")),
        2 => Ok(memory(b"OTHER")),
        3 => Ok(memory(b"long")),
        4 => Err("it is not there".to_owned()),
        _ => Ok(memory(b"anything")),
    })
    .unwrap();
    let faults: Vec<_> = all.iter().map(|file| file.fault.as_deref()).collect();
    let digest = |content: &[u8]| hex(&Sha256::digest(content));
    let differs = format!(
        "its SHA-256 is {}, and {} was handed over",
        digest(b"OTHER"),
        digest(b"other")
    );
    assert_eq!(
        faults,
        [
            None,
            Some(&*differs),
            Some("it has 4 bytes, and 6 were handed over"),
            Some("it is not there"),
            None
        ]
    );
    let verified: Vec<_> = all.iter().map(Retrieved::is_verified).collect();
    assert_eq!(verified, [true, false, false, false, false]);
    assert_eq!(all[2].size, 4);
    assert_eq!(names(&dir), ["good", "unknown"]);
}

#[test]
fn a_file_may_have_the_name_of_a_partial_one() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("d");
    let all = [wanted(1, ".partial-0", b"a"), wanted(2, ".partial-1", b"b")];
    let tree = NewTree::claim(&dir).unwrap();
    let open = |token| Ok(memory(if token == 1 { b"a" } else { b"b" }));
    let all = write(&tree, &all, open).unwrap();
    assert!(all.iter().all(Retrieved::is_verified), "{all:?}");
    assert_eq!(names(&dir), [".partial-0", ".partial-1"]);
}

#[test]
fn what_cannot_be_read_or_written_says_so() {
    let out = tempfile::tempdir().unwrap();
    let tree = NewTree::claim(&out.path().join("d")).unwrap();
    let directory = |_| Ok(File::open("/").unwrap());
    let all = write(&tree, &[wanted(1, "a", b"")], directory).unwrap();
    let fault = all[0].fault.as_deref().unwrap();
    assert!(fault.starts_with("it cannot be read: "), "{fault}");

    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = copy(&memory(b"x"), &full, None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}
