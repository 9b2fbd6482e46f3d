//! The image config: what an image says about itself, read from a base and changed by instructions.
//!
//! The type is ours because general ones lose what they do not know on the way through. Here every key survives
//! a round trip: Docker's additions (`Healthcheck`, `OnBuild`, `Shell`, `ArgsEscaped`) are fields, all others are
//! kept in `other`. Empty values are left out when writing, as the reference builder does; `null` is read as
//! empty. Times are RFC 3339 strings and never interpreted here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod json;

/// The config document of an image (`application/vnd.oci.image.config.v1+json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// Go's word for the processor.
    #[serde(default, deserialize_with = "json::null_as_empty")]
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// Operating system.
    #[serde(default, deserialize_with = "json::null_as_empty")]
    pub os: String,
    /// Windows build.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features the image needs of its operating system.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// What a container of the image starts with.
    #[serde(default, deserialize_with = "json::null_as_empty")]
    pub config: ContainerConfig,
    /// The layers.
    #[serde(default, deserialize_with = "json::null_as_empty")]
    pub rootfs: RootFs,
    /// One entry for each instruction.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<HistoryEntry>,
    /// Keys that have no field above.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The `config` object: defaults for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `USER`
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `EXPOSE`, as `80/tcp`.
    #[serde(
        default,
        with = "json::set",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub exposed_ports: BTreeSet<String>,
    /// `ENV`, as `NAME=value`.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// `ENTRYPOINT`
    #[serde(
        default,
        deserialize_with = "json::words",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub entrypoint: Vec<String>,
    /// `CMD`
    #[serde(
        default,
        deserialize_with = "json::words",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cmd: Vec<String>,
    /// `VOLUME`
    #[serde(
        default,
        with = "json::set",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub volumes: BTreeSet<String>,
    /// `WORKDIR`
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// `LABEL`
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Set by every `CMD`; matters on Windows only.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "json::is_false"
    )]
    pub args_escaped: bool,
    /// `HEALTHCHECK`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthcheckConfig>,
    /// `ONBUILD`
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// `SHELL`
    #[serde(
        default,
        deserialize_with = "json::words",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub shell: Vec<String>,
    /// Keys that have no field above: `StopTimeout`, `MacAddress`, `NetworkDisabled`, …
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `HEALTHCHECK` in the config. Durations are nanoseconds; 0 means the engine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthcheckConfig {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`; empty inherits.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "json::is_zero")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(default, skip_serializing_if = "json::is_zero")]
    pub timeout: i64,
    /// Time during which failures do not count.
    #[serde(default, skip_serializing_if = "json::is_zero")]
    pub start_period: i64,
    /// Time between checks during the start period.
    #[serde(default, skip_serializing_if = "json::is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "json::is_zero")]
    pub retries: i64,
    /// Keys that have no field above.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The `rootfs` object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default = "json::layers")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "json::null_as_empty")]
    pub diff_ids: Vec<String>,
    /// Keys that have no field above.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One entry of `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When the layer was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// Who made it.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// What made it.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// True if the instruction made no layer.
    #[serde(
        default,
        deserialize_with = "json::null_as_empty",
        skip_serializing_if = "json::is_false"
    )]
    pub empty_layer: bool,
    /// Keys that have no field above.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: json::layers(),
            diff_ids: Vec::new(),
            other: Map::new(),
        }
    }
}

impl ImageConfig {
    /// Reads the JSON document of a config blob.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Writes the document, keys in a fixed order, without blanks: the bytes whose digest is the image id.
    ///
    /// # Panics
    ///
    /// Never: all keys are strings.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("a config has string keys only, so it can be written as JSON")
    }

    /// The same for another platform.
    #[must_use]
    pub fn with_platform(mut self, platform: &crate::platform::Platform) -> Self {
        self.os.clone_from(&platform.os);
        self.architecture.clone_from(&platform.architecture);
        self.variant.clone_from(&platform.variant);
        self.os_version.clone_from(&platform.os_version);
        self
    }

    /// The platform it names, `linux/amd64` filling what is missing.
    pub fn platform(&self) -> crate::platform::Platform {
        let or = |text: &str, default: &str| {
            if text.is_empty() {
                default.to_owned()
            } else {
                text.to_owned()
            }
        };
        crate::platform::Platform::new(
            &or(&self.os, "linux"),
            &or(&self.architecture, "amd64"),
            &self.variant,
        )
        .with_os_version(&self.os_version)
    }

    /// The same with the creation time.
    #[must_use]
    pub fn with_created(mut self, created: Option<String>) -> Self {
        self.created = created;
        self
    }

    /// The same with these layers.
    #[must_use]
    pub fn with_diff_ids(mut self, diff_ids: Vec<String>) -> Self {
        self.rootfs.diff_ids = diff_ids;
        self
    }

    /// The same with this history.
    #[must_use]
    pub fn with_history(mut self, history: Vec<HistoryEntry>) -> Self {
        self.history = history;
        self
    }
}

impl ContainerConfig {
    /// The same with a variable set: in place if the name exists, else at the end.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        let pair = format!("{name}={value}");
        match self
            .env
            .iter_mut()
            .find(|entry| split_variable(entry).0 == name)
        {
            Some(entry) => *entry = pair,
            None => self.env.push(pair),
        }
        self
    }

    /// The same with a label set.
    #[must_use]
    pub fn with_label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Name and value of each variable, in order.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|entry| split_variable(entry))
    }
}

fn split_variable(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_in_a_round_trip() {
        let text = r#"{"created":"2024-01-02T03:04:05.000000006Z","author":"me","architecture":"arm64","variant":"v8",
            "os":"linux","os.version":"1","os.features":["f"],"config":{"User":"u:g","ExposedPorts":{"80/tcp":{}},
            "Env":["A=1"],"Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"":"x"},
            "StopSignal":"9","ArgsEscaped":true,"Healthcheck":{"Test":["NONE"],"Interval":5,"Timeout":6,
            "StartPeriod":7,"StartInterval":8,"Retries":9,"Later":1},"OnBuild":["RUN x"],"Shell":["s"],
            "StopTimeout":10,"MacAddress":"m","NetworkDisabled":true,"Odd":{"a":[1.5,null]}},
            "rootfs":{"type":"layers","diff_ids":["sha256:1"],"extra":0},
            "history":[{"created":"t","created_by":"b","author":"a","comment":"c","empty_layer":true,"more":{}}],
            "docker_version":"1.0","container_config":{"Cmd":null}}"#;
        let config = ImageConfig::from_json(text.as_bytes()).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&config).unwrap(), value);
        assert_eq!(ImageConfig::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn empty_values_are_left_out() {
        let text = r#"{"config":{"Env":null,"Entrypoint":null,"Cmd":"sh","Volumes":null,"Healthcheck":null},"history":null}"#;
        let config = ImageConfig::from_json(text.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(config.to_json()).unwrap(),
            r#"{"architecture":"","os":"","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":[]}}"#,
        );
    }

    #[test]
    fn variables_keep_their_place() {
        let config = ContainerConfig::default()
            .with_env("A", "1")
            .with_env("B", "2")
            .with_env("A", "3=4");
        assert_eq!(config.env, ["A=3=4", "B=2"]);
        assert_eq!(
            config.variables().collect::<Vec<_>>(),
            [("A", "3=4"), ("B", "2")]
        );
    }
}
