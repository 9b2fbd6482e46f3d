//! rbuild's own log (`tracing`), on stderr. For us; users have events.

use std::collections::BTreeMap;
use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

use super::console::write_above;
use super::terminal::Terminal;

/// Gathers a message, so that it is written in one piece and not into a live view.
#[derive(Default)]
struct LogWriter(Vec<u8>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        write_above(&String::from_utf8_lossy(&self.0));
    }
}

/// Starts logging: `--log-level`, else `RBUILD_LOG` or `RUST_LOG` with `tracing`'s filter syntax, else warnings.
pub(crate) fn start(level: Option<&str>, variables: &BTreeMap<String, String>) {
    let variable = ["RBUILD_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| variables.get(name))
        .map(String::as_str);
    let filter = EnvFilter::new(level.or(variable).unwrap_or("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LogWriter::default)
        .with_ansi(Terminal::of_stderr().has_colours)
        .without_time()
        .finish();
    // Fails only where a library user installed one before: theirs stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
