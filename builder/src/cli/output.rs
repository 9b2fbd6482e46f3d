//! `-o`: where the result goes, and with which options.

use std::path::PathBuf;

use rbuild::options::{MediaTypes, Output, OutputCompression, OutputKind};

use super::error::UsageError;
use super::typed::parse_switch;
use super::values::{pairs, split_record};

const FLAG: &str = "--output";

/// Reads one `-o`; none for `type=cacheonly`, which asks for no result.
pub(crate) fn parse_output(text: &str) -> Result<Option<Output>, UsageError> {
    let fields = split_record(text).map_err(|reason| UsageError::value(FLAG, text, reason))?;
    if fields == [text] && !text.starts_with("type=") {
        // `-o DIR` and `-o -`, as the reference has them: even a directory named `a=b`.
        return Ok(Some(match text {
            "" => return Err(UsageError::value(FLAG, text, "it is empty")),
            "-" => output(OutputKind::Tar, None),
            directory => output(OutputKind::Local, Some(directory)),
        }));
    }
    Spec::read(text)?.into_output()
}

fn output(kind: OutputKind, destination: Option<&str>) -> Output {
    Output {
        destination: destination.map(PathBuf::from),
        ..Output::of_kind(kind)
    }
}

/// The pairs of one `type=…`, taken out one by one so that what is left over is unknown.
struct Spec<'a> {
    text: &'a str,
    pairs: Vec<(String, String)>,
}

impl<'a> Spec<'a> {
    fn read(text: &'a str) -> Result<Self, UsageError> {
        Ok(Self {
            text,
            pairs: pairs(FLAG, text)?,
        })
    }

    fn wrong(&self, reason: impl Into<String>) -> UsageError {
        UsageError::value(FLAG, self.text, reason)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let position = self.pairs.iter().rposition(|(name, _)| name == key)?;
        let value = self.pairs.remove(position).1;
        self.pairs.retain(|(name, _)| name != key);
        Some(value)
    }

    fn take_switch(&mut self, key: &str) -> Result<Option<bool>, UsageError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        parse_switch(&value)
            .map(Some)
            .ok_or_else(|| self.wrong(format!("`{key}` is true or false, not `{value}`")))
    }

    /// Accepts an option only with the value that rbuild has anyway.
    fn take_fixed(&mut self, key: &str, only: bool, reason: &str) -> Result<(), UsageError> {
        match self.take_switch(key)? {
            Some(value) if value != only => {
                Err(self.wrong(format!("`{key}={value}` is not possible: {reason}")))
            }
            _ => Ok(()),
        }
    }

    fn into_output(mut self) -> Result<Option<Output>, UsageError> {
        let Some(kind) = self.take("type") else {
            return Err(self.wrong("`type=` is missing"));
        };
        let mut output = match kind.as_str() {
            "oci" => {
                let is_archive = self.take_switch("tar")?.unwrap_or(true);
                output(
                    if is_archive {
                        OutputKind::Oci
                    } else {
                        OutputKind::OciDirectory
                    },
                    None,
                )
            }
            "local" => output(OutputKind::Local, None),
            "tar" => output(OutputKind::Tar, None),
            "image" => output(OutputKind::Image, None),
            "cacheonly" => return self.finish().map(|()| None),
            "docker" => {
                let is_archive = self.take_switch("tar")?.unwrap_or(true);
                let has_place = self.pairs.iter().any(|(key, _)| key == "dest");
                output(
                    if is_archive && !has_place {
                        // As the reference's clients have it.
                        OutputKind::Engine
                    } else if is_archive {
                        OutputKind::Docker
                    } else {
                        OutputKind::DockerDirectory
                    },
                    None,
                )
            }
            "registry" => Output {
                pushes: true,
                ..output(OutputKind::Image, None)
            },
            other => {
                return Err(self
                    .wrong(format!("`{other}` is not a type of output"))
                    .with_help(
                        "types are oci, docker, local, tar, image, registry and cacheonly",
                    ));
            }
        };
        self.read_destination(&mut output)?;
        self.read_image_options(&mut output)?;
        self.finish()?;
        Ok(Some(output))
    }

    fn read_destination(&mut self, output: &mut Output) -> Result<(), UsageError> {
        let given = self.take("dest");
        output.destination = given.filter(|path| path != "-").map(PathBuf::from);
        let is_missing = output.destination.is_none();
        match output.kind {
            OutputKind::Local | OutputKind::OciDirectory | OutputKind::DockerDirectory
                if is_missing =>
            {
                Err(self.wrong("`dest=DIRECTORY` is missing: a directory can't go to stdout"))
            }
            OutputKind::Image if !is_missing => Err(self
                .wrong("an image goes to the store, which has no `dest`")
                .with_help("`type=oci,dest=…` writes a file")),
            _ => Ok(()),
        }
    }

    fn read_image_options(&mut self, output: &mut Output) -> Result<(), UsageError> {
        output.rewrites_timestamps = self.take_switch("rewrite-timestamp")?.unwrap_or(false);
        if matches!(output.kind, OutputKind::Local | OutputKind::Tar) {
            self.take_fixed(
                "platform-split",
                true,
                "several platforms always get a directory each",
            )?;
            if let Some(mode) = self.take("mode").filter(|mode| mode != "copy") {
                return Err(self.wrong(format!(
                    "`mode={mode}` is not implemented: files are added, none is removed"
                )));
            }
            return Ok(());
        }
        if let Some(names) = self.take("name") {
            output.names = names
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect();
        }
        output.compression = match self.take("compression").as_deref() {
            None | Some("gzip") => OutputCompression::Gzip,
            Some("zstd") => OutputCompression::Zstd,
            Some("uncompressed") => OutputCompression::Uncompressed,
            Some(other) => {
                return Err(self
                    .wrong(format!("`{other}` is not a compression"))
                    .with_help("compressions are gzip, zstd and uncompressed"));
            }
        };
        if let Some(level) = self.take("compression-level") {
            let number = level
                .parse()
                .map_err(|_| self.wrong("`compression-level` is a number"))?;
            output.compression_level = Some(number);
        }
        if let Some(pushes) = self.take_switch("push")? {
            if pushes && output.kind != OutputKind::Image {
                return Err(self
                    .wrong("only an image is pushed")
                    .with_help("`type=image,push=true`, beside this output"));
            }
            output.pushes |= pushes;
        }
        // As the reference has it: Docker archives have Docker's media types unless something else is asked for.
        let is_docker = matches!(
            output.kind,
            OutputKind::Docker | OutputKind::DockerDirectory | OutputKind::Engine
        );
        output.media_types = if self.take_switch("oci-mediatypes")?.unwrap_or(!is_docker) {
            MediaTypes::Oci
        } else {
            MediaTypes::Docker
        };
        output.forces_compression = self.take_switch("force-compression")?.unwrap_or(false);
        self.take_switch("unpack")?; // images are always kept unpacked: neither value changes anything
        self.take_fixed("store", true, "images are always in the store")?;
        self.take_annotations(output)
    }

    /// `annotation.K`, `annotation-TYPE.K` and `annotation-TYPE[PLATFORM].K`, turned into the form of `--annotation`.
    fn take_annotations(&mut self, output: &mut Output) -> Result<(), UsageError> {
        let (annotations, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pairs)
            .into_iter()
            .partition(|(key, _)| key.starts_with("annotation"));
        self.pairs = rest;
        for (key, value) in annotations {
            let wrong = || {
                self.wrong(format!("`{key}` is not an annotation"))
                    .with_help("annotation.KEY, annotation-manifest.KEY, annotation-index.KEY, annotation-manifest[PLATFORM].KEY, …")
            };
            let rest = key.strip_prefix("annotation").unwrap_or_default();
            let has_type = ["-manifest", "-index"]
                .iter()
                .any(|start| rest.starts_with(start));
            if rest.starts_with('-') && !has_type {
                return Err(wrong());
            }
            let (place, name) = match rest.strip_prefix('-') {
                // The platform is in brackets, and may hold anything but them.
                Some(rest) => {
                    if let Some((place, name)) = rest.split_once(']') {
                        let name = name.strip_prefix('.').ok_or_else(wrong)?;
                        (format!("{place}]:"), name)
                    } else {
                        let (place, name) = rest.split_once('.').ok_or_else(wrong)?;
                        (format!("{place}:"), name)
                    }
                }
                None => (String::new(), rest.strip_prefix('.').ok_or_else(wrong)?),
            };
            if name.is_empty() {
                return Err(wrong());
            }
            let given = (format!("{place}{name}"), value);
            rbuild::export::Annotations::parse([&given])
                .map_err(|error| self.wrong(error.to_string()))?;
            output.annotations.push(given);
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), UsageError> {
        match self.pairs.first() {
            Some((key, _)) => {
                Err(self.wrong(format!("`{key}` is not an option of this type of output")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        let output = match parse_output(text) {
            Ok(None) => return "nothing".to_owned(),
            Ok(Some(output)) => output,
            Err(error) => return error.to_string(),
        };
        let mut words = vec![format!("{:?}", output.kind)];
        words.extend(
            output
                .destination
                .map(|path| format!("to {}", path.display())),
        );
        words.extend(output.rewrites_timestamps.then(|| "rewriting".to_owned()));
        if output.compression != OutputCompression::Gzip {
            words.push(format!("{:?}", output.compression));
        }
        words.extend(output.pushes.then(|| "pushed".to_owned()));
        words.extend(
            (output.media_types == MediaTypes::Docker).then(|| "with Docker's types".to_owned()),
        );
        words.extend(output.forces_compression.then(|| "forced".to_owned()));
        words.extend(
            output
                .compression_level
                .map(|level| format!("level {level}")),
        );
        words.extend(
            output
                .annotations
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
        words.extend(output.names.iter().map(|name| format!("as {name}")));
        words.join(" ")
    }

    #[test]
    fn outputs_are_read() {
        let table = [
            ("out", "Local to out"),
            ("a=b", "Local to a=b"),
            ("-", "Tar"),
            ("type=oci,dest=a.tar", "Oci to a.tar"),
            ("type=oci", "Oci"),
            ("type=oci,dest=-", "Oci"),
            ("type=oci,tar=false,dest=d", "OciDirectory to d"),
            (
                "type=oci,rewrite-timestamp=true,dest=x",
                "Oci to x rewriting",
            ),
            (
                "type=oci,compression=zstd,compression-level=19",
                "Oci Zstd level 19",
            ),
            (
                "type=oci,annotation.a.B=c,annotation-manifest.d=e",
                "Oci a.B=c manifest:d=e",
            ),
            (
                "type=oci,annotation-index.a.b=c,annotation-manifest[linux/arm64].d.e=f",
                "Oci index:a.b=c manifest[linux/arm64]:d.e=f",
            ),
            ("type=registry,name=r.io/a", "Image pushed as r.io/a"),
            ("type=image,push=true", "Image pushed"),
            (
                "type=image,oci-mediatypes=false",
                "Image with Docker's types",
            ),
            (
                "type=oci,force-compression=true,compression=zstd",
                "Oci Zstd forced",
            ),
            (
                "type=docker,dest=x.tar",
                "Docker to x.tar with Docker's types",
            ),
            ("type=docker", "Engine with Docker's types"),
            ("type=docker,dest=-,oci-mediatypes=true", "Docker"),
            (
                "type=docker,tar=false,dest=d",
                "DockerDirectory to d with Docker's types",
            ),
            ("type=image,\"name=a,b\"", "Image as a as b"),
            (
                "type=image,push=false,oci-mediatypes=true,unpack=true",
                "Image",
            ),
            ("type=local,dest=d", "Local to d"),
            ("type=tar,dest=x.tar", "Tar to x.tar"),
            ("type=cacheonly", "nothing"),
        ];
        for (text, expected) in table {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn wrong_outputs_say_why() {
        let table = [
            ("", "it is empty"),
            ("dest=a,x=y", "`type=` is missing"),
            ("type=zip", "`zip` is not a type of output"),
            (
                "type=docker,tar=false",
                "`dest=DIRECTORY` is missing: a directory can't go to stdout",
            ),
            ("type=oci,push=true", "only an image is pushed"),
            (
                "type=local",
                "`dest=DIRECTORY` is missing: a directory can't go to stdout",
            ),
            (
                "type=oci,tar=false",
                "`dest=DIRECTORY` is missing: a directory can't go to stdout",
            ),
            (
                "type=oci,dset=x",
                "`dset` is not an option of this type of output",
            ),
            ("type=oci,tar=maybe", "`tar` is true or false, not `maybe`"),
            ("type=oci,compression=xz", "`xz` is not a compression"),
            (
                "type=oci,annotation-other.a=b",
                "`annotation-other.a` is not an annotation",
            ),
            (
                "type=oci,annotation-index-x.a=b",
                "annotation `index-x:a` has type `index-x`, which is none of manifest, index, manifest-descriptor, index-descriptor",
            ),
            (
                "type=oci,annotation.=b",
                "`annotation.` is not an annotation",
            ),
            (
                "type=oci,annotations=b",
                "`annotations` is not an annotation",
            ),
            ("type=oci,dest", "`dest` is not a key=value pair"),
        ];
        for (text, expected) in table {
            assert_eq!(
                show(text),
                format!("invalid value `{text}` for `--output`: {expected}"),
                "{text}"
            );
        }
    }
}
