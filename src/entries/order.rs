//! The order of entries.
//!
//! [`Key`] has the order of the Boot Loader Specification, section "Sorting". Versions are
//! compared by [`version::uapi`].
//! [`rpm`] has the order of Fedora's `blscfg`, which compares file names as RPM compares
//! packages.

use std::cmp::{Ordering, Reverse};

use super::version;

/// A boot counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Tries left.
    pub left: u32,
    /// Tries made.
    pub done: u32,
}

/// What decides about an entry's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// The file name without its counter.
    pub name: String,
    /// The number of the profile in a unified kernel image.
    pub profile: usize,
    /// `sort-key`.
    pub sort_key: Option<String>,
    /// `machine-id`.
    pub machine_id: Option<String>,
    /// `version`.
    pub version: Option<String>,
    /// The boot counter.
    pub tries: Option<Tries>,
}

impl Key {
    /// The id in systemd-boot: profiles behind the first have their number in it.
    #[must_use]
    pub fn id(&self) -> String {
        match self.profile {
            0 => self.name.clone(),
            profile => format!("{}@{profile}", self.name),
        }
    }

    /// No tries are left.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0)
    }

    /// The order in a menu: entries without tries left come last, those without a sort key
    /// behind those with one, newer versions before older ones. The profiles of an image keep
    /// the order that they have in it.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let newest = |a: &str, b: &str| version::uapi(b, a);
        let version = |key: &Self| key.version.clone().unwrap_or_default();
        let by_key = || match (&self.sort_key, &other.sort_key) {
            (Some(a), Some(b)) => a
                .cmp(b)
                .then_with(|| self.machine_id.cmp(&other.machine_id))
                .then_with(|| newest(&version(self), &version(other))),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        self.is_bad()
            .cmp(&other.is_bad())
            .then_with(by_key)
            .then_with(|| newest(&self.name, &other.name))
            .then_with(|| self.profile.cmp(&other.profile))
            .then_with(|| by_tries(self.tries, other.tries))
            // Different names may be equal as versions. The place does not depend on the
            // order in a directory.
            .then_with(|| other.name.cmp(&self.name))
    }
}

/// No counter comes first, then more tries left, then fewer tries made.
fn by_tries(a: Option<Tries>, b: Option<Tries>) -> Ordering {
    let key = |tries: Option<Tries>| tries.map(|tries| (Reverse(tries.left), tries.done));
    key(a).cmp(&key(b))
}

/// The order of Fedora's `blscfg` for the file names of two entries without `.conf`: newest
/// first. Each is a package: name, version and release with dashes between them.
#[must_use]
pub fn rpm(a: &str, b: &str) -> Ordering {
    let (a, b) = (package(a), package(b));
    let compare = |(a, b): (&str, &str)| version::rpm(b, a);
    let parts = [(a.0, b.0), (a.1, b.1), (a.2, b.2)];
    let unequal = parts.into_iter().map(compare);
    unequal.fold(Ordering::Equal, Ordering::then)
}

/// Name, version, release. What is not there is empty.
fn package(name: &str) -> (&str, &str, &str) {
    let Some((rest, release)) = name.rsplit_once('-') else {
        return (name, "", "");
    };
    match rest.rsplit_once('-') {
        Some((name, version)) => (name, version, release),
        None => (rest, "", release),
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
