//! A [`Diagnostic`] as text: file, line, column, the place, its label, other places, the way out.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use rbuild_frontend::diagnostic::{Diagnostic, Severity};
use rbuild_frontend::source::{Source, Span};

use super::terminal::Terminal;

/// Renders one diagnostic, with a line end behind it.
pub(crate) fn render(diagnostic: &Diagnostic, source: &Source, terminal: Terminal) -> String {
    let renderer = if terminal.has_colours {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let notes = diagnostic
        .notes
        .iter()
        .map(|(span, words)| annotation(AnnotationKind::Context, source, *span, words));
    let snippet = Snippet::source(source.text())
        .path(source.name())
        .annotation(annotation(
            AnnotationKind::Primary,
            source,
            diagnostic.span,
            &diagnostic.label,
        ))
        .annotations(notes);
    let title = level
        .primary_title(diagnostic.message.as_str())
        .id(diagnostic.code);
    let mut group = Group::with_title(title).element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    format!("{}\n", renderer.render(&[group]))
}

fn annotation<'a>(
    kind: AnnotationKind,
    source: &Source,
    span: Span,
    words: &'a str,
) -> Annotation<'a> {
    let range = inside(source.text(), span);
    kind.span(range).label((!words.is_empty()).then_some(words))
}

/// The span within the text and on character borders: a wrong span must not hide the message.
fn inside(text: &str, span: Span) -> std::ops::Range<usize> {
    let floor = |offset: usize| {
        (0..=offset.min(text.len()))
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0)
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

#[cfg(test)]
mod tests {
    use rbuild_frontend::diagnostic::Phase;

    use super::*;

    const DOCKERFILE: &[u8] =
        b"FROM debian AS build\nRUN make\nFROM scratch\nCOPY --from=biuld /app /app\n";

    fn show(diagnostic: &Diagnostic) -> String {
        render(
            diagnostic,
            &Source::new("Dockerfile", DOCKERFILE),
            Terminal::default(),
        )
    }

    #[test]
    fn an_error_with_everything() {
        let diagnostic = Diagnostic::error(
            "unknown-stage",
            Phase::Plan,
            Span::new(56, 61),
            "no stage is named `biuld`",
        )
        .with_label("not a stage of this file")
        .with_help("a stage named `build` is defined on line 1")
        .with_note(Span::new(15, 20), "a similar name");
        insta::assert_snapshot!(show(&diagnostic), @r"
        error[unknown-stage]: no stage is named `biuld`
         --> Dockerfile:4:14
          |
        1 | FROM debian AS build
          |                ----- a similar name
        ...
        4 | COPY --from=biuld /app /app
          |              ^^^^^ not a stage of this file
          |
          = help: a stage named `build` is defined on line 1
        ");
    }

    #[test]
    fn a_warning_with_little() {
        let diagnostic = Diagnostic::warning(
            "FromAsCasing",
            Span::new(12, 14),
            "`as` and `FROM` are not in the same case",
        );
        insta::assert_snapshot!(show(&diagnostic), @r"
        warning[FromAsCasing]: `as` and `FROM` are not in the same case
         --> Dockerfile:1:13
          |
        1 | FROM debian AS build
          |             ^^
        ");
    }

    #[test]
    fn several_lines_and_the_end_of_the_file() {
        let lines = Diagnostic::error("x", Phase::Parse, Span::new(21, 42), "two lines");
        insta::assert_snapshot!(show(&lines), @r"
        error[x]: two lines
         --> Dockerfile:2:1
          |
        2 | / RUN make
        3 | | FROM scratch
          | |____________^
        ");
        let end = Diagnostic::error(
            "x",
            Phase::Parse,
            Span::new(9_999, 10_000),
            "behind the end",
        )
        .with_label("here");
        insta::assert_snapshot!(show(&end), @r"
        error[x]: behind the end
         --> Dockerfile:4:29
          |
        4 | COPY --from=biuld /app /app
          |                            ^ here
        ");
    }

    #[test]
    fn colours_are_for_terminals() {
        let diagnostic = Diagnostic::error("x", Phase::Parse, Span::new(0, 4), "message");
        assert!(!show(&diagnostic).contains('\x1b'));
        let source = Source::new("Dockerfile", DOCKERFILE);
        assert!(render(&diagnostic, &source, Terminal { has_colours: true }).contains('\x1b'));
    }
}
