//! Names of signals for `STOPSIGNAL`.

/// Linux signals without `SIG`. Real-time ones are told by number and offset below.
const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS",
    "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
    "XFSZ",
];

/// Whether the text names a signal: a number other than 0, or a name with or without `SIG` in any case.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |prefix: &str| {
        name.strip_prefix(prefix)
            .filter(|rest| !rest.starts_with('0'))?
            .parse::<u32>()
            .ok()
    };
    NAMES.contains(&name)
        || offset("RTMIN+").is_some_and(|offset| offset <= 15)
        || offset("RTMAX-").is_some_and(|offset| offset <= 14)
}

/// The known signal that was probably meant.
pub(super) fn suggestion(text: &str) -> Option<&'static str> {
    let name = text.to_uppercase();
    crate::suggest::closest(
        name.strip_prefix("SIG").unwrap_or(&name),
        NAMES.iter().copied(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known() {
        for (text, wanted) in [
            ("SIGTERM", true),
            ("term", true),
            ("9", true),
            ("0", false),
            ("SIGRTMIN+3", true),
            ("rtmax-14", true),
            ("RTMIN+16", false),
            ("RTMIN+03", false),
            ("", false),
            ("SIG", false),
            ("SIGSIGTERM", false),
        ] {
            assert_eq!(is_signal(text), wanted, "{text}");
        }
    }
}
