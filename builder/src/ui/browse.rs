//! `rbuild layers IMAGE` on a terminal: the layers and their files as one tree that one walks through.
//!
//! ```text
//! bytes ──keys──▶ Browser::press ──▶ Browser::lines ──▶ the alternate screen
//! ```
//! What is shown is a list of nodes: those whose parents are all open. Everything is drawn anew after each key; there are never
//! more lines than the terminal has rows.

mod keys;
mod nodes;

use std::io::{self, Write as _};
use std::os::fd::AsFd;

use rbuild::layers::{ImageLayers, LayerView};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{OptionalActions, Termios};

use self::keys::Key;
use self::nodes::Node;
use super::fit::{fit, width};
use super::terminal::{Size, Style, Terminal};
use super::units;

/// How long a key is waited for before the terminal's size is looked at again.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Rows around the tree: a title above, the keys below.
const FRAME: usize = 2;

/// Columns of a size.
const NUMBERS: usize = 10;

/// Where what is wasted has room.
const COLUMNS_FOR_WASTED: usize = 50;

/// The tree, and where one stands in it.
struct Browser {
    title: String,
    nodes: Vec<Node>,
    /// What is shown: layers, and whatever is below an open node.
    shown: Vec<usize>,
    /// Position in `shown`.
    cursor: usize,
    /// Position in `shown` of the topmost line.
    top: usize,
    /// Only what hides bytes of lower layers.
    only_wasted: bool,
}

/// Whether there is a terminal on both sides that the tree can be shown on.
pub(crate) fn can_be_shown() -> bool {
    rustix::termios::isatty(io::stdin()) && Size::of_stdout().is_some()
}

/// Shows the tree until it is left. `is_over` is asked now and then, and ends it as well.
pub(crate) fn run(image: &ImageLayers, is_over: impl Fn() -> bool) -> io::Result<()> {
    let mut browser = Browser::new(image);
    let screen = Screen::enter()?;
    let terminal = Terminal::of_stdout();
    let mut drawn = Vec::new();
    while let Some(size) = Size::of_stdout().filter(|_| !is_over()) {
        let lines = browser.lines(size, terminal);
        if lines != drawn {
            screen.draw(&lines)?;
            drawn = lines;
        }
        for key in keys::read_within(&TICK)? {
            if key == Key::Leave {
                return Ok(());
            }
            browser.press(key, size.rows.saturating_sub(FRAME).max(1));
        }
    }
    Ok(())
}

impl Browser {
    fn new(image: &ImageLayers) -> Self {
        let size: u64 = image.layers.iter().map(|layer| layer.size).sum();
        let wasted: u64 = image.layers.iter().map(LayerView::wasted).sum();
        let title = format!(
            "{} in {} layers, {} of them wasted",
            units::bytes(size),
            image.layers.len(),
            units::bytes(wasted)
        );
        let mut browser = Self {
            title,
            nodes: nodes::of(image),
            shown: Vec::new(),
            cursor: 0,
            top: 0,
            only_wasted: false,
        };
        browser.show();
        browser
    }

    /// Finds out what is shown. The cursor stays on its node, or goes to what it is in.
    fn show(&mut self) {
        let mut current = self.shown.get(self.cursor).copied();
        let mut shown = Vec::new();
        let mut waiting: Vec<usize> = nodes::layers(&self.nodes).rev().collect();
        while let Some(index) = waiting.pop() {
            let node = &self.nodes[index];
            if self.only_wasted && node.hidden == 0 {
                continue;
            }
            shown.push(index);
            if node.is_open {
                waiting.extend(node.below.iter().rev());
            }
        }
        self.shown = shown;
        while let Some(index) = current {
            if let Some(position) = self.shown.iter().position(|&shown| shown == index) {
                self.cursor = position;
                return;
            }
            current = self.nodes[index].parent;
        }
        self.cursor = self.cursor.min(self.shown.len().saturating_sub(1));
    }

    /// Does what a key says; `rows` is the height of the tree.
    fn press(&mut self, key: Key, rows: usize) {
        let last = self.shown.len().saturating_sub(1);
        match key {
            Key::Up => self.cursor = self.cursor.saturating_sub(1),
            Key::Down => self.cursor = (self.cursor + 1).min(last),
            Key::PageUp => self.cursor = self.cursor.saturating_sub(rows),
            Key::PageDown => self.cursor = (self.cursor + rows).min(last),
            Key::First => self.cursor = 0,
            Key::Last => self.cursor = last,
            Key::Wasted => {
                self.only_wasted = !self.only_wasted;
                self.show();
            }
            Key::Open | Key::Close | Key::Toggle => {
                let Some(&index) = self.shown.get(self.cursor) else {
                    return;
                };
                let node = &mut self.nodes[index];
                let opens = match key {
                    Key::Open => true,
                    Key::Close => false,
                    _ => !node.is_open,
                };
                if !opens && !node.is_open {
                    // Out of what is closed already, as file managers have it.
                    if let Some(parent) = node.parent {
                        let position = self.shown.iter().position(|&shown| shown == parent);
                        self.cursor = position.unwrap_or(self.cursor);
                    }
                } else {
                    node.is_open = opens && !node.below.is_empty();
                    self.show();
                }
            }
            Key::Leave => {}
        }
    }

    /// As many lines as the terminal has rows, none wider than it.
    fn lines(&mut self, size: Size, terminal: Terminal) -> Vec<String> {
        let rows = size.rows.saturating_sub(FRAME).max(1);
        self.top = self.top.min(self.cursor);
        self.top = self.top.max((self.cursor + 1).saturating_sub(rows));
        let columns = size.columns.saturating_sub(1).max(1);
        let head = format!(
            "{}{}",
            self.title,
            if self.only_wasted {
                "; only what wastes"
            } else {
                ""
            }
        );
        let mut lines = vec![terminal.paint(Style::Bold, &fit(&head, columns))];
        for (position, &index) in self.shown.iter().enumerate().skip(self.top).take(rows) {
            let line = self.line(index, columns);
            lines.push(if position == self.cursor {
                // Reversed; where there are no colours the mark of the line says it.
                format!("\x1b[7m{line}\x1b[0m")
            } else {
                line
            });
        }
        if self.shown.is_empty() {
            lines.push(fit("no layer hides anything of another", columns));
        }
        lines.resize(rows + 1, String::new());
        let keys = "arrows: walk  enter: open, close  w: only what wastes  q: leave";
        lines.push(terminal.paint(Style::Dim, &fit(keys, columns)));
        lines.truncate(size.rows.max(1));
        lines
    }

    fn line(&self, index: usize, columns: usize) -> String {
        let node = &self.nodes[index];
        let arrow = match (node.below.is_empty(), node.is_open) {
            (true, _) => " ",
            (false, true) => "▾",
            (false, false) => "▸",
        };
        let wasted = if node.hidden > 0 {
            format!("{} wasted", units::bytes(node.hidden))
        } else {
            String::new()
        };
        let mut numbers = format!("{:>NUMBERS$}", units::bytes(node.size));
        if columns >= COLUMNS_FOR_WASTED {
            numbers = format!("{numbers}  {wasted:<17}");
        }
        let name = format!(
            "{}{arrow} {} {}",
            "  ".repeat(node.level),
            node.mark,
            node.name
        );
        // Sizes are what one came for: on a narrow terminal the name gives way.
        let room = columns.saturating_sub(width(&numbers) + 1);
        let name = fit(&name, room);
        let padding = " ".repeat(room.saturating_sub(width(&name)));
        fit(&format!("{name}{padding} {numbers}"), columns)
    }
}

/// The alternate screen, without echo and cursor, until it is dropped.
struct Screen {
    before: Termios,
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = rustix::termios::tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        let screen = Self { before };
        screen.write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    fn draw(&self, lines: &[String]) -> io::Result<()> {
        // Between these two, terminals that know them show nothing half-drawn (DEC private mode 2026).
        let mut text = String::from("\x1b[?2026h\x1b[H");
        for (row, line) in lines.iter().enumerate() {
            if row > 0 {
                text += "\r\n";
            }
            text += line;
            text += "\x1b[K";
        }
        text += "\x1b[J\x1b[?2026l";
        self.write(&text)
    }

    #[expect(clippy::unused_self, reason = "only while the screen is ours")]
    fn write(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing put back.
        let _ = self.write("\x1b[?25h\x1b[?1049l");
        let stdin = io::stdin();
        let _ = rustix::termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &self.before);
    }
}

/// Whether stdin has something within this time.
fn is_ready(within: &Timespec) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut descriptors = [PollFd::new(&stdin, PollFlags::IN)];
    match rustix::event::poll(&mut descriptors, Some(within)) {
        Ok(ready) => Ok(ready > 0),
        // A signal: the caller looks whether it is over.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;
