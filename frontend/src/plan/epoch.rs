//! `SOURCE_DATE_EPOCH`: seconds, or the name of something that has a time.

use super::Inputs;
use super::global::{GlobalScope, expansion_error};
use super::named_context::NamedContexts;
use super::variables::Variables;
use crate::diagnostic::Diagnostic;
use crate::git_reference::GitReference;
use crate::graph::{CopySource, NamedContext};
use crate::instruction::{AddInstruction, Instruction, InstructionKind, SourceArgument, Stage};
use crate::source::Span;

/// Name of the argument.
const NAME: &str = "SOURCE_DATE_EPOCH";

/// What `SOURCE_DATE_EPOCH` says; the builder asks for the time that it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpochSource {
    /// Seconds since 1970.
    Seconds(i64),
    /// `context`: the main build context. A directory has no time.
    Context,
    /// A named context that is a directory, git repository or URL.
    NamedContext(String),
    /// A named context that has no time: an image, or `scratch`.
    Timeless,
    /// What a stage of nothing but one ADD on `scratch` adds: a URL or git repository.
    Source(CopySource),
    /// A build argument that is none of these.
    Unknown(String),
}

/// The value, and where it stands in the file; a build argument stands nowhere.
struct Value<'a> {
    text: String,
    place: Option<&'a Instruction>,
}

fn value<'a>(inputs: Inputs<'a>, global: &GlobalScope) -> Option<Value<'a>> {
    let (text, place) = if let Some(text) = inputs.options.build_args.get(NAME) {
        (text.clone(), None)
    } else {
        let declares = |instruction: &&Instruction| {
            matches!(&instruction.kind,
                InstructionKind::Arg(pairs) if pairs.iter().any(|pair| pair.name == NAME))
        };
        let mut declarations = inputs.program.global_args.iter();
        let text = global.variables.get(NAME)?.to_owned();
        (text, declarations.rfind(declares))
    };
    (!text.is_empty()).then_some(Value { text, place })
}

/// What the argument of this name says; none if it says nothing, or may say something else once other errors are mended.
pub(super) fn find(
    inputs: Inputs<'_>,
    global: &GlobalScope,
) -> Result<Option<EpochSource>, Diagnostic> {
    let Some(value) = value(inputs, global).filter(|_| global.is_certain) else {
        return Ok(None);
    };
    let text = value.text.as_str();
    if let Ok(seconds) = text.parse() {
        return Ok(Some(EpochSource::Seconds(seconds)));
    }
    if text == "context" {
        return Ok(Some(EpochSource::Context));
    }
    let contexts = NamedContexts::new(&inputs.options.named_contexts);
    if let Some((name, context)) = contexts.get(text, &inputs.options.build_platform) {
        return Ok(Some(match context {
            NamedContext::Files => EpochSource::NamedContext(name.to_owned()),
            NamedContext::Image(_) | NamedContext::Scratch => EpochSource::Timeless,
        }));
    }
    let is_named = |stage: &&Stage| {
        let name = stage.name.as_deref();
        name.is_some_and(|name| name.eq_ignore_ascii_case(text))
    };
    if let Some(stage) = inputs.program.stages.iter().find(is_named) {
        return stage_source(inputs, global, stage).map(|source| Some(EpochSource::Source(source)));
    }
    let Some(instruction) = value.place else {
        return Ok(Some(EpochSource::Unknown(value.text)));
    };
    let message = format!("`{text}` is no time, and nothing with a time has that name");
    let error = inputs.error_at("invalid-epoch", instruction, text, message);
    Err(error.with_help(HELP))
}

/// What is right instead.
const HELP: &str = "write seconds since 1970, `context`, the name of a build context, or that of a stage with one ADD \
                    of a URL or git repository";

/// Puts the number into the place of what an `ARG` before the first FROM says.
pub(super) fn settle(inputs: Inputs<'_>, global: &mut GlobalScope) -> Result<(), Diagnostic> {
    let Some(source) = find(inputs, global)? else {
        return Ok(());
    };
    if inputs.options.build_args.contains_key(NAME) {
        return Ok(());
    }
    let seconds = match source {
        EpochSource::Seconds(seconds) => Some(seconds),
        _ => inputs.options.source_date_epoch,
    };
    let text = seconds.map(|seconds| seconds.to_string());
    global.variables.set(NAME, &text.unwrap_or_default());
    Ok(())
}

/// The one thing that a stage adds to nothing.
fn stage_source(
    inputs: Inputs<'_>,
    global: &GlobalScope,
    stage: &Stage,
) -> Result<CopySource, Diagnostic> {
    let refuse = |span: Span, what: &str| {
        let name = stage.name.as_deref().unwrap_or_default();
        let message = format!("the time of stage `{name}` can't be known: {what}");
        super::error("invalid-epoch", span, message)
            .within(stage.lines)
            .with_help("such a stage is `FROM scratch` and one ADD of a URL or git repository")
    };
    let mut variables = Variables::default();
    let known = global.variables.pairs().iter();
    for (name, value) in known.filter(|(name, _)| name != NAME) {
        variables.set(name, value);
    }
    let expand = |text: &str, span: Span, variables: &Variables| {
        inputs
            .expand(text, variables)
            .map(|expansion| expansion.text)
            .map_err(|error| expansion_error(inputs, span, text, &error))
    };
    if expand(&stage.base, stage.base_span, &variables)? != "scratch" {
        return Err(refuse(stage.base_span, "it does not begin with `scratch`"));
    }
    let mut found = None;
    for instruction in &stage.instructions {
        let span = instruction.span;
        match &instruction.kind {
            InstructionKind::Arg(pairs) => {
                for pair in pairs {
                    let given = inputs.options.build_args.get(pair.name.as_str());
                    let value = match (given, &pair.default) {
                        (Some(value), _) => value.clone(),
                        (None, Some(default)) => expand(default, span, &variables)?,
                        (None, None) => continue,
                    };
                    variables.set(&pair.name, &value);
                }
            }
            InstructionKind::Add(_) if found.is_some() => {
                return Err(refuse(span, "it has more than one ADD"));
            }
            InstructionKind::Add(add) => {
                let [SourceArgument::Path(path)] = &add.transfer.sources[..] else {
                    return Err(refuse(span, "its ADD has more than one source"));
                };
                let path = expand(path, span, &variables)?;
                let checksum = match &add.checksum {
                    Some(checksum) => Some(expand(checksum, span, &variables)?),
                    None => None,
                };
                found = Some(
                    remote(add, path, checksum)
                        .ok_or_else(|| refuse(span, "its ADD has no URL and no git repository"))?,
                );
            }
            _ => return Err(refuse(span, "it does more than ADD")),
        }
    }
    found.ok_or_else(|| refuse(stage.span, "it has no ADD"))
}

fn remote(add: &AddInstruction, path: String, checksum: Option<String>) -> Option<CopySource> {
    let checksum = checksum.filter(|checksum| !checksum.is_empty());
    let git = GitReference::parse(&path).ok()?;
    if let Some(git) = git.filter(|git| !git.is_ambiguous) {
        let query = Some(git.checksum).filter(|checksum| !checksum.is_empty());
        return Some(CopySource::Git {
            checksum: checksum.or(query),
            keep_git_dir: add.keep_git_dir.or(git.keep_git_dir),
            reference: path,
        });
    }
    let is_http = path.starts_with("http://") || path.starts_with("https://");
    is_http.then_some(CopySource::Url {
        url: path,
        checksum,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::graph::{ImageReference, NamedContext, PlanOptions, Planned};
    use crate::source::Source;

    use super::*;

    fn program(dockerfile: &str) -> crate::instruction::Program {
        crate::instructions::parse(&Source::new("Dockerfile", dockerfile.as_bytes())).unwrap()
    }

    fn options(argument: Option<&str>) -> PlanOptions {
        let image = NamedContext::Image(ImageReference::Name("debian".into()));
        PlanOptions {
            build_args: argument
                .map(|text| (NAME.to_owned(), text.to_owned()))
                .into_iter()
                .collect(),
            named_contexts: BTreeMap::from([
                ("src".to_owned(), NamedContext::Files),
                ("img".to_owned(), image),
            ]),
            ..PlanOptions::default()
        }
    }

    #[test]
    fn what_an_epoch_may_be() {
        let url = |url: &str| {
            EpochSource::Source(CopySource::Url {
                url: url.to_owned(),
                checksum: None,
            })
        };
        let stage = "FROM scratch AS time\nARG H=h\nADD https://$H/f /\nFROM scratch";
        for (dockerfile, argument, expected) in [
            ("FROM scratch", None, None),
            ("FROM scratch", Some(""), None),
            ("FROM scratch", Some("7"), Some(EpochSource::Seconds(7))),
            (
                "ARG SOURCE_DATE_EPOCH=8\nFROM scratch",
                None,
                Some(EpochSource::Seconds(8)),
            ),
            (
                "ARG SOURCE_DATE_EPOCH=8\nFROM scratch",
                Some("7"),
                Some(EpochSource::Seconds(7)),
            ),
            ("FROM scratch", Some("context"), Some(EpochSource::Context)),
            (
                "FROM scratch",
                Some("src"),
                Some(EpochSource::NamedContext("src".into())),
            ),
            ("FROM scratch", Some("img"), Some(EpochSource::Timeless)),
            (
                "FROM scratch",
                Some("x"),
                Some(EpochSource::Unknown("x".into())),
            ),
            (stage, Some("TIME"), Some(url("https://h/f"))),
        ] {
            let found = crate::plan::source_date_epoch(&program(dockerfile), &options(argument));
            assert_eq!(found, expected, "{dockerfile} {argument:?}");
        }
    }

    #[test]
    fn a_stage_with_a_time_is_one_add_on_scratch() {
        for (stage, what) in [
            (
                "FROM debian AS t\nADD https://h/f /",
                "does not begin with `scratch`",
            ),
            ("FROM scratch AS t\nCOPY a /", "does more than ADD"),
            ("FROM scratch AS t\nADD a /", "no URL and no git repository"),
            (
                "FROM scratch AS t\nADD https://h/f https://h/g /",
                "more than one source",
            ),
            (
                "FROM scratch AS t\nADD https://h/f /\nADD https://h/g /",
                "more than one ADD",
            ),
            ("FROM scratch AS t", "has no ADD"),
        ] {
            let errors = crate::plan(&program(stage), &options(Some("t")), &BTreeMap::new());
            let errors = errors.unwrap_err().into_vec();
            assert!(errors[0].message.contains(what), "{stage}: {errors:?}");
        }
        let wrong = program("ARG SOURCE_DATE_EPOCH=x\nFROM scratch");
        assert_eq!(crate::plan::source_date_epoch(&wrong, &options(None)), None);
        let errors = crate::plan(&wrong, &options(None), &BTreeMap::new());
        assert_eq!(
            errors.unwrap_err().into_vec()[0].message,
            "`x` is no time, and nothing with a time has that name"
        );
    }

    #[test]
    fn a_stage_sees_the_number() {
        let text = "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nARG SOURCE_DATE_EPOCH\nENV E=$SOURCE_DATE_EPOCH\n";
        let program =
            crate::instructions::parse(&Source::new("Dockerfile", text.as_bytes())).unwrap();
        let options = PlanOptions {
            source_date_epoch: Some(12),
            ..PlanOptions::default()
        };
        let planned = crate::plan(&program, &options, &BTreeMap::new()).unwrap();
        let Planned::Ready(graph) = planned else {
            panic!("no image is needed")
        };
        assert!(
            graph.image.config.env.contains(&"E=12".to_owned()),
            "{:?}",
            graph.image.config.env
        );
    }
}
