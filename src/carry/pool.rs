//! Persistent memory pools, as the RFC "Introduce persistent memory pool" v2
//! (kexec mailing list, 2023-09-25) defines them.

use crate::base::bytes::shown;
use crate::base::{PAGE_SIZE, PhysRange, RangeError, SizeError, human, parse_digits, parse_size};

/// The node below /chosen that describes a pool without another name.
pub const DEFAULT_NAME: &str = "default_pmpool";
/// `compatible` of a pool's node.
pub const COMPATIBLE: &str = "pmpool";

/// Longest node name, without unit address (Devicetree Specification v0.4, 2.2.1).
const NAME_MAX: usize = 31;
/// The kernel's bitmaps are arrays of `unsigned long`, bytes.
const BITMAP_WORD: u64 = 8;

/// A persistent memory pool: memory whose contents every kernel leaves alone,
/// with the bitmap of what is allocated inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    name: String,
    range: PhysRange,
    bitmap: u64,
}

/// Why something is not a [`Pool`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The name can not be a node's.
    #[error(
        "{name:?} cannot be the name of a pool: use a letter, then letters, digits and `,._+-`, \
         at most 31 before an optional @unit-address"
    )]
    Name {
        /// The name given.
        name: String,
    },
    /// Base and size are no range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Base or size is not a multiple of a page.
    #[error("the pool's {what} {value:#x} is not a multiple of the page size, 4 KiB")]
    Unaligned {
        /// `base` or `size`.
        what: &'static str,
        /// Its value, bytes.
        value: u64,
    },
    /// The bitmap does not start on an `unsigned long`.
    #[error("the pool's bitmap at {bitmap:#x} is not aligned to {BITMAP_WORD} bytes")]
    BitmapUnaligned {
        /// Address of the bitmap.
        bitmap: u64,
    },
    /// The bitmap is not inside the pool.
    #[error(
        "the pool's bitmap at {bitmap:#x}, {} (one bit for each page), is not inside the pool {range:#}",
        human(*size)
    )]
    BitmapOutside {
        /// Address of the bitmap.
        bitmap: u64,
        /// Size of the bitmap, bytes.
        size: u64,
        /// The pool.
        range: PhysRange,
    },
    /// There is no size.
    #[error("{text:?}: the size is missing; use BASE,SIZE, for example 512M,64M")]
    NoSize {
        /// The text given.
        text: String,
    },
    /// A field that is not a number.
    #[error("{what} {text:?} of the pool: {why}")]
    Number {
        /// `base`, `size` or `bitmap`.
        what: &'static str,
        /// The text given.
        text: String,
        /// What is wrong with it.
        why: SizeError,
    },
    /// A field of --pool that does not exist.
    #[error("{field:?} is unknown; use BASE,SIZE[,bitmap=ADDR][,name=NODE]")]
    UnknownField {
        /// The field given.
        field: String,
    },
    /// A field of --pool given twice.
    #[error("the pool's {field} is given twice")]
    Twice {
        /// `bitmap` or `name`.
        field: &'static str,
    },
}

impl Pool {
    /// The pool called `name` at `range`, whose bitmap is at the physical
    /// address `bitmap`.
    ///
    /// # Errors
    /// When the name is no node name, the range is not made of whole pages, or
    /// the bitmap is not aligned and inside the range.
    pub fn new(name: &str, range: PhysRange, bitmap: u64) -> Result<Self, PoolError> {
        if !is_node_name(name) {
            return Err(PoolError::Name {
                name: name.to_owned(),
            });
        }
        for (what, value) in [("base", range.start()), ("size", range.size())] {
            if !value.is_multiple_of(PAGE_SIZE) {
                return Err(PoolError::Unaligned { what, value });
            }
        }
        if !bitmap.is_multiple_of(BITMAP_WORD) {
            return Err(PoolError::BitmapUnaligned { bitmap });
        }
        let size = bitmap_size(range);
        let inside = PhysRange::new(bitmap, size).is_ok_and(|bits| range.covers(bits));
        if !inside {
            return Err(PoolError::BitmapOutside {
                bitmap,
                size,
                range,
            });
        }
        Ok(Self {
            name: name.to_owned(),
            range,
            bitmap,
        })
    }

    /// `BASE,SIZE[,bitmap=ADDR][,name=NODE]`, as `--pool` takes it. The bitmap
    /// is at the pool's start and the name [`DEFAULT_NAME`] unless given. A name
    /// with a comma in it can not be given here, though a node may have one.
    ///
    /// # Errors
    /// When a field is missing, unknown, given twice or no number, or as
    /// [`Pool::new`].
    pub fn parse_option(text: &str) -> Result<Self, PoolError> {
        let mut fields = text.split(',');
        let base = fields.next().unwrap_or_default();
        let size = fields.next().ok_or_else(|| PoolError::NoSize {
            text: text.to_owned(),
        })?;
        let range = PhysRange::new(number("base", base)?, number("size", size)?)?;
        let mut bitmap = None;
        let mut name = None;
        for field in fields {
            match field.split_once('=') {
                Some(("bitmap", address)) => {
                    put_once("bitmap", &mut bitmap, number("bitmap", address)?)?;
                }
                Some(("name", node)) => put_once("name", &mut name, node)?,
                _ => {
                    return Err(PoolError::UnknownField {
                        field: field.to_owned(),
                    });
                }
            }
        }
        Self::new(
            name.unwrap_or(DEFAULT_NAME),
            range,
            bitmap.unwrap_or(range.start()),
        )
    }

    /// The value of `pmpool=` on a kernel's command line: `BASE,SIZE`, read as
    /// the kernel's memparse() does (a leading 0 means octal), except that what
    /// memparse() would silently cut off or wrap around is refused.
    ///
    /// # Errors
    /// When there is no size or a number is malformed, or as [`Pool::new`].
    pub fn parse_cmdline(value: &(impl AsRef<[u8]> + ?Sized)) -> Result<Self, PoolError> {
        // Replacing bytes that are not UTF-8 is safe: they are no digits.
        let value = &*shown(value).to_string();
        let (base, size) = value.split_once(',').ok_or_else(|| PoolError::NoSize {
            text: value.to_owned(),
        })?;
        let parse = |what, text: &str| {
            memparse(text).map_err(|why| PoolError::Number {
                what,
                text: text.to_owned(),
                why,
            })
        };
        let range = PhysRange::new(parse("base", base)?, parse("size", size)?)?;
        Self::new(DEFAULT_NAME, range, range.start())
    }

    /// The value that `pmpool=` must have for this pool: `0xBASE,0xSIZE`.
    #[must_use]
    pub fn cmdline_value(&self) -> String {
        format!("{:#x},{:#x}", self.range.start(), self.range.size())
    }

    /// Name of the pool's node below /chosen.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool's memory.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// Physical address of the bitmap, inside the range.
    #[must_use]
    pub const fn bitmap(&self) -> u64 {
        self.bitmap
    }

    /// Whether base and size are multiples of `align` bytes; of 0 they never are.
    ///
    /// A pool always is aligned to pages. CMA, which a pool with protection
    /// `kernel` is given to, asks for more.
    #[must_use]
    pub const fn is_aligned(&self, align: u64) -> bool {
        align != 0
            && self.range.start().is_multiple_of(align)
            && self.range.size().is_multiple_of(align)
    }
}

/// Size of the bitmap for a pool at `range`, bytes: one bit a page, as the RFC
/// asks CMA for (order_per_bit 0), in whole `unsigned long`.
const fn bitmap_size(range: PhysRange) -> u64 {
    let pages = range.size() / PAGE_SIZE;
    pages.div_ceil(8 * BITMAP_WORD) * BITMAP_WORD
}

/// Whether `name` may be a node's: `node-name[@unit-address]`
/// (Devicetree Specification v0.4, 2.2.1).
fn is_node_name(name: &str) -> bool {
    let (name, unit) = match name.split_once('@') {
        Some((name, unit)) => (name, Some(unit)),
        None => (name, None),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || ",._+-".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= NAME_MAX
        && name.chars().all(allowed)
        && unit.is_none_or(|unit| {
            !unit.is_empty() && unit.len() <= NAME_MAX && unit.chars().all(allowed)
        })
}

fn number(what: &'static str, text: &str) -> Result<u64, PoolError> {
    parse_size(text).map_err(|why| PoolError::Number {
        what,
        text: text.to_owned(),
        why,
    })
}

fn put_once<T>(field: &'static str, slot: &mut Option<T>, value: T) -> Result<(), PoolError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(PoolError::Twice { field }),
    }
}

/// One number as memparse() reads it (lib/cmdline.c): decimal, 0x or octal,
/// and a suffix K, M, G, T, P or E.
fn memparse(text: &str) -> Result<u64, SizeError> {
    let suffix = text.char_indices().last().and_then(|(at, last)| {
        // In a hexadecimal number an E is a digit, to the kernel as well.
        let hex = text.starts_with("0x") || text.starts_with("0X");
        let shift = match last {
            'k' | 'K' => 10,
            'm' | 'M' => 20,
            'g' | 'G' => 30,
            't' | 'T' => 40,
            'p' | 'P' => 50,
            'e' | 'E' if !hex => 60,
            _ => return None,
        };
        Some((&text[..at], shift))
    });
    let (digits, shift) = suffix.unwrap_or((text, 0));
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let number = match (hex, digits.strip_prefix('0')) {
        (Some(digits), _) => parse_digits(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => parse_digits(digits, 8),
        _ => parse_digits(digits, 10),
    };
    number?
        .checked_mul(1_u64 << shift)
        .ok_or(SizeError::TooLarge)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 0x800_0000;
    const SIZE: u64 = 0x3000_0000;

    fn range(base: u64, size: u64) -> PhysRange {
        PhysRange::new(base, size).unwrap()
    }

    /// Pools of any size, anywhere, their bitmap anywhere in them.
    pub(crate) fn any_pool() -> impl Strategy<Value = Pool> {
        let name = "[a-zA-Z][a-z0-9,._+-]{0,30}(@[0-9a-f]{1,16})?";
        let place = (0..1_u64 << 40, 1..1_u64 << 20, any::<u64>());
        (name, place).prop_map(|(name, (page, pages, offset))| {
            let range = range(page * PAGE_SIZE, pages * PAGE_SIZE);
            let room = range.size() - bitmap_size(range);
            let bitmap = range.start() + offset % (room + 1) / BITMAP_WORD * BITMAP_WORD;
            Pool::new(&name, range, bitmap).unwrap()
        })
    }

    #[test]
    fn option() {
        let plain = Pool::parse_option("0x8000000,768M").unwrap();
        assert_eq!(plain.name(), "default_pmpool");
        assert_eq!(plain.range(), range(BASE, SIZE));
        assert_eq!(plain.bitmap(), BASE);
        assert_eq!(plain.cmdline_value(), "0x8000000,0x30000000");

        let full = Pool::parse_option("128M,0x30000000,name=second@8000000,bitmap=0x8001000");
        let expected = Pool::new("second@8000000", range(BASE, SIZE), 0x800_1000);
        assert_eq!(full, expected);
    }

    #[test]
    fn cmdline() {
        for value in [
            "0x8000000,0x30000000",
            "128M,768m",
            "0X8000000,805306368",
            "01000000000,768M",
            "0x20000K,0x30000000",
        ] {
            let pool = Pool::parse_cmdline(value).unwrap();
            assert_eq!(pool.cmdline_value(), "0x8000000,0x30000000", "{value}");
        }
        let exabyte = Pool::parse_cmdline("1E,1P").unwrap();
        assert_eq!(exabyte.range(), range(1 << 60, 1 << 50));
        // Hexadecimal E is 14, not exa.
        let hex = Pool::parse_cmdline("0xE000,0x10000").unwrap();
        assert_eq!(hex.range(), range(0xe000, 0x10000));
        assert_eq!(memparse("0x1e"), Ok(0x1e));
        assert_eq!(memparse("0"), Ok(0));
    }

    #[test]
    fn refused_options() {
        let refused = [
            (
                "0x8000000",
                "\"0x8000000\": the size is missing; use BASE,SIZE, for example 512M,64M",
            ),
            (
                "x,4K",
                "base \"x\" of the pool: not a number of bytes: write it like 64M or 0x4000000 (suffix K, M, G or T, no MiB, no decimal point)",
            ),
            (
                "0,",
                "size \"\" of the pool: not a number of bytes: write it like 64M or 0x4000000 (suffix K, M, G or T, no MiB, no decimal point)",
            ),
            (
                "0,4K,bitmap=99999999T",
                "bitmap \"99999999T\" of the pool: too large: more than 64 bits",
            ),
            ("4K,0", "the range at 0x1000 is empty"),
            (
                "0xfffffffffffff000,4K",
                "the range at 0xfffffffffffff000 ends beyond 2^64 - 1",
            ),
            (
                "2K,4K",
                "the pool's base 0x800 is not a multiple of the page size, 4 KiB",
            ),
            (
                "0,4097",
                "the pool's size 0x1001 is not a multiple of the page size, 4 KiB",
            ),
            (
                "0,1M,bitmap=4",
                "the pool's bitmap at 0x4 is not aligned to 8 bytes",
            ),
            (
                "1M,1M,bitmap=0xffff8",
                "the pool's bitmap at 0xffff8, 32 B (one bit for each page), is not inside the pool 0x100000-0x1fffff",
            ),
            (
                // Starts inside, but its last bit does not.
                "1M,1M,bitmap=0x1fffe8",
                "the pool's bitmap at 0x1fffe8, 32 B (one bit for each page), is not inside the pool 0x100000-0x1fffff",
            ),
            (
                "0,4K,colour=red",
                "\"colour=red\" is unknown; use BASE,SIZE[,bitmap=ADDR][,name=NODE]",
            ),
            (
                "0,4K,",
                "\"\" is unknown; use BASE,SIZE[,bitmap=ADDR][,name=NODE]",
            ),
            ("0,4K,bitmap=0,bitmap=0", "the pool's bitmap is given twice"),
            ("0,4K,name=a,name=b", "the pool's name is given twice"),
        ];
        for (text, message) in refused {
            let error = Pool::parse_option(text).unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
        }
        for name in [
            "",
            "1st",
            "a b",
            "a/b",
            "a@",
            "@1",
            "a@1@2",
            "é",
            "a-name-of-thirty-two-characters-",
        ] {
            let error = Pool::parse_option(&format!("0,4K,name={name}")).unwrap_err();
            let expected = PoolError::Name {
                name: name.to_owned(),
            };
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn refused_cmdlines() {
        for value in [
            "0x8000000",
            ",4K",
            "0,4K,8K",
            "0,4K ",
            "08,4K",
            "-1,4K",
            "0x,4K",
            "K,4K",
            "0,16E",
            "0,4KK",
        ] {
            assert!(Pool::parse_cmdline(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn alignment() {
        let pool = Pool::parse_option("8M,12M").unwrap();
        assert!(pool.is_aligned(4 << 20) && pool.is_aligned(1));
        assert!(!pool.is_aligned(8 << 20) && !pool.is_aligned(0));
    }

    proptest! {
        #[test]
        fn option_and_cmdline_round_trip(pool in any_pool()) {
            let (range, bitmap) = (pool.range(), pool.bitmap());
            let option = format!(
                "{},{:#x},bitmap={bitmap:#x},name={}",
                range.start(),
                range.size(),
                pool.name(),
            );
            let comma = pool.name().contains(',');
            let expected = if comma { None } else { Some(pool.clone()) };
            prop_assert_eq!(Pool::parse_option(&option).ok(), expected);
            let again = Pool::parse_cmdline(&pool.cmdline_value()).unwrap();
            prop_assert_eq!(again.range(), range);
            prop_assert_eq!(again.bitmap(), range.start());
            prop_assert_eq!(again.name(), DEFAULT_NAME);
        }

        #[test]
        fn any_text_is_answered(text in "[0-9a-zA-Zé,=@x ]{0,40}|\\PC{0,20}") {
            if let Ok(pool) = Pool::parse_option(&text) {
                prop_assert!(pool.is_aligned(PAGE_SIZE));
                prop_assert!(pool.range().contains(pool.bitmap()));
            }
            if let Ok(pool) = Pool::parse_cmdline(&text) {
                prop_assert_eq!(Pool::parse_cmdline(&pool.cmdline_value()), Ok(pool));
            }
        }
    }
}
