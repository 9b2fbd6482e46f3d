//! The flags of `docker build` and `docker buildx build` that are only answered: accepted without effect, or refused
//! with the reason and what to do instead. One row, one flag; nothing is ignored in silence.
//!
//! clap's definitions, the check, `docs/cli.md` and the tests are made from this table. A flag that gets an
//! implementation leaves the table and becomes a field in [`super::args`].

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::error::UsageError;

/// One flag that is only answered.
#[derive(Debug)]
pub(crate) struct TabledFlag {
    /// Without the dashes.
    pub(crate) name: &'static str,
    /// Whether it takes a value.
    pub(crate) has_value: bool,
    /// What happens when it is given.
    pub(crate) answer: Answer,
}

/// What happens when a flag is given.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Accepted; it changes nothing, because of this.
    NoEffect(&'static str),
    /// The build does not start.
    Refused {
        /// Why.
        reason: &'static str,
        /// The way out.
        instead: &'static str,
        /// Values, or comma-separated parts of values, with which it asks for nothing and is accepted.
        unless: &'static [&'static str],
    },
}

const fn no_effect(name: &'static str, has_value: bool, why: &'static str) -> TabledFlag {
    TabledFlag {
        name,
        has_value,
        answer: Answer::NoEffect(why),
    }
}

const fn refused(
    name: &'static str,
    has_value: bool,
    reason: &'static str,
    instead: &'static str,
) -> TabledFlag {
    TabledFlag {
        name,
        has_value,
        answer: Answer::Refused {
            reason,
            instead,
            unless: &[],
        },
    }
}

impl TabledFlag {
    const fn unless(self, values: &'static [&'static str]) -> Self {
        match self.answer {
            Answer::Refused {
                reason, instead, ..
            } => Self {
                answer: Answer::Refused {
                    reason,
                    instead,
                    unless: values,
                },
                ..self
            },
            Answer::NoEffect(_) => self,
        }
    }
}

/// All of them, sorted by name.
pub(crate) const TABLE: &[TabledFlag] = &[
    refused(
        "attest",
        true,
        "attestations are not implemented yet",
        "leave it out, or make them with syft and cosign from `-o type=oci`",
    )
    .unless(&["disabled=true"]),
    no_effect("builder", true, "there is one builder: this process"),
    no_effect(
        "compress",
        false,
        "the context is read in place, nothing is sent",
    ),
    refused(
        "disable-content-trust",
        true,
        "Notary v1 signatures are not checked",
        "pin the base image by digest: `FROM name@sha256:…`",
    )
    .unless(&["true", "1", "t"]),
    no_effect("force-rm", false, "there are no intermediate containers"),
    refused(
        "policy",
        true,
        "source policies are not implemented yet",
        "pin base images by digest: `FROM name@sha256:…`",
    ),
    refused(
        "provenance",
        true,
        "attestations are not implemented yet",
        "leave it out, or say `--provenance=false`",
    )
    .unless(&["false", "0", "f", "no", "disabled=true"]),
    no_effect("rm", false, "there are no intermediate containers"),
    refused(
        "sbom",
        true,
        "attestations are not implemented yet",
        "leave it out, or say `--sbom=false` and run syft on `-o type=oci`",
    )
    .unless(&["false", "0", "f", "no", "disabled=true"]),
    refused(
        "security-opt",
        true,
        "the sandbox of steps is fixed",
        "for one step: `RUN --security=insecure` with `--allow security.insecure`",
    ),
    refused(
        "squash",
        false,
        "layers are not squashed",
        "end with `FROM scratch` and `COPY --from=STAGE / /`, or use one `RUN` with a heredoc",
    ),
];

/// The rows of [`TABLE`] that were given, with their values (empty for switches).
#[derive(Clone, Debug, Default)]
pub(crate) struct TabledFlags {
    given: Vec<(&'static TabledFlag, String)>,
}

impl TabledFlags {
    /// Fails on the first flag that asks for something that can't be had.
    pub(crate) fn check(&self) -> Result<(), UsageError> {
        for (flag, value) in &self.given {
            if let Answer::Refused {
                reason,
                instead,
                unless,
            } = flag.answer
                && !value.split(',').any(|part| {
                    unless.contains(&part.trim().to_lowercase().as_str()) && flag.has_value
                })
            {
                return Err(UsageError::Unsupported {
                    flag: format!("--{}", flag.name),
                    reason,
                    instead,
                });
            }
        }
        Ok(())
    }
}

impl clap::Args for TabledFlags {
    fn augment_args(command: Command) -> Command {
        TABLE.iter().fold(
            command.next_help_heading("Accepted or answered for compatibility"),
            |command, flag| {
                let mut arg = Arg::new(flag.name)
                    .long(flag.name)
                    .hide_short_help(true)
                    .help(flag.help());
                arg = if flag.has_value {
                    arg.action(ArgAction::Append)
                        .value_name("VALUE")
                        .allow_hyphen_values(true)
                } else {
                    arg.action(ArgAction::SetTrue)
                };
                command.arg(arg)
            },
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for TabledFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.given.clear();
        for flag in TABLE {
            if flag.has_value {
                let values = matches.get_many::<String>(flag.name).into_iter().flatten();
                self.given.extend(values.map(|value| (flag, value.clone())));
            } else if matches.get_flag(flag.name) {
                self.given.push((flag, String::new()));
            }
        }
        Ok(())
    }
}

impl TabledFlag {
    /// What happens, as one line for help and docs.
    pub(crate) fn help(&self) -> String {
        match &self.answer {
            Answer::NoEffect(why) => format!("No effect: {why}"),
            Answer::Refused {
                reason,
                instead,
                unless: [],
            } => format!("Refused: {reason}. Instead: {instead}"),
            Answer::Refused {
                reason,
                instead,
                unless,
            } => {
                format!(
                    "Refused, except `{}`: {reason}. Instead: {instead}",
                    unless.first().unwrap_or(&"")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        for pair in TABLE.windows(2) {
            assert!(
                pair[0].name < pair[1].name,
                "{} / {}",
                pair[0].name,
                pair[1].name
            );
        }
    }
}
