//! Times in image documents: RFC 3339 in UTC, as Go writes them (fraction without trailing zeros).

/// A moment: seconds since the epoch and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

const DAY: i64 = 86_400;
const NANOS_IN_SECOND: u32 = 1_000_000_000;

impl Timestamp {
    /// 1970-01-01T00:00:00Z
    pub(crate) const EPOCH: Self = Self {
        seconds: 0,
        nanos: 0,
    };

    pub(crate) fn new(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos }
    }

    /// `2017-07-14T02:40:00Z`
    pub(crate) fn to_rfc3339(self) -> String {
        let (days, second) = (self.seconds.div_euclid(DAY), self.seconds.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if self.nanos > 0 {
            text.push_str(
                format!(".{:09}", self.nanos.min(NANOS_IN_SECOND - 1)).trim_end_matches('0'),
            );
        }
        text.push('Z');
        text
    }

    /// Reads `2017-07-14T02:40:00.5Z` and `…+02:00`; none for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| -> Option<i64> {
            let part = text.get(from..to)?;
            part.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| part.parse().ok())?
        };
        let separators = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
        let is_shaped = separators.iter().all(|&(at, mark)| {
            text.as_bytes()
                .get(at)
                .is_some_and(|byte| byte.eq_ignore_ascii_case(&(mark as u8)))
        });
        let (month, day) = (number(5, 7)?, number(8, 10)?);
        if !is_shaped || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let days = days_from_civil(number(0, 4)?, month, day);
        let seconds = days * DAY + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
        let mut rest = text.get(19..)?;
        let mut nanos = 0;
        if let Some(fraction) = rest.strip_prefix('.') {
            let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let digits = fraction.get(..length.min(9))?;
            nanos = format!("{digits:0<9}").parse().ok()?;
            rest = &fraction[length..];
        }
        let offset = match rest.as_bytes() {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), zone @ ..] if zone.len() == 5 && zone[2] == b':' => {
                let zone = &rest[1..];
                let minutes =
                    zone[..2].parse::<i64>().ok()? * 60 + zone[3..].parse::<i64>().ok()?;
                if *sign == b'-' { -minutes } else { minutes }
            }
            _ => return None,
        };
        Some(Self::new(seconds - offset * 60, nanos))
    }
}

/// Days since 1970-01-01 → (year, month, day). Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let rows = [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_500_000_000, 0, "2017-07-14T02:40:00Z"),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.5Z"),
            (-1, 1, "1969-12-31T23:59:59.000000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, nanos, text) in rows {
            let time = Timestamp::new(seconds, nanos);
            assert_eq!(time.to_rfc3339(), text);
            assert_eq!(Timestamp::parse(text), Some(time), "{text}");
        }
        assert_eq!(
            Timestamp::parse("2017-07-14T04:40:00+02:00"),
            Some(Timestamp::new(1_500_000_000, 0))
        );
        for odd in [
            "",
            "2017",
            "2017-07-14T02:40:00",
            "2017-13-14T02:40:00Z",
            "x017-07-14T02:40:00Z",
            "2017-07-14T02:40:00+0200",
            "2017-07-14T02:40:00é",
        ] {
            assert_eq!(Timestamp::parse(odd), None, "{odd}");
        }
    }
}
