//! Instructions that only change the config and the history.

use super::budget::ENTRY;
use super::checks::Place;
use super::evaluate::{Evaluator, SILENT_ARGS};
use super::global::expansion_error;
use super::history;
use super::port::Ports;
use super::signal;
use crate::diagnostic::{Diagnostic, Edit, Errors, Found};
use crate::graph::BuildArgument;
use crate::image_config::HealthcheckConfig;
use crate::instruction::{
    ArgPair, CommandLine, Healthcheck, Instruction, InstructionKind, NameValue,
};
use crate::source::Span;
use crate::text::to_strings;
use crate::word::{self, Mode};

/// The place of a part of an instruction, for a check.
fn place_at(instruction: &Instruction, span: Span) -> Place<'_> {
    Place {
        span,
        ..Place::from(instruction)
    }
}

/// Adds a pair to an instruction's text in the history.
fn push_pair(text: &mut String, name: &str, value: &str) {
    text.extend([" ", name, "=", value]);
}

impl Evaluator<'_, '_> {
    /// Applies an instruction that makes no step.
    pub(super) fn apply_config(&mut self, instruction: &Instruction) -> Result<(), Errors> {
        let text = match &instruction.kind {
            InstructionKind::Env(pairs) => self.env(instruction, pairs)?,
            InstructionKind::Label(pairs) => self.label(instruction, pairs)?,
            InstructionKind::Arg(pairs) => self.arg(instruction, pairs)?,
            InstructionKind::Cmd(command) => self.cmd(instruction, command),
            InstructionKind::Entrypoint(command) => self.entrypoint(instruction, command),
            InstructionKind::Healthcheck(check) => self.healthcheck(instruction, check),
            InstructionKind::Expose(words) => self.expose(instruction, words)?,
            InstructionKind::Stopsignal(text) => self.stop_signal(instruction, text)?,
            InstructionKind::User(text) => {
                let user = self.expand(instruction, text)?.text;
                self.state.image.config.user.clone_from(&user);
                format!("USER {user}")
            }
            InstructionKind::Volume(words) => self.volume(instruction, words)?,
            InstructionKind::Shell(words) => {
                self.state.image.config.shell.clone_from(words);
                format!("SHELL {}", history::list(words))
            }
            InstructionKind::Maintainer(name) => {
                self.state.image.author = name.to_string();
                format!("MAINTAINER {name}")
            }
            InstructionKind::Onbuild(trigger) => {
                self.state.image.config.on_build.push(trigger.clone());
                return Ok(());
            }
            // These make steps; the caller has dealt with them.
            InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_) => return Ok(()),
        };
        self.state.history.push(history::config_entry(text));
        Ok(())
    }

    /// Expands all pairs with what was set before the instruction.
    fn pairs(
        &mut self,
        instruction: &Instruction,
        pairs: &[NameValue],
    ) -> Result<Vec<(String, String)>, Errors> {
        let mut found = Found::default();
        let expanded = pairs.iter().map(|pair| {
            let name = found.or_default(self.expand(instruction, &pair.name)).text;
            let value = found.or_default(self.expand(instruction, &pair.value)).text;
            (name, value)
        });
        let expanded = expanded.collect();
        found.into_result().map(|()| expanded)
    }

    fn env(&mut self, instruction: &Instruction, pairs: &[NameValue]) -> Result<String, Errors> {
        let mut text = String::from("ENV");
        for (pair, (name, value)) in pairs.iter().zip(self.pairs(instruction, pairs)?) {
            self.check_legacy(instruction, "ENV", pair);
            if self.is_trigger(instruction) {
                self.checks
                    .secret_name(place_at(instruction, pair.span), &name);
            }
            self.state.variables.set(&name, &value);
            self.state.set_env(&name, &value);
            push_pair(&mut text, &name, &value);
        }
        Ok(text)
    }

    fn label(&mut self, instruction: &Instruction, pairs: &[NameValue]) -> Result<String, Errors> {
        let mut text = String::from("LABEL");
        for (pair, (name, value)) in pairs.iter().zip(self.pairs(instruction, pairs)?) {
            self.check_legacy(instruction, "LABEL", pair);
            push_pair(&mut text, &name, &value);
            self.state.image.config.labels.insert(name, value);
        }
        Ok(text)
    }

    /// Whether an instruction came with the base: then it stands where the FROM stands.
    fn is_trigger(&self, instruction: &Instruction) -> bool {
        instruction.span == self.head().stage.span
    }

    fn check_legacy(&mut self, instruction: &Instruction, keyword: &str, pair: &NameValue) {
        if pair.is_legacy && self.is_trigger(instruction) {
            let place = place_at(instruction, pair.span);
            self.checks.legacy_pair(place, keyword, &pair.name);
        }
    }

    fn arg(&mut self, instruction: &Instruction, pairs: &[ArgPair]) -> Result<String, Errors> {
        let mut found = Found::default();
        let mut words = vec!["ARG".to_owned()];
        for ArgPair {
            name,
            default,
            span,
        } in pairs
        {
            let name = name.as_str();
            if self.is_trigger(instruction) {
                self.checks.secret_name(place_at(instruction, *span), name);
            }
            let value = match (self.inputs.options.build_args.get(name), default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => {
                    let expansion = self.expand(instruction, default);
                    // Behind one that is wrong, a later one of the line may lack its value.
                    let follows = |error: &Diagnostic| error.code != "expansion";
                    Some(match expansion {
                        Err(error) if !found.0.is_empty() && follows(&error) => String::new(),
                        expansion => found.or_default(expansion).text,
                    })
                }
                (None, None) => self.global.variables.get(name).map(str::to_owned),
            };
            if let Some(value) = value.as_deref().filter(|_| !SILENT_ARGS.contains(&name)) {
                self.state.variables.set(name, value);
            }
            let is_given = self.inputs.options.build_args.contains_key(name);
            if default.is_none() && !is_given && self.global.declared.contains(name) {
                self.state.global_arguments.insert(name.to_owned());
            } else {
                self.state.arguments.push(BuildArgument {
                    name: name.to_owned(),
                    value: value.clone(),
                    description: instruction.comments.description_of(name),
                    lines: instruction.lines,
                });
            }
            words.push(
                value
                    .as_ref()
                    .map_or_else(|| name.to_owned(), |value| format!("{name}={value}")),
            );
            self.state.build_args.declare(name, value);
        }
        found.into_result().map(|()| words.join(" "))
    }

    /// The words of a command, with the shell in front of a text.
    fn command_words(
        &mut self,
        instruction: &Instruction,
        keyword: &str,
        command: &CommandLine,
    ) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => to_strings(words),
            CommandLine::Shell(text) => {
                if self.state.image.config.shell.is_empty() {
                    let message = if text.starts_with('[') {
                        format!("this is no JSON array, so {keyword} hands it to a shell as it is")
                    } else {
                        format!("{keyword} in shell form keeps signals from the program")
                    };
                    let span = self.inputs.place_of(instruction.span, text);
                    let place = Place::from(instruction).at(span);
                    self.checks.warn("JSONArgsRecommended", place, message);
                }
                let mut words = self.state.shell();
                words.push(text.to_string());
                words
            }
        }
    }

    fn cmd(&mut self, instruction: &Instruction, command: &CommandLine) -> String {
        self.counts_once(instruction, "CMD");
        let words = self.command_words(instruction, "CMD", command);
        self.state.image.config.args_escaped = true;
        self.state.image.config.cmd.clone_from(&words);
        format!("CMD {}", history::quoted_list(&words))
    }

    fn entrypoint(&mut self, instruction: &Instruction, command: &CommandLine) -> String {
        self.counts_once(instruction, "ENTRYPOINT");
        let words = self.command_words(instruction, "ENTRYPOINT", command);
        self.state.image.config.entrypoint.clone_from(&words);
        // A CMD of the base was meant for the base's entrypoint.
        if !self.state.once.contains_key("CMD") {
            self.state.image.config.cmd.clear();
        }
        format!("ENTRYPOINT {}", history::quoted_list(&words))
    }

    /// Notes an instruction of which only the last in a stage has an effect.
    fn counts_once(&mut self, instruction: &Instruction, keyword: &'static str) {
        let start = instruction.span.start;
        let word = Span::new(start, (start + keyword.len()).min(instruction.span.end));
        let place = (word, instruction.lines);
        if let Some(earlier) = self.state.once.insert(keyword, place) {
            self.checks
                .replaced(earlier, keyword, &instruction.comments);
        }
    }

    fn healthcheck(&mut self, instruction: &Instruction, check: &Healthcheck) -> String {
        self.counts_once(instruction, "HEALTHCHECK");
        let config = match check {
            Healthcheck::None => HealthcheckConfig {
                test: vec!["NONE".to_owned()],
                ..HealthcheckConfig::default()
            },
            Healthcheck::Command {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            } => {
                let test = match command {
                    CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.to_string()],
                    CommandLine::Exec(words) => {
                        [vec!["CMD".to_owned()], to_strings(words)].concat()
                    }
                };
                HealthcheckConfig {
                    test,
                    interval: *interval,
                    timeout: *timeout,
                    start_period: *start_period,
                    start_interval: *start_interval,
                    retries: *retries,
                    ..HealthcheckConfig::default()
                }
            }
        };
        let text = format!("HEALTHCHECK {}", history::healthcheck(&config));
        self.state.image.config.healthcheck = Some(config);
        text
    }

    fn expose(&mut self, instruction: &Instruction, words: &[String]) -> Result<String, Errors> {
        let mut keys = Vec::new();
        let mut found = Found::default();
        for word in words {
            // The one instruction whose unset variables the reference does not report.
            let mode = Mode::new(self.inputs.program.escape);
            let effort = self.inputs.effort;
            let expansion = word::expand_within(word, mode, &self.state.variables, effort, true)
                .map_err(|error| expansion_error(self.inputs, instruction.span, word, &error));
            for port in found.or_default(expansion).words {
                let ports = match Ports::parse(&port) {
                    Ok(ports) => ports,
                    Err(reason) => {
                        let message = format!("`{port}` is not a port: {reason}");
                        let error = self
                            .inputs
                            .error_at("invalid-port", instruction, word, message)
                            .with_help("ports look like `80`, `53/udp` or `8000-8010`; protocols are tcp, udp and sctp");
                        found.0.push(error);
                        continue;
                    }
                };
                let span = self.inputs.place_of(instruction.span, word);
                let place = Place::from(instruction).at(span);
                if ports.has_odd_protocol_case() {
                    let message = format!("the protocol of `{port}` is not in lower case");
                    let edit = self.port_edit(instruction, word, |word| {
                        let (port, protocol) = word.rsplit_once('/')?;
                        Some(format!("{port}/{}", protocol.to_lowercase()))
                    });
                    self.checks
                        .warn_mendable("ExposeProtoCasing", place, message, edit);
                }
                if ports.has_host_part {
                    let message = format!("the address or host port of `{port}` has no effect");
                    // Ports go into the history in the order of their words, which an edit could change.
                    let edit = self.port_edit(instruction, word, |word| {
                        let (_, port) = word.rsplit_once(':').filter(|_| words.len() == 1)?;
                        Some(port.to_owned())
                    });
                    self.checks
                        .warn_mendable("ExposeInvalidFormat", place, message, edit);
                }
                // In the list, in the history and perhaps in the config.
                self.budget.take(
                    ports.count() * 3 * ENTRY,
                    instruction.span,
                    instruction.lines,
                )?;
                keys.extend(ports.keys());
            }
        }
        found.into_result()?;
        self.state
            .image
            .config
            .exposed_ports
            .extend(keys.iter().cloned());
        Ok(format!("EXPOSE {}", history::list(&keys)))
    }

    /// What writes a word of an EXPOSE differently, if it stands in the file as it is.
    fn port_edit(
        &self,
        instruction: &Instruction,
        word: &str,
        change: impl Fn(&str) -> Option<String>,
    ) -> Option<Edit> {
        let source = self.inputs.program.source.text();
        // A trigger's words don't stand where its FROM does.
        let keyword = source.get(instruction.span.start..)?.get(..6)?;
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "./:-[]".contains(char);
        let is_simple = keyword.eq_ignore_ascii_case("EXPOSE") && word.chars().all(is_plain);
        Some(Edit {
            span: self
                .inputs
                .find(instruction.span, word)
                .filter(|_| is_simple)?,
            text: change(word)?,
        })
    }

    fn stop_signal(&mut self, instruction: &Instruction, text: &str) -> Result<String, Diagnostic> {
        let name = self.expand(instruction, text)?.text;
        if !signal::is_signal(&name) {
            let message = format!("`{name}` is not a signal");
            let error = self
                .inputs
                .error_at("invalid-signal", instruction, text, message);
            return Err(match signal::suggestion(&name) {
                Some(known) => error.with_help(format!("did you mean `SIG{known}`?")),
                None => error.with_help("write a name such as `SIGTERM`, or a number"),
            });
        }
        self.state.image.config.stop_signal.clone_from(&name);
        Ok(format!("STOPSIGNAL {name}"))
    }

    fn volume(&mut self, instruction: &Instruction, words: &[String]) -> Result<String, Errors> {
        let mut volumes = Vec::new();
        let mut found = Found::default();
        for word in words {
            let expansion = self.expand(instruction, word);
            let has_failed = expansion.is_err();
            let volume = found.or_default(expansion).text;
            if has_failed {
                continue;
            }
            if volume.is_empty() {
                let message = format!("the volume `{word}` is empty after expansion");
                let error = self
                    .inputs
                    .error_at("empty-volume", instruction, word, message);
                let help = "set the variable with ENV, or with ARG and a default";
                found.0.push(error.with_help(help));
            }
            volumes.push(volume);
        }
        found.into_result()?;
        self.state
            .image
            .config
            .volumes
            .extend(volumes.iter().cloned());
        Ok(format!("VOLUME {}", history::list(&volumes)))
    }
}
