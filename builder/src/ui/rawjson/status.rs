//! The reference's status stream: steps and transfers are *vertexes*, what moves in one is a *status*, output is *logs*.
//!
//! Names and shapes are those of BuildKit's `client.SolveStatus`. A vertex is known by a digest, here that of its number in the
//! build.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild::event::{Event, StepDescription, StepOutcome, Stream, rfc3339};
use serde_json::{Value, json};

use crate::ui::plain::label;

/// The reference's numbers of streams.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// The reference's level of a check that fired.
const WARNING: u8 = 1;

/// What has to be said again of a vertex whenever it changes.
#[derive(Debug)]
struct Vertex {
    digest: String,
    name: String,
    started: Option<Duration>,
}

/// What is known of the build's vertexes.
#[derive(Debug)]
pub(super) struct Status {
    began: SystemTime,
    steps: Vec<Vertex>,
    tasks: BTreeMap<usize, Vertex>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            began: SystemTime::now(),
            steps: Vec::new(),
            tasks: BTreeMap::new(),
        }
    }
}

impl Status {
    #[cfg(test)]
    pub(super) fn beginning_at(began: SystemTime) -> Self {
        Self {
            began,
            ..Self::default()
        }
    }

    /// Adds what the reference would say of the event.
    pub(super) fn add(&mut self, object: &mut Value, at: Duration, event: &Event) {
        match event {
            Event::Planned { steps } => {
                self.steps = steps.iter().enumerate().map(step).collect();
                let vertexes = self.steps.iter().map(|vertex| self.vertex(vertex));
                object["vertexes"] = vertexes.collect();
            }
            Event::Started(id) => {
                if let Some(vertex) = self.steps.get_mut(id.0) {
                    vertex.started = Some(at);
                }
                self.add_vertex(object, self.steps.get(id.0), None);
            }
            Event::Finished { step, outcome, .. } => {
                // A cached step is over as soon as it begins.
                if let Some(vertex) = self.steps.get_mut(step.0) {
                    vertex.started.get_or_insert(at);
                }
                self.add_vertex(object, self.steps.get(step.0), Some(at));
                let end = match outcome {
                    StepOutcome::Done => return,
                    StepOutcome::Cached => ("cached", json!(true)),
                    StepOutcome::Failed => ("error", json!("the step failed")),
                    StepOutcome::Cancelled => ("error", json!("canceled")),
                };
                object["vertexes"][0][end.0] = end.1;
            }
            Event::Output {
                step,
                stream,
                bytes,
            } => {
                let stream = match stream {
                    Stream::Stdout => STDOUT,
                    Stream::Stderr => STDERR,
                };
                if let Some(vertex) = self.steps.get(step.0) {
                    object["logs"] = json!([{
                        "vertex": vertex.digest, "stream": stream, "data": STANDARD.encode(bytes),
                        "timestamp": self.time(at),
                    }]);
                }
            }
            Event::TaskStarted { task, title } => {
                let vertex = Vertex {
                    digest: digest("task", *task),
                    name: title.clone(),
                    started: Some(at),
                };
                self.add_vertex(object, Some(&vertex), None);
                self.tasks.insert(*task, vertex);
            }
            Event::TaskProgress { task, done, total } => {
                let Some(vertex) = self.tasks.get(task) else {
                    return;
                };
                let mut status = json!({
                    "id": vertex.name, "vertex": vertex.digest, "current": done, "timestamp": self.time(at),
                    "started": vertex.started.map(|started| self.time(started)),
                });
                if let Some(total) = total {
                    status["total"] = json!(total);
                }
                object["statuses"] = json!([status]);
            }
            Event::TaskFinished { task, result, .. } => {
                self.add_vertex(object, self.tasks.get(task), Some(at));
                if let (Err(error), true) = (result, self.tasks.contains_key(task)) {
                    object["vertexes"][0]["error"] = json!(error);
                }
            }
            Event::Warning { diagnostic, source } => {
                let (line, character) = source.position(diagnostic.span.start);
                let (last, end) = source.position(diagnostic.span.end);
                object["warnings"] = json!([{
                    "level": WARNING,
                    "short": STANDARD.encode(format!("{}: {}", diagnostic.code, diagnostic.message)),
                    "detail": diagnostic.help.iter().map(|help| STANDARD.encode(help)).collect::<Vec<_>>(),
                    "sourceInfo": {"filename": source.name()},
                    "range": [{
                        "start": {"line": line, "character": character.saturating_sub(1)},
                        "end": {"line": last, "character": end.saturating_sub(1)},
                    }],
                }]);
            }
            Event::Recorded { .. }
            | Event::Notice(_)
            | Event::Kept { .. }
            | Event::Explained { .. } => {}
        }
    }

    fn add_vertex(&self, object: &mut Value, vertex: Option<&Vertex>, completed: Option<Duration>) {
        let Some(vertex) = vertex else {
            return;
        };
        let mut value = self.vertex(vertex);
        if let Some(completed) = completed {
            value["completed"] = json!(self.time(completed));
        }
        object["vertexes"] = json!([value]);
    }

    fn vertex(&self, vertex: &Vertex) -> Value {
        let mut value = json!({"digest": vertex.digest, "name": vertex.name});
        if let Some(started) = vertex.started {
            value["started"] = json!(self.time(started));
        }
        value
    }

    fn time(&self, at: Duration) -> String {
        rfc3339(self.began + at)
    }
}

fn step((index, step): (usize, &StepDescription)) -> Vertex {
    Vertex {
        digest: digest("step", index),
        name: format!("{} {}", label(step), step.title),
        started: None,
    }
}

fn digest(kind: &str, number: usize) -> String {
    rbuild::manifest::digest_of(format!("{kind} {number}").as_bytes()).to_string()
}
