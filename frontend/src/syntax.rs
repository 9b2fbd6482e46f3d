//! `# syntax=…`: the frontend image that a file asks for.
//!
//! The reference would fetch that image and let it read the file. Here the file is always read by this crate, which
//! speaks the language of `docker/dockerfile` and its mirrors; whoever builds warns about any other. The request is
//! looked for as tolerantly as the reference does it, because files for other frontends need not be Dockerfiles:
//!
//! ```
//! use rbuild_frontend::syntax;
//!
//! let request = syntax::requested("// syntax=example.com/frontend:1 --fast\n{}", None).expect("it asks for one");
//! assert_eq!(request.image, "example.com/frontend:1");
//! assert!(!request.is_dockerfile());
//! ```

use crate::directive::{self, DirectiveName};
use crate::reference::Reference;

/// What a file, or the build argument `BUILDKIT_SYNTAX`, asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxRequest {
    /// The frontend's image as written.
    pub image: String,
    /// The whole value: the image and what follows it.
    pub command_line: String,
}

impl SyntaxRequest {
    fn new(value: &str) -> Option<Self> {
        let image = value.split(' ').next().unwrap_or_default();
        (!image.is_empty()).then(|| Self {
            image: image.to_owned(),
            command_line: value.to_owned(),
        })
    }

    /// Whether the frontend reads Dockerfiles as this crate does: `docker/dockerfile` or `docker/dockerfile-upstream`
    /// with any tag, from Docker Hub or from a mirror of it.
    pub fn is_dockerfile(&self) -> bool {
        let Ok(reference) = Reference::parse(&self.image) else {
            return false;
        };
        ["docker/dockerfile", "docker/dockerfile-upstream"]
            .iter()
            .any(|known| {
                let in_front = reference.repository.strip_suffix(known);
                in_front.is_some_and(|path| path.is_empty() || path.ends_with('/'))
            })
    }
}

/// The frontend that is asked for: by `given` (the build argument `BUILDKIT_SYNTAX`), else by the file in a `#` comment
/// at its top, in a `//` comment, or as the key `syntax` of a JSON object.
pub fn requested(text: &str, given: Option<&str>) -> Option<SyntaxRequest> {
    let from_comment = |mark| {
        let directives = directive::scan(text, mark);
        let syntax = directives
            .into_iter()
            .find(|found| found.name == DirectiveName::Syntax);
        SyntaxRequest::new(&syntax?.value)
    };
    given
        .and_then(|value| SyntaxRequest::new(value.trim()))
        .or_else(|| from_comment("#"))
        .or_else(|| from_comment("//"))
        .or_else(|| from_json(text))
}

fn from_json(text: &str) -> Option<SyntaxRequest> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = match text.strip_prefix("#!") {
        Some(behind) => behind.split_once('\n')?.1,
        None => text,
    };
    // Nothing but an object is worth a parser's time.
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?;
    (!value.is_empty()).then(|| SyntaxRequest {
        image: value.to_owned(),
        command_line: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_found() {
        for (text, given, wanted) in [
            (
                "# syntax=docker/dockerfile:1\nFROM a",
                None,
                Some("docker/dockerfile:1"),
            ),
            ("#!/bin/sh\n#SYNTAX = a/b c\nFROM a", None, Some("a/b")),
            ("# escape=`\n# syntax=a", None, Some("a")),
            ("//syntax=a\nFROM b", None, Some("a")),
            ("{\"x\": 1, \"syntax\": \"a b\"}", None, Some("a b")),
            ("#!x\n {\"syntax\": \"a\"}", None, Some("a")),
            ("{\"syntax\": 1}", None, None),
            ("FROM a\n# syntax=b", None, None),
            (" # syntax=b", None, None),
            ("# note\n# syntax=b", None, None),
            ("# syntax=a", Some(" b c"), Some("b")),
            ("# syntax=a", Some(""), Some("a")),
            ("", None, None),
        ] {
            let found = requested(text, given);
            assert_eq!(
                found.as_ref().map(|found| found.image.as_str()),
                wanted,
                "{text}"
            );
        }
    }

    #[test]
    fn mirrors_of_the_usual_frontend_are_known() {
        for (image, wanted) in [
            ("docker/dockerfile", true),
            ("docker/dockerfile:1.7-labs", true),
            ("docker.io/docker/dockerfile-upstream:master", true),
            ("mirror.example:5000/hub/docker/dockerfile:1", true),
            ("notdocker/dockerfile:1", false),
            ("docker/dockerfile-other", false),
            ("ghcr.io/a/b", false),
            ("Not An Image", false),
        ] {
            let request = SyntaxRequest {
                image: image.to_owned(),
                command_line: image.to_owned(),
            };
            assert_eq!(request.is_dockerfile(), wanted, "{image}");
        }
    }
}
