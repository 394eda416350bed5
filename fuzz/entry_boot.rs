//! As `entry.rs`, for what boot loaders read.
#![allow(dead_code, reason = "each fuzz target calls one of them")]
#![allow(clippy::unwrap_used, reason = "what cannot be is a finding")]

use rkexec::entries::default_kexec::DefaultKexec;
use rkexec::entries::grub::{self, FileRef, Files, Start};
use rkexec::entries::{MAX_ENTRIES, bls, extlinux, grubenv, loader_conf};

/// A file of the Boot Loader Specification. Accepted: it names a kernel.
pub(crate) fn boot_entry(data: &[u8]) -> bool {
    let entry = bls::parse("a+1-2.conf", data).unwrap();
    assert!(entry.linux.is_some() || !entry.problems.is_empty());
    assert!(entry.key().compare(&entry.key()).is_eq());
    entry.problems.is_empty()
}

/// A loader.conf. Accepted: it is text and chooses something.
pub(crate) fn loader_conf(data: &[u8]) -> bool {
    let conf = loader_conf::parse(data);
    conf.problems.is_empty() && (conf.default.is_some() || conf.preferred.is_some())
}

/// An /etc/default/kexec. Accepted: it names a kernel, and all of it is followed.
pub(crate) fn default_kexec(data: &[u8]) -> bool {
    let mut said = DefaultKexec::default();
    said.read(data);
    // Bytes that are no text become three each.
    let values = [&said.kernel, &said.initrd, &said.append];
    let bytes = values.into_iter().flatten().map(String::len);
    assert!(bytes.sum::<usize>() <= 3 * data.len());
    said.kernel.is_some() && said.problems.is_empty()
}

/// A grubenv.
pub(crate) fn grubenv(data: &[u8]) -> bool {
    let Ok(variables) = grubenv::parse(data) else {
        return false;
    };
    let bytes = |(name, value): &(String, String)| name.len() + value.len();
    assert!(variables.iter().map(bytes).sum::<usize>() <= data.len());
    true
}

/// A machine whose files all hold the same bytes.
struct Same<'a>(&'a [u8]);

impl Files for Same<'_> {
    fn is_file(&self, _: &FileRef) -> bool {
        true
    }
    fn is_dir(&self, file: &FileRef) -> bool {
        file.path.len().is_multiple_of(2)
    }
    fn read(&self, _: &FileRef) -> Result<Vec<u8>, String> {
        Ok(self.0.to_vec())
    }
    fn list(&self, _: &FileRef) -> Option<Vec<String>> {
        Some(vec!["a.conf".to_owned(), "b.txt".to_owned()])
    }
}

/// A grub.cfg that may read itself. Accepted: it has an entry without a fault.
pub(crate) fn grub_cfg(data: &[u8]) -> bool {
    let path = "/grub/grub.cfg".to_owned();
    let config = grub::read(&Start { path, efi: true }, data, &Same(data));
    assert!(config.entries.len() <= MAX_ENTRIES);
    for number in [config.default, config.one_shot].into_iter().flatten() {
        assert!(number < config.entries.len());
    }
    for entry in &config.entries {
        assert!(entry.boot.kernel.is_some() || !entry.problems.is_empty());
    }
    config.entries.iter().any(|entry| entry.problems.is_empty())
}

/// An extlinux.conf that may include itself. Accepted: it has a label without a fault.
pub(crate) fn extlinux(data: &[u8]) -> bool {
    let config = extlinux::parse(data, &mut |_| Ok(data.to_vec()));
    assert!(config.labels.len() <= MAX_ENTRIES);
    assert_eq!(config.default.is_some(), !config.labels.is_empty());
    config.labels.iter().any(|label| label.problems.is_empty())
}
