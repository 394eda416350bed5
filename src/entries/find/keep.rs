//! What a capture keeps of what is read: the files of boot loaders, the links on the way to
//! them, and that a kernel is there, as an empty file. Of an image the parts that were read
//! are kept, if they lie in its first [`MAX_FILE`] bytes.

use std::fs::File;
use std::io;

use super::volumes::{Place, Volumes, joined};
use crate::entries::MAX_FILE;
use crate::host::door::read_part;

/// Most names and links on the way to a file.
const MAX_STEPS: usize = 256;

/// What was found at a place.
pub(super) enum Kept<'b> {
    /// A file with these bytes.
    File(&'b [u8]),
    /// A directory.
    Directory,
}

impl Volumes<'_> {
    /// Keeps what was found at `place`, and the links on the way. A file that is too large
    /// is kept without its bytes.
    pub(super) fn keep(&self, place: &Place, kept: Kept<'_>) {
        if !self.root.is_recording() {
            return;
        }
        let Some(path) = self.walk(place) else {
            return;
        };
        match kept {
            Kept::File(bytes) if bytes.len() > MAX_FILE + 1 => self.root.keep_file(&path, b""),
            Kept::File(bytes) => self.root.keep_file(&path, bytes),
            Kept::Directory => self.root.keep_directory(&path),
        }
    }

    /// Keeps what the symbolic link at `place` says.
    pub(super) fn keep_link(&self, place: &Place, target: &str) {
        if !self.root.is_recording() {
            return;
        }
        let (directory, name) = place.path.rsplit_once('/').unwrap_or(("", &place.path));
        let directory = Place {
            path: directory.to_owned(),
            ..place.clone()
        };
        if let Some(path) = self.walk(&directory) {
            self.root.keep_link(&joined(&path, name), target);
        }
    }

    /// The path that `place` leads to. Keeps the links on the way.
    fn walk(&self, place: &Place) -> Option<String> {
        let inside = self.inside(place.volume).ok()?;
        let point = self.point(place.volume);
        let names = |path: &str| -> Vec<String> { path.rsplit('/').map(str::to_owned).collect() };
        let mut rest = names(&place.path);
        let mut at = String::new();
        for _ in 0..MAX_STEPS {
            let Some(name) = rest.pop() else {
                return Some(joined(point, &at));
            };
            match &*name {
                "" | "." => continue,
                ".." => at.truncate(at.rfind('/').unwrap_or_default()),
                name => {
                    let path = format!("{at}/{name}");
                    let Ok(target) = inside.link(&path) else {
                        at = path;
                        continue;
                    };
                    self.root.keep_link(&joined(point, &path), &target);
                    if target.starts_with('/') {
                        at.clear();
                    }
                    rest.extend(names(&target));
                }
            }
        }
        None
    }
}

/// A file of which parts are read.
pub(super) struct Parts<'v> {
    volumes: &'v Volumes<'v>,
    place: Place,
    file: File,
    /// The bytes that a capture keeps; what was not read is zero.
    kept: Vec<u8>,
    /// Bytes that were read.
    pub(super) count: usize,
}

impl<'v> Parts<'v> {
    pub(super) fn new(volumes: &'v Volumes<'v>, place: &Place, file: File) -> Self {
        Self {
            volumes,
            place: place.clone(),
            file,
            kept: Vec::new(),
            count: 0,
        }
    }

    /// At most `size` bytes from `at` on.
    pub(super) fn read(&mut self, at: u64, size: usize) -> io::Result<Vec<u8>> {
        let bytes = read_part(&self.file, at, size)?;
        self.count += bytes.len();
        if self.volumes.root.is_recording() {
            self.keep(at, &bytes);
        }
        Ok(bytes)
    }

    fn keep(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let Some(end) = at.checked_add(bytes.len()).filter(|end| *end <= MAX_FILE) else {
            return;
        };
        if self.kept.len() < end {
            self.kept.resize(end, 0);
        }
        if let Some(room) = self.kept.get_mut(at..end) {
            room.copy_from_slice(bytes);
        }
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        if !self.kept.is_empty() {
            self.volumes.keep(&self.place, Kept::File(&self.kept));
        }
    }
}
