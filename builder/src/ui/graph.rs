//! The steps of a Dockerfile and what needs what, drawn: DOT, Mermaid, SVG, JSON.
//!
//! Each stage is a column. A step stands below everything that it needs, so that all arrows lead down or sideways.

mod svg;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rbuild::check::PlannedStep;
use rbuild::history::{StepNote, StepState};
use serde_json::{Value, json};

use super::plain::label;

pub(super) use self::svg::escape;
pub(crate) use self::svg::svg;

/// Characters of an instruction in a box.
const TITLE: usize = 34;

/// One step as it is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Name of its column.
    pub(crate) column: String,
    /// `[build 2/5]`
    pub(crate) label: String,
    /// The instruction.
    pub(crate) title: String,
    /// What became of it in a build; in a plan it is cached, or not known.
    pub(crate) state: Option<StepState>,
    /// Steps that it needs.
    pub(crate) needs: Vec<usize>,
    /// Lines of the Dockerfile.
    pub(crate) lines: (usize, usize),
}

impl Node {
    /// A step of a past build.
    pub(crate) fn of(note: &StepNote) -> Self {
        let platform = note.platform.as_deref();
        let platform = platform.map(|platform| format!("{platform} "));
        Self {
            column: format!("{}{}", platform.unwrap_or_default(), note.stage),
            label: note.label(),
            title: note.title.lines().next().unwrap_or_default().to_owned(),
            state: Some(note.state),
            needs: note.needs.clone(),
            lines: note.lines,
        }
    }

    /// A step of a plan.
    pub(crate) fn of_plan(step: PlannedStep) -> Self {
        let words = step.description;
        let platform = words.platform.as_deref();
        let platform = platform.map(|platform| format!("{platform} "));
        Self {
            column: format!("{}{}", platform.unwrap_or_default(), words.stage),
            label: label(&words),
            title: words.title.lines().next().unwrap_or_default().to_owned(),
            state: step.is_cached.then_some(StepState::Cached),
            needs: step.needs,
            lines: words.lines,
        }
    }

    fn short_title(&self) -> String {
        if self.title.chars().count() <= TITLE {
            return self.title.clone();
        }
        let start: String = self.title.chars().take(TITLE - 3).collect();
        format!("{start}...")
    }
}

/// A word for a state; also the name of its style.
pub(super) fn state_word(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Running => "running",
        StepState::Cached => "cached",
        StepState::Done => "done",
        StepState::Failed => "failed",
        StepState::Cancelled => "cancelled",
    }
}

/// Columns in the order in which they begin, each with its steps.
fn columns(nodes: &[Node]) -> Vec<(&str, Vec<usize>)> {
    let mut order: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        match order.iter_mut().find(|(name, _)| *name == node.column) {
            Some((_, steps)) => steps.push(index),
            None => order.push((&node.column, vec![index])),
        }
    }
    order
}

/// Graphviz.
pub(crate) fn dot(nodes: &[Node]) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from(
        "digraph build {\n  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n",
    );
    for (number, (name, steps)) in columns(nodes).into_iter().enumerate() {
        let _ = writeln!(
            text,
            "  subgraph cluster_{number} {{\n    label={};",
            quote(name)
        );
        for index in steps {
            let node = &nodes[index];
            let fill = match node.state {
                Some(StepState::Cached) => ", fillcolor=\"#d8f0dc\"",
                Some(StepState::Failed) => ", fillcolor=\"#f6d5d5\"",
                Some(StepState::Done) => ", fillcolor=\"#d9e6fa\"",
                _ => "",
            };
            let words = format!("{}\n{}", node.label, node.short_title());
            let words = quote(&words).replace('\n', "\\n");
            let _ = writeln!(text, "    s{index} [label={words}{fill}];");
        }
        text.push_str("  }\n");
    }
    for (index, node) in nodes.iter().enumerate() {
        for need in &node.needs {
            let _ = writeln!(text, "  s{need} -> s{index};");
        }
    }
    text.push_str("}\n");
    text
}

/// What Markdown viewers draw.
pub(crate) fn mermaid(nodes: &[Node]) -> String {
    // Entities by number: the only escapes that Mermaid has.
    let quote = |text: &str| {
        let special = |c: char| match c {
            '"' | '#' | '<' | '>' | '&' | ';' | '`' | '\\' => format!("#{};", u32::from(c)),
            c => c.to_string(),
        };
        format!("\"{}\"", text.chars().map(special).collect::<String>())
    };
    let mut text = String::from("flowchart TB\n");
    for (number, (name, steps)) in columns(nodes).into_iter().enumerate() {
        let name = if name.is_empty() { "steps" } else { name };
        let _ = writeln!(text, "  subgraph c{number} [{}]", quote(name));
        for index in steps {
            let node = &nodes[index];
            let words = format!("{} {}", node.label, node.short_title());
            let class = node.state.map(|state| format!(":::{}", state_word(state)));
            let _ = writeln!(
                text,
                "    s{index}[{}]{}",
                quote(&words),
                class.unwrap_or_default()
            );
        }
        text.push_str("  end\n");
    }
    for (index, node) in nodes.iter().enumerate() {
        for need in &node.needs {
            let _ = writeln!(text, "  s{need} --> s{index}");
        }
    }
    text.push_str(
        "  classDef cached fill:#d8f0dc,color:#000\n  classDef done fill:#d9e6fa,color:#000\n  classDef failed fill:#f6d5d5,color:#000\n",
    );
    text
}

/// For programs.
pub(crate) fn json(nodes: &[Node]) -> Value {
    let step = |(index, node): (usize, &Node)| {
        json!({
            "step": index, "stage": node.column, "label": node.label, "title": node.title, "needs": node.needs,
            "lines": [node.lines.0, node.lines.1], "state": node.state.map(state_word),
        })
    };
    json!({ "steps": nodes.iter().enumerate().map(step).collect::<Vec<_>>() })
}

/// The row of each step: below all that it needs, and below the one before it in its column.
fn rows(nodes: &[Node]) -> Vec<usize> {
    let mut rows: Vec<usize> = Vec::with_capacity(nodes.len());
    let mut next_in_column: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes {
        let below = |need: &usize| rows.get(*need).map_or(0, |row| row + 1);
        let needed = node.needs.iter().map(below).max().unwrap_or(0);
        let next = next_in_column.entry(&node.column).or_default();
        let row = needed.max(*next);
        *next = row + 1;
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn nodes() -> Vec<Node> {
        let node = |column: &str, label: &str, title: &str, state, needs: &[usize]| Node {
            column: column.into(),
            label: label.into(),
            title: title.into(),
            state,
            needs: needs.to_vec(),
            lines: (1, 1),
        };
        let cached = Some(StepState::Cached);
        vec![
            node("build", "[build 1/2]", "FROM debian:12", cached, &[]),
            node(
                "build",
                "[build 2/2]",
                "RUN echo \"<b>\" && make -j2 install DESTDIR=/out",
                Some(StepState::Done),
                &[0],
            ),
            node(
                "",
                "[1/1]",
                "COPY --from=build /out /",
                Some(StepState::Failed),
                &[1],
            ),
        ]
    }

    #[test]
    fn graphs_as_text() {
        let nodes = nodes();
        insta::assert_snapshot!(dot(&nodes), @r##"
        digraph build {
          node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"];
          subgraph cluster_0 {
            label="build";
            s0 [label="[build 1/2]\nFROM debian:12", fillcolor="#d8f0dc"];
            s1 [label="[build 2/2]\nRUN echo \"<b>\" && make -j2 inst...", fillcolor="#d9e6fa"];
          }
          subgraph cluster_1 {
            label="";
            s2 [label="[1/1]\nCOPY --from=build /out /", fillcolor="#f6d5d5"];
          }
          s0 -> s1;
          s1 -> s2;
        }
        "##);
        insta::assert_snapshot!(mermaid(&nodes), @r##"
        flowchart TB
          subgraph c0 ["build"]
            s0["[build 1/2] FROM debian:12"]:::cached
            s1["[build 2/2] RUN echo #34;#60;b#62;#34; #38;#38; make -j2 inst..."]:::done
          end
          subgraph c1 ["steps"]
            s2["[1/1] COPY --from=build /out /"]:::failed
          end
          s0 --> s1
          s1 --> s2
          classDef cached fill:#d8f0dc,color:#000
          classDef done fill:#d9e6fa,color:#000
          classDef failed fill:#f6d5d5,color:#000
        "##);
        assert_eq!(rows(&nodes), [0, 1, 2]);
        assert_eq!(json(&nodes)["steps"][2]["needs"][0], 1);
    }
}
