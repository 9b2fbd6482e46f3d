//! `--call`, `--check` and `--format`: what is asked of a Dockerfile besides building it, and how the answer looks.

use rbuild_frontend::diagnostic::Severity;

use super::error::UsageError;
use super::typed::parse_switch;

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    /// To build it.
    #[default]
    Build,
    /// Build checks.
    Check,
    /// What the target can be given.
    Outline,
    /// The stages.
    Targets,
}

/// How the answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs, in the reference's shape.
    Json,
    /// SARIF 2.1.0, which code hosts show beside the code.
    Sarif,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// What is asked, and how the answer is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) format: Format,
    /// Least severity that makes a check fail; none lets it succeed whatever it finds.
    pub(crate) fails_at: Option<Severity>,
}

impl Call {
    /// Reads the flags of `build`.
    pub(crate) fn of_build(
        call: Option<&str>,
        is_check: bool,
        format: Option<&str>,
    ) -> Result<Self, UsageError> {
        let mut result = Self {
            method: Method::Build,
            format: Format::Text,
            fails_at: Some(Severity::Warning),
        };
        if let Some(text) = call {
            result.read(text)?;
        }
        if is_check {
            if !matches!(result.method, Method::Build | Method::Check) {
                return Err(UsageError::Conflict {
                    first: "--check",
                    second: "--call",
                    reason: "ask for different things",
                    help: Some("leave one of them out"),
                });
            }
            result.method = Method::Check;
        }
        if let Some(text) = format {
            if result.method == Method::Build {
                return Err(UsageError::value(
                    "--format",
                    text,
                    "a build has no format; it is for `--check` and `--call`",
                ));
            }
            result.format = parse_format("--format", text)?;
        }
        result.check_format()
    }

    /// Reads the flags of `rbuild check`.
    pub(crate) fn of_check(
        format: Option<&str>,
        severity: Option<&str>,
    ) -> Result<Self, UsageError> {
        Ok(Self {
            method: Method::Check,
            format: format.map_or(Ok(Format::Text), |text| parse_format("--format", text))?,
            fails_at: Some(match severity {
                None | Some("warning") => Severity::Warning,
                Some("error") => Severity::Error,
                Some(other) => {
                    return Err(UsageError::value(
                        "--severity",
                        other,
                        "it is one of warning, error",
                    ));
                }
            }),
        })
    }

    /// `check`, `outline,format=json`, `method=targets`
    fn read(&mut self, text: &str) -> Result<(), UsageError> {
        const FLAG: &str = "--call";
        let wrong = |reason: String| {
            UsageError::value(FLAG, text, reason)
                .with_help("for example `check`, `outline` or `targets,format=json`")
        };
        for (position, field) in text.split(',').enumerate() {
            let (key, value) = match field.split_once('=') {
                Some(pair) => pair,
                None if position == 0 => ("method", field),
                None => return Err(wrong(format!("`{field}` is not KEY=VALUE"))),
            };
            match key {
                "method" => {
                    self.method = match value {
                        "build" => Method::Build,
                        "check" | "lint" => Method::Check,
                        "outline" => Method::Outline,
                        "targets" => Method::Targets,
                        other => {
                            return Err(wrong(format!(
                                "`{other}` is not one of build, check, outline, targets"
                            )));
                        }
                    }
                }
                "format" => self.format = parse_format(FLAG, value)?,
                "ignorestatus" => match parse_switch(value) {
                    Some(true) => self.fails_at = None,
                    Some(false) => {}
                    None => return Err(wrong(format!("`{value}` is neither true nor false"))),
                },
                other => return Err(wrong(format!("`{other}` is not an option"))),
            }
        }
        Ok(())
    }

    fn check_format(self) -> Result<Self, UsageError> {
        let is_for_findings = matches!(self.format, Format::Sarif | Format::Github);
        if is_for_findings && self.method != Method::Check {
            let name = if self.format == Format::Sarif {
                "sarif"
            } else {
                "github"
            };
            return Err(UsageError::value(
                "--format",
                name,
                "it is for findings of `--check`; this is `text` or `json`",
            ));
        }
        Ok(self)
    }
}

fn parse_format(flag: &'static str, text: &str) -> Result<Format, UsageError> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "sarif" => Ok(Format::Sarif),
        "github" => Ok(Format::Github),
        other => Err(UsageError::value(
            flag,
            other,
            "the format is one of text, json, sarif, github",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--call`, `--check`, `--format`, and what they come to.
    type Row<'a> = (Option<&'a str>, bool, Option<&'a str>, Option<Call>);

    #[test]
    fn calls_are_read() {
        let call = |method, format, fails_at| Call {
            method,
            format,
            fails_at,
        };
        let warning = Some(Severity::Warning);
        let table: &[Row<'_>] = &[
            (
                None,
                false,
                None,
                Some(call(Method::Build, Format::Text, warning)),
            ),
            (
                Some("build"),
                false,
                None,
                Some(call(Method::Build, Format::Text, warning)),
            ),
            (
                None,
                true,
                None,
                Some(call(Method::Check, Format::Text, warning)),
            ),
            (
                Some("check"),
                true,
                Some("sarif"),
                Some(call(Method::Check, Format::Sarif, warning)),
            ),
            (
                Some("check,format=json,ignorestatus=true"),
                false,
                None,
                Some(call(Method::Check, Format::Json, None)),
            ),
            (
                Some("outline,format=json"),
                false,
                None,
                Some(call(Method::Outline, Format::Json, warning)),
            ),
            (
                Some("method=targets"),
                false,
                None,
                Some(call(Method::Targets, Format::Text, warning)),
            ),
            (Some("outline"), true, None, None),
            (Some("outline"), false, Some("github"), None),
            (Some("outlin"), false, None, None),
            (Some("check,json"), false, None, None),
            (Some("check,colour=red"), false, None, None),
            (None, false, Some("json"), None),
            (None, true, Some("xml"), None),
        ];
        for (text, is_check, format, expected) in table {
            let found = Call::of_build(*text, *is_check, *format).ok();
            assert_eq!(found, *expected, "{text:?} {is_check} {format:?}");
        }
        assert_eq!(
            Call::of_check(Some("github"), Some("error")).ok(),
            Some(call(Method::Check, Format::Github, Some(Severity::Error)))
        );
        assert!(Call::of_check(None, Some("info")).is_err());
    }
}
