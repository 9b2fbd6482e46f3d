//! Mounts of a RUN: options become targets, inputs and defaults.

use super::evaluate::Evaluator;
use super::reach::mount_source;
use super::table::{FromKind, FromName};
use crate::diagnostic::{Diagnostic, Errors, Found};
use crate::graph::{Input, Mount, MountKind};
use crate::instruction::{Instruction, MountRecord};
use crate::mount_options::{
    MountOptions, MountType, OptionError, ReadError, SOURCE_KEYS, TARGET_KEYS, place_of_option,
};
use crate::path;
use crate::source::Span;

impl Evaluator<'_, '_> {
    /// All mounts in the order of their flags.
    pub(super) fn mounts(
        &mut self,
        instruction: &Instruction,
        records: &[MountRecord],
    ) -> Result<Vec<Mount>, Errors> {
        let mut found = Found::default();
        let mut read = Vec::new();
        for record in records {
            let options = MountOptions::read(&record.text, |value| {
                Ok(self.expand(instruction, value)?.text)
            });
            match options {
                Ok(options) => read.push((record, options)),
                Err(errors) => {
                    for error in errors {
                        found.push(match error {
                            ReadError::Expansion(error) => error,
                            ReadError::Option(error) => {
                                self.option_error(instruction, record, error)
                            }
                        });
                    }
                }
            }
        }
        // The reference reads all before it looks at what they say: those errors stay the first ones.
        let mut agents = 0;
        let mut mounts = Vec::new();
        for (record, options) in read {
            let mount = self.mount(instruction, record, options, &mut agents);
            mounts.extend(found.or_default(mount.map(Some)));
        }
        found.into_result().map(|()| mounts)
    }

    fn mount(
        &mut self,
        instruction: &Instruction,
        record: &MountRecord,
        options: MountOptions,
        agents: &mut usize,
    ) -> Result<Mount, Diagnostic> {
        let from = self.mount_input(instruction, &record.text)?;
        Ok(match options.kind {
            MountType::Secret => self.secret(options),
            MountType::Ssh => {
                *agents += 1;
                self.ssh(instruction, record, options, *agents - 1)?
            }
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                self.directory_mount(instruction, record, options, from)?
            }
        })
    }

    /// An error about an option of a mount, pointing at it.
    fn option_error(
        &self,
        instruction: &Instruction,
        record: &MountRecord,
        error: OptionError,
    ) -> Diagnostic {
        let file = self.inputs.program.source.text();
        let place = record.span;
        let span = if file.get(place.start..place.end) == Some(&*record.text) {
            Span::new(
                place.start + error.place.start,
                place.start + error.place.end,
            )
        } else {
            self.inputs.place_of(place, &record.text[error.place])
        };
        super::error("invalid-mount", span, error.message)
            .within(instruction.lines)
            .with_help(error.help)
    }

    /// An error about the option of one of these names, the last one.
    fn error_about(
        &self,
        instruction: &Instruction,
        record: &MountRecord,
        keys: &[&str],
        (message, help): (&str, &str),
    ) -> Diagnostic {
        let error = OptionError {
            place: place_of_option(&record.text, keys),
            message: message.to_owned(),
            help: help.to_owned(),
        };
        self.option_error(instruction, record, error)
    }

    /// Where a mount's `from` points; it is resolved for every type, so that a wrong name never passes.
    fn mount_input(
        &mut self,
        instruction: &Instruction,
        record: &str,
    ) -> Result<Option<Input>, Diagnostic> {
        match mount_source(record).filter(|name| !name.is_empty()) {
            Some(name) => self
                .input(
                    instruction,
                    FromName {
                        name: &name,
                        kind: FromKind::Mount,
                    },
                )
                .map(Some),
            None => Ok(None),
        }
    }

    fn directory_mount(
        &self,
        instruction: &Instruction,
        record: &MountRecord,
        options: MountOptions,
        from: Option<Input>,
    ) -> Result<Mount, Diagnostic> {
        let target = path::resolve(&self.state.directory(), &options.target);
        if target == "/" {
            let words = ("a mount can't cover `/`", "give it a target below `/`");
            return Err(self.error_about(instruction, record, TARGET_KEYS, words));
        }
        let source = path::clean(&format!("/{}", options.source));
        let is_read_only = options.is_read_only();
        let kind = match options.kind {
            MountType::Cache => {
                let id = if options.id.is_empty() {
                    path::clean(&options.target)
                } else {
                    options.id
                };
                let namespace = self
                    .inputs
                    .options
                    .build_args
                    .get("BUILDKIT_CACHE_MOUNT_NS");
                MountKind::Cache {
                    id: format!("{}/{id}", namespace.map_or("", String::as_str)),
                    sharing: options.sharing.unwrap_or_default(),
                    is_read_only,
                    from: from.unwrap_or(Input::Empty),
                    source,
                    uid: options.uid.unwrap_or(0),
                    gid: options.gid.unwrap_or(0),
                    mode: options.mode.unwrap_or(0o755),
                }
            }
            MountType::Tmpfs => MountKind::Tmpfs {
                size: Some(options.size).filter(|size| *size > 0),
                is_read_only,
            },
            MountType::Bind | MountType::Secret | MountType::Ssh => MountKind::Bind {
                from: from.unwrap_or(Input::Context),
                source,
                is_read_only,
            },
        };
        Ok(Mount { target, kind })
    }

    fn secret(&self, options: MountOptions) -> Mount {
        let id = [
            options.source,
            options.id,
            path::base_name(&options.target).to_owned(),
        ];
        let id = id.into_iter().find(|id| !id.is_empty()).unwrap_or_default();
        let target = match (&options.target[..], &options.environment) {
            ("", None) => format!("/run/secrets/{}", path::base_name(&id)),
            ("", Some(_)) => String::new(),
            (target, _) => path::resolve(&self.state.directory(), target),
        };
        // `env=` without a name uses the secret's.
        let environment = options
            .environment
            .map(|name| if name.is_empty() { id.clone() } else { name });
        let kind = MountKind::Secret {
            environment,
            is_required: options.is_required,
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
            mode: options.mode.unwrap_or(0o400),
            id,
        };
        Mount { target, kind }
    }

    fn ssh(
        &self,
        instruction: &Instruction,
        record: &MountRecord,
        options: MountOptions,
        number: usize,
    ) -> Result<Mount, Diagnostic> {
        if !options.source.is_empty() {
            let message = "a ssh mount has no option `source`";
            let words = (message, "say which agent with `id=name`");
            return Err(self.error_about(instruction, record, SOURCE_KEYS, words));
        }
        let target = match &options.target[..] {
            "" => format!("/run/buildkit/ssh_agent.{number}"),
            target => path::resolve(&self.state.directory(), target),
        };
        let kind = MountKind::Ssh {
            id: if options.id.is_empty() {
                "default".to_owned()
            } else {
                options.id
            },
            is_required: options.is_required,
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
            mode: options.mode.unwrap_or(0o600),
        };
        Ok(Mount { target, kind })
    }
}
