//! The binary as a shell sees it: words on the right stream, and exit codes.

use std::process::{Command, Output};

fn rbuild(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env_clear()
        .env("HOME", "/nonexistent");
    command
        .output()
        .expect("the binary was built with this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_is_short() {
    let output = rbuild(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(text(&output.stdout), @r"
    Builds OCI images from Dockerfiles, without a daemon.

    `rbuild -t NAME .` is short for `rbuild build -t NAME .`.

    Usage: rbuild [OPTIONS] <COMMAND>

    Commands:
      build       Build an image (the default verb)
      check       Look for mistakes in a Dockerfile, and mend those that are mechanical
      run         Run a command in an image
      shell       Open a shell in what a step left, one that failed above all
      images      List the images of the store [alias: ls]
      inspect     Print what the store knows of an image, its config or its manifest
      history     Print how an image was made, newest line first
      layers      Print what each layer of an image adds, changes and wastes
      explain     Say why the steps of a build ran, or did not
      builds      List, show and remove past builds
      logs        Print what the steps of a build wrote
      report      Write a build as an HTML page: timeline, logs, decisions, layers, cost of each line
      graph       Draw the steps of a Dockerfile, or of a past build, and what needs what
      tag         Give an image another name
      rmi         Remove names; layers that nothing else uses become prunable
      du          Show what the store takes on its disk
      prune       Remove what nothing needs: steps, cache mounts, blobs, images without a name
      cache       Look at single cache mounts, and remove them
      fsck        Check that the store is whole, and mend it: 0 it is whole (or is now), 1 it is not
      pull        Fetch images from registries into the store
      push        Send images of the store to their registries
      save        Write images into an archive that docker, podman and skopeo read
      copy        Copy an image between registries, the store, layouts and archives
      load        Take the images of an archive into the store: what save, docker, podman and skopeo
                  write
      import      Make an image of a root file system in a tar archive
      export      Write an image's root file system as a tar archive
      login       Keep a user and password for a registry, once it has taken them
      logout      Forget the user and password for a registry
      info        Print where things are, or which file decides what for a registry or image name
      version     Print the version
      completion  Print a completion script for a shell
      man         Write manual pages
      help        Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Global options:
          --root <DIR>
              Where images, layers and step records are kept [env: RBUILD_ROOT]
              
              Default: /var/lib/rbuild as root, else $XDG_DATA_HOME/rbuild or ~/.local/share/rbuild.

          --config <FILE>
              Configuration, instead of the machine's and the user's rbuild.toml; stands before the verb
              [env: RBUILD_CONFIG]

          --log-level <off|error|warn|info|debug|trace>
              What rbuild says about itself on stderr [env: RBUILD_LOG] [default: warn]

    Examples:
      rbuild -t app .                              build ./Dockerfile, name the result `app`
      rbuild -o type=oci,dest=app.tar .            write an OCI archive
      rbuild run app                               run it
    ");
}

#[test]
fn help_of_a_build() {
    let output = rbuild(&["build", "-h"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(text(&output.stdout), @r"
    Build an image (the default verb)

    Usage: rbuild build [OPTIONS] <CONTEXT>

    Arguments:
      <CONTEXT>  A directory, `-` (a tar archive or a Dockerfile on stdin), a git URL or the URL of a
                 tar archive or Dockerfile

    Options:
      -h, --help  Print help (see more with '--help')

    Input:
      -f, --file <FILE>
              The Dockerfile: a path, a URL, or `-` for stdin [default: CONTEXT/Dockerfile, then
              CONTEXT/Containerfile]
          --target <STAGE>
              Stop at this stage [default: the last one]
          --platform <PLATFORM[,…]>
              Platforms to build for, such as linux/arm64 [env: DOCKER_DEFAULT_PLATFORM]
          --build-arg <NAME[=VALUE]>
              A build argument; without a value it is taken from the environment, if it is there
          --build-context <NAME=SPEC>
              A further context: NAME=DIR, docker-image://REF, oci-layout://DIR[:TAG], a git URL or the
              URL of a file
          --context-subdir <DIR>
              The directory of an archive or repository that is the context
          --secret <id=ID[,src=FILE|,env=VAR]>
              A secret for `RUN --mount=type=secret`, git or http: id=ID,src=FILE or id=ID,env=VARIABLE
          --ssh <default|ID[=PATH]>
              An agent socket or key for `RUN --mount=type=ssh` and git; `default` is $SSH_AUTH_SOCK

    Output:
      -t, --tag <NAME[:TAG]>        Name the image in the store
          --push                    Push the image to the registries of its names, as soon as it is
                                    built
          --load[=<ENGINE>]         Give the image to podman, docker or containerd; without a word to
                                    the first that is installed
      -o, --output <DEST>           Write the result: DIR, `-` (a tar on stdout), or
                                    type=oci|docker|local|tar|image|registry,dest=PATH,…
          --timestamp <SECONDS>     Time of the image and of all its files, in seconds since 1970, so
                                    that equal builds give equal digests
          --label <KEY[=VALUE]>     A label of the image config
          --annotation <KEY=VALUE>  An annotation of the manifest
          --budget <LIMITS>         Fail if the image is larger: size=200MB,added=50MB,layers=20
          --iidfile <FILE>          Write the image id to a file
          --report <FILE>           Write an HTML page about the build to a file
          --metadata-file <FILE>    Write digests and names to a file, as JSON

    Cache:
          --no-cache                       Run every step again
          --no-cache-filter <STAGE[,…]>    Run the steps of these stages again
          --cache-from <type=TYPE,…>       Take results of steps from a cache: type=local,src=DIR,
                                           type=registry,ref=NAME
          --cache-to <type=TYPE,…>         Keep results of steps in a cache: type=local,dest=DIR,
                                           type=registry,ref=NAME, type=inline; mode=min|max,
                                           compression=…
          --pull[=<always|missing|never>]  Look up base images in their registry again; a bare --pull
                                           means always
          --no-stat-cache                  Read every context file instead of trusting unchanged times
                                           and inodes

    Registries:
          --authfile <FILE>            Read credentials from this file only [env: REGISTRY_AUTH_FILE]
          --creds <USER:PASSWORD>      Who we are at every registry; other users of the machine can see
                                       it
          --tls-verify[=<true|false>]  Insist on valid certificates, or with =false do without and take
                                       plain HTTP
          --cert-dir <DIR>             Certificates: *.crt of authorities, *.cert and *.key of our own
          --ca-cert <FILE>             Trust the authorities in this file (PEM) too: here, and in RUN
                                       steps

    Sandbox:
          --network <MODE>             Network of RUN steps: default (a private one), host or none
          --add-host <HOST:ADDRESS>    A line for /etc/hosts of RUN steps; the address may be
                                       host-gateway
          --ulimit <NAME=SOFT[:HARD]>  A resource limit of RUN steps, such as nofile=1024:2048
          --shm-size <SIZE>            Size of /dev/shm, such as 16m
      -m, --memory <SIZE>              Memory that a step may use, such as 512m
          --memory-swap <SIZE>         Memory and swap together; -1 is no limit
          --cpus <N>                   CPUs that a step may use, such as 1.5
      -c, --cpu-shares <N>             Weight of a step against other processes; 1024 is one share
          --cpuset-cpus <LIST>         CPUs that a step may run on, such as 0-2,7
          --cpuset-mems <LIST>         Memory nodes that a step may use
          --pids-limit <N>             Processes and threads that a step may have at a time; -1 is no
                                       limit
          --cgroup-parent <PATH>       The cgroup below which those of steps are made
          --resource <NAME=VALUE,…>    Limits as a list: memory=512m,cpus=1.5,pids-limit=100
          --allow <ENTITLEMENT>        Permit more than the default sandbox: network.host,
                                       security.insecure
          --on-failure <MODE>          A failed step's files: keep (for `rbuild shell`), shell (at
                                       once), discard; auto keeps them on a terminal
      -j, --jobs <N>                   Steps that may run at once [default: number of CPUs]
          --isolation <MODE>           How commands are isolated: auto (the strongest to be had),
                                       namespaces, userns or chroot [env: RBUILD_ISOLATION]
          --ignore-chown-errors        Without subordinate ids: leave out owners that can't be set [env:
                                       RBUILD_IGNORE_CHOWN_ERRORS]

    Display:
          --progress <auto|tty|plain|quiet|rawjson>
              How progress is shown [env: BUILDKIT_PROGRESS] [default: auto]
      -q, --quiet
              Print only the image id
          --check
              Don't build: run the build checks; same as --call check
          --call <check|outline|targets[,format=json]>
              Don't build: print what checks find, what the target can be given, or the stages
          --format <text|json|sarif|github>
              How --check and --call print; sarif and github are for findings
      -D, --debug
              Same as --log-level debug

    Global options:
          --root <DIR>
              Where images, layers and step records are kept [env: RBUILD_ROOT]
          --log-level <off|error|warn|info|debug|trace>
              What rbuild says about itself on stderr [env: RBUILD_LOG] [default: warn]
    ");
}

#[test]
fn version() {
    let output = rbuild(&["version"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), format!("rbuild {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn completion_scripts_of_shells_that_do_not_ask_name_the_flags() {
    for shell in ["elvish", "powershell"] {
        let output = rbuild(&["completion", shell]);
        assert!(text(&output.stdout).contains("build-arg"), "{shell}");
    }
}

#[test]
fn bad_usage_ends_with_2_and_says_what_is_wrong_on_stderr() {
    let table: &[(&[&str], &str)] = &[
        (&[], "Usage: rbuild"),
        (&["build"], "error: there is no build context"),
        (
            &["--no-such-flag", "."],
            "unexpected argument '--no-such-flag'",
        ),
        (&["--biuld-arg", "a=b", "."], "--build-arg"),
        (&["--no-cache=maybe", "."], "--no-cache"),
        (
            &["-t", "UPPER", "."],
            "help: names are in lower case: `upper`",
        ),
        (
            &["--push", "."],
            "there is nowhere to push to: the image has no name",
        ),
        (
            &["--memory", "1k", "."],
            "error: invalid value `1k` for `--memory`: no process fits",
        ),
        (&["imges"], "error: the context `imges` does not exist"),
        (
            &["imges"],
            "help: the first word is neither a verb nor a directory",
        ),
        (
            &["-f", "Dockerfile", "/etc/passwd"],
            "error: the context `/etc/passwd` is not a directory",
        ),
        (
            &["build", "--progress", "x", "."],
            "invalid value `x` for `--progress`",
        ),
    ];
    for (arguments, expected) in table {
        let output = rbuild(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(
            !stderr.contains('\x1b'),
            "no colours without a terminal: {stderr:?}"
        );
    }
}

#[test]
fn a_closed_stdout_is_no_error() {
    let script = "\"$0\" completion bash | head -1; exit \"${PIPESTATUS[0]}\"";
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_rbuild")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn info_says_where_the_store_is() {
    let output = rbuild(&["info", "--root", "/some/where"]);
    assert!(
        text(&output.stdout).contains("root     /some/where\n"),
        "{}",
        text(&output.stdout)
    );
}
