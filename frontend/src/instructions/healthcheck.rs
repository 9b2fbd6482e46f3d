//! `HEALTHCHECK`: the type word, the command and the timing flags.

use super::{command_of, error, missing_argument};
use crate::ast::Node;
use crate::diagnostic::{Diagnostic, Found};
use crate::duration;
use crate::flags::{FlagKind, FlagRule, Flags};
use crate::instruction::Healthcheck;
use crate::source::Source;
use crate::suggest::closest;

const FLAGS: [FlagRule; 5] = [
    ("interval", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("start-period", FlagKind::Text),
    ("start-interval", FlagKind::Text),
    ("retries", FlagKind::Text),
];

/// Engines refuse anything between zero and this.
const MIN_NANOSECONDS: i64 = 1_000_000;

/// Types a `HEALTHCHECK`.
pub(super) fn healthcheck(
    node: &Node<'_>,
    source: &Source,
    found: &mut Found,
) -> Option<Healthcheck> {
    let Some((kind, command)) = node.arguments.words().split_first() else {
        let help = "write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`";
        found.push(missing_argument(node, help));
        return None;
    };
    let name = kind.text.to_uppercase();
    // The reference never looks at the flags of this form.
    if name == "NONE" {
        if let Some(stray) = command.first() {
            let message = "HEALTHCHECK NONE takes no arguments";
            let help = "remove what follows NONE, or write `HEALTHCHECK CMD command`";
            found.push(error("stray-argument", stray.span, message).with_help(help));
        }
        return Some(Healthcheck::None);
    }
    let flags = Flags::read(&node.flags, &FLAGS, found);
    if name != "CMD" {
        let message = format!("`{}` is not a kind of health check", kind.text);
        let help = match closest(&kind.text, ["CMD", "NONE"]) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "write CMD before the command, or NONE to turn an inherited check off".into(),
        };
        found.push(error("unknown-healthcheck", kind.span, message).with_help(help));
    } else if command.is_empty() {
        let help = "write the command behind CMD; `HEALTHCHECK NONE` turns an inherited check off";
        let message = "HEALTHCHECK CMD needs a command";
        let missing = error("missing-argument", kind.span, message);
        found.push(missing.with_label("nothing follows").with_help(help));
    }
    Some(Healthcheck::Command {
        command: command_of(command, node.is_json(), source),
        interval: found.or_default(interval(&flags, "interval")),
        timeout: found.or_default(interval(&flags, "timeout")),
        start_period: found.or_default(interval(&flags, "start-period")),
        start_interval: found.or_default(interval(&flags, "start-interval")),
        retries: found.or_default(retries(&flags)),
    })
}

/// A duration in nanoseconds; nothing and zero mean the engine's default.
fn interval(flags: &Flags<'_>, name: &str) -> Result<i64, Diagnostic> {
    let Some((value, span)) = flags.place(name).filter(|(value, _)| !value.is_empty()) else {
        return Ok(0);
    };
    let nanoseconds = duration::parse(value).map_err(|reason| {
        let error = error("invalid-duration", span, reason.to_string());
        if value.bytes().all(|byte| byte.is_ascii_digit()) {
            error.with_help(format!("did you mean `--{name}={value}s`?"))
        } else {
            error.with_help("write numbers with units, such as `30s`, `1m30s` or `500ms`; units are ns, us, ms, s, m and h")
        }
    })?;
    if nanoseconds != 0 && nanoseconds < MIN_NANOSECONDS {
        return Err(error(
            "invalid-duration",
            span,
            format!("`--{name}={value}` is shorter than one millisecond"),
        )
        .with_help("write at least `1ms`, or `0` for the default"));
    }
    Ok(nanoseconds)
}

fn retries(flags: &Flags<'_>) -> Result<i64, Diagnostic> {
    let Some((value, span)) = flags
        .place("retries")
        .filter(|(value, _)| !value.is_empty())
    else {
        return Ok(0);
    };
    match value.parse::<i32>() {
        Ok(retries) if retries >= 0 => Ok(retries.into()),
        _ => Err(error(
            "invalid-retries",
            span,
            format!("`{value}` is not a number of retries"),
        )
        .with_help("write a whole number from 0 on; 0 means the default")),
    }
}
