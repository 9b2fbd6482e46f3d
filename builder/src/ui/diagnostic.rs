//! A [`Diagnostic`] as text: file, line, column, the place, its label, other places, the way out.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use rbuild_frontend::diagnostic::{Diagnostic, Severity};
use rbuild_frontend::source::{Source, Span};

use super::ansi::clean_line;
use super::terminal::Terminal;

/// Most diagnostics that are shown of one file: whoever has more begins with these.
pub(crate) const MOST_SHOWN: usize = 20;

/// Widest line of source where there is no terminal, in columns; what is wider is clipped around the place.
const WIDTH_OF_FILES: usize = 140;

/// Narrowest terminal whose width is believed.
const LEAST_WIDTH: usize = 30;

/// Renders diagnostics of one file with blank lines between, the first few of many.
pub(crate) fn render_all<'a>(
    diagnostics: impl Iterator<Item = &'a Diagnostic>,
    source: &Source,
    terminal: Terminal,
) -> String {
    let all: Vec<&Diagnostic> = diagnostics.collect();
    let shown = &all[..all.len().min(MOST_SHOWN)];
    let shown: Vec<_> = shown
        .iter()
        .map(|diagnostic| render(diagnostic, source, terminal))
        .collect();
    let more = match all.len() - shown.len() {
        0 => String::new(),
        more => format!("\nand {more} more\n"),
    };
    shown.join("\n") + &more
}

/// Renders one diagnostic, with a line end behind it.
pub(crate) fn render(diagnostic: &Diagnostic, source: &Source, terminal: Terminal) -> String {
    let renderer = if terminal.has_colours {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let width = terminal.columns.unwrap_or(WIDTH_OF_FILES);
    let renderer = renderer.term_width(width.max(LEAST_WIDTH));
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = clean(&diagnostic.message);
    let title = level.primary_title(message.as_str()).id(diagnostic.code);
    let mut group = Group::with_title(title);
    let label = clean(&diagnostic.label);
    let notes: Vec<(Span, String)> = diagnostic
        .notes
        .iter()
        .map(|(span, words)| (*span, clean(words)))
        .collect();
    // Nothing of an empty text can be pointed at, and a place of no extent at the start means the file as a whole.
    if diagnostic.span != Span::default() && !source.text().is_empty() {
        let window = Window::of(diagnostic, source);
        let notes = notes
            .iter()
            .map(|(span, words)| window.annotation(AnnotationKind::Context, *span, words));
        let snippet = Snippet::source(window.text)
            .line_start(window.first_line)
            .path(source.name())
            .annotation(window.annotation(AnnotationKind::Primary, diagnostic.span, &label))
            .annotations(notes);
        group = group.element(snippet);
    } else {
        group = group.element(Origin::path(source.name()));
    }
    let help = diagnostic.help.as_deref().map(clean);
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    format!("{}\n", renderer.render(&[group]))
}

/// Words with what they quote of a file made safe: no escape sequence of it reaches a terminal.
fn clean(words: &str) -> String {
    let lines = words.lines().map(|line| clean_line(line.as_bytes(), false));
    lines.collect::<Vec<_>>().join("\n")
}

/// The lines of a file that a diagnostic is about, and what lies between them: a renderer looks at every line it gets.
struct Window<'a> {
    text: &'a str,
    start: usize,
    first_line: usize,
}

impl<'a> Window<'a> {
    fn of(diagnostic: &Diagnostic, source: &'a Source) -> Self {
        let spans = || {
            let notes = diagnostic.notes.iter().map(|(span, _)| *span);
            notes.chain([diagnostic.span])
        };
        // Behind the last line's end there is nothing to see.
        let end = source.text().trim_end_matches(['\r', '\n']).len();
        let first = spans().map(|span| span.start.min(end)).min().unwrap_or(0);
        let last = spans().map(|span| span.end.min(end)).max().unwrap_or(end);
        let lines = source.lines(Span::new(first, last.max(first)));
        let place = source.span_of_lines(lines);
        Self {
            text: source.text()[place.start..place.end].trim_end_matches('\r'),
            start: place.start,
            first_line: lines.first,
        }
    }

    fn annotation<'b>(&self, kind: AnnotationKind, span: Span, words: &'b str) -> Annotation<'b> {
        let shifted = |offset: usize| offset.saturating_sub(self.start);
        let range = inside(self.text, Span::new(shifted(span.start), shifted(span.end)));
        kind.span(range).label((!words.is_empty()).then_some(words))
    }
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
         --> Dockerfile:4:28
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
        let terminal = Terminal {
            has_colours: true,
            columns: None,
        };
        assert!(render(&diagnostic, &source, terminal).contains('\x1b'));
    }

    /// Shows the place of `marked` in a text, in a terminal of a width.
    fn show_in(text: &str, marked: &str, columns: Option<usize>) -> String {
        let start = text.find(marked).unwrap();
        let span = Span::new(start, start + marked.len());
        let diagnostic = Diagnostic::error("x", Phase::Parse, span, format!("not `{marked}`"))
            .with_label("here");
        let terminal = Terminal {
            columns,
            has_colours: false,
        };
        render(
            &diagnostic,
            &Source::new("Dockerfile", text.as_bytes()),
            terminal,
        )
    }

    #[test]
    fn a_long_line_is_clipped_around_the_place() {
        let text = format!(
            "FROM a\nRUN {} --mistake {}\n",
            "one two ".repeat(200),
            "three ".repeat(9_000)
        );
        for columns in [None, Some(80), Some(40), Some(1)] {
            let shown = show_in(&text, "--mistake", columns);
            let widest = shown.lines().map(|line| line.chars().count()).max();
            // The line numbers stand beside what is clipped.
            let limit = columns.unwrap_or(WIDTH_OF_FILES).max(LEAST_WIDTH) + 10;
            assert!(widest <= Some(limit), "{columns:?}: {widest:?}\n{shown}");
            let lines: Vec<&str> = shown.lines().collect();
            let [source, carets] = [lines[3], lines[4]];
            let at =
                |line: &str, word: &str| line.find(word).map(|byte| line[..byte].chars().count());
            assert_eq!(at(source, "--mistake"), at(carets, "^^^^^^^^^"), "{shown}");
            assert!(carets.contains("here"), "{shown}");
        }
    }

    #[test]
    fn carets_stand_below_their_words_whatever_stands_before() {
        insta::assert_snapshot!(show_in("RUN\ta\tb", "b", None), @r"
        error[x]: not `b`
         --> Dockerfile:1:7
          |
        1 | RUN    a    b
          |             ^ here
        ");
        insta::assert_snapshot!(show_in("LABEL 名前=\"値\" x", "x", None), @r#"
        error[x]: not `x`
         --> Dockerfile:1:14
          |
        1 | LABEL 名前="値" x
          |                 ^ here
        "#);
        insta::assert_snapshot!(show_in("FROM a\r\nENV é \"b\r\n", "\"b", None), @r#"
        error[x]: not `"b`
         --> Dockerfile:2:7
          |
        2 | ENV é "b
          |       ^^ here
        "#);
    }

    #[test]
    fn a_file_cannot_speak_to_the_terminal() {
        let shown = show_in("FROM a\n\x1b[2JRUN\x07 b\u{202e}\n", "\x1b[2JRUN\x07", None);
        assert!(!shown.contains(['\x1b', '\x07', '\u{202e}']), "{shown:?}");
    }

    #[test]
    fn of_many_the_first_are_shown() {
        let source = Source::new("Dockerfile", DOCKERFILE);
        let many: Vec<_> = (0..27)
            .map(|at| Diagnostic::error("x", Phase::Parse, Span::new(at, at + 1), "m"))
            .collect();
        let text = render_all(many.iter(), &source, Terminal::default());
        assert_eq!(text.matches("error[x]").count(), MOST_SHOWN);
        assert!(text.ends_with("\n\nand 7 more\n"), "{text}");
    }
}
