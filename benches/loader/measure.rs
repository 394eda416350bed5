//! Times, medians, and the lines that compare them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How long `command` takes; its output goes nowhere, its failure is an error.
pub(crate) fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let out = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("running {command:?}"))?;
    let took = start.elapsed();
    ensure!(
        out.status.success(),
        "{command:?}: {}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(took)
}

/// The median; of an even number the upper one.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

pub(crate) fn best(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}

/// One thing that was timed.
pub(crate) fn show(what: &str, times: &[Duration]) {
    println!(
        "  {what:44} median {:9.1} ms, best {:9.1} ms, {} rounds",
        milliseconds(median(times)),
        milliseconds(best(times)),
        times.len()
    );
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// `ours` by `theirs`, by their medians.
pub(crate) fn ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    median(ours).as_secs_f64() / median(theirs).as_secs_f64()
}

/// Bytes that do not compress, always the same ones.
pub(crate) fn noise() -> impl Iterator<Item = [u8; 8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
}

/// A file of `mebibytes` MiB of noise.
pub(crate) fn noise_file(path: &Path, mebibytes: usize) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for word in noise().take(mebibytes << 17) {
        file.write_all(&word)?;
    }
    Ok(file.flush()?)
}

/// A directory whose files cost no disk access.
pub(crate) fn directory() -> Result<tempfile::TempDir> {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        return Ok(tempfile::tempdir_in(shm)?);
    }
    Ok(tempfile::tempdir()?)
}
