//! One JSON object per event and line, for programs: our own events, and beside them the reference's status stream
//! (`client.SolveStatus` of BuildKit, as `docker buildx build --progress=rawjson` prints it), so that what reads that one reads
//! this one. Fields are only ever added; `docs/rawjson.schema.json` lists them.
//!
//! Every object has `event` and `at` (seconds since the build began). Bytes of a command are text with U+FFFD for what
//! is not UTF-8, in pieces as the command wrote them; in `logs` they are base64, every one.

mod status;

use std::time::Duration;

use rbuild::BuildOutcome;
use rbuild::event::{Event, StepOutcome, Stream};
use serde_json::{Value, json};

use self::status::Status;
use super::console::View;
use super::past::reason_json;

/// One JSON object per event.
#[derive(Debug, Default)]
pub(crate) struct RawJson {
    status: Status,
}

impl View for RawJson {
    fn show(&mut self, at: Duration, event: &Event) -> String {
        let mut object = object_of(event);
        object["at"] = json!(at.as_secs_f64());
        self.status.add(&mut object, at, event);
        format!("{object}\n")
    }
}

/// The last line of a build that succeeded.
pub(crate) fn built(outcome: &BuildOutcome, took: Duration) -> String {
    let image = |image: &rbuild::BuiltPlatform| {
        json!({
            "platform": image.platform.to_string(), "image_id": image.image_id.to_string(),
            "layers": image.layers, "size": image.size,
        })
    };
    let images: Vec<_> = outcome.images.iter().map(image).collect();
    let object = json!({"event": "built", "at": took.as_secs_f64(), "names": outcome.tags, "images": images,
        "build": outcome.build_id});
    format!("{object}\n")
}

fn object_of(event: &Event) -> Value {
    match event {
        Event::Recorded { build } => json!({"event": "recorded", "build": build}),
        Event::Planned { steps } => {
            let step = |(index, step): (usize, &rbuild::event::StepDescription)| {
                json!({
                    "step": index, "stage": step.stage, "number": step.number, "of": step.of, "title": step.title,
                    "platform": step.platform, "lines": [step.lines.0, step.lines.1],
                })
            };
            json!({"event": "planned", "steps": steps.iter().enumerate().map(step).collect::<Vec<_>>()})
        }
        Event::Warning { diagnostic, source } => json!({
            "event": "warning", "code": diagnostic.code, "message": diagnostic.message, "file": source.name(),
            "line": source.position(diagnostic.span.start).0, "column": source.position(diagnostic.span.start).1,
            "help": diagnostic.help,
        }),
        Event::Notice(words) => json!({"event": "notice", "message": words}),
        Event::Started(step) => json!({"event": "started", "step": step.0}),
        Event::Kept { step } => json!({"event": "kept", "step": step.0}),
        Event::Explained { step, reasons } => json!({
            "event": "explained", "step": step.0, "reasons": reasons.iter().map(reason_json).collect::<Vec<_>>(),
        }),
        Event::Output {
            step,
            stream,
            bytes,
        } => json!({
            "event": "output", "step": step.0, "text": String::from_utf8_lossy(bytes),
            "stream": match stream { Stream::Stdout => "stdout", Stream::Stderr => "stderr" },
        }),
        Event::Finished {
            step,
            outcome,
            duration,
        } => json!({
            "event": "finished", "step": step.0, "seconds": duration.as_secs_f64(),
            "outcome": match outcome {
                StepOutcome::Cached => "cached",
                StepOutcome::Done => "done",
                StepOutcome::Failed => "failed",
                StepOutcome::Cancelled => "cancelled",
            },
        }),
        Event::TaskStarted { task, title } => {
            json!({"event": "task-started", "task": task, "title": title})
        }
        Event::TaskProgress { task, done, total } => {
            json!({"event": "task-progress", "task": task, "done": done, "total": total})
        }
        Event::TaskFinished {
            task,
            duration,
            result,
        } => json!({
            "event": "task-finished", "task": task, "seconds": duration.as_secs_f64(),
            "result": result.as_ref().ok(), "error": result.as_ref().err(),
        }),
    }
}

#[cfg(test)]
mod tests;
