//! `rbuild run`: what was typed, and what it means.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use rbuild::{RunNetwork, RunOptions, RunVolume};

use super::args::IsolationArgs;
use super::error::UsageError;
use super::limits::LimitArgs;
use super::request::Variables;
use super::values::parse_host;

/// `rbuild run`
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// A variable: NAME=VALUE, or NAME with the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A file or directory of this machine, seen inside
    #[arg(short, long, value_name = "HOST:PATH[:ro]")]
    volume: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// User and group, names of the image or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A program in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Network: default (a private one), host or none
    #[arg(long, value_name = "MODE")]
    network: Option<String>,
    /// A TCP port of this machine that leads inside
    #[arg(short, long, value_name = "[HOST:]PORT")]
    publish: Vec<String>,
    /// A line for /etc/hosts
    #[arg(long, value_name = "HOST:ADDRESS")]
    add_host: Vec<String>,
    /// A terminal of its own, for interactive programs
    #[arg(short, long)]
    tty: bool,
    /// Accepted: standard input is always handed on
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// Accepted: nothing of a run is ever kept
    #[arg(long, hide = true)]
    rm: bool,
    #[command(flatten)]
    limits: LimitArgs,
    /// Name or id of an image in the store
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The command; without it the image's own
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) isolation: IsolationArgs,
}

impl RunArgs {
    /// What was meant.
    pub(crate) fn options(&self, variables: &Variables) -> Result<RunOptions, UsageError> {
        let network = match self.network.as_deref() {
            None | Some("" | "default" | "bridge") => RunNetwork::Private,
            Some("host") => RunNetwork::Host,
            Some("none") => RunNetwork::None,
            Some(other) => {
                let reason = "it is one of default, host, none";
                return Err(UsageError::value("--network", other, reason));
            }
        };
        let ports = collect(&self.publish, port)?;
        if !ports.is_empty() && network != RunNetwork::Private {
            return Err(UsageError::Conflict {
                first: "--publish",
                second: "--network",
                reason: "don't go together: only a private network has ports to lead into",
                help: None,
            });
        }
        let environment = self
            .env
            .iter()
            .filter_map(|text| match text.split_once('=') {
                Some((name, value)) => Some((name.to_owned(), value.to_owned())),
                // As docker does: what is not set here is left out.
                None => Some((text.clone(), variables.get(text)?.clone())),
            });
        Ok(RunOptions {
            command: self.command.clone(),
            entrypoint: self.entrypoint.clone(),
            environment: environment.collect(),
            volumes: collect(&self.volume, volume)?,
            working_directory: self.workdir.clone(),
            user: self.user.clone(),
            network,
            ports,
            extra_hosts: collect(&self.add_host, parse_host)?,
            limits: self.limits.limits()?,
            has_terminal: self.tty,
        })
    }
}

fn collect<T>(
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, UsageError>,
) -> Result<Vec<T>, UsageError> {
    texts.iter().map(|text| parse(text)).collect()
}

fn port(text: &str) -> Result<(u16, u16), UsageError> {
    let wrong = || {
        UsageError::value("--publish", text, "it is not [HOST:]PORT")
            .with_help("for example `8080:80`; only TCP, on all addresses")
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let plain = text.strip_suffix("/tcp").unwrap_or(text);
    let (host, inside) = plain.split_once(':').unwrap_or((plain, plain));
    number(host).zip(number(inside)).ok_or_else(wrong)
}

fn volume(text: &str) -> Result<RunVolume, UsageError> {
    let wrong = |reason: &str| {
        UsageError::value("--volume", text, reason).with_help("for example `./data:/data:ro`")
    };
    let mut parts = text.split(':');
    let (Some(host), Some(target)) = (parts.next(), parts.next()) else {
        return Err(wrong("it is not HOST:PATH[:ro]"));
    };
    let is_read_only = match (parts.next(), parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        _ => return Err(wrong("after the path stands `ro`, `rw` or nothing")),
    };
    if !target.starts_with('/') {
        return Err(wrong("the path inside begins with `/`"));
    }
    // Names of volumes are directories of a daemon, and there is none.
    let looks_like_a_path = host.starts_with(['/', '.']);
    if !looks_like_a_path {
        return Err(wrong(
            "there are no named volumes: a path begins with `/` or `.`",
        ));
    }
    let host = PathBuf::from(host);
    let host = host
        .canonicalize()
        .map_err(|error| wrong(&format!("`{}`: {error}", host.display())))?;
    Ok(RunVolume {
        host,
        target: target.to_owned(),
        is_read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_volumes() {
        assert_eq!(port("8080:80").unwrap(), (8080, 80));
        assert_eq!(port("80/tcp").unwrap(), (80, 80));
        for wrong in ["0", "80/udp", "1:2:3", "127.0.0.1:1:2", "x"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
        let found = volume("/:/host:ro").unwrap();
        assert_eq!((found.target.as_str(), found.is_read_only), ("/host", true));
        for (wrong, reason) in [
            ("/", "HOST:PATH"),
            ("/:x", "begins with `/`"),
            ("data:/data", "named volumes"),
            ("/:/x:z", "`ro`, `rw`"),
            ("/does/not/exist:/x", "No such file"),
        ] {
            let error = volume(wrong).unwrap_err().to_string();
            assert!(error.contains(reason), "{wrong}: {error}");
        }
    }
}
