//! The few notations that /proc and /sys use for numbers.

use super::{HostError, Root};
use crate::base::PhysRange;

/// A hexadecimal number without a prefix, 1 to 16 digits, and nothing else.
pub(super) fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// `0x` and a hexadecimal number.
pub(super) fn hex_0x(text: &str) -> Option<u64> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))?;
    hex(digits.as_bytes())
}

/// The range from `start` to `last`, both included. The last byte of the 64-bit
/// space, where no memory can be, is left out so that the end is a number.
pub(super) fn inclusive(start: u64, last: u64) -> Result<PhysRange, String> {
    if last < start {
        return Err(format!(
            "the range's last byte {last:#x} lies before its first, {start:#x}"
        ));
    }
    PhysRange::from_bounds(start, last.saturating_add(1)).map_err(|error| error.to_string())
}

/// The names in a directory whose entries are numbered, in numeric order.
pub(super) fn numbered(path: &str, names: Vec<String>) -> Result<Vec<u32>, HostError> {
    let mut numbers = Vec::with_capacity(names.len());
    for name in names {
        let number = decimal(&name).ok_or_else(|| {
            HostError::malformed(&format!("{path}/{name}"), "the name is not a number")
        })?;
        numbers.push(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Decimal digits only, without the sign or leading zeroes that would give one
/// number two names.
pub(super) fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// The number in the file `path`, written `0x…`; `None` when there is no such
/// file or this process may not read it.
pub(super) fn optional_0x(root: &Root, path: &str) -> Result<Option<u64>, HostError> {
    let Some(line) = root.read_line_permitted(path)? else {
        return Ok(None);
    };
    hex_0x(&line)
        .map(Some)
        .ok_or_else(|| HostError::malformed(path, format!("`{line}` is not a number 0x…")))
}

/// The number in the file `path`, written in decimal; `None` as in [`optional_0x`].
pub(super) fn optional_decimal<T: std::str::FromStr>(
    root: &Root,
    path: &str,
) -> Result<Option<T>, HostError> {
    let Some(line) = root.read_line_permitted(path)? else {
        return Ok(None);
    };
    line.parse()
        .map(Some)
        .map_err(|_| HostError::malformed(path, format!("`{line}` is not a decimal number")))
}

/// The truth value in the file `path`, written `0` or `1`; `None` as in [`optional_0x`].
pub(super) fn optional_bool(root: &Root, path: &str) -> Result<Option<bool>, HostError> {
    match root.read_line_permitted(path)?.as_deref() {
        None => Ok(None),
        Some("0") => Ok(Some(false)),
        Some("1") => Ok(Some(true)),
        Some(other) => Err(HostError::malformed(
            path,
            format!("`{other}` is neither 0 nor 1"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_numbers() {
        assert_eq!(hex(b"0"), Some(0));
        assert_eq!(hex(b"00fF"), Some(255));
        assert_eq!(hex(b"ffffffffffffffff"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"-1", b" 1", b"0x1", b"00000000000000001"] {
            assert_eq!(hex(bad), None, "{bad:?}");
        }
        assert_eq!(hex_0x("0x10"), Some(16));
        assert_eq!(hex_0x("10"), None);
        assert_eq!(hex_0x("0x"), None);
    }

    #[test]
    fn directory_numbers_sort_by_value() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            numbered("/x", names(&["10", "9", "0"])).unwrap(),
            [0, 9, 10]
        );
        for bad in ["", "+1", "01", "a", "4294967296"] {
            let error = numbered("/x", names(&["0", bad])).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("/x/{bad}: the name is not a number")
            );
        }
    }

    #[test]
    fn the_last_byte_of_the_address_space_is_left_out() {
        let range = inclusive(0x1000, u64::MAX).unwrap();
        assert_eq!((range.start(), range.end()), (0x1000, u64::MAX));
        assert!(inclusive(u64::MAX, u64::MAX).is_err());
    }
}
