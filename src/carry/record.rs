//! rkexec's own record of what was planned, for the next kernel's `rkexec report`.
//!
//! It travels as a SETUP_NONE node: every kernel ignores it, keeps its memory
//! reserved, and shows it below /sys/kernel/boot_params/setup_data.

use bstr::BString;
use serde::{Deserialize, Serialize};

use super::phases::Untimed;
use super::protect::Protection;
use crate::base::bytes;
use crate::sys::digest::{Digest, digest};

/// First bytes of the payload; JSON follows.
const MAGIC: &[u8] = b"RKXREC1\n";
/// Regions of the memory map that a record holds; of a longer map it holds the
/// first ones, and `e820_complete` is false.
pub const MAX_E820: usize = 1024;

/// What was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of rkexec that loaded the kernel.
    pub rkexec: String,
    /// When it was loaded, seconds since 1970 by the clock of that machine.
    pub loaded_at: u64,
    /// `uname -r` of the kernel that ran then.
    pub from: String,
    /// `uname -r` of the kernel that was loaded, when its file told.
    pub release: Option<String>,
    /// The command line.
    #[serde(flatten, with = "bytes::Cmdline")]
    pub cmdline: BString,
    /// The memory map: start, size, e820 type.
    pub e820: Vec<(u64, u64, u32)>,
    /// Whether `e820` is the whole map.
    pub e820_complete: bool,
    /// The other nodes of the chain: SETUP_* number and payload size in bytes.
    pub setup_data: Vec<(u32, usize)>,
    /// The device tree blob.
    pub device_tree: Option<Blob>,
    /// The kernel: a bzImage's protected-mode part, or the PT_LOADs of a vmlinux.
    pub kernel: Option<Blob>,
    /// The initrds as one stream, part by part.
    pub initrd: Vec<Blob>,
    /// The pools.
    pub pools: Vec<PoolRecord>,
    /// Where the kernel was put; `None`: it chose its place itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// Why purgatory leaves no time stamps; `None`: it does, if the chain has their node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untimed: Option<Untimed>,
    /// What is handed over by Kexec Handover; `None`: nothing, or an older rkexec wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kho: Option<KhoRecord>,
}

/// What is handed over by Kexec Handover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KhoRecord {
    /// The format of the tree, as `kho-v4`.
    pub format: String,
    /// The session of live update that has the files; `None` without files.
    pub session: Option<String>,
    /// The files by the order of their tokens: name and size in bytes.
    pub files: Vec<(CarriedName, u64)>,
    /// The names of the pools in `reserve_mem=`.
    pub pools: Vec<String>,
}

/// The name of a file, which need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CarriedName(#[serde(with = "bytes::kept")] pub BString);

/// Where a kernel's code begins (`_text`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Physical address.
    pub physical: u64,
    /// Virtual address.
    pub r#virtual: u64,
}

/// Size and digest of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Size in bytes.
    pub size: usize,
    /// The digest that purgatory verifies (purgatory/README.md), in hex.
    pub digest: String,
}

/// One pool, and how it was protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Name of its node below /chosen.
    pub name: String,
    /// Physical address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// Physical address of its bitmap.
    pub bitmap: u64,
    /// Its protection.
    pub protection: Protection,
}

/// Why a node that begins like a record is not a valid one.
#[derive(Debug, thiserror::Error)]
#[error("rkexec's record is malformed")]
pub struct RecordError(#[from] serde_json::Error);

impl Blob {
    /// Of `content`, whose digest is `digest`.
    #[must_use]
    pub fn new(content: &[u8], digest: &[u8]) -> Self {
        Self {
            size: content.len(),
            digest: bytes::hex(digest),
        }
    }

    /// Whether it is of `content`; `None` when only the digest could tell, and this
    /// version does not make that kind.
    #[must_use]
    pub fn is_of(&self, content: &[u8]) -> Option<bool> {
        if self.size != content.len() {
            return Some(false);
        }
        self.is_of_today()
            .then(|| self.digest == bytes::hex(&digest(content)))
    }

    /// Whether both can be of the same bytes: digests of two kinds tell nothing, and
    /// the sizes decide.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let told = self.is_of_today() && other.is_of_today();
        self.size == other.size && (!told || self.digest == other.digest)
    }

    /// Versions before rapidhash wrote SHA-256, which is longer.
    fn is_of_today(&self) -> bool {
        self.digest.len() == 2 * size_of::<Digest>()
    }
}

impl Record {
    /// The node's payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = MAGIC.to_vec();
        // Writing strings and numbers to memory cannot fail.
        let written = serde_json::to_writer(&mut payload, self);
        debug_assert!(written.is_ok());
        payload
    }

    /// The record in a SETUP_NONE payload; `None` when another program wrote the node.
    ///
    /// # Errors
    /// When it begins like a record and is malformed.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, RecordError> {
        payload
            .strip_prefix(MAGIC)
            .map(|json| Ok(serde_json::from_slice(json)?))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            rkexec: "0.1.0".to_owned(),
            loaded_at: 1_800_000_000,
            from: "6.1".to_owned(),
            release: None,
            cmdline: "a=\"b c\" \\ ü".into(),
            e820: vec![(0, u64::MAX, u32::MAX)],
            e820_complete: true,
            setup_data: vec![(1, 20)],
            device_tree: Some(Blob::new(b"tree", &[0xab; 32])),
            kernel: None,
            initrd: Vec::new(),
            pools: vec![PoolRecord {
                name: "default_pmpool".to_owned(),
                base: 1 << 40,
                size: 4096,
                bitmap: 1 << 40,
                protection: Protection::Indirect,
            }],
            placed: Some(Placed {
                physical: 0x100_0000,
                r#virtual: 0xffff_ffff_8100_0000,
            }),
            untimed: Some(Untimed::UnsteadyCounter),
            kho: Some(KhoRecord {
                format: "kho-v4".to_owned(),
                session: Some("rkexec".to_owned()),
                files: vec![(CarriedName(b"caf\xe9"[..].into()), 7)],
                pools: vec!["pool".to_owned()],
            }),
        }
    }

    #[test]
    fn it_reads_back() {
        assert_eq!(Record::parse(&record().payload()).unwrap(), Some(record()));
        assert_eq!(record().device_tree.unwrap().digest, "ab".repeat(32));
    }

    /// A record of an older version has neither a place nor a word about stamps.
    #[test]
    fn an_older_record_reads_back() {
        let plain = Record {
            placed: None,
            untimed: None,
            kho: None,
            ..record()
        };
        let payload = plain.payload();
        let text = String::from_utf8(payload.clone()).unwrap();
        assert!(!text.contains("placed") && !text.contains("untimed") && !text.contains("kho"));
        assert_eq!(Record::parse(&payload).unwrap(), Some(plain));
    }

    #[test]
    fn a_digest_of_another_kind_tells_nothing_and_a_size_does() {
        let now = Blob::new(b"tree", &digest(b"tree"));
        assert_eq!(now.digest.len(), 16);
        assert_eq!(now.is_of(b"tree"), Some(true));
        assert_eq!(now.is_of(b"free"), Some(false));
        assert_eq!(now.is_of(b"trees"), Some(false));
        let older = Blob::new(b"tree", &[0xab; 32]);
        assert_eq!(older.is_of(b"tree"), None);
        assert_eq!(older.is_of(b"trees"), Some(false));
        let other = Blob::new(b"free", &digest(b"free"));
        assert!(now.may_be(&now) && !now.may_be(&other));
        assert!(older.may_be(&now) && now.may_be(&older));
        assert!(!older.may_be(&Blob::new(b"trees", &digest(b"trees"))));
    }

    /// Older versions read a string there, and are not to stumble.
    #[test]
    fn a_line_that_is_no_text_reads_back() {
        let record = Record {
            cmdline: b"root=LABEL=caf\xe9".into(),
            ..record()
        };
        let payload = record.payload();
        assert_eq!(Record::parse(&payload).unwrap(), Some(record));
        let json: serde_json::Value = serde_json::from_slice(&payload[MAGIC.len()..]).unwrap();
        assert_eq!(json["cmdline"], "root=LABEL=caf\\xe9");
        assert_eq!(json["cmdline_bytes"], "726f6f743d4c4142454c3d636166e9");
        let plain: serde_json::Value =
            serde_json::from_slice(&self::record().payload()[MAGIC.len()..]).unwrap();
        assert!(plain["cmdline"].is_string() && plain.get("cmdline_bytes").is_none());
    }

    #[test]
    fn somebody_elses_node_is_none_and_a_damaged_one_an_error() {
        assert_eq!(Record::parse(b"").unwrap(), None);
        assert_eq!(Record::parse(b"RKXREC2\n{}").unwrap(), None);
        let payload = record().payload();
        for end in MAGIC.len()..payload.len() {
            assert!(Record::parse(&payload[..end]).is_err(), "{end}");
        }
    }
}
