//! RUN.

use super::evaluate::Evaluator;
use super::history;
use super::reach::StageInstruction;
use crate::diagnostic::Errors;
use crate::graph::{InlineFile, MountKind, Network, Operation, Run, Security};
use crate::instruction::{CommandLine, Heredoc, RunInstruction};
use crate::text::to_strings;

/// Where a heredoc with an interpreter line is put.
const SCRIPT_DIRECTORY: &str = "/dev/pipes";
/// Host name in a step; `BUILDKIT_SANDBOX_HOSTNAME` overrides it.
const HOSTNAME: &str = "buildkitsandbox";
/// Build args that every RUN gets, in any case, without a word in the Dockerfile.
const PROXY_ARGS: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

impl Evaluator<'_, '_> {
    pub(super) fn apply_run(
        &mut self,
        planned: &StageInstruction<'_>,
        run: &RunInstruction,
    ) -> Result<(), Errors> {
        let instruction = &*planned.instruction;
        let (argv, scripts) = self.command(run);
        let mounts = self.mounts(instruction, &run.mounts)?;
        let title = self.run_title(planned, run);
        let repeated = self.state.variables.size() + self.state.build_args.size();
        self.budget
            .take(repeated, instruction.span, instruction.lines)?;
        let text = history::run_text(&argv, &self.state.build_args, &self.state.variables);
        let mut environment = self.state.variables.pairs().to_vec();
        let socket = mounts.iter().find_map(|mount| match mount.kind {
            MountKind::Ssh { .. } => Some(mount.target.clone()),
            _ => None,
        });
        if let Some(socket) = socket.filter(|_| self.state.variables.get("SSH_AUTH_SOCK").is_none())
        {
            environment.push(("SSH_AUTH_SOCK".to_owned(), socket));
        }
        let mut sorted: Vec<_> = mounts;
        sorted.sort_by(|left, right| left.target.cmp(&right.target));
        let build_args = &self.inputs.options.build_args;
        let operation = Run {
            argv,
            scripts,
            environment,
            proxy_environment: self.proxy_environment(),
            working_directory: self.state.directory(),
            user: self.state.image.config.user.clone(),
            network: match run.network {
                Some("none") => Network::None,
                Some("host") => Network::Host,
                Some(_) => Network::Default,
                None => self.inputs.options.network,
            },
            security: match run.security {
                Some("insecure") => Security::Insecure,
                _ => Security::Sandbox,
            },
            mounts: sorted,
            hostname: build_args
                .get("BUILDKIT_SANDBOX_HOSTNAME")
                .filter(|name| !name.is_empty())
                .map_or(HOSTNAME, String::as_str)
                .to_owned(),
            devices: run.devices.clone(),
        };
        let step = self.push_step(planned, Operation::Run(Box::new(operation)), title);
        self.state.history.push(history::layer_entry(&text, step));
        Ok(())
    }

    /// The command, and the script it runs if a heredoc is one.
    fn command(&self, run: &RunInstruction) -> (Vec<String>, Vec<InlineFile>) {
        let text = match &run.command {
            CommandLine::Exec(words) => {
                return (to_strings(words), Vec::new());
            }
            CommandLine::Shell(text) => text,
        };
        let mut scripts = Vec::new();
        let text = match &run.heredocs[..] {
            [] => text.to_string(),
            [heredoc, ..] if is_heredoc_alone(text, heredoc) => {
                let body = heredoc.body();
                if self.state.image.os != "windows" && body.starts_with("#!") {
                    let path = format!("{SCRIPT_DIRECTORY}/{}", heredoc.name);
                    scripts.push(InlineFile {
                        name: heredoc.name.clone(),
                        content: body,
                    });
                    path
                } else {
                    body
                }
            }
            heredocs => {
                let bodies = heredocs
                    .iter()
                    .map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name));
                std::iter::once(text.to_string()).chain(bodies).collect()
            }
        };
        let mut argv = self.state.shell();
        argv.push(text);
        (argv, scripts)
    }

    fn run_title(&self, planned: &StageInstruction<'_>, run: &RunInstruction) -> String {
        let title = self.title(planned);
        match (&run.command, &run.heredocs[..]) {
            (CommandLine::Shell(text), [heredoc, ..]) if is_heredoc_alone(text, heredoc) => {
                let mut lines = heredoc.content.trim().lines();
                let first = lines.next().unwrap_or_default().trim_end();
                let more = if lines.next().is_some() { "..." } else { "" };
                format!("{title} ({first}{more})")
            }
            _ => title,
        }
    }

    fn proxy_environment(&self) -> Vec<(String, String)> {
        let given = |name: &str| {
            let args = self.inputs.options.build_args.iter();
            args.filter(|(arg, _)| arg.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
                .next_back()
        };
        PROXY_ARGS
            .iter()
            .filter_map(|name| Some((*name, given(name)?)))
            .flat_map(|(name, value)| {
                [
                    (name.to_owned(), value.clone()),
                    (name.to_lowercase(), value),
                ]
            })
            .collect()
    }
}

/// Whether the command is nothing but the word that announces its first heredoc.
fn is_heredoc_alone(text: &str, heredoc: &Heredoc) -> bool {
    crate::heredoc::parse_word(text).is_some_and(|alone| alone.name == heredoc.name)
}
