//! Mounts of a RUN: options become targets, inputs and defaults.

use super::evaluate::Evaluator;
use super::reach::mount_source;
use super::table::{FromKind, FromName};
use crate::diagnostic::{Diagnostic, Errors, Found};
use crate::graph::{Input, Mount, MountKind};
use crate::instruction::Instruction;
use crate::mount_options::{MountOptions, MountType, ReadError};
use crate::path;
use crate::text::Text;

impl Evaluator<'_, '_> {
    /// All mounts in the order of their flags.
    pub(super) fn mounts(
        &mut self,
        instruction: &Instruction,
        records: &[Text],
    ) -> Result<Vec<Mount>, Errors> {
        let mut found = Found::default();
        let mut read = Vec::new();
        for record in records {
            let options =
                MountOptions::read(record, |value| Ok(self.expand(instruction, value)?.text));
            read.extend(found.or_default(options.map(Some).map_err(|error| {
                match error {
                    ReadError::Expansion(error) => error,
                    ReadError::Option(error) => self
                        .option_error(instruction, record, &error.word, error.message)
                        .with_help(error.help),
                }
            })));
        }
        found.into_result()?;
        let mut found = Found::default();
        let mut agents = 0;
        let mut mounts = Vec::new();
        for (record, options) in records.iter().zip(read) {
            let mount = self.mount(instruction, record, options, &mut agents);
            mounts.extend(found.or_default(mount.map(Some)));
        }
        found.into_result().map(|()| mounts)
    }

    fn mount(
        &mut self,
        instruction: &Instruction,
        record: &str,
        options: MountOptions,
        agents: &mut usize,
    ) -> Result<Mount, Diagnostic> {
        let from = self.mount_input(instruction, record)?;
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

    /// An error about a word of a mount, pointing at it.
    fn option_error(
        &self,
        instruction: &Instruction,
        record: &str,
        word: &str,
        message: String,
    ) -> Diagnostic {
        let of_record = self.inputs.place_of(instruction.span, record);
        let span = self.inputs.place_of(of_record, word);
        super::error("invalid-mount", span, message).within(instruction.lines)
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
        record: &str,
        options: MountOptions,
        from: Option<Input>,
    ) -> Result<Mount, Diagnostic> {
        let target = path::resolve(&self.state.directory(), &options.target);
        if target == "/" {
            let message = "a mount can't cover `/`";
            let error = self
                .inputs
                .error_at("invalid-mount", instruction, record, message);
            return Err(error.with_help("give it a target below `/`"));
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
        record: &str,
        options: MountOptions,
        number: usize,
    ) -> Result<Mount, Diagnostic> {
        if !options.source.is_empty() {
            let message = "a ssh mount has no option `source`".to_owned();
            let error = self.option_error(instruction, record, "source", message);
            return Err(error.with_help("say which agent with `id=name`"));
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
