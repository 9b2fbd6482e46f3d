//! Platform strings: `linux/arm64/v8` and their kin, read and normalised as containerd does.
//!
//! A [`Platform`] is always in normal form, so that equal platforms compare equal: `aarch64` is `arm64`, `arm64/v8`
//! is `arm64`, `arm` is `arm/v7`, `x86_64` is `amd64`. Nothing here looks at the machine: the builder hands in
//! its own os and architecture with [`Platform::of_machine`].

use std::fmt;
use std::str::FromStr;

/// An operating system and a processor, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`, `windows`, `darwin`, …
    pub os: String,
    /// Go's word for the processor: `amd64`, `arm64`, `arm`, `386`, …
    pub architecture: String,
    /// `v7` of `arm/v7`; empty when there is only one or it is the usual one.
    pub variant: String,
    /// Windows build (`10.0.17763`); empty elsewhere.
    pub os_version: String,
}

/// Why a text is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Empty text, an empty part or more than three parts.
    #[error("`{text}` is not a platform: `os/architecture` or `os/architecture/variant` is needed")]
    Shape {
        /// What was given.
        text: String,
    },
    /// A part with characters that no platform has.
    #[error(
        "`{part}` in platform `{text}` has characters other than letters, digits, `-`, `_` and `.`"
    )]
    Characters {
        /// What was given.
        text: String,
        /// The part at fault.
        part: String,
    },
    /// A single word that is neither a known os nor a known architecture.
    #[error("`{text}` is neither a known operating system nor a known architecture")]
    Unknown {
        /// What was given.
        text: String,
    },
}

/// Operating systems that a single word may name. The list is Go's.
const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];

/// Architectures that a single word may name, besides their other spellings. The list is Go's.
const ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// The operating system or architecture that a single word was probably meant to be.
pub(crate) fn closest(word: &str) -> Option<&'static str> {
    let known = SYSTEMS.iter().chain(ARCHITECTURES).copied();
    let is_single = !word.contains('/');
    is_single.then(|| crate::suggest::closest(word, known))?
}

impl Default for Platform {
    /// `linux/amd64`: for tests and as the placeholder before the builder says what it runs on.
    fn default() -> Self {
        Self::new("linux", "amd64", "")
    }
}

impl Platform {
    /// Normalises three words that are known to be a platform, for example out of an image config.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalize_architecture(architecture, variant);
        Self {
            os: normalize_system(os),
            architecture,
            variant,
            os_version: String::new(),
        }
    }

    /// The machine's platform from the words that the compiler or `uname` has for it (`linux`, `x86_64`).
    pub fn of_machine(os: &str, architecture: &str) -> Self {
        let architecture = match architecture {
            "x86" | "i486" | "i586" | "i686" => "386",
            "powerpc64" => "ppc64",
            "powerpc64le" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(os, architecture, "")
    }

    /// The same with a Windows build number.
    #[must_use]
    pub fn with_os_version(mut self, os_version: &str) -> Self {
        os_version.clone_into(&mut self.os_version);
        self
    }

    /// Reads `os[(version)][/architecture[/variant]]`, filling what a single word leaves open from `machine`.
    pub fn parse_for(text: &str, machine: &Self) -> Result<Self, PlatformError> {
        let shape = || PlatformError::Shape {
            text: text.to_owned(),
        };
        // Nothing known comes near; a hostile text may be all slashes.
        if text.len() > 1_024 {
            return Err(shape());
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (system, os_version) = split_version(parts[0]);
        let words = std::iter::once(system)
            .chain(os_version)
            .chain(parts[1..].iter().copied());
        for part in words {
            if part.is_empty() {
                return Err(shape());
            }
            if !part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            {
                return Err(PlatformError::Characters {
                    text: text.to_owned(),
                    part: part.to_owned(),
                });
            }
        }
        let platform = match parts[..] {
            [_] if SYSTEMS.contains(&normalize_system(system).as_str()) => {
                Self::new(system, &machine.architecture, &machine.variant)
            }
            [_] => {
                let (architecture, variant) = normalize_architecture(system, "");
                if os_version.is_some() || !ARCHITECTURES.contains(&architecture.as_str()) {
                    return Err(PlatformError::Unknown {
                        text: text.to_owned(),
                    });
                }
                Self::new(&machine.os, &architecture, &variant)
            }
            [_, architecture] => Self::new(system, architecture, ""),
            [_, architecture, variant] => Self::new(system, architecture, variant),
            _ => return Err(shape()),
        };
        Ok(platform.with_os_version(os_version.unwrap_or_default()))
    }

    /// Platforms whose programs run here, the best first; the first is `self`.
    ///
    /// A 64-bit processor runs its 32-bit programs and a later variant the earlier ones, as containerd assumes
    /// when it picks a manifest from an index.
    pub fn runs(&self) -> Vec<Self> {
        let with = |architecture: &str, variant: &str| Self {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..self.clone()
        };
        let mut platforms = vec![self.clone()];
        let older = |architecture: &str, below: u32, last: u32| {
            (last..below)
                .rev()
                .map(|number| with(architecture, &format!("v{number}")))
                .collect::<Vec<_>>()
        };
        match (self.architecture.as_str(), variant_number(&self.variant)) {
            ("amd64", number) => {
                platforms.extend(older("amd64", number.unwrap_or(1), 2));
                if !self.variant.is_empty() {
                    platforms.push(with("amd64", ""));
                }
                platforms.push(with("386", ""));
            }
            ("arm64", number) => {
                platforms.extend(older("arm64", number.unwrap_or(8), 9));
                if !self.variant.is_empty() {
                    platforms.push(with("arm64", ""));
                }
                platforms.push(with("arm", "v8"));
                platforms.extend(older("arm", 8, 5));
            }
            ("arm", Some(number)) => platforms.extend(older("arm", number, 5)),
            _ => {}
        }
        platforms
    }

    /// How well an image or index entry for `offered` suits: 0 is exact, more is worse, none does not run.
    ///
    /// A Windows build must be the same up to its third number; an entry without one suits every build.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        if !self.os_version.is_empty() && !offered.os_version.is_empty() {
            let build = |version: &str| {
                version
                    .split('.')
                    .take(3)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            if build(&self.os_version) != build(&offered.os_version) {
                return None;
            }
        }
        self.runs().iter().position(|platform| {
            platform.os == offered.os
                && platform.architecture == offered.architecture
                && platform.variant == offered.variant
        })
    }

    /// Whether an image for `offered` runs here, see [`Platform::rank`].
    pub fn accepts(&self, offered: &Self) -> bool {
        self.rank(offered).is_some()
    }

    /// Position of the entry that suits best; among equals the first.
    pub fn choose<'a>(&self, offered: impl IntoIterator<Item = &'a Self>) -> Option<usize> {
        offered
            .into_iter()
            .enumerate()
            .filter_map(|(position, platform)| Some((self.rank(platform)?, position)))
            .min()
            .map(|(_, position)| position)
    }

    /// Whether os and architecture are the same, whatever the variant.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(formatter, "({})", self.os_version)?;
        }
        write!(formatter, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(formatter, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// As [`Platform::parse_for`] with `linux/amd64` filling the gaps.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_for(text, &Self::default())
    }
}

fn split_version(word: &str) -> (&str, Option<&str>) {
    match word.strip_suffix(')').and_then(|word| word.split_once('(')) {
        Some((system, version)) => (system, Some(version)),
        None => (word, None),
    }
}

fn variant_number(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

fn normalize_system(os: &str) -> String {
    let os = os.to_ascii_lowercase();
    if os == "macos" {
        "darwin".to_owned()
    } else {
        os
    }
}

fn normalize_architecture(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        (other, other_variant) => (other, other_variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_normalised() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("armhf", "linux/arm/v7"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), normal, "{text}");
            assert_eq!(
                platform.to_string().parse::<Platform>().unwrap(),
                platform,
                "{text} round trip"
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/",
            "linux/",
            "linux//v7",
            "a/b/c/d",
            "linux/am d64",
            "nothing",
            "linux/*",
            "linux()/amd64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_word_is_completed_from_the_machine() {
        let machine = Platform::of_machine("linux", "aarch64");
        assert_eq!(
            Platform::parse_for("windows", &machine)
                .unwrap()
                .to_string(),
            "windows/arm64"
        );
        assert_eq!(
            Platform::parse_for("amd64", &machine).unwrap().to_string(),
            "linux/amd64"
        );
    }

    #[test]
    fn the_best_entry_of_an_index_is_chosen() {
        let offered: Vec<Platform> = [
            "linux/386",
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/amd64",
            "windows/amd64",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        for (wanted, chosen) in [
            ("linux/amd64", Some(3)),
            ("linux/amd64/v3", Some(3)),
            ("linux/386", Some(0)),
            ("linux/arm64", Some(2)),
            ("linux/arm/v6", Some(1)),
            ("linux/arm/v7", Some(2)),
            ("linux/s390x", None),
        ] {
            assert_eq!(
                wanted.parse::<Platform>().unwrap().choose(&offered),
                chosen,
                "{wanted}"
            );
        }
    }

    #[test]
    fn windows_builds_must_agree() {
        let wanted = Platform::new("windows", "amd64", "").with_os_version("10.0.17763.1");
        let offered = Platform::new("windows", "amd64", "");
        assert!(wanted.accepts(&offered.clone().with_os_version("10.0.17763.999")));
        assert!(!wanted.accepts(&offered.clone().with_os_version("10.0.20348.1")));
        assert!(wanted.accepts(&offered));
    }
}
