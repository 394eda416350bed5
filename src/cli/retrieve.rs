//! `rkexec retrieve`: writes back the files that the kernel before handed over.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use serde_json::{Value, json};

use super::{Context, Usage};
use crate::base::bytes::{in_json, shown, shown_name};
use crate::base::human;
use crate::carry::manifest::{self, Manifest, ManifestError};
use crate::carry::retrieve::{self, Retrieved, Wanted};
use crate::cmdline;
use crate::host::openers::{Opener, of_session};
use crate::host::security::Security;
use crate::host::tree::NewTree;
use crate::refusal::SysError;
use crate::refusal::live_update::{LiveUpdateFacts, no_file};
use crate::sys::Errno;
use crate::sys::liveupdate::{Device, HOLDER, Holder, Session, SessionName};

/// `rkexec retrieve`.
#[derive(Debug, Args)]
pub(super) struct RetrieveArgs {
    /// Where to: a new directory, or an empty one to which only you may write.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The session that has the files.
    #[arg(long, value_name = "NAME", default_value = manifest::SESSION,
        value_parser = OsStringValueParser::new().try_map(SessionName::new))]
    session: SessionName,
    /// Write the file with this token as DIR/N, as it is; may be repeated.
    ///
    /// For the session of another program, or for a file that is not what was handed
    /// over. No manifest is read. Name all files at once: the session is finished
    /// then, and its other files are lost.
    #[arg(long = "token", value_name = "N")]
    tokens: Vec<u64>,
    /// Do not finish the session: a process keeps it open, and its files in memory.
    #[arg(long)]
    keep: bool,
}

/// Something failed while the session was open.
#[derive(Debug, thiserror::Error)]
#[error("retrieve failed")]
pub(super) struct Unfinished {
    source: Box<dyn Error + Send + Sync>,
    /// What to do, if another process keeps the session open.
    hint: Option<String>,
}

impl Unfinished {
    fn new(error: impl Into<Box<dyn Error + Send + Sync>>, held_by: Option<i32>) -> Self {
        let hint = held_by.map(|pid| {
            format!(
                "nothing is lost: process {pid} keeps the session open for another `rkexec retrieve` (--token N \
                 writes a file as it is); if it ends, the files are gone"
            )
        });
        Self {
            source: error.into(),
            hint,
        }
    }

    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Why nothing, or not everything, was retrieved.
#[derive(Debug, thiserror::Error)]
enum RetrieveError {
    #[error("the file with token {token}: {why}", token = manifest::TOKEN)]
    NoManifest { why: String },
    #[error("the file with token {token}", token = manifest::TOKEN)]
    Manifest(#[from] ManifestError),
    #[error("{0}")]
    Faults(String),
    #[error("all files are written, and the session cannot be finished: {0}")]
    Finish(String),
}

pub(super) fn run(context: &Context, args: &RetrieveArgs) -> anyhow::Result<()> {
    context.on_this_machine("retrieve")?;
    let named = by_token(&args.tokens)?;
    let found = Found::look(context, &args.session)?;
    let tree = NewTree::claim(&args.dir).context("retrieve failed")?;
    let (session, holder) = found.take(context, &args.session)?;
    let pid = holder.as_ref().map(Holder::pid);
    let all = save(&session, args, named, &tree).map_err(|error| Unfinished::new(error, pid))?;
    let faults = faults(&all);
    let finished = faults.is_none() && !args.keep;
    if finished {
        let failed = |errno: Errno| RetrieveError::Finish(errno.to_string());
        session
            .finish()
            .map_err(|errno| Unfinished::new(failed(errno), pid))?;
        if let Some(holder) = holder {
            holder.end();
        }
    }
    let result = Outcome {
        session: &args.session,
        dir: &args.dir,
        files: &all,
        held_by: pid.filter(|_| !finished),
    };
    context.print(|| result.text(), || result.json())?;
    if let Some(faults) = faults {
        return Err(Unfinished::new(RetrieveError::Faults(faults), pid).into());
    }
    Ok(())
}

/// The files of `--token`, which have their tokens for names.
fn by_token(tokens: &[u64]) -> anyhow::Result<Vec<Wanted>> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for token in tokens {
        if wanted.iter().any(|other| other.token == *token) {
            return Err(Usage(format!("retrieve failed: --token {token} is given twice")).into());
        }
        wanted.push(Wanted {
            token: *token,
            name: token.to_string().into(),
            proof: None,
        });
    }
    Ok(wanted)
}

/// Where a session is.
enum Found {
    /// With a process that an earlier `rkexec retrieve` left.
    Held(Holder, Opener),
    /// With the kernel.
    Waiting(Device),
}

impl Found {
    fn look(context: &Context, name: &SessionName) -> anyhow::Result<Self> {
        let open = of_session(&context.root, name.bytes())?;
        let is_holder = |open: &Opener| open.command.as_bytes() == HOLDER.to_bytes();
        if let Some(held) = open.into_iter().find(is_holder) {
            let holder = Holder::open(held.pid).map_err(|errno| SysError::session(name, errno))?;
            return Ok(Self::Held(holder, held));
        }
        match Device::open() {
            Ok(device) => Ok(Self::Waiting(device)),
            Err(errno) => Err(SysError::no_device(&facts(context, name)?, errno).into()),
        }
    }

    /// Takes the session, and has it kept open by another process.
    fn take(
        self,
        context: &Context,
        name: &SessionName,
    ) -> anyhow::Result<(Session, Option<Holder>)> {
        let failed = |errno| SysError::session(name, errno);
        match self {
            Self::Held(holder, held) => {
                let session = holder.session(held.fd).map_err(failed)?;
                Ok((session, Some(holder)))
            }
            Self::Waiting(device) => match device.session(name) {
                Ok(session) => {
                    let holder = session.hold().map_err(|errno| {
                        context.warn(&format!(
                            "no process can be made that keeps the session open ({errno}): what is not written \
                             now is lost"
                        ));
                    });
                    Ok((session, holder.ok()))
                }
                Err(errno) => Err(SysError::no_session(&facts(context, name)?, name, errno).into()),
            },
        }
    }
}

/// What explains a refusal.
fn facts(context: &Context, name: &SessionName) -> anyhow::Result<LiveUpdateFacts> {
    let root = &context.root;
    let line = crate::host::cmdline::read(root)?;
    let open = of_session(root, name.bytes())?.into_iter();
    let open_in = open.map(|open| format!("{} ({})", open.command, open.pid));
    Ok(LiveUpdateFacts {
        kho: Security::read(root)?.kho,
        is_asked_for: cmdline::truth(&line, "liveupdate") == Some(true),
        open_in: open_in.collect(),
    })
}

/// Writes the files: those of `--token`, else those that the manifest names.
fn save(
    session: &Session,
    args: &RetrieveArgs,
    named: Vec<Wanted>,
    tree: &NewTree,
) -> anyhow::Result<Vec<Retrieved>> {
    let wanted = if args.tokens.is_empty() {
        let manifest = read_manifest(session)?;
        let files = manifest.files().map(|(token, name, proof)| Wanted {
            token,
            name: name.clone(),
            proof: Some(proof),
        });
        files.collect()
    } else {
        named
    };
    let open = |token| session.file(token).map_err(no_file);
    Ok(retrieve::write(tree, &wanted, open)?)
}

fn read_manifest(session: &Session) -> Result<Manifest, RetrieveError> {
    let because = |why: String| RetrieveError::NoManifest { why };
    let file = session
        .file(manifest::TOKEN)
        .map_err(|errno| because(no_file(errno)))?;
    let bytes = contents(&file).map_err(because)?;
    Ok(Manifest::parse(&bytes)?)
}

/// The bytes of a manifest, which is not larger than it may be.
fn contents(file: &File) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    let size = file.metadata().map_err(cannot)?.len();
    if size > manifest::MAX_SIZE {
        let (size, most) = (human(size), human(manifest::MAX_SIZE));
        return Err(format!("it has {size}, and a manifest at most {most}"));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(cannot)?;
    Ok(bytes)
}

/// The files that did not arrive, in words.
fn faults(all: &[Retrieved]) -> Option<String> {
    let wrong = all.iter().filter_map(|file| {
        let fault = file.fault.as_ref()?;
        let (name, token) = (shown(&file.wanted.name), file.wanted.token);
        Some(format!("{name} (token {token}): {fault}"))
    });
    let wrong: Vec<String> = wrong.collect();
    (!wrong.is_empty()).then(|| {
        let (number, all) = (wrong.len(), all.len());
        format!(
            "{number} of {all} files did not arrive: {}",
            wrong.join("; ")
        )
    })
}

/// What was done.
struct Outcome<'a> {
    session: &'a SessionName,
    dir: &'a Path,
    files: &'a [Retrieved],
    /// The process that keeps the session open.
    held_by: Option<i32>,
}

impl Outcome<'_> {
    fn text(&self) -> String {
        let written = self.files.iter().filter(|file| file.fault.is_none());
        let (number, session) = (written.count(), self.session);
        let files = if number == 1 { "file" } else { "files" };
        let dir = shown_name(self.dir);
        let mut text = format!("{number} {files} of the session {session} written to {dir}; ");
        let _ = match self.held_by {
            None => writeln!(text, "the session is finished"),
            Some(pid) => writeln!(text, "process {pid} keeps the session open"),
        };
        for file in self.files {
            let state = match (&file.fault, file.is_verified()) {
                (Some(_), _) => "NOT written",
                (None, true) => "verified",
                (None, false) => "not verified: there is no digest of it",
            };
            let (name, size) = (shown(&file.wanted.name), human(file.size));
            let _ = writeln!(text, "  {name}: {size}, {state}");
        }
        text
    }

    fn json(&self) -> Value {
        let files = self.files.iter().map(|file| {
            let (name, bytes) = in_json(&file.wanted.name);
            let mut object = json!({
                "name": name,
                "token": file.wanted.token,
                "size": file.size,
                "verified": file.is_verified(),
                "fault": file.fault,
            });
            if let (Some(bytes), Some(fields)) = (bytes, object.as_object_mut()) {
                fields.insert("name_bytes".to_owned(), bytes.into());
            }
            object
        });
        let (session, bytes) = in_json(self.session.bytes());
        let mut object = json!({
            "schema": 1,
            "session": session,
            "files": files.collect::<Vec<_>>(),
            "finished": self.held_by.is_none(),
            "held_by": self.held_by,
        });
        if let (Some(bytes), Some(fields)) = (bytes, object.as_object_mut()) {
            fields.insert("session_bytes".to_owned(), bytes.into());
        }
        object
    }
}

#[cfg(test)]
#[path = "retrieve_tests.rs"]
mod tests;
