//! One row, one command line: what each flag means.

use clap::FromArgMatches;

use super::*;
use crate::cli::args::{Cli, Verb};
use crate::cli::{command, typed};

fn request(line: &str, variables: &[(&str, &str)]) -> Result<BuildRequest, String> {
    let words = std::iter::once("rbuild")
        .chain(line.split_whitespace())
        .map(Into::into)
        .collect();
    let matches = command()
        .try_get_matches_from(typed::normalise(&command(), words))
        .map_err(|error| error.to_string())?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    let Verb::Build(args) = cli.verb else {
        return Err("another verb".to_owned());
    };
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    BuildRequest::new(&args, &variables).map_err(|error| error.to_string())
}

/// Asserts what one part of the options is after each command line.
fn table<T: PartialEq + std::fmt::Debug>(
    variables: &[(&str, &str)],
    part: impl Fn(BuildRequest) -> T,
    rows: Vec<(&str, T)>,
) {
    for (line, expected) in rows {
        assert_eq!(
            part(request(line, variables).unwrap_or_else(|error| panic!("{line}: {error}"))),
            expected,
            "{line}"
        );
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn contexts() {
    table(
        &[],
        |request| {
            format!(
                "{:?} {:?}",
                request.options.context, request.options.dockerfile
            )
        },
        vec![
            (".", "Directory(\".\") None".to_owned()),
            ("-", "Stdin None".to_owned()),
            ("-f - .", "Directory(\".\") Some(Stdin)".to_owned()),
            (
                "-f a/Dockerfile.b dir",
                "Directory(\"dir\") Some(Path(\"a/Dockerfile.b\"))".to_owned(),
            ),
            (
                "https://example.com/a.git#main",
                "Url(\"https://example.com/a.git#main\") None".to_owned(),
            ),
            (
                "git@example.com:a/b.git",
                "Url(\"git@example.com:a/b.git\") None".to_owned(),
            ),
        ],
    );
}

#[test]
fn build_args() {
    table(
        &[("FROM_ENV", "e"), ("EMPTY", "")],
        |request| request.options.build_args,
        vec![
            (
                "--build-arg A=1 --build-arg=B=x=y .",
                map(&[("A", "1"), ("B", "x=y")]),
            ),
            ("--build-arg A=1 --build-arg A=2 .", map(&[("A", "2")])),
            ("--build-arg A= .", map(&[("A", "")])),
            (
                "--build-arg FROM_ENV --build-arg EMPTY --build-arg NOT_SET .",
                map(&[("FROM_ENV", "e"), ("EMPTY", "")]),
            ),
        ],
    );
}

#[test]
fn source_date_epoch_comes_from_the_environment_or_an_argument() {
    let part = |request: BuildRequest| {
        (
            request.options.source_date_epoch,
            request.options.build_args.get("SOURCE_DATE_EPOCH").cloned(),
        )
    };
    table(
        &[],
        part,
        vec![
            (".", (None, None)),
            (
                "--build-arg SOURCE_DATE_EPOCH=7 .",
                (Some(7), Some("7".to_owned())),
            ),
            (
                "--build-arg SOURCE_DATE_EPOCH=context .",
                (None, Some("context".to_owned())),
            ),
        ],
    );
    let environment = &[("SOURCE_DATE_EPOCH", "5")];
    table(
        environment,
        part,
        vec![
            (".", (Some(5), Some("5".to_owned()))),
            (
                "--build-arg SOURCE_DATE_EPOCH .",
                (Some(5), Some("5".to_owned())),
            ),
            (
                "--build-arg SOURCE_DATE_EPOCH=7 .",
                (Some(7), Some("7".to_owned())),
            ),
        ],
    );
}

#[test]
fn a_timestamp_is_the_epoch_and_has_every_output_rewritten() {
    let request = request(
        "--timestamp 7 -o type=oci,dest=x --load .",
        &[("SOURCE_DATE_EPOCH", "5")],
    );
    let options = request.expect("right").options;
    assert_eq!(options.source_date_epoch, Some(7));
    assert_eq!(options.build_args["SOURCE_DATE_EPOCH"], "7");
    assert_eq!(options.outputs.len(), 2);
    assert!(
        options
            .outputs
            .iter()
            .all(|output| output.rewrites_timestamps)
    );
    let error = self::request("--timestamp 7 --build-arg SOURCE_DATE_EPOCH=8 .", &[]);
    let error = error.expect_err("two times");
    assert!(error.contains("both say what time it is"), "{error}");
}

#[test]
fn secrets() {
    table(
        &[("token", "v")],
        |request| {
            request
                .options
                .secrets
                .into_iter()
                .map(|(id, source)| format!("{id} {source:?}"))
                .collect::<Vec<_>>()
                .join(";")
        },
        vec![
            ("--secret id=a,src=f .", "a File(\"f\")".to_owned()),
            (
                "--secret type=file,id=a,source=f .",
                "a File(\"f\")".to_owned(),
            ),
            ("--secret id=a,env=V .", "a Environment(\"V\")".to_owned()),
            (
                "--secret id=a,type=env,src=V .",
                "a Environment(\"V\")".to_owned(),
            ),
            (
                "--secret id=token .",
                "token Environment(\"token\")".to_owned(),
            ),
            (
                "--secret id=token,type=file .",
                "token File(\"token\")".to_owned(),
            ),
            ("--secret id=other .", "other File(\"other\")".to_owned()),
        ],
    );
}

#[test]
fn ssh_defaults_to_the_agent() {
    table(
        &[("SSH_AUTH_SOCK", "/agent")],
        |request| request.options.ssh,
        vec![
            (
                "--ssh default .",
                BTreeMap::from([("default".to_owned(), "/agent".into())]),
            ),
            (
                "--ssh key=/k .",
                BTreeMap::from([("key".to_owned(), "/k".into())]),
            ),
        ],
    );
}

#[test]
fn pulls() {
    table(
        &[],
        |request| request.options.pull,
        vec![
            (".", PullPolicy::Missing),
            ("--pull .", PullPolicy::Always),
            ("--pull=true .", PullPolicy::Always),
            ("--pull=false .", PullPolicy::Missing),
            ("--pull=always .", PullPolicy::Always),
            ("--pull=never .", PullPolicy::Never),
        ],
    );
}

#[test]
fn names_labels_and_annotations() {
    table(
        &[],
        |request| {
            (
                request.options.tags.join(" "),
                request.options.labels,
                request.options.annotations,
            )
        },
        vec![
            ("-t a -t b:1 .", ("a b:1".to_owned(), vec![], vec![])),
            (
                "--label k=v --label k2 --annotation a=b --annotation manifest:c=d .",
                (
                    String::new(),
                    vec![("k".into(), "v".into()), ("k2".into(), String::new())],
                    vec![("a".into(), "b".into()), ("manifest:c".into(), "d".into())],
                ),
            ),
        ],
    );
}

#[test]
fn cache_and_sandbox() {
    table(
        &[],
        |request| {
            let options = request.options;
            format!(
                "{} {:?} {:?} {:?} {:?} {:?}",
                options.ignores_cache,
                options.ignores_cache_of,
                options.network,
                options.shm_size,
                options.entitlements,
                options.max_parallelism
            )
        },
        vec![
            (".", "false [] Default None [] None".to_owned()),
            (
                "--no-cache=true .",
                "true [] Default None [] None".to_owned(),
            ),
            (
                "--no-cache-filter a,b --no-cache-filter c .",
                "false [\"a\", \"b\", \"c\"] Default None [] None".to_owned(),
            ),
            (
                "--network host --allow network.host .",
                "false [] Host None [NetworkHost] None".to_owned(),
            ),
            (
                "--network=bridge --shm-size 16m -j 2 .",
                "false [] Default Some(16777216) [] Some(2)".to_owned(),
            ),
        ],
    );
}

#[test]
fn progress_modes() {
    let part = |request: BuildRequest| request.progress;
    table(
        &[],
        part,
        vec![
            (".", ProgressMode::Auto),
            ("--progress plain .", ProgressMode::Plain),
            ("-q .", ProgressMode::Quiet),
            ("--quiet=true .", ProgressMode::Quiet),
        ],
    );
    table(
        &[("BUILDKIT_PROGRESS", "rawjson")],
        part,
        vec![
            (".", ProgressMode::RawJson),
            ("--progress=tty .", ProgressMode::Tty),
        ],
    );
}

#[test]
fn what_ci_files_are_full_of_never_fails_a_build() {
    for line in [
        "--provenance=false --sbom=false .",
        "--provenance false .",
        "--builder default --rm --force-rm --pull=true .",
        "--cache-from type=gha --cache-from user/app:cache --cache-to type=gha,mode=max,scope=x .",
        "--rm=false --force-rm=true --compress --load=false --push=false .",
        "--attest type=provenance,disabled=true --attest type=sbom,disabled=true .",
        "--isolation default --disable-content-trust=true --call=build -D .",
        "--memory 1g --memory-swap -1 --cpus 2 --cpu-shares 5 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 5 --cgroup-parent x .",
        "-m 1g -c 5 --cpu-period 1000 --cpu-quota 500 --resource memory=1g,cpus=1 .",
        "-t a -t b --output type=oci,dest=x.tar --metadata-file m --iidfile i .",
    ] {
        if let Err(error) = request(line, &[]) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_cannot_be_had_is_refused_with_its_flag() {
    let refused = [
        "--squash",
        "--attest type=sbom",
        "--provenance=true",
        "--provenance mode=max",
        "--sbom true",
        "--security-opt seccomp=x",
        "--policy filename=x",
        "--disable-content-trust=false",
    ];
    for words in refused {
        let error = request(&format!("{words} ."), &[]).expect_err(words);
        let flag = words.split([' ', '=']).next().unwrap();
        assert!(
            error.starts_with(&format!("`{flag}`: ")),
            "{words}: {error}"
        );
    }
}

#[test]
fn wrong_values_name_their_flag() {
    let wrong = [
        (
            "--build-arg =x .",
            "invalid value `=x` for `--build-arg`: the name is empty",
        ),
        (
            "--build-context a .",
            "invalid value `a` for `--build-context`: it is not NAME=SPEC",
        ),
        (
            "--secret src=f .",
            "invalid value `src=f` for `--secret`: `id` is missing",
        ),
        (
            "--secret id=a,x=y .",
            "invalid value `id=a,x=y` for `--secret`: `x` is not an option",
        ),
        (
            "--secret a .",
            "invalid value `a` for `--secret`: `a` is not a key=value pair",
        ),
        (
            "--ssh default .",
            "invalid value `default` for `--ssh`: there is no agent: SSH_AUTH_SOCK is not set",
        ),
        (
            "-t App .",
            "invalid value `App` for `--tag`: it is not an image name",
        ),
        (
            "--label =x .",
            "invalid value `=x` for `--label`: the key is empty",
        ),
        (
            "--annotation x .",
            "invalid value `x` for `--annotation`: it is not KEY=VALUE",
        ),
        (
            "--annotation index-manifest:a=b .",
            "invalid value `index-manifest:a=b` for `--annotation`: annotation `index-manifest:a` has type `index-manifest`, which is none of manifest, index, manifest-descriptor, index-descriptor",
        ),
        (
            "--pull=often .",
            "invalid value `often` for `--pull`: it is one of always, missing, never, true, false",
        ),
        (
            "--network container:x .",
            "invalid value `container:x` for `--network`: it is one of default, host, none",
        ),
        (
            "--shm-size big .",
            "invalid value `big` for `--shm-size`: it is not a size",
        ),
        (
            "--allow device .",
            "invalid value `device` for `--allow`: it is not an entitlement",
        ),
        (
            "--jobs 0 .",
            "invalid value `0` for `--jobs`: at least one step has to run at a time",
        ),
        (
            "--progress fancy .",
            "invalid value `fancy` for `--progress`: it is one of auto, tty, plain, quiet, rawjson",
        ),
        (
            "--platform a/b/c/d .",
            "invalid value `a/b/c/d` for `--platform`: `a/b/c/d` is not a platform: `os/architecture` or `os/architecture/variant` is needed",
        ),
        (
            "--push .",
            "`--push`: there is nowhere to push to: the image has no name",
        ),
        (
            "-o type=registry .",
            "`--output`: there is nowhere to push to: the image has no name",
        ),
        (
            "--creds hunter2 .",
            "invalid value `…` for `--creds`: it is not USER:PASSWORD",
        ),
        (
            "--tls-verify=maybe .",
            "invalid value `maybe` for `--tls-verify`: it is true or false",
        ),
        ("-f - -", "`-f -` and `-` both read stdin"),
        ("-q -o - .", "`--quiet` and `--output` both write to stdout"),
        (
            "-o - -o type=oci .",
            "`--output` and `--output` both write to stdout",
        ),
    ];
    for (line, expected) in wrong {
        assert_eq!(request(line, &[]).expect_err(line), expected, "{line}");
    }
}

#[test]
fn what_is_pushed_is_what_was_named() {
    let rows: [(&str, &[bool]); 6] = [
        ("-t a .", &[]),
        ("-t a --push .", &[true]),
        ("-t a --push -o type=oci,dest=x .", &[false, true]),
        ("--push -o type=image,name=a .", &[true]),
        ("-t a -o type=registry .", &[true]),
        ("-t a --push=false -o type=image .", &[false]),
    ];
    for (line, expected) in rows {
        let request = request(line, &[]).expect(line);
        let pushes: Vec<bool> = request
            .options
            .outputs
            .iter()
            .map(|output| output.pushes)
            .collect();
        assert_eq!(pushes, expected, "{line}");
    }
}

/// docker build 28 and docker buildx build 0.36, as in the project's notes on the peers.
const PEERS: &str = "add-host allow annotation attest build-arg build-context builder cache-from cache-to call cgroup-parent \
    check compress cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems debug disable-content-trust file force-rm iidfile isolation \
    label load memory memory-swap metadata-file network no-cache no-cache-filter output platform policy progress provenance pull push \
    quiet resource rm sbom secret security-opt shm-size squash ssh tag target ulimit";

#[test]
fn every_flag_of_the_peers_is_known() {
    let command = command();
    let build = command.find_subcommand("build").unwrap();
    let known: Vec<_> = build
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .collect();
    for flag in PEERS.split_whitespace() {
        assert!(known.contains(&flag), "--{flag}");
    }
}
