//! Dates as people write them.

/// Seconds of a day.
const DAY: u64 = 86_400;
/// Days of 400 years: then the calendar repeats itself.
const ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const TO_1970: u64 = 719_468;

/// The date and time in UTC of `seconds` after 1970-01-01: "2026-11-26 15:13:20 UTC".
#[must_use]
pub(crate) fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / DAY + TO_1970, seconds % DAY);
    // Years begin in March here, so that the day of a leap year is their last.
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{of_month:02} {:02}:{:02}:{:02} UTC",
        era * 400 + year + next,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    /// By `date --utc --date=@SECONDS`.
    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_764_170_000, "2025-11-26 15:13:20 UTC"),
            (1_800_000_000, "2027-01-15 08:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(utc(seconds), expected, "{seconds}");
        }
        // A record may hold any number.
        assert!(utc(u64::MAX).ends_with(" UTC"));
    }
}
