//! The table of build checks. Names are the reference's, so that `check=skip=…` lines in files keep working.

/// One build check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in `check=` and in reports.
    pub name: &'static str,
    /// What it is about, in one line.
    pub summary: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// Off unless asked for.
    pub is_experimental: bool,
}

const fn rule(name: &'static str, summary: &'static str, fix: &'static str) -> Rule {
    Rule {
        name,
        summary,
        fix,
        is_experimental: false,
    }
}

/// All build checks, sorted by name.
pub const RULES: [Rule; 22] = [
    rule(
        "ConsistentInstructionCasing",
        "an instruction word is not cased like most others",
        "write all instruction words in upper case, or all in lower case",
    ),
    rule(
        "CopyIgnoredFile",
        "a source of COPY or ADD is ignored by the ignore file",
        "take the file out of the ignore file, or copy something else",
    ),
    rule(
        "DuplicateStageName",
        "two stages have the same name",
        "rename one; later references mean the last one",
    ),
    rule(
        "ExposeInvalidFormat",
        "EXPOSE names an address or a host port",
        "write the container's port only; publishing is decided by `run`",
    ),
    rule(
        "ExposeProtoCasing",
        "a protocol of EXPOSE is not in lower case",
        "write `tcp`, `udp` or `sctp`",
    ),
    rule(
        "FromAsCasing",
        "`AS` is not cased like its FROM",
        "write both in upper case, or both in lower case",
    ),
    rule(
        "FromPlatformFlagConstDisallowed",
        "a stage is tied to one platform",
        "use $BUILDPLATFORM or $TARGETPLATFORM, or name the stage after the platform",
    ),
    rule(
        "InvalidBaseImagePlatform",
        "a base image is for another platform than asked for",
        "choose a base that has the platform, or another --platform",
    ),
    rule(
        "InvalidDefaultArgInFrom",
        "the defaults of ARGs make no valid base image name",
        "give the ARG a default with which the FROM can be built",
    ),
    Rule {
        name: "InvalidDefinitionDescription",
        summary: "the comment above a stage or ARG does not describe it",
        fix: "begin the comment with the name, or put a blank comment line between",
        is_experimental: true,
    },
    rule(
        "JSONArgsRecommended",
        "CMD or ENTRYPOINT runs in a shell that does not pass signals on",
        "write the command as a JSON array, or set SHELL to say that the shell is wanted",
    ),
    rule(
        "LegacyKeyValueFormat",
        "ENV or LABEL is written without `=`",
        "write name=value; quote a value that holds blanks",
    ),
    rule(
        "MaintainerDeprecated",
        "MAINTAINER is deprecated",
        "write LABEL org.opencontainers.image.authors=\"…\"",
    ),
    rule(
        "MultipleInstructionsDisallowed",
        "CMD, ENTRYPOINT or HEALTHCHECK stands twice in a stage",
        "keep the last one: the others have no effect",
    ),
    rule(
        "NoEmptyContinuation",
        "a blank line stands inside a continued instruction",
        "remove the blank line, or put a `#` on it",
    ),
    rule(
        "RedundantTargetPlatform",
        "FROM asks for the target platform, which is the default",
        "remove --platform=$TARGETPLATFORM",
    ),
    rule(
        "ReservedStageName",
        "a stage is named `scratch` or `context`",
        "choose another name",
    ),
    rule(
        "SecretsUsedInArgOrEnv",
        "an ARG or ENV looks like a secret; its value can be read from the image",
        "use RUN --mount=type=secret",
    ),
    rule(
        "StageNameCasing",
        "a stage's name has upper-case letters",
        "write it in lower case: it is read so",
    ),
    rule(
        "UndefinedArgInFrom",
        "FROM uses a variable that no ARG above it declares",
        "declare it with ARG before the first FROM",
    ),
    rule(
        "UndefinedVar",
        "a variable is used that nothing sets",
        "set it with ENV or ARG above, or correct its name",
    ),
    rule(
        "WorkdirRelativePath",
        "a relative WORKDIR depends on the base image's",
        "begin the stage's first WORKDIR with `/`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(RULES.is_sorted_by(|left, right| left.name < right.name));
    }
}
