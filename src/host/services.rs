//! What systemd starts at boot to load a crash kernel or to save a dump, and where the
//! dump goes.

use std::io::ErrorKind;

use super::door::limit;
use super::mounts::{Mount, below};
use super::{HostError, Root, mounts};

/// Where links lead to the units that are enabled, and where a masked unit is empty or
/// /dev/null (systemctl(1), `mask`).
const ENABLED: &str = "/etc/systemd/system";
/// The unit of Debian and Ubuntu.
const KDUMP_TOOLS: &str = "kdump-tools.service";
/// The units that load a crash kernel or save its dump: of Debian and Ubuntu; of Fedora,
/// RHEL and SUSE; of rkexec's own examples.
const UNITS: [&str; 5] = [
    KDUMP_TOOLS,
    "kdump.service",
    "rkexec-arm.service",
    "rkexec-rearm.path",
    "rkexec-rearm.service",
];
/// The configuration of Debian's and Ubuntu's kdump-tools: `KEY=VALUE`.
const DEBIAN: &str = "/etc/default/kdump-tools";
/// The configuration of Fedora's and RHEL's kdump, kdump.conf(5): `key value`.
const FEDORA: &str = "/etc/kdump.conf";
/// The configuration of SUSE's kdump, kdump(5): `KEY=VALUE`.
const SUSE: &str = "/etc/sysconfig/kdump";
/// The lines of each file that are read. A capture keeps these alone.
const READ: [(&str, &[&str]); 3] = [
    (DEBIAN, &[USE_KDUMP, "KDUMP_COREDIR", "NFS", "SSH", "FTP"]),
    (
        FEDORA,
        &[
            "path", "nfs", "nfs4", "ssh", "raw", "ext2", "ext3", "ext4", "xfs", "btrfs", "minix",
        ],
    ),
    (SUSE, &["KDUMP_SAVEDIR"]),
];
/// 0: the unit of Debian does nothing.
const USE_KDUMP: &str = "USE_KDUMP";
/// The keys that name the directory.
const DIRECTORY: [&str; 3] = ["KDUMP_COREDIR", "path", "KDUMP_SAVEDIR"];
/// The keys that name another machine.
const OTHER_MACHINE: [&str; 6] = ["NFS", "SSH", "FTP", "nfs", "nfs4", "ssh"];
/// Where dumps go when the configuration names no directory.
const DEFAULT_PLACE: &str = "/var/crash";
/// sd_booted(3): the directory is there if and only if systemd is the init system.
const SYSTEMD: &str = "/run/systemd/system";

/// The services of a machine that have to do with kexec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// The enabled units, each once.
    pub enabled: Vec<String>,
    /// systemd is the init system.
    pub systemd: bool,
}

impl Services {
    /// Reads the facts below `root`.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let wanting = root.list_permitted(ENABLED)?.unwrap_or_default();
        let wanting = wanting.iter().filter(|name| name.ends_with(".wants"));
        let wanting: Vec<&String> = wanting.collect();
        let mut enabled = Vec::new();
        for unit in UNITS {
            if is_masked(root, unit) || (unit == KDUMP_TOOLS && is_switched_off(root)?) {
                continue;
            }
            let mut links = wanting
                .iter()
                .map(|directory| format!("{ENABLED}/{directory}/{unit}"));
            if let Some(link) = links.find(|link| root.open(link).is_ok()) {
                // What the unit says is not looked at.
                root.keep_file(&link, b"");
                enabled.push(unit.to_owned());
            }
        }
        enabled.sort_unstable();
        Ok(Self {
            enabled,
            systemd: root.list_permitted(SYSTEMD)?.is_some(),
        })
    }

    /// An enabled unit of a distribution's kdump.
    #[must_use]
    pub fn kdump(&self) -> Option<&str> {
        self.find(|unit| unit.starts_with("kdump"))
    }

    /// An enabled unit of rkexec.
    #[must_use]
    pub fn rkexec(&self) -> Option<&str> {
        self.find(|unit| unit.starts_with("rkexec"))
    }

    fn find(&self, is_it: impl Fn(&str) -> bool) -> Option<&str> {
        self.enabled
            .iter()
            .map(String::as_str)
            .find(|unit| is_it(unit))
    }
}

/// Whether `unit` is masked: nothing starts it.
fn is_masked(root: &Root, unit: &str) -> bool {
    match root.open(&format!("{ENABLED}/{unit}")) {
        Ok(file) => file.metadata().is_ok_and(|file| file.len() == 0),
        // A link to /dev/null, which is no regular file.
        Err(error) => error.kind() == ErrorKind::Unsupported,
    }
}

/// Whether the configuration of Debian says that its unit does nothing.
fn is_switched_off(root: &Root) -> Result<bool, HostError> {
    let settings = Settings::read(root, DEBIAN)?;
    Ok(settings.last(&[USE_KDUMP]).is_some_and(|(_, is)| is == "0"))
}

/// The lines of a configuration that are read: keys and values, in their order.
struct Settings(Vec<(String, String)>);

impl Settings {
    /// Those of `file`, one of [`READ`]. They are kept for a capture, and no other line.
    fn read(root: &Root, file: &str) -> Result<Self, HostError> {
        let text = match root.read_limited(file, limit::FILE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(Self(Vec::new()));
            }
            Err(source) => {
                return Err(HostError::Read {
                    path: file.to_owned(),
                    source,
                });
            }
        };
        let keys = READ.iter().find(|(name, _)| *name == file);
        let keys = keys.map_or(&[][..], |(_, keys)| *keys);
        let is_end = |c: char| c == '=' || c.is_whitespace();
        let mut found = Vec::new();
        let mut kept = String::new();
        for line in text.lines().map(str::trim) {
            let Some((key, value)) = line.split_once(is_end) else {
                continue;
            };
            if keys.contains(&key) {
                let value = value.trim().trim_matches(['"', '\'']);
                found.push((key.to_owned(), value.to_owned()));
                kept.push_str(line);
                kept.push('\n');
            }
        }
        root.keep_file(file, kept.as_bytes());
        Ok(Self(found))
    }

    /// The last value that is not empty of one of `keys`, and its key.
    fn last(&self, keys: &[&str]) -> Option<(&str, &str)> {
        let mut pairs = self.0.iter().map(|(key, value)| (&**key, &**value));
        pairs.rfind(|(key, value)| keys.contains(key) && !value.is_empty())
    }
}

/// A place for dumps that is no directory of the running system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// As the configuration names it.
    pub name: String,
    /// It is on another machine.
    pub network: bool,
}

/// Where a dump goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpPlace {
    /// The directory; where the dump goes elsewhere, the one there.
    pub directory: String,
    /// The file that names it; `None`: it is where dumps go by default.
    pub named_by: Option<&'static str>,
    /// What the dump goes to, if that is no directory of the running system. Then neither
    /// `mount` nor `free` is known.
    pub elsewhere: Option<Elsewhere>,
    /// The file system that it is on, if that is known.
    pub mount: Option<Mount>,
    /// Bytes that are free there; `None`: not known.
    pub free: Option<u64>,
}

impl DumpPlace {
    /// The one of the machine below `root`. A file system that may not answer, because its
    /// storage is on another machine or in a program, is not asked for its free space.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let mut place = Self {
            directory: DEFAULT_PLACE.to_owned(),
            named_by: None,
            elsewhere: None,
            mount: None,
            free: None,
        };
        for (file, keys) in READ {
            let settings = Settings::read(root, file)?;
            let directory = settings.last(&DIRECTORY).map(|(_, value)| value);
            place.elsewhere = elsewhere(&settings, keys);
            if let Some(directory) = directory {
                // SUSE may write it as a URL.
                let directory = directory.strip_prefix("file://").unwrap_or(directory);
                directory.clone_into(&mut place.directory);
            }
            if directory.is_some() || place.elsewhere.is_some() {
                place.named_by = Some(file);
                break;
            }
        }
        if place.elsewhere.is_some() || !is_plain(&place.directory) {
            return Ok(place);
        }
        let mounts = mounts::all(root)?.unwrap_or_default();
        // Of several on one directory the last one is seen.
        place.mount = mounts
            .into_iter()
            .filter(|mount| below(&place.directory, &mount.point).is_some())
            .max_by_key(|mount| mount.point.len());
        if place.mount.as_ref().is_some_and(Mount::answers_at_once) {
            place.free = root.free_space(&place.directory)?;
        }
        Ok(place)
    }
}

/// What the dump goes to, if `settings` name something that is no directory here.
fn elsewhere(settings: &Settings, keys: &[&str]) -> Option<Elsewhere> {
    let named = |key: &str, value: &str, network| Elsewhere {
        name: format!("{key} {value}"),
        network,
    };
    if let Some((key, value)) = settings.last(&OTHER_MACHINE) {
        return Some(named(key, value, true));
    }
    // SUSE names both kinds by one key: a directory, or a URL.
    if let Some((_, url)) = settings.last(&["KDUMP_SAVEDIR"]) {
        let (scheme, _) = url.split_once("://")?;
        return (scheme != "file").then(|| Elsewhere {
            name: url.to_owned(),
            network: true,
        });
    }
    let devices: Vec<&str> = keys
        .iter()
        .copied()
        .filter(|key| !DIRECTORY.contains(key) && !OTHER_MACHINE.contains(key) && *key != USE_KDUMP)
        .collect();
    let (key, value) = settings.last(&devices)?;
    Some(named(key, value, false))
}

/// Whether `path` is absolute and leads nowhere else than it says: no `..`.
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn units_that_are_enabled() {
        let wants = "etc/systemd/system/multi-user.target.wants";
        let (_dir, root) = machine(&[
            (&format!("{wants}/kdump-tools.service"), "[Unit]\n"),
            (&format!("{wants}/ssh.service"), "[Unit]\n"),
            ("etc/systemd/system/kdump.service", "[Unit]\n"),
            ("etc/default/kdump-tools", "#USE_KDUMP=0\nUSE_KDUMP=1\n"),
            ("run/systemd/system/x", ""),
        ]);
        let found = Services::read(&root).unwrap();
        assert_eq!(found.enabled, ["kdump-tools.service"]);
        assert_eq!(found.kdump(), Some("kdump-tools.service"));
        assert_eq!((found.rkexec(), found.systemd), (None, true));
        let (_dir, root) = machine(&[]);
        assert_eq!(Services::read(&root).unwrap(), Services::default());
    }

    #[test]
    fn where_the_dump_goes() {
        let (_dir, root) = machine(&[
            (
                "etc/default/kdump-tools",
                "#KDUMP_COREDIR=\"/no\"\nKDUMP_COREDIR=\"/var/dumps\"\n",
            ),
            (
                "proc/self/mountinfo",
                "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n29 28 8:2 / /var rw - ext4 /dev/sda2 rw\n\
                 30 28 8:3 / /var/dump rw - ext4 /dev/sda3 rw\n",
            ),
            ("var/crash-statvfs", "4096\n"),
        ]);
        let place = DumpPlace::read(&root).unwrap();
        assert_eq!(place.directory, "/var/dumps");
        assert_eq!(place.named_by, Some("/etc/default/kdump-tools"));
        assert_eq!(place.mount.unwrap().point, "/var");
        assert_eq!(place.free, Some(4096));
        let (_dir, root) = machine(&[("etc/kdump.conf", "#path /x\npath /srv/crash\n")]);
        let place = DumpPlace::read(&root).unwrap();
        assert_eq!((&*place.directory, place.free), ("/srv/crash", None));
        assert_eq!(place.elsewhere, None);
        let (_dir, root) = machine(&[]);
        assert_eq!(DumpPlace::read(&root).unwrap().directory, DEFAULT_PLACE);
    }

    #[test]
    fn units_that_do_nothing_are_not_enabled() {
        let wants = "etc/systemd/system/multi-user.target.wants";
        let kdump_tools = format!("{wants}/kdump-tools.service");
        let kdump = format!("{wants}/kdump.service");
        let of = |file: &str, text: &str| {
            let (_dir, root) = machine(&[(&kdump_tools, "x"), (&kdump, "x"), (file, text)]);
            Services::read(&root).unwrap().enabled
        };
        assert_eq!(of("x", ""), [KDUMP_TOOLS, "kdump.service"]);
        assert_eq!(
            of("etc/default/kdump-tools", "USE_KDUMP=0\n"),
            ["kdump.service"]
        );
        assert_eq!(of("etc/systemd/system/kdump.service", ""), [KDUMP_TOOLS]);
    }

    #[test]
    fn dumps_that_go_elsewhere() {
        let mountinfo = "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        let of = |file: &str, text: &str| {
            let (_dir, root) = machine(&[
                (file, text),
                ("proc/self/mountinfo", mountinfo),
                ("var/crash-statvfs", "4096\n"),
            ]);
            DumpPlace::read(&root).unwrap()
        };
        for (file, text, name, network) in [
            (
                FEDORA,
                "path /var/crash\nnfs srv:/export\n",
                "nfs srv:/export",
                true,
            ),
            (FEDORA, "ssh\tu@h\n", "ssh u@h", true),
            (FEDORA, "raw /dev/vg/dump\n", "raw /dev/vg/dump", false),
            (FEDORA, "xfs UUID=01\npath /\n", "xfs UUID=01", false),
            (DEBIAN, "NFS=\"srv:/x\"\n", "NFS srv:/x", true),
            (DEBIAN, "SSH=\"u@h\"\n", "SSH u@h", true),
            (SUSE, "KDUMP_SAVEDIR=\"ssh://h/x\"\n", "ssh://h/x", true),
        ] {
            let place = of(&file[1..], text);
            let name = name.to_owned();
            assert_eq!(place.elsewhere, Some(Elsewhere { name, network }));
            assert_eq!((place.mount, place.free), (None, None), "{text}");
            assert_eq!(place.named_by, Some(file));
        }
        for text in ["KDUMP_SAVEDIR=\"/srv\"\n", "KDUMP_SAVEDIR=file:///srv\n"] {
            let place = of(&SUSE[1..], text);
            assert_eq!((&*place.directory, place.free), ("/srv", Some(4096)));
            assert_eq!((place.named_by, place.elsewhere), (Some(SUSE), None));
        }
        let place = of(
            &DEBIAN[1..],
            "KDUMP_COREDIR=/var/crash/../dumps\nSSH=\"\"\n",
        );
        assert_eq!((place.mount, place.free), (None, None));
    }

    /// A file system that may never answer is not asked.
    #[test]
    fn free_space_of_a_directory_on_another_machine_is_not_asked_for() {
        for (kind, free) in [
            ("ext4", Some(1)),
            ("nfs4", None),
            ("autofs", None),
            ("fuse.sshfs", None),
            ("fuseblk", None),
        ] {
            let line = format!("28 1 8:1 / / rw - {kind} x rw\n");
            let (_dir, root) =
                machine(&[("proc/self/mountinfo", &line), ("var/crash-statvfs", "1\n")]);
            assert_eq!(DumpPlace::read(&root).unwrap().free, free, "{kind}");
        }
    }

    /// A capture keeps what was read, and nothing beside it.
    #[test]
    fn what_is_not_read_of_a_configuration_is_not_kept() {
        let wants = "etc/systemd/system/multi-user.target.wants";
        let (_dir, root) = machine(&[
            (&format!("{wants}/kdump.service"), "[Service]\nsecret\n"),
            ("etc/kdump.conf", "sshkey /root/secret\npath /srv\n"),
        ]);
        let root = root.recorder();
        Services::read(&root).unwrap();
        DumpPlace::read(&root).unwrap();
        let files = root.into_recording().files;
        assert_eq!(files["/etc/kdump.conf"], b"path /srv\n");
        assert_eq!(files[&format!("/{wants}/kdump.service")], b"");
    }
}
