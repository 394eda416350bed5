//! What `rkexec retrieve` is told of the files that were handed over: a manifest, the
//! file with token 0 of the session. The files themselves have the tokens 1, 2, ….
//!
//! It is JSON, so that a person without rkexec can read it and another program can write
//! it. Its digests are SHA-256, which sha256sum(1) computes: rkexec's own digest is one
//! that no other tool knows.

use std::collections::BTreeSet;

use bstr::BString;
use serde::{Deserialize, Serialize};

use crate::base::bytes::{hex, kept, shown, unhex};

/// The session of `rkexec`.
pub const SESSION: &str = "rkexec";
/// The token of the manifest.
pub const TOKEN: u64 = 0;
/// The largest manifest that is read, bytes: thousands of files.
pub const MAX_SIZE: u64 = 4 << 20;
/// The version that this rkexec writes, and the only one that it reads.
const VERSION: u64 = 1;
/// Longest name of a file, bytes: NAME_MAX of include/uapi/linux/limits.h.
const NAME_MAX: usize = 255;

/// SHA-256 of a file.
pub type Sha256Sum = [u8; 32];

/// What must hold of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Its size, bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256Sum,
}

/// The files in the order of their tokens. Each has a name of its own that is one
/// component of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest(Vec<(BString, Proof)>);

/// Why a manifest is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is something else.
    #[error("it is no manifest of rkexec: {0}")]
    Malformed(String),
    /// It is that of another rkexec.
    #[error("it is a manifest of version {0}, and this rkexec reads version {VERSION}")]
    Version(u64),
    /// A name leads out of the directory, or no file can have it.
    #[error("`{0}` is no name of a file in a directory")]
    Name(String),
    /// Two files have one name.
    #[error("two files are called `{0}`")]
    Twice(String),
    /// A digest has not 64 hexadecimal digits.
    #[error("the SHA-256 of `{0}` is not 64 hexadecimal digits")]
    Digest(String),
}

#[derive(Deserialize)]
struct Versioned {
    manifest: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    manifest: u64,
    files: Vec<WrittenFile>,
}

#[derive(Serialize, Deserialize)]
struct WrittenFile {
    #[serde(with = "kept")]
    name: BString,
    size: u64,
    sha256: String,
}

impl Manifest {
    /// That of these files, the first with token 1.
    ///
    /// # Errors
    /// When a name is not that of a file in a directory, or is there twice.
    pub fn new(files: Vec<(BString, Proof)>) -> Result<Self, ManifestError> {
        let mut names = BTreeSet::new();
        for (name, _) in &files {
            let is_component = !matches!(&***name, b"" | b"." | b"..")
                && name.len() <= NAME_MAX
                && !name.contains(&b'/')
                && !name.contains(&0);
            if !is_component {
                return Err(ManifestError::Name(shown(name).to_string()));
            }
            if !names.insert(name) {
                return Err(ManifestError::Twice(shown(name).to_string()));
            }
        }
        Ok(Self(files))
    }

    /// Reads one. Fields that this version does not know are left out.
    ///
    /// # Errors
    /// When it is none, or names a file that must not be written.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let malformed = |error: serde_json::Error| ManifestError::Malformed(error.to_string());
        let Versioned { manifest } = serde_json::from_slice(bytes).map_err(malformed)?;
        if manifest != VERSION {
            return Err(ManifestError::Version(manifest));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(malformed)?;
        let files = written.files.into_iter().map(|file| {
            let digest = unhex(&file.sha256).and_then(|digest| digest.try_into().ok());
            let Some(sha256) = digest else {
                return Err(ManifestError::Digest(shown(&file.name).to_string()));
            };
            let size = file.size;
            Ok((file.name, Proof { size, sha256 }))
        });
        Self::new(files.collect::<Result<_, _>>()?)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// Never: there is nothing in it that JSON cannot hold.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let files = self.0.iter().map(|(name, proof)| WrittenFile {
            name: name.clone(),
            size: proof.size,
            sha256: hex(&proof.sha256),
        });
        serde_json::to_vec(&Written {
            manifest: VERSION,
            files: files.collect(),
        })
    }

    /// The files, each with its token.
    pub fn files(&self) -> impl Iterator<Item = (u64, &BString, Proof)> {
        let tokens = TOKEN + 1..;
        let files = tokens.zip(&self.0);
        files.map(|(token, (name, proof))| (token, name, *proof))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn proof(size: u64, byte: u8) -> Proof {
        Proof {
            size,
            sha256: [byte; 32],
        }
    }

    #[test]
    fn it_is_what_the_documentation_says() {
        let files = vec![
            ("vm.img".into(), proof(777_777, 0x0a)),
            (b"caf\xe9"[..].into(), proof(0, 0xff)),
        ];
        let manifest = Manifest::new(files).unwrap();
        let bytes = manifest.encode().unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(),
            json!({ "manifest": 1, "files": [
                { "name": "vm.img", "size": 777_777, "sha256": "0a".repeat(32) },
                { "name": { "bytes": "636166e9" }, "size": 0, "sha256": "ff".repeat(32) },
            ]})
        );
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        let tokens: Vec<u64> = manifest.files().map(|(token, ..)| token).collect();
        assert_eq!(tokens, [1, 2]);
    }

    /// The manifest of one file.
    fn of(name: &serde_json::Value) -> Result<Manifest, ManifestError> {
        let file = json!({ "name": name, "size": 1, "sha256": "00".repeat(32), "more": [] });
        Manifest::parse(
            json!({ "manifest": 1, "files": [file] })
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "a/b",
            "../a",
            "a/",
            "a\0b",
        ] {
            let error = of(&json!(name)).unwrap_err();
            assert_eq!(error, ManifestError::Name(shown(name).to_string()));
        }
        assert!(of(&json!({ "bytes": "2e2e" })).is_err());
        assert!(of(&json!({ "bytes": "612f62" })).is_err());
        assert!(of(&json!("x".repeat(256))).is_err());
        for name in ["...", ".a", "x\ny", &"x".repeat(255)] {
            of(&json!(name)).unwrap();
        }
    }

    #[test]
    fn what_is_no_manifest_says_why() {
        let says = |text: &str| Manifest::parse(text.as_bytes()).unwrap_err().to_string();
        for text in [
            "",
            "[]",
            "{}",
            "{\"manifest\":1}",
            "\u{7f}ELF",
            "{\"manifest\":-1}",
        ] {
            assert!(
                says(text).starts_with("it is no manifest of rkexec: "),
                "{text}"
            );
        }
        assert_eq!(
            says(r#"{"manifest":2,"things":[]}"#),
            "it is a manifest of version 2, and this rkexec reads version 1"
        );
        let two = |first: &str, second: &str, digest: &str| {
            let file = |name| json!({ "name": name, "size": 0, "sha256": digest });
            says(&json!({ "manifest": 1, "files": [file(first), file(second)] }).to_string())
        };
        assert_eq!(
            two("a\x1b", "a\x1b", &"00".repeat(32)),
            "two files are called `a\\x1b`"
        );
        for digest in ["", "00", &"0g".repeat(32), &"00".repeat(33)] {
            let said = two("a", "b", digest);
            assert_eq!(said, "the SHA-256 of `a` is not 64 hexadecimal digits");
        }
        let deep = "[".repeat(100_000);
        for text in [deep.clone(), format!(r#"{{"manifest":1,"files":{deep}"#)] {
            assert!(says(&text).starts_with("it is no manifest of rkexec: "));
        }
    }

    proptest! {
        #[test]
        fn any_manifest_comes_back(
            files: std::collections::BTreeMap<Vec<u8>, (u64, [u8; 32])>
        ) {
            let files = files.into_iter();
            let files = files.map(|(name, (size, sha256))| (name.into(), Proof { size, sha256 }));
            if let Ok(manifest) = Manifest::new(files.collect()) {
                prop_assert_eq!(Manifest::parse(&manifest.encode().unwrap()), Ok(manifest));
            }
        }
    }
}
