//! Durations as Go writes them: `1h30m`, `1.5s`, `-2ms`.
//!
//! Every accepted text gives the same number of nanoseconds as Go's `time.ParseDuration`, rounding of fractions
//! included, because the number ends up in the image config.

/// Units with their nanoseconds. Both micro signs are accepted.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// One more than the largest value of either sign.
const LIMIT: u64 = 1 << 63;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    #[error("`{text}` is not a duration")]
    Invalid { text: String },
    #[error("the duration `{text}` has no unit")]
    MissingUnit { text: String },
    #[error("`{unit}` in the duration `{text}` is not a unit")]
    UnknownUnit { text: String, unit: String },
}

/// Nanoseconds of a duration.
pub(crate) fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid {
        text: text.to_owned(),
    };
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, behind) = split_digits(rest);
        let (fraction, behind) = behind.strip_prefix('.').map_or(("", behind), split_digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_length = behind
            .find(|char: char| char == '.' || char.is_ascii_digit())
            .unwrap_or(behind.len());
        let (name, behind) = behind.split_at(unit_length);
        if name.is_empty() {
            return Err(DurationError::MissingUnit {
                text: text.to_owned(),
            });
        }
        let Some(&(_, unit)) = UNITS.iter().find(|(known, _)| *known == name) else {
            return Err(DurationError::UnknownUnit {
                text: text.to_owned(),
                unit: name.to_owned(),
            });
        };
        rest = behind;
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| invalid())?
        };
        let whole = whole
            .checked_mul(unit)
            .filter(|nanoseconds| *nanoseconds <= LIMIT)
            .ok_or_else(invalid)?;
        total = total
            .checked_add(whole)
            .and_then(|sum| sum.checked_add(fraction_of(fraction, unit)))
            .filter(|sum| *sum <= LIMIT)
            .ok_or_else(invalid)?;
    }
    if is_negative {
        return Ok(0i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|char: char| !char.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// Nanoseconds of a decimal fraction of a unit, computed in the same floating-point steps as Go.
#[expect(
    clippy::cast_precision_loss,
    reason = "the loss is part of the definition"
)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and below one hour"
)]
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale = 1.0;
    for digit in digits.bytes() {
        // Digits beyond what fits are ignored.
        if value > (LIMIT - 1) / 10 {
            break;
        }
        value = value * 10 + u64::from(digit - b'0');
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_durations() {
        let table: &[(&str, Option<i64>)] = &[
            ("0", Some(0)),
            ("-0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5m", Some(30_000_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("3\u{b5}s", Some(3_000)),
            ("0.100000000000000000000h", Some(360_000_000_000)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("", None),
            ("-", None),
            ("5", None),
            (".s", None),
            ("5d", None),
            ("5 s", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).ok(), *expected, "{text}");
        }
    }
}
