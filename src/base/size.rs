//! Sizes and addresses as people write and read them.

/// Why a text is not a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not digits with an optional suffix.
    #[error(
        "not a number of bytes: write it like 64M or 0x4000000 (suffix K, M, G or T, no MiB, no decimal point)"
    )]
    NotANumber,
    /// More than 64 bits.
    #[error("too large: more than 64 bits")]
    TooLarge,
}

/// A number of bytes: decimal or 0x, with an optional suffix K, M, G or T.
///
/// # Errors
/// When it is anything else, or does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let hex = number
        .strip_prefix("0x")
        .or_else(|| number.strip_prefix("0X"));
    let number = match hex {
        Some(digits) => parse_digits(digits, 16),
        None => parse_digits(number, 10),
    };
    number?.checked_mul(1 << shift).ok_or(SizeError::TooLarge)
}

/// Digits of `radix` and nothing else: `from_str_radix` would take a sign.
pub(crate) fn parse_digits(digits: &str, radix: u32) -> Result<u64, SizeError> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(SizeError::NotANumber);
    }
    u64::from_str_radix(digits, radix).map_err(|_| SizeError::TooLarge)
}

/// Bytes in the largest unit that gives at least 1, for people.
#[must_use]
pub fn human(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            if tenths % 10 == 0 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            }
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::{SizeError, human, parse_size};

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1 << 20), "1 MiB");
        assert_eq!(human(3 << 29), "1.5 GiB");
        assert_eq!(human(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("0x10"), Ok(16));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("0x2g"), Ok(2 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
        assert_eq!(parse_size("7k"), Ok(7 << 10));
        assert_eq!(parse_size("18446744073709551615"), Ok(u64::MAX));
        for bad in [
            "", "K", "0x", "-1", "+1", "0x+1", "1 M", "1MM", "1é", "é", "0xg",
        ] {
            assert_eq!(parse_size(bad), Err(SizeError::NotANumber), "{bad:?}");
        }
        for large in ["0x1000000000000000000", "18446744073709551615K"] {
            assert_eq!(parse_size(large), Err(SizeError::TooLarge), "{large:?}");
        }
    }
}
