//! The last words of a program that failed: `error: …`, each cause once, `help: …`.

use std::error::Error;

use rbuild_frontend::source::Source;

use super::ansi::clean_line;
use super::grouped::CiSystem;
use super::terminal::{Style, Terminal};
use super::{diagnostic, report, write_stderr};
use crate::cli::{Failure, Words};

/// Prints what ended the program.
pub(crate) fn print(failure: &Failure) {
    let mut text = render(failure, Terminal::of_stderr());
    if CiSystem::of_environment() == Some(CiSystem::GitHub) {
        text += &annotations(&failure.words);
    }
    write_stderr(&text);
}

/// The same for GitHub, which shows it beside the Dockerfile's line.
fn annotations(words: &Words) -> String {
    let annotation =
        |found, source: &Source| report::github::annotation(found, source, source.name());
    match words {
        Words::Refused { errors, source } => errors
            .iter()
            .map(|found| annotation(found, source))
            .collect(),
        Words::Place {
            diagnostic, source, ..
        } => annotation(diagnostic, source),
        Words::Chain { .. } | Words::Nothing => String::new(),
    }
}

fn render(failure: &Failure, terminal: Terminal) -> String {
    match &failure.words {
        Words::Nothing => String::new(),
        Words::Refused { errors, source } => {
            format!(
                "\n{}",
                diagnostic::render_all(errors.iter(), source, terminal)
            )
        }
        Words::Place {
            diagnostic,
            source,
            cause,
            log,
            shell,
        } => {
            let place = diagnostic::render(diagnostic, source, terminal);
            let causes = cause
                .as_deref()
                .map(|cause| causes(&diagnostic.message, Some(cause), terminal));
            let shell = shell.as_deref().map(|command| {
                let label = terminal.paint(Style::Cyan, "kept:");
                format!("{label} what the step left; a shell in it: {command}\n")
            });
            format!(
                "\n{}{place}{}{}",
                tail(log, terminal),
                causes.unwrap_or_default(),
                shell.unwrap_or_default()
            )
        }
        Words::Chain { error, help } => chain(error.as_ref(), help.as_deref(), terminal),
    }
}

fn chain(error: &dyn Error, help: Option<&str>, terminal: Terminal) -> String {
    let message = error.to_string();
    let causes = causes(&message, error.source(), terminal);
    let help = help.map(|help| format!("{} {help}\n", terminal.paint(Style::Cyan, "help:")));
    format!(
        "{} {message}\n{causes}{}",
        terminal.paint(Style::Red, "error:"),
        help.unwrap_or_default()
    )
}

/// One line for each cause below `said`. Libraries that print their source in their own message would have it said
/// twice.
fn causes(said: &str, first: Option<&(dyn Error + 'static)>, terminal: Terminal) -> String {
    let mut said = said.to_owned();
    let mut text = String::new();
    for error in std::iter::successors(first, |&error| error.source()) {
        let words = error.to_string();
        if !said.ends_with(&words) {
            text = format!(
                "{text}{} {words}\n",
                terminal.paint(Style::Red, "caused by:")
            );
            said = words;
        }
    }
    text
}

/// The end of a step's log, so that it stands beside the error however much ran at the same time.
fn tail(log: &[Vec<u8>], terminal: Terminal) -> String {
    let line = |line: &Vec<u8>| {
        let text = format!(
            "{} {}",
            terminal.paint(Style::Dim, "|"),
            clean_line(line, terminal.has_colours)
        );
        text.trim_end().to_owned() + "\n"
    };
    let lines: Vec<_> = log.iter().map(line).collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("last lines of the output:\n{}\n", lines.concat())
    }
}

#[cfg(test)]
mod tests {
    use rbuild_frontend::diagnostic::{Diagnostic, Phase};
    use rbuild_frontend::source::Span;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the store `/var/lib/rbuild`")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write `VERSION`: {0}")]
    struct Middle(#[source] std::io::Error);

    #[test]
    fn each_cause_is_said_once() {
        let error = Outer(Middle(std::io::Error::from_raw_os_error(28)));
        let text = chain(
            &error,
            Some("free some space, or put the store elsewhere with `--root`"),
            Terminal::default(),
        );
        insta::assert_snapshot!(text, @r"
        error: cannot open the store `/var/lib/rbuild`
        caused by: cannot write `VERSION`: No space left on device (os error 28)
        help: free some space, or put the store elsewhere with `--root`
        ");
    }

    #[test]
    fn a_failed_step_has_its_last_lines_and_its_cause() {
        let source = Source::new("Dockerfile", b"FROM debian\nRUN make\n");
        let diagnostic = Diagnostic::error(
            "step-failed",
            Phase::Plan,
            Span::new(12, 20),
            "`RUN make` failed",
        )
        .with_help("look at the log");
        let log = vec![
            b"cc -c main.c".to_vec(),
            b"".to_vec(),
            b"main.c:1: error".to_vec(),
        ];
        let cause: Option<Box<dyn Error>> = Some("the command exited with code 2".into());
        let words = Words::Place {
            diagnostic: Box::new(diagnostic),
            source,
            cause,
            log,
            shell: Some("rbuild shell k3xyz 2".to_owned()),
        };
        insta::assert_snapshot!(render(&Failure { exit_code: 1, words }, Terminal::default()), @r"

        last lines of the output:
        | cc -c main.c
        |
        | main.c:1: error

        error[step-failed]: `RUN make` failed
         --> Dockerfile:2:1
          |
        2 | RUN make
          | ^^^^^^^^
          |
          = help: look at the log
        caused by: the command exited with code 2
        kept: what the step left; a shell in it: rbuild shell k3xyz 2
        ");
    }
}
