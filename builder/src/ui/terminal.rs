//! What stderr can show.

use std::io::IsTerminal;
use std::os::fd::AsFd;

/// What stderr can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Colours of our own and of commands are wanted.
    pub(crate) has_colours: bool,
    /// Width in columns; none where there is no terminal.
    pub(crate) columns: Option<usize>,
}

impl Terminal {
    /// Looks at stderr, `NO_COLOR` (no-color.org: any value but the empty one) and `TERM`.
    pub(crate) fn of_stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    /// The same of stdout.
    pub(crate) fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let refuses = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        // Not a terminal, or one that does not know.
        let size = rustix::termios::tcgetwinsize(stream).ok();
        let columns = size
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Self {
            has_colours: stream.is_terminal() && !refuses && !is_dumb,
            columns,
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

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// At least 1.
    pub(crate) columns: usize,
    /// At least 1.
    pub(crate) rows: usize,
}

impl Size {
    /// stderr's, if it is a terminal on which the cursor can be moved.
    pub(crate) fn of_stderr() -> Option<Self> {
        Self::of(&std::io::stderr())
    }

    /// The same of stdout.
    pub(crate) fn of_stdout() -> Option<Self> {
        Self::of(&std::io::stdout())
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Option<Self> {
        if !stream.is_terminal() || std::env::var_os("TERM").is_some_and(|value| value == "dumb") {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(stream).ok()?;
        let or = |cells: u16, default| match cells {
            0 => default, // a terminal that does not know, as over some serial lines
            cells => usize::from(cells),
        };
        Some(Self {
            columns: or(size.ws_col, 80),
            rows: or(size.ws_row, 24),
        })
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
