//! How fast the purgatory verifies: the image's own verify function in user
//! space, beside `sha256sum` and `openssl` over the same bytes, turn by turn.
//!
//! `cargo bench --bench purgatory [-- MIB]`. Exits non-zero when something does
//! not work, never for a ratio.

#![expect(unsafe_code, reason = "maps and calls the image")]

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rkexec::purgatory::{Mode, Request};
use rkexec::sys::digest::{Implementation, digest_by, has_sha_ni};

#[path = "../tests/purgatory/mapping.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod mapping;

const ROUNDS: usize = 7;

/// One thing to measure: wall and user time per round.
struct Series {
    name: &'static str,
    wall: Vec<Duration>,
    user: Vec<Duration>,
}

impl Series {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            wall: Vec::new(),
            user: Vec::new(),
        }
    }

    fn best(times: &[Duration]) -> f64 {
        times.iter().min().map_or(f64::NAN, Duration::as_secs_f64)
    }

    fn median(times: &[Duration]) -> f64 {
        let mut sorted = times.to_vec();
        sorted.sort();
        sorted
            .get(sorted.len() / 2)
            .map_or(f64::NAN, Duration::as_secs_f64)
    }

    fn measure(&mut self, work: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Step {
        let user = user_time()?;
        let wall = Instant::now();
        work().map_err(|error| format!("{}: {error}", self.name))?;
        self.wall.push(wall.elapsed());
        self.user.push(user_time()?.saturating_sub(user));
        Ok(())
    }
}

type Step = Result<(), Box<dyn Error>>;

/// User time of this process and of the children it waited for.
fn user_time() -> Result<Duration, Box<dyn Error>> {
    let mut total = Duration::ZERO;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: all zeroes is a valid `rusage`, which the call fills in.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            if libc::getrusage(who, &raw mut usage) != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            usage
        };
        total += Duration::from_secs(usage.ru_utime.tv_sec.try_into()?)
            + Duration::from_micros(usage.ru_utime.tv_usec.try_into()?);
    }
    Ok(total)
}

fn run(program: &str, arguments: &[&str], file: &Path) -> Step {
    let status = Command::new(program)
        .args(arguments)
        .arg(file)
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program} failed: {status}").into())
    }
}

fn installed(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Says when `sha256sum` is not the portable C that the ratios are about.
fn describe_sha256sum() {
    let ldd = Command::new("sh")
        .args(["-c", "ldd \"$(command -v sha256sum)\""])
        .output();
    let linked = ldd.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match linked {
        Ok(linked) if linked.contains("libcrypto") => println!(
            "note: this sha256sum uses libcrypto, which uses SHA-NI: the ratios below are not those to portable C"
        ),
        Ok(linked) if linked.contains("libc.") => {
            println!("sha256sum: coreutils' own portable C (no libcrypto)");
        }
        _ => println!("sha256sum: how it was linked is unknown"),
    }
}

/// MB/s that SHA256RNDS2 alone allows on this CPU, however many streams there
/// are: 32 of them per block, none waiting for another.
#[target_feature(enable = "sha,sse2")]
fn sha_ni_limit() -> f64 {
    const BLOCKS: u32 = 20_000;
    let run = || {
        let start = Instant::now();
        // SAFETY: registers only, all of them declared.
        unsafe {
            std::arch::asm!(
                "2:",
                ".rept 4",
                "sha256rnds2 xmm1, xmm9",
                "sha256rnds2 xmm2, xmm9",
                "sha256rnds2 xmm3, xmm9",
                "sha256rnds2 xmm4, xmm9",
                "sha256rnds2 xmm5, xmm9",
                "sha256rnds2 xmm6, xmm9",
                "sha256rnds2 xmm7, xmm9",
                "sha256rnds2 xmm8, xmm9",
                ".endr",
                "dec {count:e}",
                "jnz 2b",
                count = inout(reg) BLOCKS => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                options(nomem, nostack),
            );
        }
        start.elapsed()
    };
    let best = (0..100).map(|_| run()).min().unwrap_or(Duration::MAX);
    f64::from(BLOCKS) * 64.0 / 1e6 / best.as_secs_f64()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn verify(image: &mapping::Mapping) -> Step {
    match image.verify() {
        (0, _) => Ok(()),
        (fault, evidence) => Err(format!("fault {fault}: {evidence:?}").into()),
    }
}

fn main() -> Step {
    // cargo passes `--bench`.
    let mebibytes: usize = match std::env::args().skip(1).find(|arg| !arg.starts_with('-')) {
        Some(argument) => argument.parse()?,
        None => 208,
    };
    let data = noise(mebibytes << 20);
    let directory = Some(Path::new("/dev/shm"))
        .filter(|shm| shm.is_dir())
        .map_or_else(std::env::temp_dir, Path::to_path_buf);
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&data)?;
    file.flush()?;

    // A kernel and an initrd.
    let (kernel, initrd) = data.split_at(data.len().min(8 << 20));
    let digests: Vec<_> = [kernel, initrd]
        .into_iter()
        .filter(|bytes| !bytes.is_empty())
        .map(mapping::region)
        .collect();
    let request = Request {
        entry: 0,
        argument: 0,
        mode: Mode::Long,
        serial_port: None,
        sha_ni: false,
        verify: true,
    };
    let portable = mapping::Mapping::new(&request, &digests);
    let sha_ni = has_sha_ni().then(|| {
        let request = Request {
            sha_ni: true,
            ..request
        };
        mapping::Mapping::new(&request, &digests)
    });

    describe_sha256sum();
    if !installed("sha256sum", "--version") {
        return Err("sha256sum (coreutils) does not run".into());
    }
    let openssl = installed("openssl", "version");

    let mut theirs = Series::new("sha256sum");
    let mut image_portable = Series::new("purgatory verify, portable");
    let mut image_sha_ni = Series::new("purgatory verify, SHA-NI");
    let mut libcrypto = Series::new("openssl dgst -sha256");
    let mut loader = [
        ("loader digest, scalar", Implementation::Scalar),
        ("loader digest, portable", Implementation::Portable),
        ("loader digest, AVX2", Implementation::Avx2),
        ("loader digest, SHA-NI", Implementation::ShaNi),
    ]
    .map(|(name, implementation)| (Series::new(name), implementation));
    for _ in 0..ROUNDS {
        theirs.measure(|| run("sha256sum", &[], file.path()))?;
        image_portable.measure(|| verify(&portable))?;
        if let Some(image) = &sha_ni {
            image_sha_ni.measure(|| verify(image))?;
        }
        if openssl {
            libcrypto.measure(|| run("openssl", &["dgst", "-sha256"], file.path()))?;
        }
        for (series, implementation) in &mut loader {
            if implementation.available() {
                series.measure(|| {
                    std::hint::black_box(digest_by(*implementation, &data));
                    Ok(())
                })?;
            }
        }
    }

    println!(
        "{mebibytes} MiB, {ROUNDS} rounds turn by turn; MB/s by the best and the median wall time, best user time"
    );
    let [
        (loader_scalar, _),
        (loader_portable, _),
        (loader_avx2, _),
        (loader_sha_ni, _),
    ] = &loader;
    for series in [
        &theirs,
        &libcrypto,
        &image_portable,
        &image_sha_ni,
        loader_scalar,
        loader_portable,
        loader_avx2,
        loader_sha_ni,
    ] {
        if series.wall.is_empty() {
            println!("{:28} not on this machine", series.name);
            continue;
        }
        let rate = |seconds: f64| data_rate(data.len(), seconds);
        println!(
            "{:28} {:8.0} {:8.0} {:8.0}",
            series.name,
            rate(Series::best(&series.wall)),
            rate(Series::median(&series.wall)),
            rate(Series::best(&series.user))
        );
    }
    for (ours, wanted) in [(&image_sha_ni, "9"), (&image_portable, "0.95")] {
        if !ours.wall.is_empty() {
            println!(
                "{}: {:.2} x sha256sum (wanted: at least {wanted}); by user time {:.2} x",
                ours.name,
                Series::best(&theirs.wall) / Series::best(&ours.wall),
                Series::best(&theirs.user) / Series::best(&ours.user),
            );
        }
    }
    if has_sha_ni() {
        // SAFETY: the extensions are there.
        let limit = unsafe { sha_ni_limit() };
        println!(
            "limit of this CPU's SHA256RNDS2, whatever the code: {limit:.0} MB/s, {:.2} x sha256sum",
            limit / data_rate(data.len(), Series::best(&theirs.wall))
        );
    }
    for (ours, base) in [(&image_sha_ni, &libcrypto), (&image_portable, &libcrypto)] {
        if !ours.wall.is_empty() && !base.wall.is_empty() {
            println!(
                "{}: {:.2} x {}",
                ours.name,
                Series::best(&base.wall) / Series::best(&ours.wall),
                base.name
            );
        }
    }
    Ok(())
}

/// MB/s.
fn data_rate(bytes: usize, seconds: f64) -> f64 {
    let mebibytes = u32::try_from(bytes >> 20).map_or(f64::NAN, f64::from);
    mebibytes * 1.048_576 / seconds
}
