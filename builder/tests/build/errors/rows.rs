//! The table of situations.

use super::Row;

const fn row(title: &'static str, dockerfile: &'static str, command: &'static str) -> Row {
    Row {
        title,
        dockerfile,
        files: &[],
        command,
        more: "",
    }
}

impl Row {
    const fn with(self, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { files, ..self }
    }

    const fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }
}

const BUILD: &str = "rbuild build --network none .";

/// All situations, by what the user was about.
pub(super) const SECTIONS: &[(&str, &[Row])] = &[
    ("The command line", COMMAND_LINE),
    ("The Dockerfile", DOCKERFILE),
    ("The build context", CONTEXT),
    ("COPY and ADD", COPY),
    ("RUN", RUN),
    ("Secrets, agents and permissions", GRANTS),
    ("Base images and registries", IMAGES),
    ("What is written", OUTPUT),
    ("The store and its past", STORE),
];

const COMMAND_LINE: &[Row] = &[
    row(
        "A flag that does not exist",
        "FROM base\n",
        "rbuild build --taget x .",
    ),
    row(
        "A flag that can't be had",
        "FROM base\n",
        "rbuild build --squash .",
    ),
    row(
        "A value that makes no sense",
        "FROM base\n",
        "rbuild build --memory lots .",
    ),
    row(
        "A second context, or a value that is not joined to its flag",
        "FROM base\n",
        "rbuild build --pull sometimes .",
    ),
    row("No build context", "", "rbuild build -t app"),
    row("A verb that does not exist", "", "rbuild biuld ."),
    row(
        "An image name that is none",
        "FROM base\n",
        "rbuild build -t My_App .",
    ),
    row(
        "An output of an unknown kind",
        "FROM base\n",
        "rbuild build --output type=zip,dest=a.zip .",
    ),
    row(
        "A platform that is none",
        "FROM base\n",
        "rbuild build --platform linux/amd64/v2/x .",
    ),
    row(
        "A build argument that steers the builder, with a value that it can't follow",
        "FROM base\n",
        "rbuild build --build-arg SOURCE_DATE_EPOCH=yesterday .",
    ),
];

const DOCKERFILE: &[Row] = &[
    row("No Dockerfile", "", BUILD)
        .more("`-f` names another file; `Containerfile` is looked for as well."),
    row(
        "A Dockerfile that is not there",
        "",
        "rbuild build -f Dockerfile.prod .",
    ),
    row("An empty Dockerfile", "# nothing yet\n", BUILD),
    row(
        "An instruction that does not exist",
        "FROM base\nRUM make\nCOPPY . /app\n",
        BUILD,
    )
    .more("All independent errors are told at once."),
    row(
        "A stage that does not exist",
        "FROM base AS build\nRUN true\nFROM base\nCOPY --from=biuld /data /data\n",
        "rbuild build --pull=never .",
    ),
    row(
        "A target that does not exist",
        "FROM base AS build\n",
        "rbuild build --target biuld .",
    ),
    row(
        "A flag that the instruction has not",
        "FROM base\nCOPY --chmdo=755 . /app\n",
        BUILD,
    ),
    row(
        "A here-document without its end",
        "FROM base\nRUN <<EOF\necho one\n",
        BUILD,
    ),
    row(
        "A variable that must be set",
        "ARG VERSION\nFROM base:${VERSION:?it-is-not-set}\n",
        BUILD,
    ),
    row(
        "An exec form that is not JSON",
        "FROM base\nHEALTHCHECK CMD-SHELL true\nSHELL /bin/bash -c\n",
        BUILD,
    ),
    row(
        "Stages that need each other",
        "FROM base AS one\nCOPY --from=two /a /a\nFROM base AS two\nCOPY --from=one /a /a\n",
        BUILD,
    ),
];

const CONTEXT: &[Row] = &[
    row("A context that is not there", "", "rbuild build ./nowhere"),
    row("Nothing on standard input", "", "rbuild build -"),
    row(
        "The Dockerfile and the context both from standard input",
        "",
        "rbuild build -f - -",
    ),
    row(
        "A named context that is not there",
        "FROM base\nCOPY --from=docs / /docs\n",
        "rbuild build --build-context docs=./docs .",
    ),
    row(
        "An ignore file with a broken pattern",
        "FROM base\nCOPY . /app\n",
        BUILD,
    )
    .with(&[(".dockerignore", "target\n[a-\n")]),
    row(
        "A git repository that is not there",
        "",
        "rbuild build file:///srv/no-such.git",
    ),
];

const COPY: &[Row] = &[
    row(
        "A file that is not there",
        "FROM base\nCOPY app.py /app/\n",
        BUILD,
    ),
    row(
        "A file with nearly that name",
        "FROM base\nCOPY requirement.txt /app/\n",
        BUILD,
    )
    .with(&[("requirements.txt", "flask\n")]),
    row(
        "A file that the ignore file leaves out",
        "FROM base\nCOPY build/app.js /app/\n",
        BUILD,
    )
    .with(&[
        ("build/app.js", "1"),
        (".dockerignore", "# what is made\nbuild\n*.log\n"),
    ]),
    row(
        "A file outside the context",
        "FROM base\nCOPY ../shared/lib.py /app/\n",
        BUILD,
    ),
    row(
        "A user by name, where there is no image to know one",
        "FROM scratch\nCOPY --chown=web a /a\n",
        BUILD,
    )
    .with(&[("a", "1")]),
    row(
        "A file of another stage that is not there",
        "FROM base AS build\nRUN true\nFROM base\nCOPY --from=build /app/out /out\n",
        BUILD,
    ),
    row(
        "A mode that is none",
        "FROM base\nCOPY --chmod=u+q a /a\n",
        BUILD,
    )
    .with(&[("a", "1")]),
    row(
        "A checksum that does not hold",
        "FROM base\nADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 http://{registry}/v2/ /x\n",
        BUILD,
    ),
    row(
        "A URL that nobody answers",
        "FROM base\nADD http://127.0.0.1:9/x.tar /x\n",
        BUILD,
    ),
];

const RUN: &[Row] = &[
    row("The command failed", "FROM base\nRUN (echo compiling; echo main.c:1: error) >&2; exit 2\n", BUILD).more("The last lines of the output stand above the error; `rbuild logs` has all of them."),
    row("The command is not in the image", "FROM base\nRUN curl -fsSL https://example.com\n", BUILD),
    row("A script that is not there", "FROM base\nWORKDIR /app\nRUN ./install.sh\n", BUILD),
    row("A script with Windows line ends", "FROM base\nCOPY --chmod=755 install.sh /app/\nRUN /app/install.sh\n", BUILD).with(&[("install.sh", "#!/bin/sh\r\necho installed\r\n")]),
    row("The same in the exec form", "FROM base\nCOPY --chmod=755 install.sh /app/\nRUN [\"/app/install.sh\"]\n", BUILD).with(&[("install.sh", "#!/bin/sh\r\necho installed\r\n")]),
    row("A script for a shell that is not there", "FROM base\nCOPY --chmod=755 install.sh /app/\nRUN /app/install.sh\n", BUILD).with(&[("install.sh", "#!/bin/bash -e\necho installed\n")]),
    row("A script that is not executable", "FROM base\nCOPY --chmod=644 install.sh /app/\nRUN /app/install.sh\n", BUILD).with(&[("install.sh", "#!/bin/sh\necho installed\n")]),
    row("A program for another machine", "FROM base\nCOPY --chmod=755 tool /app/\nRUN [\"/app/tool\"]\n", BUILD).with(&[("tool", S390X)]),
    row("No shell in the image", "FROM scratch\nRUN echo hello\n", BUILD),
    row("A step without a network", "FROM base\nRUN --network=none echo 'curl: (6) Could not resolve host: example.com'; exit 6\n", BUILD).more("As curl says it; other programs' words are known as well."),
    row("Words of bash in another shell", "FROM base\nRUN echo '/bin/sh: 1: [[: not found'; : [[ -n x ]]; exit 127\n", BUILD),
    row("sudo", "FROM base\nRUN sudo mkdir /opt/app\n", BUILD),
    row("No package lists", "FROM base\nRUN echo 'E: Unable to locate package curl'; : apt-get install curl; exit 100\n", BUILD),
    row("A server whose certificate is not trusted in the image", "FROM base\nRUN echo 'curl: (60) SSL certificate problem: unable to get local issuer certificate'; exit 60\n", BUILD),
    row("No space for what a step writes", "FROM base\nRUN echo \"cp: error writing '/big': No space left on device\"; exit 1\n", BUILD),
    row("A user that is not in the image", "FROM base\nUSER web\nRUN true\n", BUILD),
    row("A file where the working directory should be", "FROM base\nWORKDIR /data/one\nRUN true\n", BUILD),
    row("Killed", "FROM base\nRUN sh -c 'kill -9 $$'; exit $?\n", BUILD),
    row("A file that is mounted and not there", "FROM base\nRUN --mount=type=bind,source=app.py,target=/app.py cat /app.py\n", BUILD),
];

/// The first bytes of a program for s390x, as far as text can hold them.
const S390X: &str = "\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\x38\0\0\0\0\0\0\0\0";

const GRANTS: &[Row] = &[
    row(
        "A secret that was not given",
        "FROM base\nRUN --mount=type=secret,id=token,required cat /run/secrets/token\n",
        BUILD,
    ),
    row(
        "A secret whose file is not there",
        "FROM base\nRUN --mount=type=secret,id=token cat /run/secrets/token\n",
        "rbuild build --secret id=token,src=./token .",
    ),
    row(
        "An ssh agent that was not given",
        "FROM base\nRUN --mount=type=ssh,required true\n",
        BUILD,
    ),
    row(
        "A step that asks for all privileges",
        "FROM base\nRUN --security=insecure true\n",
        BUILD,
    ),
    row(
        "A step that asks for the host's network",
        "FROM base\nRUN --network=host true\n",
        BUILD,
    ),
    row(
        "A device",
        "FROM base\nRUN --device=vendor.com/gpu=all,required true\n",
        BUILD,
    ),
];

const IMAGES: &[Row] = &[
    row(
        "An image that is not in the registry",
        "FROM {registry}/app:1.0\n",
        BUILD,
    ),
    row(
        "An image that is not here, and pulling is switched off",
        "FROM debian:12\n",
        "rbuild build --pull=never .",
    ),
    row(
        "A registry that nobody answers for",
        "FROM localhost:9/app\n",
        BUILD,
    ),
    row(
        "A tag that is not in the store",
        "",
        "rbuild tag app:1 app:2",
    ),
    row(
        "An image that is not in the store",
        "",
        "rbuild inspect app:1",
    ),
    row("Nothing to push", "", "rbuild push app:1"),
    row(
        "A push to a registry that nobody answers for",
        "FROM base\n",
        "rbuild build -t localhost:9/app --push .",
    ),
    row("An archive that is none", "", "rbuild load -i notes.txt")
        .with(&[("notes.txt", "hello\n")]),
];

const OUTPUT: &[Row] = &[
    row(
        "An image over its budget",
        "FROM base\nRUN echo 1 > /a\nRUN echo 2 > /b\n",
        "rbuild build --budget layers=2 .",
    ),
    row(
        "An archive where a directory is",
        "FROM base\n",
        "rbuild build --output type=oci,dest=/tmp .",
    ),
    row(
        "A destination that can't be written",
        "FROM base\n",
        "rbuild build --output type=oci,dest=/dev/null/a.tar .",
    ),
];

const STORE: &[Row] = &[
    row(
        "A build that is not in the history",
        "",
        "rbuild logs nosuch 1",
    ),
    row(
        "A build that can't be explained",
        "",
        "rbuild explain nosuch 1",
    ),
    row(
        "A cache mount that is not there",
        "",
        "rbuild cache rm nosuch",
    ),
    row(
        "A filter that prune does not know",
        "",
        "rbuild prune --force --filter colour=red",
    ),
    row(
        "A store in a place that is no directory",
        "",
        "rbuild --root /dev/null images",
    ),
];
