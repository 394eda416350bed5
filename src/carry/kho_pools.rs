//! Pools that Kexec Handover preserves. The next kernel takes each back by its name, as
//! memory of `reserve_mem=SIZE:ALIGN:NAME` (`reserve_mem` of mm/memblock.c).

use bstr::{BStr, ByteSlice as _};

use super::Pool;
use super::capability::Fact;
use super::kho::{KhoTarget, Reads};
use super::reserved::{self, Reserved};
use crate::base::bytes::shown;
use crate::base::human;
use crate::cmdline;
use crate::kho::{self, MAX_POOL_NAME, MAX_POOLS};

/// The format of the blob that names the pools, which is written.
pub const FORMAT: &str = "memblock-v1";
/// The alignment that the word asks for. Every pool has it.
const ALIGNMENT: &str = "4K";

/// Why Kexec Handover cannot preserve the pools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KhoPoolError {
    /// The next kernel does not take them back.
    #[error("--pool-protect kho is not possible: {0}")]
    NotRead(String),
    /// It is not known whether the next kernel takes them back.
    #[error("--pool-protect kho is not possible: {0}")]
    Unknown(String),
    /// The name does not fit the word.
    #[error(
        "the name of the pool {name} has {} bytes, and reserve_mem= takes at most {MAX_POOL_NAME}, as --pool-protect kho needs",
        .name.len()
    )]
    LongName {
        /// The name.
        name: String,
    },
    /// The next kernel does not look at all words.
    #[error(
        "the new command line would have {0} words reserve_mem= with those of the pools, and a kernel looks at {MAX_POOLS}"
    )]
    TooMany(usize),
    /// The command line asks for something else by the name of a pool.
    #[error("reserve_mem={word} of the new command line does not match {} ({pool}): {why}", .pool.name)]
    Mismatch {
        /// The word's value.
        word: String,
        /// The pool.
        pool: Reserved,
        /// What is different.
        why: String,
    },
    /// The running kernel hands over a tree of its own.
    #[error(
        "--pool-protect kho is not possible: this kernel hands over {0} itself, and a pool cannot be added to that"
    )]
    OwnTree(String),
}

impl KhoPoolError {
    /// A way out.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotRead(_) => {
                "use --pool-protect indirect (Linux 5.5 and later) or --pool-protect reserved (every kernel)"
            }
            Self::Unknown(_) => {
                "use --assume-kho kho-v4 if you know that it does; else --pool-protect indirect (Linux 5.5 and later) or \
                 --pool-protect reserved (every kernel)"
            }
            Self::LongName { .. } => {
                "give it a shorter one, for example --pool 512M,64M,name=a, or use --pool-protect indirect or reserved"
            }
            Self::TooMany(_) => {
                "take some off the line with --remove, or use --pool-protect indirect or reserved"
            }
            Self::Mismatch { .. } => {
                "correct it, or take it off the line with --remove reserve_mem: rkexec adds the right one"
            }
            Self::OwnTree(_) => {
                "a pool that this kernel itself has by reserve_mem= is kept without --pool; --kho drop gives up what \
                 this kernel preserves"
            }
        }
    }
}

/// Whether a kernel that reads `target` takes pools back, and why that is known. `assumed`
/// is the format of the tree that it is taken to read where its file does not tell.
#[must_use]
pub fn revives(target: &KhoTarget, assumed: Option<&str>) -> (Fact, String) {
    let parts = [
        ("CONFIG_KEXEC_HANDOVER", &target.kho, kho::TREE),
        ("reserve_mem=", &target.memblock, FORMAT),
    ];
    if target.line_is_ignored.value == Fact::Yes {
        let from = &target.line_is_ignored.read_from;
        let why = format!(
            "the next kernel ignores its command line (CONFIG_CMDLINE_OVERRIDE, {from}), and reserve_mem= with it"
        );
        return (Fact::No, why);
    }
    let assumed = assumed == Some(kho::TREE);
    let mut unknown = None;
    for (what, reads, writes) in parts {
        match reads {
            Reads::One(format) if format == writes => {}
            Reads::One(format) => {
                let why = format!("the next kernel reads {format}, and rkexec writes {writes}");
                return (Fact::No, why);
            }
            Reads::Nothing if what == "reserve_mem=" => {
                let why = "the next kernel takes no memory of reserve_mem= back".to_owned();
                return (Fact::No, why);
            }
            Reads::Nothing => {
                let why = format!("the next kernel has no Kexec Handover ({what})");
                return (Fact::No, why);
            }
            Reads::OneOf(_) | Reads::Unknown if assumed => {}
            Reads::OneOf(found) => {
                let found = found.join(", ");
                unknown = Some(format!(
                    "it is not known which of {found} the next kernel reads"
                ));
            }
            Reads::Unknown => {
                let why = format!("it is not known whether the next kernel reads {writes}");
                unknown = unknown.or(Some(why));
            }
        }
    }
    match unknown {
        Some(why) => (Fact::Unknown, why),
        None => (
            Fact::Yes,
            format!("the next kernel reads {} and {FORMAT}", kho::TREE),
        ),
    }
}

/// The pools as Kexec Handover hands them over.
///
/// # Errors
/// When a name is too long.
pub fn preserved<'p>(
    pools: impl IntoIterator<Item = &'p Pool>,
) -> Result<Vec<kho::Pool>, KhoPoolError> {
    let preserved = pools.into_iter().map(|pool| {
        let name = kho::Name::new(pool.name());
        let long = || KhoPoolError::LongName {
            name: pool.name().to_owned(),
        };
        Ok(kho::Pool {
            name: name.ok_or_else(long)?,
            range: pool.range(),
        })
    });
    preserved.collect()
}

/// The words that `line` lacks, without which the next kernel does not take `pools` back.
///
/// # Errors
/// When a word of the line asks for something else by the name of a pool, or there are too
/// many.
pub fn words(pools: &[kho::Pool], line: &BStr) -> Result<Vec<String>, KhoPoolError> {
    let mut missing = Vec::new();
    for pool in pools {
        if !is_asked(pool, line)? {
            missing.push(word(pool));
        }
    }
    let all = cmdline::values(line, "reserve_mem").count() + missing.len();
    if all > MAX_POOLS {
        return Err(KhoPoolError::TooMany(all));
    }
    Ok(missing)
}

/// The word by which a kernel takes `pool` back.
fn word(pool: &kho::Pool) -> String {
    let size = pool.range.size();
    // Pools are whole pages.
    let size = match size.is_multiple_of(1 << 20) {
        true => format!("{}M", size >> 20),
        false => format!("{}K", size >> 10),
    };
    format!("reserve_mem={size}:{ALIGNMENT}:{}", pool.name.as_str())
}

/// The words `reserve_mem=` of `line` that have the name `name`, and how many bytes each asks
/// for; `None`: the kernel does not take it.
#[must_use]
pub fn words_by_name<'l>(name: &str, line: &'l BStr) -> Vec<(&'l BStr, Option<u64>)> {
    let words = cmdline::parameters(line).filter_map(|text| {
        let (parameter, value) = cmdline::parameter(text);
        let value = value.filter(|_| parameter == "reserve_mem")?;
        let is_its = value.rsplit_str(":").next() == Some(name.as_bytes());
        is_its.then(|| (text, reserved::word(value).map(|word| word.size)))
    });
    words.collect()
}

/// Whether a word of `line` asks for `pool`. Of several words with one name the first
/// counts.
fn is_asked(pool: &kho::Pool, line: &BStr) -> Result<bool, KhoPoolError> {
    let name = pool.name.as_str();
    let of_pool = |value: &&BStr| value.rsplit_str(":").next() == Some(name.as_bytes());
    let Some(value) = cmdline::values(line, "reserve_mem").find(of_pool) else {
        return Ok(false);
    };
    let place = Reserved {
        name: name.to_owned(),
        start: Some(pool.range.start()),
        size: pool.range.size(),
    };
    let why = match reserved::word(value) {
        Some(word) if place.is_asked_by(&word) => return Ok(true),
        Some(word) if word.size != place.size => "the size is another one".to_owned(),
        Some(word) => format!("its address is no multiple of {}", human(word.align)),
        None => "it is not SIZE:ALIGN:NAME, as in 64M:4K:pool".to_owned(),
    };
    Err(KhoPoolError::Mismatch {
        word: shown(value).to_string(),
        pool: place,
        why,
    })
}

#[cfg(test)]
#[path = "kho_pools_tests.rs"]
mod tests;
