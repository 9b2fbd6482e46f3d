//! What stderr can show.

use std::io::IsTerminal;

/// What stderr can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Colours of our own and of commands are wanted.
    pub(crate) has_colours: bool,
}

impl Terminal {
    /// Looks at stderr, `NO_COLOR` (no-color.org: any value but the empty one) and `TERM`.
    pub(crate) fn of_stderr() -> Self {
        let refuses = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            has_colours: std::io::stderr().is_terminal() && !refuses && !is_dumb,
        }
    }

    /// The text in a style, if there are styles.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if !self.has_colours {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Red => "1;31",
            Style::Green => "32",
            Style::Blue => "34",
            Style::Cyan => "1;36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A title.
    Bold,
    /// A detail.
    Dim,
    /// A failure.
    Red,
    /// Good news.
    Green,
    /// A label.
    Blue,
    /// A way out.
    Cyan,
}
