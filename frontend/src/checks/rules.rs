//! The table of build checks. Names are the reference's, so that `check=skip=…` lines in files keep working.

use crate::codes::{Example, example};

/// One build check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in `check=` and in reports.
    pub name: &'static str,
    /// What it is about, in one line.
    pub summary: &'static str,
    /// Why that is worth a warning.
    pub why: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// A file at which it fires.
    pub example: Example,
    /// Off unless asked for.
    pub is_experimental: bool,
}

/// All build checks, sorted by name.
pub const RULES: [Rule; 22] = [
    Rule {
        name: "ConsistentInstructionCasing",
        summary: "an instruction word is not cased like most others",
        why: "Instruction words mean the same in any case, but a file that mixes them is harder to read and to search. Whichever case, all upper or all lower, most words of the file have is the wanted one.",
        fix: "write all instruction words in upper case, or all in lower case",
        example: example(
            "FROM debian\nrun make\nWORKDIR /src\n",
            "FROM debian\nRUN make\nWORKDIR /src\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "CopyIgnoredFile",
        summary: "a source of COPY or ADD is ignored by the ignore file",
        why: "What `.dockerignore` names is not part of the build context, so the copy fails or copies less than it says.",
        fix: "take the file out of the ignore file, or copy something else",
        example: example(
            "FROM scratch\nCOPY notes/today.md /\n",
            "FROM scratch\nCOPY README.md /\n",
        )
        .ignoring("notes\n"),
        is_experimental: false,
    },
    Rule {
        name: "DuplicateStageName",
        summary: "two stages have the same name",
        why: "`FROM`, `COPY --from` and `--target` then mean the last stage of that name that stands above, which is seldom what was meant.",
        fix: "rename one; later references mean the last one",
        example: example(
            "FROM debian AS build\nFROM alpine AS build\n",
            "FROM debian AS build\nFROM alpine AS run\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "ExposeInvalidFormat",
        summary: "EXPOSE names an address or a host port",
        why: "EXPOSE notes which ports the container listens on. Addresses and ports of the host are thrown away: they are chosen when a container is started.",
        fix: "write the container's port only; publishing is decided by `run`",
        example: example(
            "FROM scratch\nEXPOSE 127.0.0.1:80:8080\n",
            "FROM scratch\nEXPOSE 8080\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "ExposeProtoCasing",
        summary: "a protocol of EXPOSE is not in lower case",
        why: "The image config holds protocols in lower case; written otherwise they are not found by who searches for them.",
        fix: "write `tcp`, `udp` or `sctp`",
        example: example(
            "FROM scratch\nEXPOSE 53/UDP\n",
            "FROM scratch\nEXPOSE 53/udp\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "FromAsCasing",
        summary: "`AS` is not cased like its FROM",
        why: "Both are keywords of one instruction; mixed casing makes the stage's name harder to see.",
        fix: "write both in upper case, or both in lower case",
        example: example("FROM debian as build\n", "FROM debian AS build\n"),
        is_experimental: false,
    },
    Rule {
        name: "FromPlatformFlagConstDisallowed",
        summary: "a stage is tied to one platform",
        why: "A constant `--platform` makes the stage the same for every platform that is built: a build for several platforms gets a wrong one among them. A stage that is meant to be for one platform says so in its name.",
        fix: "use $BUILDPLATFORM or $TARGETPLATFORM, or name the stage after the platform",
        example: example(
            "FROM --platform=linux/amd64 debian AS build\n",
            "FROM --platform=$BUILDPLATFORM debian AS build\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "InvalidBaseImagePlatform",
        summary: "a base image is for another platform than asked for",
        why: "Its programs may not run at all on the target, or only under emulation.",
        fix: "choose a base that has the platform, or another --platform",
        example: example(
            "FROM --platform=linux/arm64 example.com/only-amd64 AS build-arm64\n",
            "FROM --platform=linux/amd64 example.com/only-amd64 AS build-amd64\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "InvalidDefaultArgInFrom",
        summary: "the defaults of ARGs make no valid base image name",
        why: "Such a file builds only for those who know which `--build-arg` to pass, and tools that read it without any can't tell its base.",
        fix: "give the ARG a default with which the FROM can be built",
        example: example(
            "ARG TAG\nFROM debian:${TAG}\n",
            "ARG TAG=12\nFROM debian:${TAG}\n",
        )
        .with_arg("TAG", "12"),
        is_experimental: false,
    },
    Rule {
        name: "InvalidDefinitionDescription",
        summary: "the comment above a stage or ARG does not describe it",
        why: "`--call outline` and `--call targets` show the comment above an ARG or a named stage as its description if the comment begins with its name. This check finds those that were probably meant to.",
        fix: "begin the comment with the name, or put a blank comment line between",
        example: example(
            "# check=experimental=InvalidDefinitionDescription\nFROM scratch\n# Which version to build\nARG VERSION\n",
            "# check=experimental=InvalidDefinitionDescription\nFROM scratch\n# VERSION which version to build\nARG VERSION\n",
        ),
        is_experimental: true,
    },
    Rule {
        name: "JSONArgsRecommended",
        summary: "CMD or ENTRYPOINT runs in a shell that does not pass signals on",
        why: "Written as plain text, the command is a child of `/bin/sh`, which is process 1 and does not hand SIGTERM on: the container is killed after a delay instead of stopping.",
        fix: "write the command as a JSON array, or set SHELL to say that the shell is wanted",
        example: example(
            "FROM debian\nCMD my-server --port 80\n",
            "FROM debian\nCMD [\"my-server\", \"--port\", \"80\"]\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "LegacyKeyValueFormat",
        summary: "ENV or LABEL is written without `=`",
        why: "`ENV name value` takes everything to the line's end as the value, which surprises who adds a second pair.",
        fix: "write name=value; quote a value that holds blanks",
        example: example(
            "FROM debian\nENV GREETING hello world\n",
            "FROM debian\nENV GREETING=\"hello world\"\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "MaintainerDeprecated",
        summary: "MAINTAINER is deprecated",
        why: "It sets a field of the image config that few tools read. The OCI annotation for authors is read by registries and scanners.",
        fix: "write LABEL org.opencontainers.image.authors=\"…\"",
        example: example(
            "FROM debian\nMAINTAINER Ada <ada@example.com>\n",
            "FROM debian\nLABEL org.opencontainers.image.authors=\"Ada <ada@example.com>\"\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "MultipleInstructionsDisallowed",
        summary: "CMD, ENTRYPOINT or HEALTHCHECK stands twice in a stage",
        why: "Only the last one counts; the others mislead who reads the file.",
        fix: "keep the last one: the others have no effect",
        example: example(
            "FROM debian\nCMD [\"first\"]\nCMD [\"second\"]\n",
            "FROM debian\nCMD [\"second\"]\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "NoEmptyContinuation",
        summary: "a blank line stands inside a continued instruction",
        why: "It looks like the end of the instruction and is not.",
        fix: "remove the blank line, or put a `#` on it",
        example: example(
            "FROM debian\nRUN apt-get update && \\\n\n    apt-get upgrade\n",
            "FROM debian\nRUN apt-get update && \\\n    apt-get upgrade\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "RedundantTargetPlatform",
        summary: "FROM asks for the target platform, which is the default",
        why: "It says nothing, and readers look for the reason.",
        fix: "remove --platform=$TARGETPLATFORM",
        example: example("FROM --platform=$TARGETPLATFORM debian\n", "FROM debian\n"),
        is_experimental: false,
    },
    Rule {
        name: "ReservedStageName",
        summary: "a stage is named `scratch` or `context`",
        why: "`FROM scratch` is the empty root and `context` the build context: a stage of that name can't be told from them.",
        fix: "choose another name",
        example: example("FROM debian AS context\n", "FROM debian AS sources\n"),
        is_experimental: false,
    },
    Rule {
        name: "SecretsUsedInArgOrEnv",
        summary: "an ARG or ENV looks like a secret; its value can be read from the image",
        why: "ENV values stand in the image config and ARG values in its history: whoever has the image has the secret. A secret mount exists only while its RUN step runs.",
        fix: "use RUN --mount=type=secret",
        example: example(
            "FROM debian\nARG API_TOKEN\nRUN fetch --token \"$API_TOKEN\"\n",
            "FROM debian\nRUN --mount=type=secret,id=api,env=API_TOKEN fetch --token \"$API_TOKEN\"\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "StageNameCasing",
        summary: "a stage's name has upper-case letters",
        why: "Stage names are read in lower case, and `FROM Build` is then not the stage but an image, and no valid one.",
        fix: "write it in lower case: it is read so",
        example: example("FROM debian AS Build\n", "FROM debian AS build\n"),
        is_experimental: false,
    },
    Rule {
        name: "UndefinedArgInFrom",
        summary: "FROM uses a variable that no ARG above it declares",
        why: "FROM sees only ARGs that stand before the first FROM and the platform ARGs such as BUILDPLATFORM. Anything else is empty.",
        fix: "declare it with ARG before the first FROM",
        example: example(
            "FROM debian:12${SUFFIX}\n",
            "ARG SUFFIX=-slim\nFROM debian:12${SUFFIX}\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "UndefinedVar",
        summary: "a variable is used that nothing sets",
        why: "It becomes nothing, without a word. ARGs before the first FROM have to be declared again in the stage that uses them.",
        fix: "set it with ENV or ARG above, or correct its name",
        example: example(
            "FROM debian\nARG VERSION=1\nENV RELEASE=$VERSOIN\n",
            "FROM debian\nARG VERSION=1\nENV RELEASE=$VERSION\n",
        ),
        is_experimental: false,
    },
    Rule {
        name: "WorkdirRelativePath",
        summary: "a relative WORKDIR depends on the base image's",
        why: "When the base image moves its working directory, this one moves with it.",
        fix: "begin the stage's first WORKDIR with `/`",
        example: example("FROM debian\nWORKDIR src\n", "FROM debian\nWORKDIR /src\n"),
        is_experimental: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(RULES.is_sorted_by(|left, right| left.name < right.name));
    }
}
