//! Tables and facts on stdout.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rbuild::registry::Decision;
use rbuild::{HistoryLine, ImageSummary, Survey};

use super::{units, write_stdout};

/// Hex digits of a short id, as Docker shows them.
const SHORT_ID: usize = 12;
/// Characters of an instruction in a table.
const SHORT_COMMAND: usize = 60;

/// `rbuild images`
pub(crate) fn print_images(images: &[ImageSummary], only_ids: bool, is_full: bool) {
    let id = |image: &ImageSummary| shorten_id(image.id.as_ref(), is_full);
    if only_ids {
        return write_stdout(
            &images
                .iter()
                .map(|image| id(image) + "\n")
                .collect::<String>(),
        );
    }
    let row = |image: &ImageSummary| {
        let name = image.name.clone().unwrap_or_else(|| "<none>".to_owned());
        vec![
            name,
            id(image),
            created(image.created.as_deref()),
            units::bytes(image.size),
        ]
    };
    write_stdout(&table(
        &["NAME", "ID", "CREATED", "SIZE"],
        images.iter().map(row),
    ));
}

/// `rbuild history`
pub(crate) fn print_history(lines: &[HistoryLine], is_full: bool) {
    let row = |line: &HistoryLine| {
        let size = line.size.map_or_else(|| "-".to_owned(), units::bytes);
        let took = line.took.map(std::time::Duration::from_millis);
        vec![
            created(line.created.as_deref()),
            size,
            took.map_or_else(|| "-".to_owned(), units::duration),
            line.origin.clone().unwrap_or_else(|| "-".to_owned()),
            shorten_command(&line.created_by, is_full),
        ]
    };
    write_stdout(&table(
        &["CREATED", "SIZE", "TIME", "FROM", "CREATED BY"],
        lines.iter().map(row),
    ));
}

/// `rbuild info`
pub(crate) fn print_facts(facts: &BTreeMap<&'static str, String>) {
    let line = |(name, value): (&&str, &String)| format!("{name:<8} {value}\n");
    write_stdout(&facts.iter().map(line).collect::<Vec<_>>().concat());
}

/// The configuration: which files there are, what they set, and where.
pub(crate) fn print_settings(files: &[(std::path::PathBuf, bool)], settings: &[[String; 3]]) {
    let mut text = "\nconfiguration\n".to_owned();
    for (path, is_there) in files {
        let mark = if *is_there { "yes" } else { "no " };
        text.extend(["  ", mark, " ", &path.display().to_string(), "\n"]);
    }
    let width = |column: usize| {
        settings
            .iter()
            .map(|row| row[column].len())
            .max()
            .unwrap_or(0)
    };
    let (keys, values) = (width(0), width(1).min(40));
    let line = |[key, value, origin]: &[String; 3]| {
        format!("  {key:<keys$}  {value:<values$}  {origin}\n")
    };
    text.extend(settings.iter().map(line));
    write_stdout(&text);
}

/// `rbuild info`: what can be had, what can't and why, and what to do.
pub(crate) fn print_survey(survey: &Survey) {
    write_stdout(&survey_text(survey));
}

fn survey_text(survey: &Survey) -> String {
    let mut text = String::new();
    for (title, rows) in [
        ("isolation", &survey.rungs),
        ("abilities", &survey.abilities),
    ] {
        text.extend(["\n", title, "\n"]);
        for (name, outcome) in rows {
            let (mark, words) = match outcome {
                Ok(words) => ("yes", words),
                Err(finding) => ("no ", &finding.because),
            };
            let _ = writeln!(text, "  {name:<11} {mark}  {words}"); // writing to a String cannot fail
            if let Err(finding) = outcome
                && !finding.remedy.is_empty()
            {
                let _ = writeln!(text, "  {:<11}      {}", "", finding.remedy);
            }
        }
    }
    match survey.rungs.iter().find(|(_, outcome)| outcome.is_ok()) {
        Some((name, _)) => {
            let _ = writeln!(text, "\n`--isolation auto` takes: {name}");
        }
        None => text.push_str("\n`--isolation auto` finds nothing: no step can be done here\n"),
    }
    text
}

/// `rbuild info REGISTRY`
pub(crate) fn print_decisions(decisions: &[Decision]) {
    let row = |decision: &Decision| {
        vec![
            decision.what.to_owned(),
            decision.value.clone(),
            decision.by.clone(),
        ]
    };
    write_stdout(&table(
        &["WHAT", "VALUE", "DECIDED BY"],
        decisions.iter().map(row),
    ));
}

fn shorten_id(id: &str, is_full: bool) -> String {
    if is_full {
        return id.to_owned();
    }
    id.rsplit(':')
        .next()
        .unwrap_or(id)
        .chars()
        .take(SHORT_ID)
        .collect()
}

/// An instruction of an image's history without what every builder adds to it: build args, shell, mark.
pub(super) fn instruction(created_by: &str) -> String {
    // Of a heredoc that is where it begins.
    let line = created_by.lines().next().unwrap_or("");
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_suffix(" # buildkit").unwrap_or(&line);
    let shell = "/bin/sh -c ";
    match line
        .strip_prefix("RUN ")
        .map(|rest| (rest, rest.find(shell)))
    {
        Some((rest, Some(at))) if at == 0 || rest.starts_with('|') => {
            format!("RUN {}", &rest[at + shell.len()..])
        }
        _ => line.to_owned(),
    }
}

pub(super) fn shorten_command(command: &str, is_full: bool) -> String {
    let line = command.split_whitespace().collect::<Vec<_>>().join(" ");
    if is_full || line.chars().count() <= SHORT_COMMAND {
        return line;
    }
    line.chars().take(SHORT_COMMAND - 1).chain(['…']).collect()
}

/// RFC 3339 without what nobody reads in a table.
fn created(time: Option<&str>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| {
            time.chars()
                .take("2001-02-03T04:05:06".len())
                .collect::<String>()
                .replace('T', " ")
        },
    )
}

pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> =
        std::iter::once(head.iter().map(|&word| word.to_owned()).collect())
            .chain(rows)
            .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_of_a_history_are_shown_as_they_were_written() {
        for (created_by, expected) in [
            ("RUN /bin/sh -c make  all # buildkit", "RUN make all"),
            ("RUN |1 VERSION=1 /bin/sh -c make # buildkit", "RUN make"),
            ("RUN /bin/bash -c make # buildkit", "RUN /bin/bash -c make"),
            ("RUN echo /bin/sh -c x", "RUN echo /bin/sh -c x"),
            ("COPY . /app # buildkit", "COPY . /app"),
            ("", ""),
        ] {
            assert_eq!(instruction(created_by), expected, "{created_by}");
        }
    }

    #[test]
    fn columns_line_up() {
        let text = table(
            &["NAME", "SIZE"],
            [
                vec!["a-long-name".to_owned(), "1 B".to_owned()],
                vec!["b".to_owned(), "10 MB".to_owned()],
            ]
            .into_iter(),
        );
        assert_eq!(
            text,
            "NAME         SIZE\na-long-name  1 B\nb            10 MB\n"
        );
    }

    #[test]
    fn cells_are_short_unless_asked() {
        assert_eq!(shorten_id("sha256:0123456789abcdef", false), "0123456789ab");
        assert_eq!(
            shorten_id("sha256:0123456789abcdef", true),
            "sha256:0123456789abcdef"
        );
        assert_eq!(
            shorten_command(&"x ".repeat(50), false).chars().count(),
            SHORT_COMMAND
        );
        assert_eq!(
            created(Some("2001-02-03T04:05:06.789Z")),
            "2001-02-03 04:05:06"
        );
    }
}
