//! The options of one `RUN --mount`, read from left to right and checked.
//!
//! What is wrong with one option does not keep the others from being judged: all is told that does not follow from
//! something else, in the order in which the reference would meet it.

mod size;

use std::ops::Range;

use self::size::parse_size;
use crate::boolean;
use crate::csv::{self, Field};
use crate::diagnostic::MOST_ERRORS;
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
/// The names of `source` and `target`.
pub(crate) const SOURCE_KEYS: &[&str] = &["source", "src"];
pub(crate) const TARGET_KEYS: &[&str] = &["target", "dst", "destination"];
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
    fn named(word: &str) -> Option<Self> {
        let all = [
            Self::Bind,
            Self::Cache,
            Self::Tmpfs,
            Self::Secret,
            Self::Ssh,
        ];
        let word = word.to_lowercase();
        all.into_iter().find(|kind| kind.name() == word)
    }

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

/// What is wrong, where, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The option at fault: its bytes in the record.
    pub place: Range<usize>,
    /// What is wrong with it.
    pub message: String,
    /// The way out.
    pub help: String,
}

/// What is wrong with a record: an option, or the expansion of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// An option is not right.
    Option(OptionError),
    /// A value could not be expanded.
    Expansion(E),
}

impl MountOptions {
    /// Whether writes are refused: as said, or as the type has it by default.
    pub fn is_read_only(&self) -> bool {
        let default = !matches!(self.kind, MountType::Cache | MountType::Tmpfs);
        self.is_read_only.unwrap_or(default)
    }

    /// Reads a `--mount` value; `expand` gives each option's value its variables. The first error is the one that the
    /// reference stops at.
    pub fn read<E>(
        record: &str,
        mut expand: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Self, Vec<ReadError<E>>> {
        let fields = csv::fields(record).map_err(|reason| {
            let message = format!("`{record}` is not a list of mount options: {reason}");
            let error = refuse(0..record.len(), message, "write key=value,key=value");
            vec![ReadError::Option(error)]
        })?;
        let mut reading = Reading {
            options: Self::default(),
            knows_kind: true,
        };
        let mut errors = Vec::new();
        for field in &fields {
            if errors.len() >= MOST_ERRORS {
                break;
            }
            let read = match field.pair() {
                None => reading.set_switch(field).map_err(ReadError::Option),
                Some((key, value)) => match expand(value) {
                    Ok(value) => reading.set(field, &key, &value).map_err(ReadError::Option),
                    Err(error) => {
                        reading.knows_kind &= key != "type";
                        Err(ReadError::Expansion(error))
                    }
                },
            };
            errors.extend(read.err());
        }
        errors.extend(reading.misplaced_options(&fields).map(ReadError::Option));
        // What seems to be missing may be what was just refused.
        if errors.is_empty() {
            let whole = reading.check(record);
            errors.extend(whole.map_err(ReadError::Option).err());
        }
        if errors.is_empty() {
            Ok(reading.options)
        } else {
            Err(errors)
        }
    }
}

/// Options that are being read.
struct Reading {
    options: MountOptions,
    /// False if the type is in error, so that nobody can tell which options it has.
    knows_kind: bool,
}

impl Reading {
    /// A word without `=`.
    fn set_switch(&mut self, field: &Field) -> Result<(), OptionError> {
        match field.text.to_lowercase().as_str() {
            "readonly" | "ro" => self.options.is_read_only = Some(true),
            "readwrite" | "rw" => self.options.is_read_only = Some(false),
            "required" => {
                self.check_required(field)?;
                self.options.is_required = true;
            }
            key if KEYS.contains(&key) => {
                let message = format!("mount option `{key}` needs a value");
                return Err(refuse(
                    field.place.clone(),
                    message,
                    "write it as key=value",
                ));
            }
            key => return Err(unknown(field, key)),
        }
        Ok(())
    }

    fn set(&mut self, field: &Field, key: &str, value: &str) -> Result<(), OptionError> {
        let wrong = |what: &str| {
            refuse(
                field.place.clone(),
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
        let options = &mut self.options;
        match key {
            "type" => {
                let Some(kind) = MountType::named(value) else {
                    self.knows_kind = false;
                    let message = format!("there is no mount type `{value}`");
                    let types = "the types are bind, cache, tmpfs, secret and ssh";
                    let help = suggestion(value, TYPES, types);
                    return Err(refuse(field.place.clone(), message, help));
                };
                options.kind = kind;
            }
            "from" => value.clone_into(&mut options.from),
            "source" | "src" => value.clone_into(&mut options.source),
            "target" | "dst" | "destination" => value.clone_into(&mut options.target),
            "id" => value.clone_into(&mut options.id),
            "env" => options.environment = Some(value.to_owned()),
            "readonly" | "ro" => options.is_read_only = Some(switch()?),
            "readwrite" | "rw" => options.is_read_only = Some(!switch()?),
            "required" => {
                self.check_required(field)?;
                self.options.is_required = switch()?;
            }
            "size" => {
                if options.kind != MountType::Tmpfs && self.knows_kind {
                    let help = "only tmpfs mounts have one, and `type` stands first";
                    return Err(self.misplaced(field, "size", help));
                }
                options.size =
                    parse_size(value).ok_or_else(|| wrong("write a number of bytes, or `128m`"))?;
            }
            "sharing" => {
                options.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        let otherwise = "write shared, private or locked";
                        return Err(wrong(&suggestion(value, SHARINGS, otherwise)));
                    }
                });
            }
            "mode" => options.mode = Some(number(8, "write an octal number such as `0755`")?),
            "uid" => options.uid = Some(number(10, "write a user's number")?),
            "gid" => options.gid = Some(number(10, "write a group's number")?),
            _ => return Err(unknown(field, key)),
        }
        Ok(())
    }

    fn check_required(&self, field: &Field) -> Result<(), OptionError> {
        let has_it = matches!(self.options.kind, MountType::Secret | MountType::Ssh);
        if has_it || !self.knows_kind {
            return Ok(());
        }
        let help = "only secret and ssh mounts have it, and `type` stands first";
        Err(self.misplaced(field, "required", help))
    }

    fn misplaced(&self, field: &Field, key: &str, help: &str) -> OptionError {
        let kind = self.options.kind.name();
        let message = format!("a {kind} mount has no option `{key}`");
        refuse(field.place.clone(), message, help)
    }

    /// Options that were read, and that the type turns out not to have.
    fn misplaced_options(&self, fields: &[Field]) -> impl Iterator<Item = OptionError> {
        const OWNER: &str = "only cache, secret and ssh mounts have it";
        let options = &self.options;
        let (is_cache, is_secret) = (
            options.kind == MountType::Cache,
            options.kind == MountType::Secret,
        );
        let has_owner = is_cache || is_secret || options.kind == MountType::Ssh;
        let rules = [
            ("mode", options.mode.is_some() && !has_owner, OWNER),
            ("uid", options.uid.is_some() && !has_owner, OWNER),
            ("gid", options.gid.is_some() && !has_owner, OWNER),
            (
                "sharing",
                options.sharing.is_some() && !is_cache,
                "only cache mounts have it",
            ),
            (
                "from",
                !options.from.is_empty() && is_secret,
                "a secret is given with `--secret` on the command line",
            ),
        ];
        let rules = rules.into_iter().filter(|_| self.knows_kind);
        rules
            .filter(|(_, is_misplaced, _)| *is_misplaced)
            .filter_map(|(key, _, help)| Some(self.misplaced(last(fields, &[key])?, key, help)))
    }

    /// What can only be judged of a whole record.
    fn check(&self, record: &str) -> Result<(), OptionError> {
        let options = &self.options;
        let says_which = [&options.source, &options.target, &options.id];
        if options.kind != MountType::Secret {
            return Ok(());
        }
        if says_which.iter().all(|text| text.is_empty()) {
            let message = "this secret mount does not say which secret".to_owned();
            return Err(refuse(0..record.len(), message, "add `id=name`"));
        }
        if !options.source.is_empty() && !options.id.is_empty() {
            let message = "this secret mount has both `id` and `source`".to_owned();
            let place = place_of_option(record, SOURCE_KEYS);
            return Err(refuse(place, message, "they mean the same: keep `id`"));
        }
        Ok(())
    }
}

/// Where the last option of one of these names stands in a record, else the whole record.
pub(crate) fn place_of_option(record: &str, keys: &[&str]) -> Range<usize> {
    let fields = csv::fields(record).unwrap_or_default();
    last(&fields, keys).map_or(0..record.len(), |field| field.place.clone())
}

/// The last option of one of these names: the one that counts.
fn last<'a>(fields: &'a [Field], keys: &[&str]) -> Option<&'a Field> {
    let is_one = |field: &&Field| {
        let key = field.text.split_once('=').map_or("", |(key, _)| key);
        keys.iter().any(|known| known.eq_ignore_ascii_case(key))
    };
    fields.iter().rfind(is_one)
}

fn refuse(place: Range<usize>, message: String, help: impl Into<String>) -> OptionError {
    OptionError {
        place,
        message,
        help: help.into(),
    }
}

fn unknown(field: &Field, key: &str) -> OptionError {
    let written = field
        .text
        .split_once('=')
        .map_or(&*field.text, |(key, _)| key);
    let message = format!("there is no mount option `{written}`");
    let help = suggestion(key, KEYS, "see the list of options of RUN --mount");
    refuse(field.place.clone(), message, help)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that begin with a dollar sign can't be expanded.
    fn read(record: &str) -> Result<MountOptions, Vec<ReadError<&str>>> {
        MountOptions::read(record, |value| match value.strip_prefix('$') {
            Some(name) => Err(record
                .find(name)
                .map_or("", |at| &record[at..at + name.len()])),
            None => Ok(value.to_owned()),
        })
    }

    /// The places of all errors, or the variables that could not be expanded.
    fn errors(record: &str) -> Vec<&str> {
        let place = |error| match error {
            ReadError::Option(error) => &record[error.place],
            ReadError::Expansion(name) => name,
        };
        read(record).unwrap_err().into_iter().map(place).collect()
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
            ("target=/uid,UID=1", "UID=1"),
            ("sharing=shared", "sharing=shared"),
            ("type=secret", "type=secret"),
            ("type=secret,id=a,source=b", "source=b"),
            ("type=secret,id=a,from=b", "from=b"),
            ("type=cache,mode=9", "mode=9"),
            ("type=cache,uid=+1", "uid=+1"),
            ("ro=maybe", "ro=maybe"),
            ("\"ro=may,be\",\"target=/a\"", "\"ro=may,be\""),
        ] {
            assert_eq!(errors(record), [word], "{record}");
        }
        let Err(errors) = read("type=tmp") else {
            panic!("there is no such type")
        };
        let [ReadError::Option(error)] = &errors[..] else {
            panic!("{errors:?}")
        };
        assert_eq!(error.help, "did you mean `tmpfs`?");
    }

    #[test]
    fn each_option_is_judged_by_itself() {
        let table: &[(&str, &[&str])] = &[
            ("typ=cache,ro=x,z", &["typ=cache", "ro=x", "z"]),
            (
                "type=cache,mode=9,uid=x,sharing=y",
                &["mode=9", "uid=x", "sharing=y"],
            ),
            (
                "uid=1,sharing=shared,mode=1",
                &["mode=1", "uid=1", "sharing=shared"],
            ),
            ("ro=x,uid=1", &["ro=x", "uid=1"]),
            ("source=$a,ro=$b,x=1", &["a", "b", "x=1"]),
            // Which options a type has is not known without the type.
            (
                "type=tmp,size=1,required,uid=1,sharing=shared,ro=x",
                &["type=tmp", "ro=x"],
            ),
            ("type=$t,size=x,required", &["t", "size=x"]),
            // The secret may be named by what was refused.
            ("type=secret,idd=a", &["idd=a"]),
            ("type=secret,id=$a", &["a"]),
            ("type=secret,from=a,uid=x", &["uid=x", "from=a"]),
        ];
        for (record, places) in table {
            assert_eq!(&errors(record), places, "{record}");
        }
        assert_eq!(errors(&"x,".repeat(10_000)).len(), MOST_ERRORS);
    }
}
