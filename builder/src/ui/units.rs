//! Times and sizes for people.

use std::time::Duration;

/// `0.2s`, `1m 02s`, `1h 02m`
pub(crate) fn duration(duration: Duration) -> String {
    // Rounded to what is shown first, so that 59.96 s is not "60.0s".
    let tenths = (duration.as_millis() + 50) / 100;
    let seconds = tenths / 10;
    match seconds {
        0..60 => format!("{seconds}.{}s", tenths % 10),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// `17 B`, `1.2 kB`, `30.1 MB`: powers of 1000, as in Docker's tables.
pub(crate) fn bytes(count: u64) -> String {
    let mut unit = 1_u64;
    for (name, next) in [
        ("B", 1_000),
        ("kB", 1_000_000),
        ("MB", 1_000_000_000),
        ("GB", 1_000_000_000_000),
    ] {
        // Half a last digit below the next unit already rounds up to it.
        if count < next - unit / 20 {
            return with_unit(count, unit, name);
        }
        unit = next;
    }
    with_unit(count, unit, "TB")
}

fn with_unit(count: u64, unit: u64, name: &str) -> String {
    if unit == 1 {
        return format!("{count} {name}");
    }
    let tenths = (u128::from(count) * 10 + u128::from(unit) / 2) / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            (0, "0.0s"),
            (49, "0.0s"),
            (1_250, "1.3s"),
            (59_940, "59.9s"),
            (59_960, "1m 00s"),
            (62_000, "1m 02s"),
            (3_725_000, "1h 02m"),
        ];
        for (milliseconds, expected) in table {
            assert_eq!(
                duration(Duration::from_millis(milliseconds)),
                expected,
                "{milliseconds}"
            );
        }
    }

    #[test]
    fn sizes() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_250, "1.3 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (30_100_000, "30.1 MB"),
            (2_000_000_000_000, "2.0 TB"),
        ];
        for (count, expected) in table {
            assert_eq!(bytes(count), expected, "{count}");
        }
    }
}
