//! A curve as a picture.

use std::fmt::Write as _;

use crate::scale::Curve;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 44.0;
const TOP: f64 = 36.0;
const RIGHT: f64 = 16.0;

/// Points, a line through them, and dashed the straight line from the origin to the last one: growth in proportion.
pub(crate) fn svg(curve: &Curve) -> String {
    let points: Vec<(f64, f64)> = curve
        .points
        .iter()
        .map(|&(size, value)| (f64::from(size), value))
        .collect();
    let most = |values: Vec<f64>| values.into_iter().fold(f64::MIN_POSITIVE, f64::max);
    let right = most(points.iter().map(|point| point.0).collect());
    let top = rounded_up(most(points.iter().map(|point| point.1).collect()));
    let place = |(x, y): (f64, f64)| {
        (
            LEFT + x / right * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - TOP),
        )
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        curve.title
    );
    let mut add = |line: String| {
        let _ = writeln!(text, "{line}"); // writing to a String cannot fail
    };
    for part in 0..=4 {
        let value = top * f64::from(part) / 4.0;
        let (x, y) = place((0.0, value));
        let end = WIDTH - RIGHT;
        add(format!(
            "<path d=\"M{x:.1} {y:.1}H{end:.1}\" stroke=\"#ddd\"/>"
        ));
        add(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            x - 6.0,
            y + 4.0,
            short(value)
        ));
    }
    add(format!(
        "<text x=\"{LEFT}\" y=\"{}\" text-anchor=\"end\" dx=\"-6\">{}</text>",
        TOP - 8.0,
        curve.unit
    ));
    for &(x, _) in &points {
        let (at, floor) = place((x, 0.0));
        add(format!(
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            floor + 16.0,
            short(x)
        ));
    }
    let middle = f64::midpoint(LEFT, WIDTH);
    add(format!(
        "<text x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 8.0,
        curve.across
    ));
    let ends = [Some((0.0, 0.0)), points.last().copied()];
    let dashed = path(ends.into_iter().flatten().map(place));
    add(format!(
        "<path d=\"{dashed}\" fill=\"none\" stroke=\"#888\" stroke-dasharray=\"4 4\"/>"
    ));
    let line = path(points.iter().copied().map(place));
    add(format!(
        "<path d=\"{line}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>"
    ));
    for &point in &points {
        let (x, y) = place(point);
        add(format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"#06c\"/>"
        ));
        add(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#06c\">{}</text>",
            x - 6.0,
            y - 6.0,
            short(point.1)
        ));
    }
    text.push_str("</svg>\n");
    text
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut text = String::new();
    for (x, y) in points {
        let letter = if text.is_empty() { 'M' } else { 'L' };
        let _ = write!(text, "{letter}{x:.1} {y:.1}"); // writing to a String cannot fail
    }
    text
}

/// The next of 1, 2, 4, 5, 8, 10 times a power of ten: quarters of it are short numbers.
fn rounded_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    let fitting = steps.into_iter().find(|step| step * power >= value);
    fitting.unwrap_or(10.0) * power
}

/// Few digits, tens of thousands as k, millions as M.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", trimmed(format!("{:.2}", value / 1e6))),
        1e4.. => format!("{}k", trimmed(format!("{:.1}", value / 1e3))),
        100.0.. => format!("{value:.0}"),
        10.0.. => trimmed(format!("{value:.1}")),
        _ => trimmed(format!("{value:.2}")),
    }
}

fn trimmed(text: String) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}
