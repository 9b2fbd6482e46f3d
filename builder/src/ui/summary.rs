//! The end of a build: what there is now, and what it took.

use std::time::Duration;

use rbuild::event::{Event, StepDescription, StepOutcome};
use rbuild::explain::{self, Reason};
use rbuild::{BuildOutcome, LargestLayer};

use super::ansi::clean_line;
use super::fit::fit;
use super::plain::label;
use super::table::instruction;
use super::terminal::{Style, Terminal};
use super::units;

/// Columns of the first word.
const WORD: usize = 6;

/// Steps that are named for the time they took.
const SLOWEST: usize = 3;

/// Quicker steps are not worth a word.
const SLOW: Duration = Duration::from_millis(500);

/// What happened that is worth a line at the end.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// `[build 2/5] RUN make`
    steps: Vec<String>,
    took: Vec<(Duration, usize)>,
    /// The first step that ran again, and why.
    cause: Option<(usize, String)>,
    /// How many ran again for reasons of their own or because of others.
    again: usize,
}

impl Story {
    /// Takes in what happened.
    pub(crate) fn keep(&mut self, event: &Event) {
        match event {
            Event::Planned { steps } => {
                let name = |step| {
                    let step: &StepDescription = step;
                    let title = step.title.lines().next().unwrap_or("");
                    clean_line(format!("{} {title}", label(step)).as_bytes(), false)
                };
                self.steps = steps.iter().map(name).collect();
            }
            Event::Explained { step, reasons }
                if !matches!(
                    reasons.as_slice(),
                    [] | [Reason::FirstBuild | Reason::NewStep]
                ) =>
            {
                self.again += 1;
                let words = explain::in_one_line(reasons, 1);
                self.cause
                    .get_or_insert_with(|| (step.0, clean_line(words.as_bytes(), false)));
            }
            Event::Finished {
                step,
                outcome: StepOutcome::Done,
                duration,
            } => self.took.push((*duration, step.0)),
            _ => {}
        }
    }

    fn name(&self, step: usize) -> &str {
        self.steps.get(step).map_or("", String::as_str)
    }

    /// Commands are cut at `columns`.
    fn rows(&self, columns: Option<usize>) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if let Some((step, why)) = &self.cause {
            let more = match self.again {
                0 | 1 => String::new(),
                many => format!(" (and {} more: `rbuild explain`)", many - 1),
            };
            rows.push(("again", format!("{}: {why}{more}", self.name(*step))));
        }
        let mut took = self.took.clone();
        took.sort_by_key(|(time, step)| (std::cmp::Reverse(*time), *step));
        let slow = took.iter().filter(|(time, _)| *time >= SLOW).take(SLOWEST);
        rows.extend(slow.map(|(time, step)| {
            let mut words = format!("{} {}", units::duration(*time), self.name(*step));
            if let Some(columns) = columns {
                words = fit(&words, columns.saturating_sub(WORD + 2));
            }
            ("slow", words)
        }));
        rows
    }
}

/// A few lines, greppable by their first word.
pub(crate) fn render(
    outcome: &BuildOutcome,
    story: &Story,
    took: Duration,
    terminal: Terminal,
) -> String {
    let names = match outcome.tags.as_slice() {
        [] => "an image without a name".to_owned(),
        tags => tags.join(", "),
    };
    let mut rows = vec![("built", terminal.paint(Style::Bold, &names))];
    for image in &outcome.images {
        // The platform tells images apart; of a single one it is no news.
        let platform = if outcome.images.len() > 1 {
            format!(" {}", image.platform)
        } else {
            String::new()
        };
        rows.push(("id", format!("{}{platform}", image.image_id)));
        rows.push((
            "size",
            format!(
                "{} in {} layers, {} above the base",
                units::bytes(image.size),
                image.layers,
                units::bytes(image.added)
            ),
        ));
        rows.extend(
            image
                .largest
                .as_ref()
                .map(|largest| ("layer", largest_layer(largest))),
        );
    }
    rows.extend(
        outcome
            .descriptor
            .iter()
            .map(|descriptor| ("digest", descriptor.digest.to_string())),
    );
    rows.push((
        "steps",
        format!(
            "{} run, {} cached",
            outcome.counts.done, outcome.counts.cached
        ),
    ));
    rows.extend(story.rows(terminal.columns));
    rows.push(("time", units::duration(took)));
    let line = |(word, value)| {
        format!(
            "{} {value}\n",
            terminal.paint(Style::Green, &format!("{word:<WORD$}"))
        )
    };
    rows.into_iter().map(line).collect::<Vec<_>>().concat()
}

/// `210.0 MB, the largest: COPY . /src; /srv/model.bin is 200.0 MB of it`
fn largest_layer(largest: &LargestLayer) -> String {
    let made_by = clean_line(instruction(&largest.created_by).as_bytes(), false);
    let mut words = format!("{}, the largest: {made_by}", units::bytes(largest.size));
    if let Some((path, size)) = &largest.file {
        let path = clean_line(path, false);
        words = format!("{words}; /{path} is {} of it", units::bytes(*size));
    }
    words
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use oci_spec::image::Digest;
    use rbuild::event::StepId;
    use rbuild::export::ExportedDescriptor;
    use rbuild::{BuiltPlatform, StepCounts};
    use rbuild_frontend::platform::Platform;

    use super::*;

    fn digest(digit: &str) -> Digest {
        Digest::from_str(&format!("sha256:{}", digit.repeat(64))).unwrap()
    }

    fn image(architecture: &str, digit: &str) -> BuiltPlatform {
        let platform = Platform::new("linux", architecture, "");
        BuiltPlatform {
            platform,
            image_id: digest(digit),
            layers: 3,
            size: 12_300_000,
            added: 2_300_000,
            largest: None,
        }
    }

    #[test]
    fn summaries() {
        let took = Duration::from_millis(1_440);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let one = BuildOutcome {
            image_id: digest("1"),
            descriptor: Some(ExportedDescriptor {
                media_type: media_type.to_owned(),
                digest: digest("2"),
                size: 500,
            }),
            tags: vec!["app:latest".into(), "app:1".into()],
            images: vec![image("amd64", "1")],
            counts: StepCounts { cached: 3, done: 2 },
            build_id: None,
        };
        insta::assert_snapshot!(render(&one, &Story::default(), took, Terminal::default()), @r"
        built  app:latest, app:1
        id     sha256:1111111111111111111111111111111111111111111111111111111111111111
        size   12.3 MB in 3 layers, 2.3 MB above the base
        digest sha256:2222222222222222222222222222222222222222222222222222222222222222
        steps  2 run, 3 cached
        time   1.4s
        ");
        let mut images = vec![image("amd64", "1"), image("arm64", "3")];
        images[0].largest = Some(LargestLayer {
            created_by: "COPY . /src # buildkit".into(),
            size: 2_300_000,
            file: Some((b"src/model.bin".to_vec(), 2_000_000)),
        });
        let mut story = Story::default();
        let step = |number, title: &str| StepDescription {
            stage: "build".into(),
            number,
            of: 2,
            title: title.into(),
            platform: None,
            lines: (number, number),
        };
        let reasons = vec![Reason::Files { source: ".".into() }];
        let done = |step, milliseconds| Event::Finished {
            step: StepId(step),
            outcome: StepOutcome::Done,
            duration: Duration::from_millis(milliseconds),
        };
        for event in [
            Event::Planned {
                steps: vec![step(1, "COPY . /src"), step(2, "RUN make")],
            },
            Event::Explained {
                step: StepId(0),
                reasons: reasons.clone(),
            },
            Event::Explained {
                step: StepId(1),
                reasons,
            },
            done(0, 20),
            done(1, 12_345),
        ] {
            story.keep(&event);
        }

        let two = BuildOutcome {
            descriptor: None,
            tags: vec![],
            images,
            ..one
        };
        insta::assert_snapshot!(render(&two, &story, took, Terminal::default()), @r"
        built  an image without a name
        id     sha256:1111111111111111111111111111111111111111111111111111111111111111 linux/amd64
        size   12.3 MB in 3 layers, 2.3 MB above the base
        layer  2.3 MB, the largest: COPY . /src; /src/model.bin is 2.0 MB of it
        id     sha256:3333333333333333333333333333333333333333333333333333333333333333 linux/arm64
        size   12.3 MB in 3 layers, 2.3 MB above the base
        steps  2 run, 3 cached
        again  [build 1/2] COPY . /src: files of . (and 1 more: `rbuild explain`)
        slow   12.3s [build 2/2] RUN make
        time   1.4s
        ");
    }
}
