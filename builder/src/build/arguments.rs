//! Build arguments that steer the builder itself, whatever the Dockerfile says: `BUILDKIT_…`.
//!
//! | argument | what becomes of it |
//! |---|---|
//! | `BUILDKIT_CACHE_MOUNT_NS`, `BUILDKIT_SANDBOX_HOSTNAME`, `BUILDKIT_DOCKERFILE_CHECK` | the planner's |
//! | `BUILDKIT_CONTEXT_KEEP_GIT_DIR` | for contexts that are git repositories |
//! | `BUILDKIT_MULTI_PLATFORM` | [`wants_index`] |
//! | `BUILDKIT_SYNTAX` | as `# syntax=`: [`notices`] |
//! | `BUILDKIT_INLINE_CACHE`, `BUILDKIT_SBOM_SCAN_…` | answered with a notice |
//! | `BUILDKIT_BUILD_NAME`, `BUILDKIT_HISTORY_PROVENANCE_V1` | nothing here depends on them |

use rbuild_frontend::source::Source;
use rbuild_frontend::syntax;

use crate::error::BuildError;
use crate::options::BuildOptions;

/// All that have a meaning somewhere; any other is as likely misspelt as an argument without an ARG.
const KNOWN: &[&str] = &[
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_HISTORY_PROVENANCE_V1",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE",
    "BUILDKIT_SYNTAX",
    "SOURCE_DATE_EPOCH",
];

/// Whether an argument means something without an ARG that asks for it.
pub(super) fn is_predefined(name: &str) -> bool {
    const PLATFORM: [&str; 2] = ["TARGET", "BUILD"];
    let is_platform = |name: &str| {
        let rest = PLATFORM.iter().find_map(|start| name.strip_prefix(start));
        matches!(
            rest,
            Some("PLATFORM" | "OS" | "OSVERSION" | "ARCH" | "VARIANT" | "STAGE")
        )
    };
    name.to_ascii_lowercase().ends_with("_proxy") || KNOWN.contains(&name) || is_platform(name)
}

/// Whether the outputs hold an index even over a single image.
pub(super) fn wants_index(options: &BuildOptions) -> Result<bool, BuildError> {
    const NAME: &str = "BUILDKIT_MULTI_PLATFORM";
    let Some(text) = options.build_args.get(NAME).filter(|text| !text.is_empty()) else {
        return Ok(false);
    };
    let wants = is_true(text).ok_or_else(|| BuildError::Argument {
        name: NAME,
        value: text.clone(),
        reason: "it is neither true nor false",
    })?;
    if !wants && options.platforms.len() > 1 {
        return Err(BuildError::Argument {
            name: NAME,
            value: text.clone(),
            reason: "several platforms are asked for, and only an index holds them",
        });
    }
    Ok(wants)
}

/// What a user should know of the arguments and of `# syntax=` that a build like this has no use for.
pub(super) fn notices(source: &Source, options: &BuildOptions) -> Vec<String> {
    let given = |name: &str| options.build_args.get(name).map(String::as_str);
    let mut notices = Vec::new();
    if let Some(request) = syntax::requested(source.text(), given("BUILDKIT_SYNTAX"))
        && !request.is_dockerfile()
    {
        notices.push(format!(
            "`{}` asks for the frontend `{}`: it is not fetched, the file is read as a Dockerfile",
            if given("BUILDKIT_SYNTAX").is_some_and(|text| !text.trim().is_empty()) {
                "BUILDKIT_SYNTAX"
            } else {
                "syntax"
            },
            request.image
        ));
    }
    if given("BUILDKIT_INLINE_CACHE").is_some_and(|text| is_true(text) == Some(true)) {
        notices.push(
            "`BUILDKIT_INLINE_CACHE` has no effect: nothing of the cache is put into images"
                .to_owned(),
        );
    }
    for name in ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"] {
        if given(name).is_some_and(|text| is_true(text) != Some(false)) {
            notices.push(format!("`{name}` has no effect: no SBOM is made"));
        }
    }
    notices
}

/// Go's spellings of a boolean.
fn is_true(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[(&str, &str)]) -> BuildOptions {
        let pairs = arguments.iter();
        BuildOptions {
            build_args: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..BuildOptions::default()
        }
    }

    #[test]
    fn an_index_is_asked_for() {
        let mut of = options(&[("BUILDKIT_MULTI_PLATFORM", "1")]);
        assert!(wants_index(&of).expect("a boolean"));
        for (text, platforms) in [("maybe", 1), ("0", 2)] {
            of = options(&[("BUILDKIT_MULTI_PLATFORM", text)]);
            of.platforms = vec![rbuild_frontend::platform::Platform::default(); platforms];
            let error = wants_index(&of).expect_err(text);
            assert!(
                error.to_string().contains("BUILDKIT_MULTI_PLATFORM"),
                "{error}"
            );
        }
        of = options(&[("BUILDKIT_MULTI_PLATFORM", "")]);
        assert!(!wants_index(&of).expect("an empty one is none"));
    }

    #[test]
    fn other_frontends_and_useless_arguments_are_told() {
        let notices = |text: &str, arguments: &[(&str, &str)]| {
            notices(
                &Source::new("Dockerfile", text.as_bytes()),
                &options(arguments),
            )
        };
        assert_eq!(
            notices("# syntax=docker/dockerfile:1\nFROM a", &[]),
            [""; 0]
        );
        assert_eq!(
            notices("# syntax=example.com/other:1\nFROM a", &[]),
            [
                "`syntax` asks for the frontend `example.com/other:1`: it is not fetched, the file is read as a Dockerfile"
            ]
        );
        let arguments = [
            ("BUILDKIT_SYNTAX", "a/b"),
            ("BUILDKIT_INLINE_CACHE", "1"),
            ("BUILDKIT_SBOM_SCAN_STAGE", "build"),
            ("BUILDKIT_SBOM_SCAN_CONTEXT", "false"),
        ];
        let found = notices("FROM a", &arguments);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("`BUILDKIT_SYNTAX` asks"), "{found:?}");
    }

    #[test]
    fn misspelt_arguments_are_not_predefined() {
        for (name, wanted) in [
            ("BUILDKIT_SYNTAX", true),
            ("BUILDKIT_SINTAX", false),
            ("TARGETARCH", true),
            ("TARGET", false),
            ("BUILD_VERSION", false),
            ("http_proxy", true),
        ] {
            assert_eq!(is_predefined(name), wanted, "{name}");
        }
    }
}
