//! How fast the purgatory verifies: the image's own verify function in user
//! space, beside reading the same bytes, `sha256sum` and `openssl`, turn by turn.
//!
//! `cargo bench --bench purgatory [-- MIB]`. Exits non-zero when something does
//! not work, never for a ratio.

#![expect(unsafe_code, reason = "maps and calls the image")]

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rkexec::purgatory::{self, Mode, Request};

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

/// Reads every byte once, by 16 at a time into eight sums: what one core can have from
/// memory without working on it.
#[target_feature(enable = "sse2")]
fn read(bytes: &[u8]) -> u64 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi64, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_setzero_si128,
    };
    let (blocks, rest) = bytes.as_chunks::<128>();
    let mut sums = [_mm_setzero_si128(); 8];
    for block in blocks {
        for (sum, lane) in sums.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: reads the 16 bytes of `lane`; no alignment is asked for.
            let words = unsafe { _mm_loadu_si128(lane.as_ptr().cast::<__m128i>()) };
            *sum = _mm_add_epi64(*sum, words);
        }
    }
    let sum = sums.into_iter().reduce(|one, two| _mm_add_epi64(one, two));
    let rest: u64 = rest.iter().map(|byte| u64::from(*byte)).sum();
    sum.map_or(0, |sum| _mm_cvtsi128_si64(sum).cast_unsigned()) ^ rest
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
        verify: true,
        stamps: None,
    };
    let image = mapping::Mapping::new(&request, &digests);

    describe_sha256sum();
    if !installed("sha256sum", "--version") {
        return Err("sha256sum (coreutils) does not run".into());
    }
    let openssl = installed("openssl", "version");

    let mut theirs = Series::new("sha256sum");
    let mut libcrypto = Series::new("openssl dgst -sha256");
    let mut reading = Series::new("reading");
    let mut ours = Series::new("purgatory's verify");
    let mut loader = Series::new("loader's digest");
    for _ in 0..ROUNDS {
        theirs.measure(|| run("sha256sum", &[], file.path()))?;
        if openssl {
            libcrypto.measure(|| run("openssl", &["dgst", "-sha256"], file.path()))?;
        }
        reading.measure(|| {
            // SAFETY: SSE2 is part of x86_64.
            std::hint::black_box(unsafe { read(std::hint::black_box(&data)) });
            Ok(())
        })?;
        ours.measure(|| verify(&image))?;
        loader.measure(|| {
            std::hint::black_box(purgatory::digest(&data));
            Ok(())
        })?;
    }

    show(&ours, &[&theirs, &libcrypto, &reading, &loader], data.len());
    for (other, wanted) in [(&theirs, "20"), (&reading, "0.5")] {
        println!(
            "{}: {:.2} x {} (wanted: at least {wanted}); by user time {:.2} x",
            ours.name,
            Series::best(&other.wall) / Series::best(&ours.wall),
            other.name,
            Series::best(&other.user) / Series::best(&ours.user),
        );
    }
    Ok(())
}

/// Prints the times of `ours` and `others` over so many bytes.
fn show(ours: &Series, others: &[&Series], bytes: usize) {
    println!(
        "{} MiB, {ROUNDS} rounds turn by turn; MB/s by the best and the median wall time, best user time",
        bytes >> 20
    );
    for series in [ours].into_iter().chain(others.iter().copied()) {
        if series.wall.is_empty() {
            println!("{:28} not on this machine", series.name);
            continue;
        }
        let rate = |seconds: f64| data_rate(bytes, seconds);
        println!(
            "{:28} {:8.0} {:8.0} {:8.0}",
            series.name,
            rate(Series::best(&series.wall)),
            rate(Series::median(&series.wall)),
            rate(Series::best(&series.user))
        );
    }
}

/// MB/s.
fn data_rate(bytes: usize, seconds: f64) -> f64 {
    let mebibytes = u32::try_from(bytes >> 20).map_or(f64::NAN, f64::from);
    mebibytes * 1.048_576 / seconds
}
