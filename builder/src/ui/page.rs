//! `rbuild report`: one build as one HTML page that needs nothing else.
//!
//! No script and nothing fetched: the page folds with `<details>`, follows the reader's light or dark setting, and can be
//! attached to a CI run. Everything that comes from a build is escaped.

mod timeline;

use std::fmt::Write as _;

use rbuild::explain;
use rbuild::history::{BuildDetail, PastBuild, StepNote, StepState};
use rbuild::layers::{ImageLayers, LayerView};

use super::ansi::clean_line;
use super::graph::{self, Node, escape, state_word};
use super::past::status_of;
use super::table::instruction;
use super::units;

const STYLE: &str = include_str!("page/page.css");

/// Bytes of a step's log on the page; `rbuild logs` has the rest.
pub(crate) const MOST_LOG: usize = 256 * 1024;

/// What a step wrote, as far as it is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepLog {
    /// The end of it, at most [`MOST_LOG`] bytes.
    pub(crate) text: Vec<u8>,
    /// Bytes before that.
    pub(crate) missing: u64,
}

impl StepLog {
    /// Keeps the end, from the beginning of a line on.
    pub(crate) fn cut(&mut self) {
        let Some(over) = self
            .text
            .len()
            .checked_sub(MOST_LOG)
            .filter(|over| *over > 0)
        else {
            return;
        };
        let line = self.text[over..].iter().position(|&byte| byte == b'\n');
        let from = over + line.map_or(0, |position| position + 1);
        self.missing += from as u64;
        self.text.drain(..from);
    }
}

/// Everything the page is made of.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    /// The build.
    pub(crate) build: &'a PastBuild,
    /// Its steps.
    pub(crate) detail: &'a BuildDetail,
    /// A log for each step.
    pub(crate) logs: &'a [StepLog],
    /// Its image, while the store has it.
    pub(crate) layers: Option<&'a ImageLayers>,
}

/// The page.
pub(crate) fn html(page: &Page<'_>) -> String {
    let name = title(page.build);
    let sections = [
        ("Summary", "summary", facts(page)),
        ("Timeline", "timeline", timeline::html(page.detail)),
        ("Steps", "steps", steps(page)),
        ("Graph", "graph", drawing(page.detail)),
        ("Layers", "layers", layers(page.layers)),
        ("Dockerfile", "dockerfile", dockerfile(page.detail)),
    ];
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{0}</h1>\n<nav>",
        escape(&name)
    );
    for (title, id, content) in &sections {
        if !content.is_empty() {
            let _ = write!(text, "<a href=\"#{id}\">{title}</a> ");
        }
    }
    text.push_str("</nav>\n</header>\n<main>\n");
    for (title, id, content) in &sections {
        if !content.is_empty() {
            let _ = write!(
                text,
                "<section id=\"{id}\"><h2>{title}</h2>\n{content}</section>\n"
            );
        }
    }
    text.push_str("</main>\n</body>\n</html>\n");
    text
}

fn title(build: &PastBuild) -> String {
    let what = match build.summary.names.as_slice() {
        [] => build.summary.context.clone(),
        names => names.join(", "),
    };
    format!("{what}: build {}", build.id)
}

fn facts(page: &Page<'_>) -> String {
    let (build, detail) = (page.build, page.detail);
    let summary = &build.summary;
    let result = status_of(build.status);
    let milliseconds = |time: Option<u64>| {
        time.map(|time| units::duration(std::time::Duration::from_millis(time)))
    };
    let steps = format!("{} run, {} cached", summary.done, summary.cached);
    let mut rows = vec![
        ("result", result.to_owned()),
        ("started", format!("{} UTC", build.started_text())),
        ("time", milliseconds(summary.duration).unwrap_or_default()),
        ("steps", steps),
        ("context", summary.context.clone()),
        ("file", summary.dockerfile.clone()),
        ("target", summary.target.clone().unwrap_or_default()),
        ("platform", summary.platforms.join(", ")),
        ("image", summary.image_id.clone().unwrap_or_default()),
        ("outputs", detail.outputs.join(", ")),
        (
            "made by",
            format!(
                "rbuild {} on {}, Linux {}",
                summary.version, detail.machine, detail.kernel
            ),
        ),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    let mut text = String::from("<dl>\n");
    for (name, value) in rows {
        let _ = writeln!(text, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    text.push_str("</dl>\n");
    if let Some(error) = &detail.error {
        let _ = writeln!(text, "<pre class=\"error\">{}</pre>", escape(error));
    }
    for warning in &detail.warnings {
        let _ = writeln!(text, "<p class=\"warning\">{}</p>", escape(warning));
    }
    text
}

fn steps(page: &Page<'_>) -> String {
    let mut text = String::new();
    for (index, step) in page.detail.steps.iter().enumerate() {
        let log = page.logs.get(index);
        text.push_str(&step_html(index, step, log, &page.build.id));
    }
    text
}

fn step_html(index: usize, step: &StepNote, log: Option<&StepLog>, build: &str) -> String {
    let state = state_word(step.state);
    let time = match step.duration {
        Some(time) if step.state != StepState::Cached => {
            units::duration(std::time::Duration::from_millis(time))
        }
        _ => String::new(),
    };
    let size = step.layer_size.map(units::bytes).unwrap_or_default();
    // A failed step is what the page was opened for.
    let open = if step.state == StepState::Failed {
        " open"
    } else {
        ""
    };
    let mut text = format!(
        "<details id=\"step-{index}\"{open}><summary><span class=\"state {state}\">{state}</span> \
         <span class=\"label\">{}</span> <code>{}</code> <span class=\"numbers\">{time} {size}</span></summary>\n",
        escape(&step.label()),
        escape(step.title.lines().next().unwrap_or_default()),
    );
    if step.title.lines().count() > 1 {
        let _ = writeln!(text, "<pre>{}</pre>", escape(&step.title));
    }
    let used = [
        step.cpu.map(|time| {
            format!(
                "{} of CPU time",
                units::duration(std::time::Duration::from_millis(time))
            )
        }),
        step.peak_memory
            .map(|bytes| format!("{} of memory at most", units::bytes(bytes))),
    ];
    let used: Vec<String> = used.into_iter().flatten().collect();
    if !used.is_empty() {
        let _ = writeln!(text, "<p class=\"quiet\">Used {}.</p>", used.join(", "));
    }
    if !step.reasons.is_empty() {
        let why = explain::in_one_line(&step.reasons, usize::MAX);
        let _ = writeln!(text, "<p>Ran because: {}</p>", escape(&why));
    }
    if let Some(ran_in) = step.ran_in().filter(|ran_in| *ran_in != build) {
        let _ = writeln!(text, "<p>The log is that of build {}.</p>", escape(ran_in));
    }
    text.push_str(&log_html(log, build, index));
    text.push_str("</details>\n");
    text
}

fn log_html(log: Option<&StepLog>, build: &str, index: usize) -> String {
    let Some(log) = log.filter(|log| !log.text.is_empty()) else {
        return "<p class=\"quiet\">It wrote nothing.</p>\n".to_owned();
    };
    let lines = log
        .text
        .strip_suffix(b"\n")
        .unwrap_or(&log.text)
        .split(|&byte| byte == b'\n');
    let lines: Vec<String> = lines.map(|line| escape(&clean_line(line, false))).collect();
    let missing = if log.missing > 0 {
        format!(
            "<p class=\"quiet\">{} before this: <code>rbuild logs {} {}</code></p>\n",
            units::bytes(log.missing),
            escape(build),
            index + 1
        )
    } else {
        String::new()
    };
    format!(
        "{missing}<pre class=\"log\" tabindex=\"0\">{}</pre>\n",
        lines.join("\n")
    )
}

fn drawing(detail: &BuildDetail) -> String {
    if detail.steps.is_empty() {
        return String::new();
    }
    let nodes: Vec<Node> = detail.steps.iter().map(Node::of).collect();
    format!(
        "<div class=\"wide\" tabindex=\"0\">\n{}</div>\n",
        graph::svg(&nodes, false)
    )
}

fn layers(image: Option<&ImageLayers>) -> String {
    let Some(image) = image else {
        return String::new();
    };
    let largest = image.layers.iter().map(|layer| layer.size).max();
    let largest = largest.unwrap_or(0).max(1);
    let mut text = String::from(
        "<table><thead><tr><th>Layer<th class=\"number\">Size<th class=\"number\">Wasted<th>Made by<th>Share</tr></thead>\n<tbody>\n",
    );
    for (index, layer) in image.layers.iter().enumerate() {
        let share = u128::from(layer.size) * 100 / u128::from(largest);
        let made_by = clean_line(instruction(&layer.created_by).as_bytes(), false);
        let _ = writeln!(
            text,
            "<tr><td>{}<td class=\"number\">{}<td class=\"number\">{}<td><code>{}</code><td><span class=\"bar\" style=\"width:{share}%\"></span></tr>",
            index + 1,
            units::bytes(layer.size),
            units::bytes(layer.wasted()),
            escape(&made_by),
        );
    }
    text.push_str("</tbody></table>\n");
    let wasted: u64 = image.layers.iter().map(LayerView::wasted).sum();
    let _ = writeln!(
        text,
        "<p class=\"quiet\">{} are wasted: shipped, and hidden by an upper layer.</p>",
        units::bytes(wasted)
    );
    text
}

/// The Dockerfile with what each line cost beside it.
fn dockerfile(detail: &BuildDetail) -> String {
    if detail.dockerfile.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "<table class=\"source\"><thead><tr><th class=\"number\">Line<th class=\"number\">Time<th class=\"number\">Layer<th>Text</tr></thead>\n<tbody>\n",
    );
    for (index, line) in detail.dockerfile.lines().enumerate() {
        let number = index + 1;
        let of_line = |step: &&StepNote| step.lines.0 == number && step.state != StepState::Pending;
        let steps: Vec<&StepNote> = detail.steps.iter().filter(of_line).collect();
        let ran = steps.iter().filter(|step| step.state != StepState::Cached);
        let time: u64 = ran.filter_map(|step| step.duration).sum();
        let size: u64 = steps.iter().filter_map(|step| step.layer_size).sum();
        let is_cached =
            !steps.is_empty() && steps.iter().all(|step| step.state == StepState::Cached);
        let time = match (steps.is_empty(), is_cached) {
            (true, _) => String::new(),
            (false, true) => "cached".to_owned(),
            (false, false) => units::duration(std::time::Duration::from_millis(time)),
        };
        let size = if size == 0 {
            String::new()
        } else {
            units::bytes(size)
        };
        let _ = writeln!(
            text,
            "<tr><td class=\"number\">{number}<td class=\"number\">{time}<td class=\"number\">{size}<td><code>{}</code></tr>",
            escape(line)
        );
    }
    text.push_str("</tbody></table>\n");
    text
}

#[cfg(test)]
mod tests;
