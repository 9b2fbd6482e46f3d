//! rbuild's own log (`tracing`), on stderr. For us; users have events.

use std::collections::BTreeMap;

use tracing_subscriber::EnvFilter;

use super::terminal::Terminal;

/// Starts logging: `--log-level`, else `RBUILD_LOG` or `RUST_LOG` with `tracing`'s filter syntax, else warnings.
pub(crate) fn start(level: Option<&str>, variables: &BTreeMap<String, String>) {
    let variable = ["RBUILD_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| variables.get(name))
        .map(String::as_str);
    let filter = EnvFilter::new(level.or(variable).unwrap_or("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(Terminal::of_stderr().has_colours)
        .without_time()
        .finish();
    // Fails only where a library user installed one before: theirs stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
