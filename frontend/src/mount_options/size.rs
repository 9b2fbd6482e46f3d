//! Sizes of a `tmpfs` mount.

/// `128m`, `1.5GiB`, `4096`: binary units, any case.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let end = text
        .rfind(|character: char| character.is_ascii_digit() || matches!(character, '.' | ' '))?
        + 1;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    let exponent = match unit.to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(exponent);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be in range"
    )]
    (0.0..9e18).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, wanted) in [
            ("1", Some(1)),
            ("2k", Some(2048)),
            ("1 MiB", Some(1 << 20)),
            ("3Gb", Some(3 << 30)),
            ("", None),
            ("k", None),
            ("1x", None),
            ("-1", None),
            ("1kx", None),
            ("1e999p", None),
        ] {
            assert_eq!(parse_size(text), wanted, "{text}");
        }
    }
}
