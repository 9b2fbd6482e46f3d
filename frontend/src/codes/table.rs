//! The rows: one error, one fact each.

use super::{ErrorCode, Example, example};

/// All codes of errors, sorted by name.
pub const ERROR_CODES: [ErrorCode; 54] = [
    ErrorCode {
        name: "blank-name",
        summary: "a name before `=` is missing",
        why: "ENV, LABEL and ARG need a name for every value. A blank before `=` ends the name.",
        example: example("FROM scratch\nENV A=1 =2\n", "FROM scratch\nENV A=1 B=2\n"),
    },
    ErrorCode {
        name: "blank-volume",
        summary: "an element of VOLUME is empty",
        why: "A volume is the path of a directory.",
        example: example(
            "FROM scratch\nVOLUME [\"/data\", \"\"]\n",
            "FROM scratch\nVOLUME [\"/data\"]\n",
        ),
    },
    ErrorCode {
        name: "check-failed",
        summary: "build checks fired, and the file wants that to fail the build",
        why: "`# check=error=true`, or the build argument BUILDKIT_DOCKERFILE_CHECK, makes every build check that fires an error.",
        example: example(
            "# check=error=true\nFROM debian as build\n",
            "# check=error=true\nFROM debian AS build\n",
        ),
    },
    ErrorCode {
        name: "circular-dependency",
        summary: "stages need each other's results",
        why: "A stage can only be built from stages that are finished before it.",
        example: example(
            "FROM debian AS build\nCOPY --from=build /a /b\n",
            "FROM debian AS base\nFROM debian AS build\nCOPY --from=base /a /b\n",
        ),
    },
    ErrorCode {
        name: "duplicate-flag",
        summary: "a flag that takes one value is given twice",
        why: "Nobody can tell which of them is meant.",
        example: example(
            "FROM scratch\nCOPY --chown=1 --chown=2 a b\n",
            "FROM scratch\nCOPY --chown=2 a b\n",
        ),
    },
    ErrorCode {
        name: "empty-base",
        summary: "the base of a FROM is empty after expansion",
        why: "A variable in it has no value. FROM sees only ARGs before the first FROM.",
        example: example("ARG BASE\nFROM $BASE\n", "ARG BASE=debian\nFROM $BASE\n"),
    },
    ErrorCode {
        name: "empty-volume",
        summary: "a path of VOLUME is empty after expansion",
        why: "A variable in it has no value here.",
        example: example(
            "FROM scratch\nVOLUME $DATA\n",
            "FROM scratch\nENV DATA=/data\nVOLUME $DATA\n",
        ),
    },
    ErrorCode {
        name: "expansion",
        summary: "variables of a word can't be expanded",
        why: "Quotes have to be closed, `${` needs its `}`, and only the substitutions of the language exist.",
        example: example(
            "FROM scratch\nENV A=${B%%\n",
            "FROM scratch\nENV B=x.y\nENV A=${B%%.*}\n",
        ),
    },
    ErrorCode {
        name: "file-too-large",
        summary: "the file is larger than 16 MiB",
        why: "No Dockerfile is so large: most likely it is another file. Large files are copied into the image from the build context.",
        example: Example::NONE,
    },
    ErrorCode {
        name: "forward-reference",
        summary: "a stage is used above the place where it is defined",
        why: "Stages are built from top to bottom: one can use only those above it.",
        example: example(
            "FROM debian AS run\nCOPY --from=build /app /app\nFROM debian AS build\n",
            "FROM debian AS build\nFROM debian AS run\nCOPY --from=build /app /app\n",
        )
        .for_target("run"),
    },
    ErrorCode {
        name: "git-conflict",
        summary: "a flag of ADD and its git reference contradict each other",
        why: "`--keep-git-dir` and `--checksum` can also be said in the reference, as `?keep-git-dir=…` and `?checksum=…`.",
        example: example(
            "FROM scratch\nADD --keep-git-dir=true https://example.com/repo.git?keep-git-dir=false /src\n",
            "FROM scratch\nADD --keep-git-dir=true https://example.com/repo.git /src\n",
        ),
    },
    ErrorCode {
        name: "heredoc-destination",
        summary: "a here-document stands where the destination is expected",
        why: "The last argument of COPY and ADD says where to copy to.",
        example: example(
            "FROM scratch\nCOPY greeting <<EOF\nhello\nEOF\n",
            "FROM scratch\nCOPY <<EOF /greeting\nhello\nEOF\n",
        ),
    },
    ErrorCode {
        name: "image-unavailable",
        summary: "an image can't be had",
        why: "It is neither in the store nor can its registry give it: the message's cause says why. A misspelt stage name ends up here too, since any name that is no stage is an image.",
        example: Example::NONE,
    },
    ErrorCode {
        name: "invalid-check",
        summary: "`check=` can't be read",
        why: "It holds `skip=`, `error=` and `experimental=`, with `;` between; rules stand with `,` between, or `all`.",
        example: example(
            "# check=skpi=all\nFROM scratch\n",
            "# check=skip=all\nFROM scratch\n",
        ),
    },
    ErrorCode {
        name: "invalid-checksum",
        summary: "`--checksum` of ADD is no digest",
        why: "It is `sha256:` and 64 hexadecimal digits in lower case; for a git repository, a commit.",
        example: example(
            "FROM scratch\nADD --checksum=sha256:beef https://example.com/file /\n",
            "FROM scratch\nADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://example.com/file /\n",
        ),
    },
    ErrorCode {
        name: "invalid-device",
        summary: "`RUN --device` can't be read",
        why: "A device is named as the Container Device Interface has it, `vendor.example/class=name`; `required` says that the command can't do without.",
        example: example(
            "FROM debian\nRUN --device=vendor.example/gpu=one,reqired make\n",
            "FROM debian\nRUN --device=vendor.example/gpu=one make\n",
        ),
    },
    ErrorCode {
        name: "invalid-duration",
        summary: "a time of HEALTHCHECK can't be read",
        why: "Times are numbers with units: `30s`, `1m30s`, `500ms`. The least is one millisecond.",
        example: example(
            "FROM scratch\nHEALTHCHECK --interval=30 CMD true\n",
            "FROM scratch\nHEALTHCHECK --interval=30s CMD true\n",
        ),
    },
    ErrorCode {
        name: "invalid-escape",
        summary: "the `escape` directive names something that can't be the escape character",
        why: "It is a backslash or a backtick.",
        example: example("# escape=/\nFROM scratch\n", "# escape=`\nFROM scratch\n"),
    },
    ErrorCode {
        name: "invalid-flag-value",
        summary: "a flag has a value that it doesn't take",
        why: "Switches take `true` and `false`; other flags have a few known values.",
        example: example(
            "FROM debian\nRUN --network=hots make\n",
            "FROM debian\nRUN --network=host make\n",
        ),
    },
    ErrorCode {
        name: "invalid-from",
        summary: "FROM has a word too many or too few",
        why: "It takes an image, and perhaps `AS` and a name. A comment needs a line of its own.",
        example: example("FROM debian build\n", "FROM debian AS build\n"),
    },
    ErrorCode {
        name: "invalid-git-reference",
        summary: "a git reference of ADD can't be used",
        why: "It looks like `https://host/name.git?tag=v1&subdir=dir`, or `…#ref:subdir`.",
        example: example(
            "FROM scratch\nADD https://example.com/repo.git?brnach=main /src\n",
            "FROM scratch\nADD https://example.com/repo.git?branch=main /src\n",
        ),
    },
    ErrorCode {
        name: "invalid-image-name",
        summary: "a name is no valid image name",
        why: "Names are in lower case; behind the name may stand a tag, `:12`, and a digest, `@sha256:…`.",
        example: example("FROM Debian:12\n", "FROM debian:12\n"),
    },
    ErrorCode {
        name: "invalid-mode",
        summary: "`--chmod` can't be read",
        why: "It is an octal number such as `755`, or changes such as `u+x,go-w`.",
        example: example(
            "FROM scratch\nCOPY --chmod=899 a b\n",
            "FROM scratch\nCOPY --chmod=755 a b\n",
        ),
    },
    ErrorCode {
        name: "invalid-mount",
        summary: "an option of `RUN --mount` is wrong",
        why: "Options are `key=value` pairs with commas between. Which exist depends on the `type`, which has to stand before the options that only it has.",
        example: example(
            "FROM debian\nRUN --mount=type=cache,taget=/root/.cache make\n",
            "FROM debian\nRUN --mount=type=cache,target=/root/.cache make\n",
        ),
    },
    ErrorCode {
        name: "invalid-platform",
        summary: "`--platform` can't be read",
        why: "A platform is an operating system and an architecture, perhaps with a variant: `linux/arm64`, `linux/arm/v7`.",
        example: example(
            "FROM --platform=linux/ debian\n",
            "FROM --platform=linux/amd64 debian AS build-amd64\n",
        ),
    },
    ErrorCode {
        name: "invalid-port",
        summary: "a word of EXPOSE is no port",
        why: "Ports are numbers from 0 to 65535, ranges of them, and perhaps a protocol: `80`, `53/udp`, `8000-8010`.",
        example: example(
            "FROM scratch\nEXPOSE 80/http\n",
            "FROM scratch\nEXPOSE 80/tcp\n",
        ),
    },
    ErrorCode {
        name: "invalid-retries",
        summary: "`--retries` of HEALTHCHECK is no number",
        why: "It is a whole number from 0 on; 0 is the default.",
        example: example(
            "FROM scratch\nHEALTHCHECK --retries=three CMD true\n",
            "FROM scratch\nHEALTHCHECK --retries=3 CMD true\n",
        ),
    },
    ErrorCode {
        name: "invalid-signal",
        summary: "STOPSIGNAL names no signal",
        why: "It is a name, with or without `SIG`, or a number.",
        example: example(
            "FROM scratch\nSTOPSIGNAL SIGTREM\n",
            "FROM scratch\nSTOPSIGNAL SIGTERM\n",
        ),
    },
    ErrorCode {
        name: "invalid-stage-name",
        summary: "the word behind `AS` can't be a stage's name",
        why: "A name begins with a letter and goes on with letters, digits, `-`, `_` and `.`.",
        example: example("FROM debian AS 2nd\n", "FROM debian AS second\n"),
    },
    ErrorCode {
        name: "invalid-trigger",
        summary: "an ONBUILD trigger can't be used",
        why: "Every instruction can be a trigger but ONBUILD, FROM and MAINTAINER. A base image whose trigger is wrong has to be built again.",
        example: example(
            "FROM scratch\nONBUILD FROM debian\n",
            "FROM scratch\nONBUILD RUN make\n",
        ),
    },
    ErrorCode {
        name: "line-too-long",
        summary: "a line is longer than the language allows",
        why: "A line has at most 65,535 bytes, here-documents included.",
        example: example(
            "FROM scratch\nLABEL text=<70000 letters>\n",
            "FROM scratch\nLABEL text=letters\n",
        ),
    },
    ErrorCode {
        name: "misplaced-checksum",
        summary: "`--checksum` stands where it can check nothing",
        why: "It is for a single source that is a URL or a git repository.",
        example: example(
            "FROM scratch\nADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 file /\n",
            "FROM scratch\nADD file /\n",
        ),
    },
    ErrorCode {
        name: "missing-argument",
        summary: "an instruction that needs an argument has none",
        why: "The rest of the line may be lost, or it belongs to the instruction above.",
        example: example("FROM debian\nWORKDIR\n", "FROM debian\nWORKDIR /src\n"),
    },
    ErrorCode {
        name: "missing-destination",
        summary: "COPY or ADD has a source but no destination",
        why: "The last argument says where to copy to; `.` is the working directory.",
        example: example("FROM scratch\nCOPY app\n", "FROM scratch\nCOPY app /\n"),
    },
    ErrorCode {
        name: "missing-flag-value",
        summary: "a flag stands without its value",
        why: "It is written `--flag=value`, without a blank around `=`.",
        example: example(
            "FROM scratch\nCOPY --chown 1000 a b\n",
            "FROM scratch\nCOPY --chown=1000 a b\n",
        ),
    },
    ErrorCode {
        name: "missing-value",
        summary: "a pair of ENV or LABEL has no value",
        why: "Pairs are written `name=value`; a value that holds blanks has to be quoted.",
        example: example("FROM scratch\nENV A=1 B\n", "FROM scratch\nENV A=1 B=2\n"),
    },
    ErrorCode {
        name: "no-instructions",
        summary: "the file holds nothing but comments and blank lines",
        why: "A Dockerfile needs at least a FROM.",
        example: example("# to be written\n", "FROM scratch\n"),
    },
    ErrorCode {
        name: "no-stage",
        summary: "there is no FROM, or an instruction stands before the first",
        why: "Only ARG may stand before the first FROM: everything else belongs to a stage.",
        example: example("ENV A=1\nFROM debian\n", "FROM debian\nENV A=1\n"),
    },
    ErrorCode {
        name: "not-a-string",
        summary: "a JSON array has an element that is no string",
        why: "Where an instruction takes a JSON array, all its elements are strings.",
        example: example(
            "FROM scratch\nCMD [\"sleep\", 10]\n",
            "FROM scratch\nCMD [\"sleep\", \"10\"]\n",
        ),
    },
    ErrorCode {
        name: "plan-too-large",
        summary: "the plan of the build takes more than 256 MiB",
        why: "Variables and ARGs of a stage are repeated in each of its RUN steps and in the image's history, and a variable may repeat others. A file that grows so large is most likely made to.",
        example: Example::NONE,
    },
    ErrorCode {
        name: "remote-source",
        summary: "COPY names a URL or a git repository",
        why: "Only ADD fetches.",
        example: example(
            "FROM scratch\nCOPY https://example.com/file /\n",
            "FROM scratch\nADD https://example.com/file /\n",
        ),
    },
    ErrorCode {
        name: "repeated-directive",
        summary: "a directive stands twice",
        why: "Each of `syntax`, `escape` and `check` may stand once at the top of the file.",
        example: example(
            "# escape=`\n# escape=`\nFROM scratch\n",
            "# escape=`\nFROM scratch\n",
        ),
    },
    ErrorCode {
        name: "required-variable",
        summary: "a variable that must have a value has none",
        why: "`${NAME:?words}` and `${NAME?words}` end the build on purpose when the variable is not set; the words are the author's.",
        example: example(
            "FROM scratch\nARG VERSION\nLABEL version=${VERSION:?}\n",
            "FROM scratch\nARG VERSION=1\nLABEL version=${VERSION:?}\n",
        ),
    },
    ErrorCode {
        name: "shell-not-json",
        summary: "SHELL is not a JSON array",
        why: "The words of the shell's command line have to be told apart.",
        example: example(
            "FROM debian\nSHELL bash -c\n",
            "FROM debian\nSHELL [\"bash\", \"-c\"]\n",
        ),
    },
    ErrorCode {
        name: "step-failed",
        summary: "a step of the build failed",
        why: "The message holds the last lines of its output and the cause.",
        example: Example::NONE,
    },
    ErrorCode {
        name: "stray-argument",
        summary: "something follows `HEALTHCHECK NONE`",
        why: "It turns an inherited health check off and takes nothing.",
        example: example(
            "FROM scratch\nHEALTHCHECK NONE true\n",
            "FROM scratch\nHEALTHCHECK NONE\n",
        ),
    },
    ErrorCode {
        name: "too-many-instructions",
        summary: "the file, or what its bases trigger, has more than 100,000 instructions",
        why: "An image of so many layers could not be pushed anywhere.",
        example: Example::NONE,
    },
    ErrorCode {
        name: "unknown-flag",
        summary: "an instruction does not have this flag",
        why: "Flags stand between the instruction and its arguments, and each instruction has its own.",
        example: example(
            "FROM scratch\nCOPY --form=build a b\n",
            "FROM scratch AS build\nFROM scratch\nCOPY --from=build a b\n",
        ),
    },
    ErrorCode {
        name: "unknown-healthcheck",
        summary: "the word behind HEALTHCHECK is neither CMD nor NONE",
        why: "`HEALTHCHECK CMD command` checks, `HEALTHCHECK NONE` turns an inherited check off.",
        example: example(
            "FROM scratch\nHEALTHCHECK CDM true\n",
            "FROM scratch\nHEALTHCHECK CMD true\n",
        ),
    },
    ErrorCode {
        name: "unknown-instruction",
        summary: "a line begins with a word that is no instruction",
        why: "It is misspelt, or the line belongs to the instruction above, whose line then has to end in the escape character.",
        example: example("FROM debian\nRNU make\n", "FROM debian\nRUN make\n"),
    },
    ErrorCode {
        name: "unknown-stage",
        summary: "`--from` has a number that no stage has, or almost the name of one",
        why: "Stages are numbered from 0. A number changes when a stage is added above: names don't. A name that no stage has is an image's; where there is none to be found, a stage of a similar name was meant.",
        example: example(
            "FROM debian\nCOPY --from=1 a b\n",
            "FROM debian AS build\nFROM debian\nCOPY --from=build a b\n",
        ),
    },
    ErrorCode {
        name: "unknown-target",
        summary: "`--target` names no stage of the file",
        why: "Targets are the names of stages, in any case.",
        example: example("FROM debian AS build\n", "FROM debian AS buidl\n").for_target("buidl"),
    },
    ErrorCode {
        name: "unterminated-heredoc",
        summary: "a here-document is never ended",
        why: "It goes on to a line that is exactly its delimiter; with `<<-`, tabs may stand before it. `<<` with a blank before it begins one even in shell arithmetic: write `$((1<<2))`.",
        example: example(
            "FROM debian\nRUN <<EOF\nmake\n  EOF\n",
            "FROM debian\nRUN <<EOF\nmake\nEOF\n",
        ),
    },
    ErrorCode {
        name: "variable-in-from",
        summary: "`--from` or a mount's `from` holds a variable",
        why: "Which stages a build needs is decided before variables have values. A stage of its own can use a global ARG.",
        example: example(
            "FROM debian\nARG TOOLS=busybox\nCOPY --from=$TOOLS /bin/sh /bin/\n",
            "ARG TOOLS=busybox\nFROM $TOOLS AS tools\nFROM debian\nCOPY --from=tools /bin/sh /bin/\n",
        ),
    },
];
