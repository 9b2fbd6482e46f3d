//! The verbs that look after the store, carried out.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use rbuild::maintenance::{self, Kind, PruneOptions};
use rbuild::{Engine, EngineOptions};

use super::error::UsageError;
use super::failure::Failure;
use super::store_args::{CacheVerb, DuArgs, Format, FsckArgs, FsckFormat, PruneArgs};
use super::values::parse_size;
use crate::ui;

/// `rbuild du`
pub(super) fn du(args: &DuArgs, engine: &Engine) -> Result<ExitCode, Failure> {
    let used = engine.disk_use().map_err(Failure::new)?;
    match args.format {
        Format::Json => ui::print_json(&ui::store::use_as_json(&used, args.verbose)),
        Format::Table => ui::store::print_use(&used, args.verbose),
    }
    Ok(ExitCode::SUCCESS)
}

/// `rbuild prune`
pub(super) fn prune(
    args: &PruneArgs,
    open: impl FnOnce() -> Result<Engine, Failure>,
) -> Result<ExitCode, Failure> {
    let options = prune_options(args)?;
    let is_wanted = args.force || args.dry_run || is_wanted(args)?;
    if !is_wanted {
        return Ok(ExitCode::SUCCESS);
    }
    let engine = open()?;
    let pruned = if args.dry_run {
        engine.plan_prune(&options)
    } else {
        engine.prune(&options)
    };
    let pruned = pruned.map_err(Failure::new)?;
    match args.format {
        Format::Json => ui::print_json(&ui::store::pruned_as_json(&pruned)),
        Format::Table => ui::store::print_pruned(&pruned, args.dry_run),
    }
    Ok(ExitCode::SUCCESS)
}

/// `rbuild fsck`
pub(super) fn fsck(args: &FsckArgs, options: &EngineOptions) -> Result<ExitCode, Failure> {
    let checked = maintenance::fsck(options, args.repair);
    let report = checked.map_err(|error| {
        let help = error.help();
        Failure::with_help(error, help)
    })?;
    match args.format {
        FsckFormat::Json => ui::print_json(&ui::fsck::as_json(&report)),
        FsckFormat::Text => ui::fsck::print(&report, args.repair),
    }
    Ok(if report.is_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Asks on a terminal. Where nobody can answer, only what is easily had again goes without `--force`.
fn is_wanted(args: &PruneArgs) -> Result<bool, Failure> {
    let what = if args.all {
        "This removes every image, step, cache mount and blob that no running build uses, images with names too."
    } else {
        "This removes every step, cache mount and blob that no image with a name and no running build needs."
    };
    let is_limited = [
        &args.max_used_space,
        &args.reserved_space,
        &args.min_free_space,
    ]
    .iter()
    .any(|limit| limit.is_some());
    if std::io::stdin().is_terminal() {
        return Ok(is_limited && !args.all || ui::ask(what));
    }
    if args.all {
        return Err(UsageError::Unsupported {
            flag: "--all".to_owned(),
            reason: "it removes images with names, and there is no terminal to ask on",
            instead: "add `--force`",
        }
        .into());
    }
    Ok(true)
}

fn prune_options(args: &PruneArgs) -> Result<PruneOptions, UsageError> {
    let size = |flag: &'static str, text: &Option<String>| {
        let Some(text) = text else { return Ok(None) };
        parse_size(text).map(Some).ok_or_else(|| {
            UsageError::value(flag, text, "it is not a size")
                .with_help("for example `10GB` or `512m`")
        })
    };
    let mut options = PruneOptions {
        includes_tagged: args.all,
        max_used_space: size("--max-used-space", &args.max_used_space)?,
        reserved_space: size("--reserved-space", &args.reserved_space)?,
        min_free_space: size("--min-free-space", &args.min_free_space)?,
        unused_for: None,
        kinds: BTreeSet::new(),
        ids: Vec::new(),
    };
    for text in &args.filter {
        let wrong = |reason: &str, help: String| {
            UsageError::value("--filter", text, reason).with_help(help)
        };
        let (name, value) = text.split_once('=').ok_or_else(|| {
            wrong(
                "it is not NAME=VALUE",
                "filters are until, type and id".to_owned(),
            )
        })?;
        match name {
            "until" | "unused-for" => {
                let time = parse_age(value).ok_or_else(|| {
                    wrong(
                        "it is not a time span",
                        "for example `until=24h` or `until=7d`".to_owned(),
                    )
                })?;
                options.unused_for = Some(time);
            }
            "type" => drop(options.kinds.insert(kind_of(value).ok_or_else(|| {
                let names: Vec<&str> = Kind::PRUNABLE.iter().map(|kind| kind.name()).collect();
                wrong(
                    "there is no such type",
                    format!("types are {}", names.join(", ")),
                )
            })?)),
            "id" => options.ids.push(value.to_owned()),
            _ => {
                return Err(wrong(
                    "there is no such filter",
                    "filters are until, type and id".to_owned(),
                ));
            }
        }
    }
    Ok(options)
}

/// A kind by our name for it, or by buildx's.
fn kind_of(text: &str) -> Option<Kind> {
    let ours = Kind::PRUNABLE.iter().find(|kind| {
        let name = kind.name();
        text == name || text.strip_suffix('s') == Some(name)
    });
    ours.copied().or(match text {
        "regular" => Some(Kind::Step),
        "exec.cachemount" => Some(Kind::CacheMount),
        "source.local" => Some(Kind::StatCache),
        _ => None,
    })
}

/// `90s`, `15m`, `24h`, `7d`, `2w`, and sums of them such as `1h30m`.
fn parse_age(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.chars().next()?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(factor)?;
        seconds = seconds.checked_add(part)?;
        rest = &behind[unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// `rbuild cache`
pub(super) fn cache(verb: &CacheVerb, engine: &Engine) -> Result<ExitCode, Failure> {
    match verb {
        CacheVerb::Ls { format } => {
            let mounts = engine.cache_mounts().map_err(Failure::new)?;
            match format {
                Format::Json => ui::print_json(&ui::store::mounts_as_json(&mounts)),
                Format::Table => ui::store::print_mounts(&mounts),
            }
        }
        CacheVerb::Rm { ids } => {
            for id in ids {
                for mount in engine.remove_cache_mount(id).map_err(Failure::new)? {
                    ui::store::print_removed_mount(&mount);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("24h", Some(86_400)),
            ("1h30m", Some(5400)),
            ("7d", Some(604_800)),
            ("2w", Some(1_209_600)),
            ("0s", Some(0)),
            ("", None),
            ("h", None),
            ("24", None),
            ("24x", None),
            ("-1h", None),
            ("1é", None),
            ("99999999999999999999h", None),
            ("9999999999999999999w", None),
        ] {
            assert_eq!(parse_age(text).map(|age| age.as_secs()), expected, "{text}");
        }
    }

    #[test]
    fn kinds_have_our_names_and_those_of_buildx() {
        for (text, expected) in [
            ("image", Some(Kind::Image)),
            ("steps", Some(Kind::Step)),
            ("cache-mount", Some(Kind::CacheMount)),
            ("exec.cachemount", Some(Kind::CacheMount)),
            ("source.local", Some(Kind::StatCache)),
            ("work", None),
            ("", None),
        ] {
            assert_eq!(kind_of(text), expected, "{text}");
        }
    }
}
