//! The options of one `RUN --mount`, read from left to right and checked.

use crate::boolean;
use crate::csv;
use crate::graph::Sharing;
use crate::suggest::closest;

/// All keys, for suggestions.
const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];
const TYPES: &[&str] = &["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: &[&str] = &["shared", "private", "locked"];

/// `type=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountType {
    /// Files from elsewhere.
    #[default]
    Bind,
    /// A directory that stays across builds.
    Cache,
    /// An empty file system in memory.
    Tmpfs,
    /// A secret's value.
    Secret,
    /// The socket of an agent.
    Ssh,
}

impl MountType {
    /// The word behind `type=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Options as given; empty texts were not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `type=`
    pub kind: MountType,
    /// `from=`
    pub from: String,
    /// `source=`, `src=`
    pub source: String,
    /// `target=`, `dst=`, `destination=`
    pub target: String,
    /// `id=`
    pub id: String,
    /// `env=`
    pub environment: Option<String>,
    /// `readonly`, `ro` and their opposites.
    pub is_read_only: Option<bool>,
    /// `required`
    pub is_required: bool,
    /// `size=` in bytes; 0 is no limit.
    pub size: u64,
    /// `sharing=`
    pub sharing: Option<Sharing>,
    /// `mode=`
    pub mode: Option<u32>,
    /// `uid=`
    pub uid: Option<u32>,
    /// `gid=`
    pub gid: Option<u32>,
}

/// What is wrong, in which word, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The option at fault.
    pub word: String,
    /// What is wrong with it.
    pub message: String,
    /// The way out.
    pub help: String,
}

/// What stops reading: an option, or the expansion of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// An option is not right.
    Option(OptionError),
    /// A value could not be expanded.
    Expansion(E),
}

impl<E> From<OptionError> for ReadError<E> {
    fn from(error: OptionError) -> Self {
        Self::Option(error)
    }
}

impl MountOptions {
    /// Whether writes are refused: as said, or as the type has it by default.
    pub fn is_read_only(&self) -> bool {
        let default = !matches!(self.kind, MountType::Cache | MountType::Tmpfs);
        self.is_read_only.unwrap_or(default)
    }

    /// Reads a `--mount` value; `expand` gives each option's value its variables.
    pub fn read<E>(
        record: &str,
        mut expand: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Self, ReadError<E>> {
        let fields = csv::fields(record).map_err(|reason| {
            refuse(
                record,
                format!("`{record}` is not a list of mount options: {reason}"),
                "write key=value,key=value",
            )
        })?;
        let mut options = Self::default();
        for field in &fields {
            match field.split_once('=') {
                None => options.set_switch(field)?,
                Some((key, value)) => {
                    let value = expand(value).map_err(ReadError::Expansion)?;
                    options.set(field, &key.to_lowercase(), &value)?;
                }
            }
        }
        options.check(record)?;
        Ok(options)
    }

    /// A word without `=`.
    fn set_switch(&mut self, field: &str) -> Result<(), OptionError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.is_read_only = Some(true),
            "readwrite" | "rw" => self.is_read_only = Some(false),
            "required" => self.set_required(field, true)?,
            key => {
                let message = format!("mount option `{field}` needs a value");
                return Err(refuse(
                    field,
                    message,
                    suggestion(key, KEYS, "write it as key=value"),
                ));
            }
        }
        Ok(())
    }

    fn set(&mut self, field: &str, key: &str, value: &str) -> Result<(), OptionError> {
        let wrong = |what: &str| {
            refuse(
                field,
                format!("`{value}` is not a value for mount option `{key}`"),
                what,
            )
        };
        let switch = || boolean::parse(value).ok_or_else(|| wrong("write `true` or `false`"));
        let number = |radix, what: &str| {
            let digits =
                Some(value).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
            digits
                .and_then(|digits| u32::from_str_radix(digits, radix).ok())
                .ok_or_else(|| wrong(what))
        };
        match key {
            "type" => {
                self.kind = match value.to_lowercase().as_str() {
                    "bind" => MountType::Bind,
                    "cache" => MountType::Cache,
                    "tmpfs" => MountType::Tmpfs,
                    "secret" => MountType::Secret,
                    "ssh" => MountType::Ssh,
                    _ => {
                        let message = format!("there is no mount type `{value}`");
                        let types = "the types are bind, cache, tmpfs, secret and ssh";
                        return Err(refuse(field, message, suggestion(value, TYPES, types)));
                    }
                }
            }
            "from" => value.clone_into(&mut self.from),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "id" => value.clone_into(&mut self.id),
            "env" => self.environment = Some(value.to_owned()),
            "readonly" | "ro" => self.is_read_only = Some(switch()?),
            "readwrite" | "rw" => self.is_read_only = Some(!switch()?),
            "required" => {
                self.check_required(field)?;
                self.is_required = switch()?;
            }
            "size" => {
                if self.kind != MountType::Tmpfs {
                    return Err(self.misplaced(
                        field,
                        "size",
                        "only tmpfs mounts have one, and `type` stands first",
                    ));
                }
                self.size =
                    parse_size(value).ok_or_else(|| wrong("write a number of bytes, or `128m`"))?;
            }
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        return Err(wrong(&suggestion(
                            value,
                            SHARINGS,
                            "write shared, private or locked",
                        )));
                    }
                });
            }
            "mode" => self.mode = Some(number(8, "write an octal number such as `0755`")?),
            "uid" => self.uid = Some(number(10, "write a user's number")?),
            "gid" => self.gid = Some(number(10, "write a group's number")?),
            _ => {
                let message = format!("there is no mount option `{key}`");
                let help = suggestion(key, KEYS, "see the list of options of RUN --mount");
                return Err(refuse(field, message, help));
            }
        }
        Ok(())
    }

    fn set_required(&mut self, field: &str, value: bool) -> Result<(), OptionError> {
        self.check_required(field)?;
        self.is_required = value;
        Ok(())
    }

    fn check_required(&self, field: &str) -> Result<(), OptionError> {
        if matches!(self.kind, MountType::Secret | MountType::Ssh) {
            return Ok(());
        }
        Err(self.misplaced(
            field,
            "required",
            "only secret and ssh mounts have it, and `type` stands first",
        ))
    }

    fn misplaced(&self, field: &str, key: &str, help: &str) -> OptionError {
        refuse(
            field,
            format!("a {} mount has no option `{key}`", self.kind.name()),
            help,
        )
    }

    /// What can only be judged when all options are known.
    fn check(&self, record: &str) -> Result<(), OptionError> {
        let has_owner = matches!(
            self.kind,
            MountType::Cache | MountType::Secret | MountType::Ssh
        );
        for (key, value) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
            if value.is_some() && !has_owner {
                return Err(self.misplaced(key, key, "only cache, secret and ssh mounts have it"));
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(self.misplaced("sharing", "sharing", "only cache mounts have it"));
        }
        match self.kind {
            MountType::Secret if !self.from.is_empty() => Err(self.misplaced(
                "from",
                "from",
                "a secret is given with `--secret` on the command line",
            )),
            MountType::Secret
                if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() =>
            {
                Err(refuse(
                    record,
                    "this secret mount does not say which secret".to_owned(),
                    "add `id=name`",
                ))
            }
            MountType::Secret if !self.source.is_empty() && !self.id.is_empty() => {
                let message = "this secret mount has both `id` and `source`".to_owned();
                Err(refuse(record, message, "they mean the same: keep `id`"))
            }
            _ => Ok(()),
        }
    }
}

fn refuse(word: &str, message: String, help: impl Into<String>) -> OptionError {
    OptionError {
        word: word.to_owned(),
        message,
        help: help.into(),
    }
}

fn suggestion(written: &str, known: &[&str], otherwise: &str) -> String {
    let begun = known
        .iter()
        .copied()
        .find(|known| written.len() > 2 && known.starts_with(written));
    begun
        .or_else(|| closest(written, known.iter().copied()))
        .map_or_else(
            || otherwise.to_owned(),
            |known| format!("did you mean `{known}`?"),
        )
}

/// `128m`, `1.5GiB`, `4096`: binary units, any case.
fn parse_size(text: &str) -> Option<u64> {
    let end = text
        .rfind(|character: char| character.is_ascii_digit() || matches!(character, '.' | ' '))?
        + 1;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    let exponent = match unit.to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(exponent);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be in range"
    )]
    (0.0..9e18).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(record: &str) -> Result<MountOptions, OptionError> {
        match MountOptions::read(record, |value| Ok::<_, ()>(value.to_owned())) {
            Ok(options) => Ok(options),
            Err(ReadError::Option(error)) => Err(error),
            Err(ReadError::Expansion(())) => unreachable!("expansion does not fail here"),
        }
    }

    #[test]
    fn options_are_read() {
        let cache = read("type=CACHE,Target=/x,sharing=Locked,uid=5,mode=0700,rw").unwrap();
        assert_eq!(
            (cache.kind, cache.target.as_str(), cache.sharing),
            (MountType::Cache, "/x", Some(Sharing::Locked))
        );
        assert_eq!(
            (cache.uid, cache.mode, cache.is_read_only),
            (Some(5), Some(0o700), Some(false))
        );
        assert!(read("type=secret,id=a,required").unwrap().is_required);
        assert_eq!(read("type=tmpfs,size=1.5k").unwrap().size, 1536);
        assert_eq!(read("\"target=/a,b\"").unwrap().target, "/a,b");
    }

    #[test]
    fn other_options_are_refused() {
        for (record, word) in [
            ("type=tmp", "type=tmp"),
            ("typ=tmpfs", "typ=tmpfs"),
            ("z", "z"),
            ("required,type=secret", "required"),
            ("size=1,type=tmpfs", "size=1"),
            ("type=tmpfs,size=x", "size=x"),
            ("type=bind,uid=1", "uid"),
            ("sharing=shared", "sharing"),
            ("type=secret", "type=secret"),
            ("type=secret,id=a,source=b", "type=secret,id=a,source=b"),
            ("type=secret,id=a,from=b", "from"),
            ("type=cache,mode=9", "mode=9"),
            ("type=cache,uid=+1", "uid=+1"),
            ("ro=maybe", "ro=maybe"),
        ] {
            assert_eq!(read(record).unwrap_err().word, word, "{record}");
        }
        assert_eq!(read("type=tmp").unwrap_err().help, "did you mean `tmpfs`?");
    }

    #[test]
    fn sizes_have_units() {
        for (text, wanted) in [
            ("1", Some(1)),
            ("2k", Some(2048)),
            ("1 MiB", Some(1 << 20)),
            ("3Gb", Some(3 << 30)),
            ("", None),
            ("k", None),
            ("1x", None),
            ("-1", None),
            ("1kx", None),
            ("1e999p", None),
        ] {
            assert_eq!(parse_size(text), wanted, "{text}");
        }
    }
}
