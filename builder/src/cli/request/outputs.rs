//! What becomes of the image: its names, labels and annotations, and where it goes.

use rbuild::export::Annotations;
use rbuild::options::{BuildOptions, LocalEngine, Output, OutputKind};
use rbuild_frontend::reference::Reference;

use crate::cli::args::{BuildArgs, OutputArgs};
use crate::cli::error::UsageError;
use crate::cli::output::parse_output;
use crate::cli::typed::parse_switch;
use crate::cli::values::parse_image_budget;

pub(super) fn output(args: &OutputArgs, options: &mut BuildOptions) -> Result<(), UsageError> {
    for name in &args.tag {
        options.tags.push(image_name("--tag", name)?);
    }
    for text in &args.output {
        let Some(output) = parse_output(text)? else {
            options.is_cache_only = true;
            continue;
        };
        for name in &output.names {
            image_name("--output", name)?;
        }
        options.outputs.push(output);
    }
    for text in &args.label {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(UsageError::value("--label", text, "the key is empty"));
        }
        options.labels.push((key.to_owned(), value.to_owned()));
    }
    for text in &args.annotation {
        options.annotations.push(annotation(text)?);
    }
    if let Some(text) = &args.budget {
        options.budget = parse_image_budget(text)?;
    }
    Ok(())
}

/// `--load` is one more output.
pub(super) fn load(args: &BuildArgs, options: &mut BuildOptions) -> Result<(), UsageError> {
    let Some(text) = &args.output.load else {
        return Ok(());
    };
    let engine = match text.as_str() {
        "podman" => Some(LocalEngine::Podman),
        "docker" => Some(LocalEngine::Docker),
        "containerd" | "ctr" => Some(LocalEngine::Containerd),
        text => match parse_switch(text) {
            Some(true) => None,
            Some(false) => return Ok(()),
            None => {
                return Err(UsageError::value(
                    "--load",
                    text,
                    "it is one of podman, docker, containerd",
                ));
            }
        },
    };
    options.outputs.push(Output {
        engine,
        ..Output::of_kind(OutputKind::Engine)
    });
    Ok(())
}

/// `--push` pushes what the outputs keep in the store, or else the image under its own names.
pub(super) fn push(args: &BuildArgs, options: &mut BuildOptions) -> Result<(), UsageError> {
    if args.output.push {
        let mut is_said = false;
        for output in &mut options.outputs {
            if output.kind == OutputKind::Image {
                output.pushes = true;
                is_said = true;
            }
        }
        if !is_said {
            options.outputs.push(Output {
                pushes: true,
                ..Output::of_kind(OutputKind::Image)
            });
        }
    }
    let pushes_nothing =
        |output: &Output| output.pushes && output.names.is_empty() && options.tags.is_empty();
    if options.outputs.iter().any(pushes_nothing) {
        return Err(UsageError::Missing {
            flag: if args.output.push {
                "--push"
            } else {
                "--output"
            },
            reason: "there is nowhere to push to: the image has no name",
            help: "give it one with `-t REGISTRY/NAME`, or in the output with `name=`",
        });
    }
    Ok(())
}

fn image_name(flag: &'static str, name: &str) -> Result<String, UsageError> {
    match Reference::parse(name) {
        Ok(reference) if reference.digest.is_none() => Ok(name.to_owned()),
        Ok(_) => Err(UsageError::value(
            flag,
            name,
            "a name that is given can't have a digest",
        )),
        Err(_) => {
            let error = UsageError::value(flag, name, "it is not an image name");
            let lower = name.to_lowercase();
            Err(if Reference::parse(&lower).is_ok() {
                error.with_help(format!("names are in lower case: `{lower}`"))
            } else {
                error.with_help(
                    "for example `app`, `app:1.2` or `registry.example.com/team/app:1.2`",
                )
            })
        }
    }
}

/// `[TYPE[,TYPE][PLATFORM]:]KEY=VALUE`
fn annotation(text: &str) -> Result<(String, String), UsageError> {
    const FLAG: &str = "--annotation";
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| UsageError::value(FLAG, text, "it is not KEY=VALUE"))?;
    let given = (key.to_owned(), value.to_owned());
    Annotations::parse([&given])
        .map_err(|error| UsageError::value(FLAG, text, error.to_string()))?;
    Ok(given)
}
