//! /proc/self/mountinfo: what is mounted, and what a jump would leave mounted.
//!
//! Format: Documentation/filesystems/proc.rst, section 3.5.

use std::collections::BTreeSet;

use super::{HostError, Root};

/// The list.
pub const PATH: &str = "/proc/self/mountinfo";

/// File systems that keep nothing on a disk or behind a network, or not themselves: what is
/// written to an overlay lies on another mount of the list.
const WITHOUT_STORAGE: [&str; 33] = [
    "autofs",
    "bdev",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device number, major and minor: mounts of one file system share it.
    pub device: (u32, u32),
    /// The directory of the file system that is mounted: `/`, or a subvolume, or the part
    /// that a bind mount shows.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
    /// What the file system lies on: a device, as a rule by its path below /dev.
    pub source: String,
    /// Its type, for instance `ext4`.
    pub kind: String,
    /// The file system itself, not only this mount of it, can be written to.
    pub writable: bool,
}

/// File systems whose storage is on another machine, or on the host of a virtual one, by their
/// types.
const NETWORK: [&str; 17] = [
    "9p",
    "afs",
    "ceph",
    "cifs",
    "coda",
    "fuse.ceph-fuse",
    "fuse.cephfs",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "virtiofs",
];

impl Mount {
    /// Whether the storage is on another machine.
    #[must_use]
    pub fn is_network(&self) -> bool {
        NETWORK.contains(&self.kind.as_str())
    }

    /// Whether a question about the file system is answered by the kernel itself: not by
    /// another machine or by a program, which may never answer.
    #[must_use]
    pub fn answers_at_once(&self) -> bool {
        !self.is_network() && !self.kind.starts_with("fuse") && self.kind != "autofs"
    }
}

/// Every mount, in the order of the list; `None`: a captured machine has no list.
///
/// # Errors
/// When the list cannot be read or is malformed.
pub fn all(root: &Root) -> Result<Option<Vec<Mount>>, HostError> {
    let Some(bytes) = read(root)? else {
        return Ok(None);
    };
    let mounts = parse(&bytes).map_err(|what| HostError::malformed(PATH, what))?;
    Ok(Some(mounts))
}

/// Every line of the list: a mount, or why it is none; `None` as in [`all`].
pub type Lines = Option<Vec<Result<Mount, String>>>;

/// The same as [`all`], where one malformed line hides no other one.
///
/// # Errors
/// When the list cannot be read.
pub fn each(root: &Root) -> Result<Lines, HostError> {
    let bytes = read(root)?;
    Ok(bytes.map(|bytes| lines(&String::from_utf8_lossy(&bytes)).collect()))
}

fn read(root: &Root) -> Result<Option<Vec<u8>>, HostError> {
    // This process may have mounted something since it was read.
    root.forget(PATH);
    root.read_optional(PATH)
}

/// The file systems whose storage a jump may leave without what was written to
/// them, each once, at the first of its mount points.
///
/// # Errors
/// When the list cannot be read or is malformed.
pub fn writable(root: &Root) -> Result<Vec<Mount>, HostError> {
    let mounts = parse(&root.read(PATH)?).map_err(|what| HostError::malformed(PATH, what))?;
    Ok(with_storage(mounts))
}

/// Those of `mounts` that keep something on a disk or behind a network and can be written
/// to, each file system once.
#[must_use]
pub fn with_storage(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut known = BTreeSet::new();
    let mut found = mounts;
    found.retain(|mount| {
        let storage = !WITHOUT_STORAGE.contains(&mount.kind.as_str());
        mount.writable && storage && known.insert(mount.device)
    });
    found
}

/// Every line of mountinfo.
///
/// # Errors
/// Names the line that is malformed.
pub fn parse(bytes: &[u8]) -> Result<Vec<Mount>, String> {
    lines(&String::from_utf8_lossy(bytes)).collect()
}

fn lines(text: &str) -> impl Iterator<Item = Result<Mount, String>> {
    let lines = text.lines().enumerate();
    lines.map(|(index, line)| {
        mount(line).ok_or_else(|| {
            format!(
                "line {}: `{}` is not a mount",
                index + 1,
                line.escape_debug()
            )
        })
    })
}

/// The numbers of a device, major and minor, as the kernel writes them: `98:0`.
#[must_use]
pub fn device_numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The rest of `path` below `directory`, empty or with a slash at its start.
#[must_use]
pub fn below<'p>(path: &'p str, directory: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(directory.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda1 rw`: any
/// number of fields before the dash, which stands alone.
fn mount(line: &str) -> Option<Mount> {
    let (of_the_mount, of_the_file_system) = line.split_once(" - ")?;
    let mut fields = of_the_mount.split(' ');
    let device = device_numbers(fields.nth(2)?)?;
    let root = fields.next()?;
    let point = fields.next()?;
    fields.next()?; // options of this mount
    let mut fields = of_the_file_system.split(' ');
    let kind = fields.next().filter(|kind| !kind.is_empty())?;
    // A source may be empty; the options of the file system come last.
    let source = fields.next()?;
    let options = fields.next()?;
    Some(Mount {
        device,
        root: unescaped(root),
        point: unescaped(point),
        source: unescaped(source),
        kind: kind.to_owned(),
        writable: options.split(',').any(|option| option == "rw"),
    })
}

/// The kernel writes space, tab, newline, backslash and hash as `\ooo`.
pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let code = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(code.unwrap_or(first));
        rest = match code {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MACHINE: &str = "\
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 28 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=99,mode=755
41 28 8:2 / /boot ro,relatime shared:30 - vfat /dev/sda2 rw,fmask=0022
42 28 8:3 / /usr rw,relatime - squashfs /dev/sda3 ro
43 28 0:50 / /srv/a\\040b rw - nfs4 server:/x rw,vers=4.2
44 28 8:1 /var /chroot/var rw,relatime master:1 propagate_from:2 - ext4 /dev/sda1 rw
45 28 0:60 / /mnt rw - fuse.sshfs  rw,user_id=0
";

    #[test]
    fn what_a_jump_would_leave() {
        let found = with_storage(parse(MACHINE.as_bytes()).unwrap());
        let found: Vec<_> = found
            .iter()
            .map(|m| (m.point.as_str(), m.kind.as_str()))
            .collect();
        // /boot is mounted read-only, but its file system is not.
        assert_eq!(
            found,
            [
                ("/", "ext4"),
                ("/boot", "vfat"),
                ("/srv/a b", "nfs4"),
                ("/mnt", "fuse.sshfs"),
            ]
        );
    }

    #[test]
    fn what_keeps_nothing_itself_and_what_is_elsewhere() {
        let kinds = ["overlay", "fuse.lxcfs", "fuse.portal", "fuse.gvfsd-fuse"];
        let far = ["virtiofs", "fuse.s3fs", "fuse.rclone", "fuse.cephfs"];
        let lines = kinds.iter().chain(&far).enumerate();
        let lines = lines.map(|(n, kind)| format!("9 8 0:{n} / /{n} rw - {kind} x rw\n"));
        let mounts = parse(lines.collect::<String>().as_bytes()).unwrap();
        let found = with_storage(mounts);
        let found: Vec<_> = found.iter().map(|m| (&*m.kind, m.is_network())).collect();
        assert_eq!(found, far.map(|kind| (kind, true)));
    }

    #[test]
    fn escapes() {
        assert_eq!(unescaped(r"/a\040b\134c\043"), r"/a b\c#");
        assert_eq!(unescaped(r"/a\04"), r"/a\04");
        assert_eq!(unescaped(r"/a\999\040"), "/a\\999 ");
    }

    #[test]
    fn malformed_lines_are_named() {
        for line in [
            "x",
            "28 1 8:1 / / rw ext4 /dev/sda1 rw",
            "28 1 8 / / rw - ext4 /dev/sda1 rw",
            "28 1 8:1 / / rw - ext4 /dev/sda1",
            "28 1 8:1 / / - ext4 /dev/sda1 rw",
        ] {
            let text = format!("28 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}\n");
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, format!("line 2: `{line}` is not a mount"));
            let read: Vec<_> = lines(&text).collect();
            assert!(matches!(&read[..], [Ok(_), Err(why)] if *why == error));
        }
        assert_eq!(parse(b"").unwrap(), []);
    }

    /// As fs/proc_namespace.c writes it.
    fn escaped(text: &str) -> String {
        text.chars().fold(String::new(), |out, c| match c {
            ' ' | '\t' | '\n' | '\\' | '#' => format!("{out}\\{:03o}", u32::from(c)),
            c => out + &c.to_string(),
        })
    }

    proptest! {
        #[test]
        fn what_the_kernel_writes_is_read(
            root in "/[a-z @#\\\\]{0,6}",
            source in "[a-z/ \\\\]{0,8}",
            point in "/[a-z \t\n\\\\#é]{0,12}",
            kind in "[a-z][a-z0-9.]{0,8}",
            major: u32, minor: u32, writable: bool, optional in proptest::collection::vec("(shared|master):[0-9]{1,3}", 0..3),
        ) {
            let optional: String = optional.iter().map(|field| format!("{field} ")).collect();
            let rw = if writable { "rw" } else { "ro" };
            let line = format!(
                "9 8 {major}:{minor} {} {} rw {optional}- {kind} {} {rw},x=rw\n",
                escaped(&root),
                escaped(&point),
                escaped(&source)
            );
            let expected = Mount { device: (major, minor), root, point, source, kind, writable };
            prop_assert_eq!(parse(line.as_bytes()).unwrap(), [expected]);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
