use super::*;
use crate::carry::manifest::Proof;

fn name(text: &str) -> SessionName {
    SessionName::new(text.into()).unwrap()
}

/// One that arrived, one that did not, and one that nobody knows.
fn files() -> Vec<Retrieved> {
    let proof = Proof {
        size: 4096,
        sha256: [0; 32],
    };
    let file = |token, name: &[u8], proof, fault: Option<&str>| Retrieved {
        wanted: Wanted {
            token,
            name: name.into(),
            proof,
        },
        size: 4096,
        fault: fault.map(str::to_owned),
    };
    vec![
        file(1, b"a", Some(proof), None),
        file(2, b"b\xff", Some(proof), Some("it differs")),
        file(7, b"7", None, None),
    ]
}

#[test]
fn a_file_that_did_not_arrive_is_named() {
    let files = files();
    let result = Outcome {
        session: &name("rkexec"),
        dir: Path::new("/x"),
        files: &files,
        held_by: Some(12),
    };
    assert_eq!(
        result.text(),
        "2 files of the session rkexec written to /x; process 12 keeps the session open\n  \
         a: 4 KiB, verified\n  \
         b\\xff: 4 KiB, NOT written\n  \
         7: 4 KiB, not verified: there is no digest of it\n"
    );
    assert_eq!(
        result.json(),
        json!({
            "schema": 1, "session": "rkexec", "finished": false, "held_by": 12,
            "files": [
                { "name": "a", "token": 1, "size": 4096, "verified": true, "fault": null },
                { "name": "b\\xff", "name_bytes": "62ff", "token": 2, "size": 4096,
                  "verified": false, "fault": "it differs" },
                { "name": "7", "token": 7, "size": 4096, "verified": false, "fault": null },
            ],
        })
    );
    assert_eq!(
        faults(&files).unwrap(),
        "1 of 3 files did not arrive: b\\xff (token 2): it differs"
    );
    assert_eq!(faults(&files[..1]), None);
    let whole = Outcome {
        files: &files[..1],
        held_by: None,
        ..result
    };
    assert!(
        whole
            .text()
            .starts_with("1 file of the session rkexec written to /x; the session is finished\n")
    );
    assert_eq!(whole.json()["finished"], true);
}

#[test]
fn a_token_has_one_name() {
    let wanted = by_token(&[3, u64::MAX]).unwrap();
    let names: Vec<_> = wanted
        .iter()
        .map(|wanted| wanted.name.to_string())
        .collect();
    assert_eq!(names, ["3", "18446744073709551615"]);
    assert!(by_token(&[3, 1, 3]).unwrap_err().is::<Usage>());
}

#[test]
fn a_manifest_has_a_limit() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"{}", 0).unwrap();
    assert_eq!(contents(&file).unwrap(), b"{}");
    file.set_len(1 << 40).unwrap();
    let said = contents(&file).unwrap_err();
    assert_eq!(said, "it has 1 TiB, and a manifest at most 4 MiB");
}
