//! The processes that have a file open: a session of the Live Update Orchestrator (LUO), a
//! device.

use super::kho::SESSION;
use super::{HostError, Root};

/// An open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opener {
    /// The process.
    pub pid: i32,
    /// Its descriptor.
    pub fd: i32,
    /// What the process is called in /proc/PID/comm.
    pub command: String,
    /// The file, as /proc/PID/fd names it.
    pub file: Vec<u8>,
}

/// Who has a file open whose name begins with `start`; empty as well when this process may
/// not see what another has open.
///
/// # Errors
/// When /proc cannot be read.
pub fn openers(root: &Root, start: &[u8]) -> Result<Vec<Opener>, HostError> {
    let links = root.open_files(start)?.unwrap_or_default().into_iter();
    links
        .filter_map(|(path, file)| opener(root, &path, file).transpose())
        .collect()
}

/// Who has the session `name` open; as [`openers`].
///
/// # Errors
/// When /proc cannot be read.
pub fn of_session(root: &Root, name: &[u8]) -> Result<Vec<Opener>, HostError> {
    let file = [SESSION, name].concat();
    let mut openers = openers(root, &file)?;
    openers.retain(|opener| opener.file == file);
    Ok(openers)
}

/// Who has `file` open behind the link `path`; `None` when the process has ended.
fn opener(root: &Root, path: &str, file: Vec<u8>) -> Result<Option<Opener>, HostError> {
    let mut parts = path.split('/').skip(2);
    let (Some(process), Some(_), Some(fd)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let Some(command) = root.read_line_permitted(&format!("/proc/{process}/comm"))? else {
        return Ok(None);
    };
    Ok(process
        .parse()
        .ok()
        .zip(fd.parse().ok())
        .map(|(pid, fd)| Opener {
            pid,
            fd,
            command,
            file,
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_that_have_it_open() {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("12/fd/3", "anon_inode:[luo_session] vm"),
            ("12/fd/4", "anon_inode:[luo_session] vm 2"),
            ("12/comm", "agent\n"),
            ("7/fd/5", "/dev/liveupdate"),
            ("7/comm", "other\n"),
        ] {
            let path = dir.path().join("proc").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = Root::at(dir.path());
        let agent = Opener {
            pid: 12,
            fd: 3,
            command: "agent".to_owned(),
            file: b"anon_inode:[luo_session] vm".to_vec(),
        };
        assert_eq!(of_session(&root, b"vm").unwrap(), [agent]);
        assert_eq!(of_session(&root, b"v").unwrap(), []);
    }
}
