//! What is known about a stage while its instructions are evaluated.

use std::collections::{BTreeSet, HashMap};

use super::budget::ENTRY;
use super::variables::{BuildArgs, Variables};
use crate::graph::{BuildArgument, PlannedHistory, StepIndex};
use crate::image_config::ImageConfig;
use crate::path;
use crate::platform::Platform;
use crate::source::{Lines, Span};

/// The search path of an image that names none; the reference's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Keys of old images' configs that describe the container they were committed from, not what to start.
const CONTAINER_KEYS: &[&str] = &[
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Hostname",
    "Image",
    "OpenStdin",
    "StdinOnce",
    "Tty",
];

/// The state after the instructions so far.
#[derive(Clone, Debug)]
pub(super) struct StageState {
    /// The step that leaves the root file system; none is an empty root.
    pub(super) root: Option<StepIndex>,
    /// The image's config so far, without history.
    pub(super) image: ImageConfig,
    pub(super) history: Vec<PlannedHistory>,
    /// What words and RUN steps see: the config's environment and the ARGs with a value.
    pub(super) variables: Variables,
    /// Declared ARGs in order, with the value they had then.
    pub(super) build_args: BuildArgs,
    /// Where each variable stands in the config's environment.
    env_places: HashMap<String, usize>,
    pub(super) platform: Platform,
    /// The named context whose files are the lowest layer: no instruction made that one, so no history tells of it.
    pub(super) context_base: Option<String>,
    /// A WORKDIR stood in this stage or one it is built on.
    pub(super) has_workdir: bool,
    /// Where the last of the instructions stands that count once in a stage. While there is a CMD, an ENTRYPOINT
    /// does not drop it.
    pub(super) once: HashMap<&'static str, (Span, Lines)>,
    /// The ARGs of this stage that are not only handed on from the global scope.
    pub(super) arguments: Vec<BuildArgument>,
    /// Global ARGs that this stage declares without a default.
    pub(super) global_arguments: BTreeSet<String>,
    /// Variables and directories are what the file makes them; false behind an error or on a base that is not known.
    pub(super) is_certain: bool,
}

impl StageState {
    /// The state at the start of a stage on an image.
    pub(super) fn on_image(
        config: &ImageConfig,
        root: Option<StepIndex>,
        platform: Platform,
    ) -> Self {
        let mut image = config.clone().with_created(None);
        // What is left describes how the base itself came to be.
        image.other.clear();
        for key in CONTAINER_KEYS {
            image.config.other.remove(*key);
        }
        image.config.on_build.clear();
        let history = std::mem::take(&mut image.history)
            .into_iter()
            .map(PlannedHistory::Inherited)
            .collect();
        Self::begin(image, history, root, platform)
    }

    /// The state at the start of a stage on an empty root or on files without a config.
    pub(super) fn on_empty(root: Option<StepIndex>, platform: Platform) -> Self {
        let mut image = ImageConfig::default().with_platform(&platform);
        "/".clone_into(&mut image.config.working_dir);
        Self::begin(image, Vec::new(), root, platform)
    }

    /// The state at the start of a stage on something that is not known.
    pub(super) fn on_unknown(platform: Platform) -> Self {
        let mut state = Self::on_empty(None, platform);
        // No directory of the file's: nothing relative to it can be judged to be `/`.
        "/unknown".clone_into(&mut state.image.config.working_dir);
        Self {
            is_certain: false,
            ..state
        }
    }

    fn begin(
        image: ImageConfig,
        history: Vec<PlannedHistory>,
        root: Option<StepIndex>,
        platform: Platform,
    ) -> Self {
        let mut state = Self {
            root,
            image,
            history,
            variables: Variables::default(),
            build_args: BuildArgs::default(),
            env_places: HashMap::new(),
            platform,
            context_base: None,
            has_workdir: false,
            once: HashMap::new(),
            arguments: Vec::new(),
            global_arguments: BTreeSet::new(),
            is_certain: true,
        };
        state.complete_config();
        for (place, (name, value)) in state.image.config.variables().enumerate() {
            state.variables.set(name, value);
            // Of equal names the first is the one that is changed.
            state.env_places.entry(name.to_owned()).or_insert(place);
        }
        state
    }

    /// The state at the start of a stage built on this one: all but the triggers and what counts once per stage.
    pub(super) fn child(&self) -> Self {
        let mut child = self.clone();
        child.image.config.on_build.clear();
        child.once.clear();
        child.arguments.clear();
        child.global_arguments.clear();
        for (name, value) in child.image.config.variables() {
            child.variables.set(name, value);
        }
        child
    }

    /// Sets a variable of the config: in place if the name exists, else at the end.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        let env = &mut self.image.config.env;
        let pair = format!("{name}={value}");
        if let Some(&place) = self.env_places.get(name) {
            env[place] = pair;
        } else {
            self.env_places.insert(name.to_owned(), env.len());
            env.push(pair);
        }
    }

    /// About how many bytes a copy of the state takes.
    pub(super) fn size(&self) -> usize {
        let config = &self.image.config;
        let texts = |texts: &mut dyn Iterator<Item = &String>| -> usize {
            texts.map(|text| text.len() + ENTRY).sum()
        };
        let history = self.history.iter().map(|entry| match entry {
            PlannedHistory::Inherited(entry) | PlannedHistory::New { entry, .. } => {
                entry.created_by.len() + 2 * ENTRY
            }
        });
        2 * self.variables.size()
            + self.build_args.size()
            + texts(&mut config.env.iter())
            + texts(&mut config.labels.keys())
            + texts(&mut config.labels.values())
            + texts(&mut config.volumes.iter())
            + texts(&mut config.exposed_ports.iter())
            + history.sum::<usize>()
    }

    fn complete_config(&mut self) {
        let config = &mut self.image.config;
        if self.platform.os != "windows" && config.variables().all(|(name, _)| name != "PATH") {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        if !config.working_dir.is_empty()
            && !config.working_dir.starts_with('/')
            && self.platform.os != "windows"
        {
            config.working_dir = path::resolve("/", &config.working_dir);
        }
    }

    /// The working directory for steps, cleaned.
    pub(super) fn directory(&self) -> String {
        path::clean(&format!("/{}", self.image.config.working_dir))
    }

    /// What a shell form stands behind.
    pub(super) fn shell(&self) -> Vec<String> {
        let words: &[&str] = match (&self.image.config.shell[..], self.image.os.as_str()) {
            ([], "windows") => &["cmd", "/S", "/C"],
            ([], _) => &["/bin/sh", "-c"],
            (shell, _) => return shell.to_vec(),
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}
