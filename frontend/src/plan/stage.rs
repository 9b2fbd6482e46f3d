//! What is known about a stage while its instructions are evaluated.

use std::collections::BTreeSet;

use super::variables::Variables;
use crate::graph::{BuildArgument, PlannedHistory, StepIndex};
use crate::image_config::ImageConfig;
use crate::path;
use crate::platform::Platform;

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
    pub(super) build_args: Vec<(String, Option<String>)>,
    pub(super) platform: Platform,
    /// A WORKDIR stood in this stage or one it is built on.
    pub(super) has_workdir: bool,
    /// A CMD stood in this stage: an ENTRYPOINT does not drop it.
    pub(super) has_cmd: bool,
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
            build_args: Vec::new(),
            platform,
            has_workdir: false,
            has_cmd: false,
            arguments: Vec::new(),
            global_arguments: BTreeSet::new(),
            is_certain: true,
        };
        state.complete_config();
        for (name, value) in state.image.config.variables() {
            state.variables.set(name, value);
        }
        state
    }

    /// The state at the start of a stage built on this one: all but the triggers and what counts once per stage.
    pub(super) fn child(&self) -> Self {
        let mut child = self.clone();
        child.image.config.on_build.clear();
        child.has_cmd = false;
        child.arguments.clear();
        child.global_arguments.clear();
        for (name, value) in child.image.config.variables() {
            child.variables.set(name, value);
        }
        child
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
