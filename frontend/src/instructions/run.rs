//! `RUN`: the command and those flags whose values are checked without variables.

use super::{command_line, error};
use crate::ast::Node;
use crate::boolean;
use crate::csv::{self, Field};
use crate::diagnostic::{Diagnostic, Found};
use crate::flags::{FlagKind, FlagRule, Flags};
use crate::graph::Device;
use crate::instruction::{MountRecord, RunInstruction};
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
    let mounts = flags.texts("mount", source).zip(flags.list("mount"));
    let mounts = mounts.map(|(text, (_, span))| MountRecord { text, span });
    RunInstruction {
        mounts: mounts
            .filter(|mount| check_mount(&mount.text, mount.span, found))
            .collect(),
        command: command_line(node, source),
        heredocs: std::mem::take(&mut node.heredocs),
        network: found.or_default(one_of(&flags, "network", &["default", "none", "host"])),
        security: found.or_default(one_of(&flags, "security", &["sandbox", "insecure"])),
        devices: flags
            .list("device")
            .filter_map(|(text, span)| device(text, span, found))
            .collect(),
    }
}

/// `--device=name[,required]`; none if an option is wrong.
fn device(text: &str, span: Span, found: &mut Found) -> Option<Device> {
    let fields = csv::fields(text).map_err(|reason| {
        let message = format!("`{text}` is not a list of device options: {reason}");
        error("invalid-device", span, message).with_help(DEVICE_HELP)
    });
    let fields = found.or_default(fields.map(Some))?;
    let mut device = Device::default();
    let told = found.0.len();
    for field in &fields {
        if let Err((message, help)) = set_device_option(&mut device, field) {
            let place = place_within(span, text, field);
            found.push(error("invalid-device", place, message).with_help(help));
        }
    }
    (found.0.len() == told).then_some(device)
}

const DEVICE_HELP: &str =
    "write `--device=vendor.example/class=name`, with `,required` if the command can't do without";

/// The first option that is no key is the name, `=` in it or not. The error is what is wrong, and the way out.
fn set_device_option(device: &mut Device, field: &Field) -> Result<(), (String, String)> {
    let refuse = |message: String| Err((message, DEVICE_HELP.to_owned()));
    let (key, value) = match field.pair() {
        Some((key, value)) => (key, Some(value)),
        None => (field.text.to_lowercase(), None),
    };
    match (key.as_str(), value) {
        ("required", None) => device.is_required = true,
        ("required", Some(value)) => match boolean::parse(value) {
            Some(is_required) => device.is_required = is_required,
            None => return refuse(format!("`{value}` is neither true nor false")),
        },
        ("name", Some(_)) if !device.name.is_empty() => {
            return refuse(format!("the device has a name already: `{}`", device.name));
        }
        ("name", Some(name)) => name.clone_into(&mut device.name),
        _ if device.name.is_empty() => device.name.clone_from(&field.text),
        _ => {
            let message = format!("there is no device option `{}`", field.text);
            return match closest(&key, ["required"]) {
                Some(known) => Err((message, format!("did you mean `{known}`?"))),
                None => refuse(message),
            };
        }
    }
    Ok(())
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

/// The place of a field of a record; the record's own if quotes or escapes were taken out of it.
fn place_within(place: Span, record: &str, field: &Field) -> Span {
    if place.end - place.start != record.len() {
        return place;
    }
    Span::new(
        place.start + field.place.start,
        place.start + field.place.end,
    )
}

/// Checks that a mount takes its files from a place that is known before variables are; the rest is checked once they
/// have values. False if it is no CSV record, of which nothing more can be said.
fn check_mount(mount: &str, span: Span, found: &mut Found) -> bool {
    // Without a quote any text is a record, and without a dollar sign there is no variable in it.
    let is_special = |byte| matches!(byte, b'"' | b'$' | b'\r' | b'\n');
    if !mount.is_empty() && !mount.bytes().any(is_special) {
        return true;
    }
    let fields = match csv::fields(mount) {
        Ok(fields) => fields,
        Err(reason) => {
            let message = format!("`{mount}` is not a list of mount options: {reason}");
            found.push(error("invalid-mount", span, message).with_help("write key=value pairs with commas between, such as `--mount=type=cache,target=/root/.cache`"));
            return false;
        }
    };
    for field in &fields {
        let Some((_, value)) = field.pair().filter(|(key, _)| key == "from") else {
            continue;
        };
        if has_variable(value) {
            let place = place_within(span, mount, field);
            let message = format!("`from={value}` of a mount can't hold a variable");
            let help = format!(
                "name the image with a stage of its own, `FROM {value} AS name`, and write `from=name`"
            );
            found.push(error("variable-in-from", place, message).with_help(help));
        }
    }
    true
}

/// Whether the value of a mount's `from` holds a variable: a dollar sign with anything but a newline behind it.
pub(crate) fn has_variable(value: &str) -> bool {
    let mut dollars = value.match_indices('$');
    dollars.any(|(at, _)| value[at + 1..].starts_with(|next| next != '\n'))
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
            let mut errors = Found::default();
            let found = device(text, Span::default(), &mut errors);
            assert_eq!(found.is_none(), errors.into_result().is_err(), "{text}");
            let found = found
                .as_ref()
                .map(|device| (device.name.as_str(), device.is_required));
            assert_eq!(found, wanted, "{text}");
        }
    }
}
