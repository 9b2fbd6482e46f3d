//! The small languages inside flag values: CSV records, sizes, ulimits, hosts, platforms. Pure.

use rbuild::maintenance::Budget;
use rbuild::options::{HOST_GATEWAY, ImageBudget};
use rbuild_frontend::platform::Platform;

use super::error::UsageError;

/// Fields of one CSV record as Go's `encoding/csv` splits it: a field may be quoted to hold commas, `""` is a quote.
pub(crate) fn split_record(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => match rest.split_once(',') {
                Some((field, behind)) => (field.to_owned(), Some(behind)),
                None => (rest.to_owned(), None),
            },
        };
        fields.push(field);
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(fields),
        }
    }
}

fn unquote(quoted: &str) -> Result<(String, Option<&str>), String> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (text, behind) = rest.split_once('"').ok_or("a quote is not closed")?;
        field.push_str(text);
        match behind.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &behind[1..];
            }
            Some(',') => return Ok((field, Some(&behind[1..]))),
            None => return Ok((field, None)),
            Some(_) => return Err("text follows a closing quote".to_owned()),
        }
    }
}

/// `key=value` pairs of one CSV record, keys in lower case but for what follows a dot (annotation names have case).
pub(crate) fn pairs(flag: &'static str, text: &str) -> Result<Vec<(String, String)>, UsageError> {
    let fields = split_record(text).map_err(|reason| UsageError::value(flag, text, reason))?;
    fields
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => {
                let key = key.trim();
                let (word, name) = key.find('.').map_or((key, ""), |dot| key.split_at(dot));
                Ok((format!("{}{name}", word.to_lowercase()), value.to_owned()))
            }
            None => Err(UsageError::value(
                flag,
                text,
                format!("`{field}` is not a key=value pair"),
            )),
        })
        .collect()
}

/// A size in bytes: `1048576`, `16m`, `1.5g`, `64KiB`. Units are powers of 1024, as in Docker.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let (whole, fraction) = number.split_once('.')?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let thousandths = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u64>().ok()?
    };
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?
    };
    let part =
        u64::try_from(u128::from(thousandths) * (1_u128 << shift) / u128::from(scale)).ok()?;
    whole.checked_mul(1 << shift)?.checked_add(part)
}

/// The limits that Linux has, by the names Docker gives them.
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `nofile=1024:2048`; `-1` is no limit.
pub(crate) fn parse_ulimit(text: &str) -> Result<(String, u64, u64), UsageError> {
    let wrong = |reason: &str| {
        UsageError::value("--ulimit", text, reason).with_help("for example `nofile=1024:2048`")
    };
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| wrong("it is not NAME=SOFT[:HARD]"))?;
    if !ULIMITS.contains(&name) {
        return Err(
            UsageError::value("--ulimit", text, format!("`{name}` is not a limit"))
                .with_help(format!("limits are {}", ULIMITS.join(", "))),
        );
    }
    let number = |text: &str| match text {
        "-1" => Ok(u64::MAX),
        text => text
            .parse::<u64>()
            .map_err(|_| wrong("a limit is a number or -1")),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(wrong("the soft limit is above the hard limit"));
    }
    Ok((name.to_owned(), soft, hard))
}

/// `name:address` or `name=address`; an IPv6 address may stand in brackets.
pub(crate) fn parse_host(text: &str) -> Result<(String, String), UsageError> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace))
        .ok_or_else(|| UsageError::value("--add-host", text, "it is not HOST:ADDRESS"))?;
    if address == HOST_GATEWAY {
        return Ok((name.to_owned(), HOST_GATEWAY.to_owned()));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    match bare.parse::<std::net::IpAddr>() {
        Ok(address) => Ok((name.to_owned(), address.to_string())),
        Err(_) => Err(UsageError::value(
            "--add-host",
            text,
            format!("`{address}` is neither an IP address nor host-gateway"),
        )),
    }
}

/// One platform of a `--platform` list; `local` is this machine's.
pub(crate) fn parse_platform(text: &str) -> Result<Platform, UsageError> {
    let machine = Platform::of_machine(std::env::consts::OS, std::env::consts::ARCH);
    if text == "local" {
        return Ok(machine);
    }
    Platform::parse_for(text, &machine)
        .map_err(|error| UsageError::value("--platform", text, error.to_string()))
}

/// `--budget size=200MB,layers=20`
pub(crate) fn parse_image_budget(text: &str) -> Result<ImageBudget, UsageError> {
    const FLAG: &str = "--budget";
    let mut budget = ImageBudget::default();
    for (key, value) in pairs(FLAG, text)? {
        let wrong = |reason: String| {
            UsageError::value(FLAG, text, reason).with_help("for example `size=200MB,layers=20`")
        };
        let size = || parse_size(&value).ok_or_else(|| wrong(format!("`{value}` is not a size")));
        match key.as_str() {
            "size" => budget.size = Some(size()?),
            "added" => budget.added = Some(size()?),
            "layers" => {
                let count = value
                    .parse()
                    .map_err(|_| wrong(format!("`{value}` is not a number")))?;
                budget.layers = Some(count);
            }
            other => {
                return Err(wrong(format!("`{other}` is not size, added or layers")));
            }
        }
    }
    Ok(budget)
}

/// Says what the store may take.
const BUDGET: &str = "RBUILD_CACHE_MAX_USED";

/// What the environment says of the store's budget.
pub(crate) fn budget() -> Result<Budget, UsageError> {
    match std::env::var_os(BUDGET) {
        None => Ok(Budget::Share),
        Some(text) => parse_budget(&text.to_string_lossy()),
    }
}

fn parse_budget(text: &str) -> Result<Budget, UsageError> {
    match text.trim() {
        "" => Ok(Budget::Share),
        "unlimited" => Ok(Budget::Unlimited),
        size => parse_size(size).map(Budget::Bytes).ok_or_else(|| {
            UsageError::value(BUDGET, text, "it is not a size")
                .with_help("for example `20GB`, or `unlimited`")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_budgets() {
        let budget = parse_image_budget("size=200MB,layers=20,added=1k").unwrap();
        assert_eq!(budget.size, Some(200 << 20));
        assert_eq!(budget.layers, Some(20));
        assert_eq!(budget.added, Some(1024));
        for wrong in ["", "size", "size=much", "layers=-1", "files=3"] {
            assert!(parse_image_budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn budgets() {
        assert_eq!(parse_budget("").ok(), Some(Budget::Share));
        assert_eq!(parse_budget("unlimited").ok(), Some(Budget::Unlimited));
        assert_eq!(parse_budget("1k").ok(), Some(Budget::Bytes(1024)));
        assert!(parse_budget("much").is_err());
    }

    #[test]
    fn records_split_as_go_splits_them() {
        let table: &[(&str, Result<&[&str], &str>)] = &[
            ("a=1,b=2", Ok(&["a=1", "b=2"])),
            ("\"dest=a,b\",type=oci", Ok(&["dest=a,b", "type=oci"])),
            ("\"a=\"\"x\"\"\"", Ok(&["a=\"x\""])),
            ("", Ok(&[""])),
            ("a,", Ok(&["a", ""])),
            ("\"a", Err("a quote is not closed")),
            ("\"a\"b", Err("text follows a closing quote")),
        ];
        for (text, expected) in table {
            match (split_record(text), expected) {
                (Ok(fields), Ok(expected)) => assert_eq!(&fields, expected, "{text}"),
                (Err(reason), Err(expected)) => assert_eq!(&reason, expected, "{text}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let table = [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("16m", Some(16 << 20)),
            ("64KiB", Some(64 << 10)),
            ("1.5g", Some(3 << 29)),
            (".5k", Some(512)),
            ("2 GB", Some(2 << 30)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("99999999999t", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_side() {
        assert_eq!(
            parse_ulimit("nofile=1024").unwrap(),
            ("nofile".into(), 1024, 1024)
        );
        assert_eq!(parse_ulimit("nofile=1:2").unwrap(), ("nofile".into(), 1, 2));
        assert_eq!(
            parse_ulimit("core=0:-1").unwrap(),
            ("core".into(), 0, u64::MAX)
        );
        for wrong in ["nofile", "files=1", "nofile=a", "nofile=2:1", "nofile=-2"] {
            let message = parse_ulimit(wrong).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("invalid value `{wrong}` for `--ulimit`: ")),
                "{message}"
            );
        }
    }

    #[test]
    fn hosts_have_an_address() {
        let pair = |name: &str, address: &str| Some((name.to_owned(), address.to_owned()));
        let table = [
            ("db:10.0.0.1", pair("db", "10.0.0.1")),
            ("db=10.0.0.1", pair("db", "10.0.0.1")),
            ("db:::1", pair("db", "::1")),
            ("db=[2001:db8::1]", pair("db", "2001:db8::1")),
            ("gw:host-gateway", pair("gw", HOST_GATEWAY)),
            ("db", None),
            (":1.2.3.4", None),
            ("db:localhost", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_host(text).ok(), expected, "{text}");
        }
    }
}
