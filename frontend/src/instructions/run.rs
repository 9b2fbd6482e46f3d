//! `RUN`: the command and those flags whose values are checked without variables.

use super::{command_line, error};
use crate::ast::Node;
use crate::boolean;
use crate::csv;
use crate::diagnostic::{Diagnostic, Found};
use crate::flags::{FlagKind, FlagRule, Flags};
use crate::graph::Device;
use crate::instruction::RunInstruction;
use crate::source::{Source, Span};
use crate::suggest::closest;

const FLAGS: [FlagRule; 4] = [
    ("mount", FlagKind::List),
    ("network", FlagKind::Text),
    ("security", FlagKind::Text),
    ("device", FlagKind::List),
];

/// Types a `RUN`.
pub(super) fn run(node: &mut Node<'_>, source: &Source, found: &mut Found) -> RunInstruction {
    let flags = Flags::read(&node.flags, &FLAGS, found);
    for (mount, span) in flags.list("mount") {
        found.or_default(check_mount(mount, span));
    }
    RunInstruction {
        command: command_line(node, source),
        heredocs: std::mem::take(&mut node.heredocs),
        mounts: flags.texts("mount", source).collect(),
        network: found.or_default(one_of(&flags, "network", &["default", "none", "host"])),
        security: found.or_default(one_of(&flags, "security", &["sandbox", "insecure"])),
        devices: flags
            .list("device")
            .filter_map(|(text, span)| found.or_default(device(text, span).map(Some)))
            .collect(),
    }
}

/// `--device=name[,required]`: the first option that is no key is the name, `=` in it or not.
fn device(text: &str, span: Span) -> Result<Device, Diagnostic> {
    const HELP: &str = "write `--device=vendor.example/class=name`, with `,required` if the command can't do without";
    let refuse = |message: String| error("invalid-device", span, message).with_help(HELP);
    let fields = csv::fields(text).map_err(|reason| {
        refuse(format!(
            "`{text}` is not a list of device options: {reason}"
        ))
    })?;
    let mut device = Device::default();
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.is_required = true,
            ("required", Some(value)) => {
                device.is_required = boolean::parse(value)
                    .ok_or_else(|| refuse(format!("`{value}` is neither true nor false")))?;
            }
            ("name", Some(_)) if !device.name.is_empty() => {
                return Err(refuse(format!(
                    "the device has a name already: `{}`",
                    device.name
                )));
            }
            ("name", Some(name)) => name.clone_into(&mut device.name),
            _ if device.name.is_empty() => device.name = field,
            _ => return Err(refuse(format!("there is no device option `{field}`"))),
        }
    }
    Ok(device)
}

/// The value of a flag that has a few known ones.
fn one_of(
    flags: &Flags<'_>,
    name: &str,
    known: &[&'static str],
) -> Result<Option<&'static str>, Diagnostic> {
    let Some((value, span)) = flags.place(name) else {
        return Ok(None);
    };
    if let Some(known) = known.iter().find(|known| **known == value) {
        return Ok(Some(known));
    }
    let help = match closest(value, known.iter().copied()) {
        Some(known) => format!("did you mean `--{name}={known}`?"),
        None => format!("the values are {}", known.join(", ")),
    };
    let message = format!("`{value}` is not a value of `--{name}`");
    Err(error("invalid-flag-value", span, message).with_help(help))
}

/// The place of a piece of a value; the value's own if quotes or escapes were taken out of it.
fn place_within(place: Span, value: &str, piece: &str) -> Span {
    match value.find(piece) {
        Some(at) if place.end - place.start == value.len() => {
            Span::new(place.start + at, place.start + at + piece.len())
        }
        _ => place,
    }
}

/// Whether a mount is a CSV record and takes its files from a place that is known before variables are. The rest is
/// checked once variables have values.
fn check_mount(mount: &str, span: Span) -> Result<(), Diagnostic> {
    // Without a quote any text is a record, and without a dollar sign there is no variable in it.
    let is_special = |byte| matches!(byte, b'"' | b'$' | b'\r' | b'\n');
    if !mount.is_empty() && !mount.bytes().any(is_special) {
        return Ok(());
    }
    let fields = csv::fields(mount).map_err(|reason| {
        error("invalid-mount", span, format!("`{mount}` is not a list of mount options: {reason}"))
            .with_help("write key=value pairs with commas between, such as `--mount=type=cache,target=/root/.cache`")
    })?;
    let has_variable = |value: &str| {
        // A dollar sign with anything but a newline behind it.
        value
            .match_indices('$')
            .any(|(at, _)| value[at + 1..].starts_with(|next| next != '\n'))
    };
    let from = fields
        .iter()
        .filter_map(|field| field.split_once('='))
        .filter(|(key, _)| key.to_lowercase() == "from");
    for (key, value) in from {
        if has_variable(value) {
            let span = place_within(span, mount, &format!("{key}={value}"));
            let message = format!("`from={value}` of a mount can't hold a variable");
            return Err(error("variable-in-from", span, message)
                .with_help(format!("name the image with a stage of its own, `FROM {value} AS name`, and write `from=name`")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_a_name_and_may_be_required() {
        for (text, wanted) in [
            ("vendor/class=name", Some(("vendor/class=name", false))),
            ("name=a,required", Some(("a", true))),
            ("required=0,a", Some(("a", false))),
            ("required", Some(("", true))),
            ("a,b", None),
            ("a,name=b", None),
            ("a,required=maybe", None),
            ("a,b=c", None),
            ("\"a", None),
            ("", None),
        ] {
            let found = device(text, Span::default()).ok();
            let found = found
                .as_ref()
                .map(|device| (device.name.as_str(), device.is_required));
            assert_eq!(found, wanted, "{text}");
        }
    }
}
