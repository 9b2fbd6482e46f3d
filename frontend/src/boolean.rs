//! Booleans as options spell them: Go's `strconv.ParseBool`.

/// Reads `1`, `t`, `true`, `0`, `f`, `false` in the usual casings.
pub(crate) fn parse(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
