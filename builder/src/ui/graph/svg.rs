//! The drawing itself: columns of boxes and the lines between them.

use std::fmt::Write as _;

use super::{Node, columns, rows, state_word};

/// Pixels.
const BOX_WIDTH: usize = 270;
const BOX_HEIGHT: usize = 44;
const GAP_X: usize = 50;
const GAP_Y: usize = 22;
const MARGIN: usize = 16;
const HEAD: usize = 28;

/// Colours, for light and dark; a page that has its own leaves them out.
const STYLE: &str = "<style>\
.step rect{fill:#fff;stroke:#8a8f98}.step text{fill:#1c1f23}.column{fill:#5b626b}.edge{fill:none;stroke:#8a8f98;stroke-width:1.3}\
.cached rect{fill:#d8f0dc}.done rect{fill:#d9e6fa}.failed rect{fill:#f6d5d5}\
@media(prefers-color-scheme:dark){.step rect{fill:#22262b}.step text{fill:#e7e9ec}.column{fill:#a2a9b3}\
.cached rect{fill:#1e4429}.done rect{fill:#1d3a63}.failed rect{fill:#5f2325}}</style>";

/// The graph as an SVG image; `has_style` makes it stand alone.
pub(crate) fn svg(nodes: &[Node], has_style: bool) -> String {
    let columns = columns(nodes);
    let rows = rows(nodes);
    let mut places = vec![(0, 0); nodes.len()];
    for (column, (_, steps)) in columns.iter().enumerate() {
        for &index in steps {
            let x = MARGIN + column * (BOX_WIDTH + GAP_X);
            let y = MARGIN + HEAD + rows[index] * (BOX_HEIGHT + GAP_Y);
            places[index] = (x, y);
        }
    }
    let width = 2 * MARGIN + columns.len().max(1) * (BOX_WIDTH + GAP_X) - GAP_X;
    let deepest = rows.iter().max().map_or(0, |row| row + 1);
    let height = 2 * MARGIN + HEAD + deepest * (BOX_HEIGHT + GAP_Y);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Steps and what they need\" font-family=\"system-ui,sans-serif\" font-size=\"12\">\n"
    );
    if has_style {
        text.push_str(STYLE);
        text.push('\n');
    }
    for (index, node) in nodes.iter().enumerate() {
        for need in node.needs.iter().filter_map(|need| places.get(*need)) {
            text.push_str(&edge(*need, places[index]));
        }
    }
    for (column, (name, _)) in columns.iter().enumerate() {
        let x = MARGIN + column * (BOX_WIDTH + GAP_X);
        let _ = writeln!(
            text,
            "<text class=\"column\" x=\"{x}\" y=\"{}\">{}</text>",
            MARGIN + HEAD / 2,
            escape(name)
        );
    }
    for (node, place) in nodes.iter().zip(&places) {
        text.push_str(&step(node, *place));
    }
    text.push_str("</svg>\n");
    text
}

fn step(node: &Node, (x, y): (usize, usize)) -> String {
    let state = node.state.map_or("", state_word);
    let what = format!(
        "{} {} (lines {}-{}) {state}",
        node.label, node.title, node.lines.0, node.lines.1
    );
    let shown = match node.state {
        Some(state) => format!("{}  {}", node.label, state_word(state)),
        None => node.label.clone(),
    };
    format!(
        "<g class=\"step {state}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"6\"/>\
         <text x=\"{}\" y=\"{}\" font-size=\"11\">{}</text><text x=\"{}\" y=\"{}\">{}</text></g>\n",
        escape(&what),
        x + 10,
        y + 17,
        escape(&shown),
        x + 10,
        y + 34,
        escape(&node.short_title())
    )
}

/// From the foot of one box to the head of the next; from side to side where they stand in two columns.
fn edge((from_x, from_y): (usize, usize), (to_x, to_y): (usize, usize)) -> String {
    if from_x == to_x {
        let x = from_x + BOX_WIDTH / 2;
        return format!(
            "<path class=\"edge\" d=\"M{x} {} V{to_y}\"/>\n",
            from_y + BOX_HEIGHT
        );
    }
    let (x1, x2) = if from_x < to_x {
        (from_x + BOX_WIDTH, to_x)
    } else {
        (from_x, to_x + BOX_WIDTH)
    };
    let (y1, y2) = (from_y + BOX_HEIGHT / 2, to_y + BOX_HEIGHT / 2);
    // The bend is in the gap before the box that needs: what lies between is crossed straight.
    let bend = if from_x < to_x {
        x2 - GAP_X
    } else {
        x2 + GAP_X
    };
    format!(
        "<path class=\"edge\" d=\"M{x1} {y1} L{bend} {y1} C{x2} {y1} {bend} {y2} {x2} {y2}\"/>\n"
    )
}

/// Text for XML and HTML, attributes included.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What XML 1.0 has no place for.
            control if control.is_control() && !matches!(control, '\n' | '\t') => {}
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::graph::tests::nodes;

    #[test]
    fn nothing_in_a_step_becomes_markup() {
        let drawn = svg(&nodes(), true);
        assert!(
            drawn.contains("&lt;b&gt;") && !drawn.contains("<b>"),
            "{drawn}"
        );
        assert_eq!(drawn.matches("<rect").count(), 3);
        assert_eq!(drawn.matches("<path").count(), 2);
        assert_eq!(escape("a\u{1}<'\"&\n"), "a&lt;&#39;&quot;&amp;\n");
    }
}
