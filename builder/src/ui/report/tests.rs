use std::path::PathBuf;

use rbuild_frontend::diagnostic::Errors;
use rbuild_frontend::graph::PlanOptions;
use rbuild_frontend::instructions::parse_partly;
use rbuild_frontend::mend::mend;
use rbuild_frontend::plan::{check, errors_without_images};
use serde_json::Value;

use super::*;

/// The report of a file, without looking at any base.
fn report(text: &str) -> Report {
    let source = Source::new("Dockerfile", text.as_bytes());
    let (program, mut errors) = parse_partly(&source);
    let options = PlanOptions {
        checks_all_stages: true,
        ..PlanOptions::default()
    };
    let mut warnings = Vec::new();
    if errors.is_empty() {
        let checked = check(&program, &options, &std::collections::BTreeMap::new());
        (errors, warnings) = (checked.errors, checked.warnings);
    } else {
        errors.extend(errors_without_images(&program, &options));
    }
    Report {
        source,
        path: Some(PathBuf::from("./sub dir/Dockerfile")),
        errors: Errors::of(errors).map_or_else(Errors::into_vec, |()| Vec::new()),
        warnings,
        unknown_images: Vec::new(),
    }
}

const WARNED: &str = "FROM debian as build\nENV GREETING hello world\nRUN a \\\n\n  b\n";
const REFUSED: &str = "FROM debian\nCOPY --form=build, a b\nSTOPSIGNAL 50% off\n";

#[test]
fn text_for_people() {
    insta::assert_snapshot!(text(&report(REFUSED), Terminal::default()), @r"
    error[unknown-flag]: unknown flag `--form`
     --> Dockerfile:2:6
      |
    2 | COPY --form=build, a b
      |      ^^^^^^
      |
      = help: did you mean `--from`?

    error[invalid-signal]: `50% off` is not a signal
     --> Dockerfile:3:12
      |
    3 | STOPSIGNAL 50% off
      |            ^^^^^^^
      |
      = help: write a name such as `SIGTERM`, or a number

    2 errors
    ");
    insta::assert_snapshot!(text(&report("FROM a\n"), Terminal::default()), @"no problems found");
    let warned = text(&report(WARNED), Terminal::default());
    assert!(
        warned.ends_with("\n3 warnings; `rbuild check --fix` mends 3\n"),
        "{warned}"
    );
    assert_eq!(counted(1, "error"), "1 error");
}

/// Each of several mistakes in one instruction is pointed at by itself, also where the same word stands twice.
#[test]
fn all_errors_of_one_instruction() {
    let text_of = "FROM base\nRUN --mount=type=cahce,target=/uid,mode=rwx \\\n    --mount=type=bind,target=/uid,uid=1,requird \\\n    --mount=type=cahce,\\\ntarget=/b --network=nome --devise=gpu true\n";
    insta::assert_snapshot!(text(&report(text_of), Terminal::default()), @r"
    error[unknown-flag]: unknown flag `--devise`
     --> Dockerfile:5:26
      |
    5 | target=/b --network=nome --devise=gpu true
      |                          ^^^^^^^^
      |
      = help: did you mean `--device`?

    error[invalid-mount]: there is no mount type `cahce`
     --> Dockerfile:2:13
      |
    2 | RUN --mount=type=cahce,target=/uid,mode=rwx \
      |             ^^^^^^^^^^
      |
      = help: did you mean `cache`?

    error[invalid-mount]: `rwx` is not a value for mount option `mode`
     --> Dockerfile:2:36
      |
    2 | RUN --mount=type=cahce,target=/uid,mode=rwx \
      |                                    ^^^^^^^^
      |
      = help: write an octal number such as `0755`

    error[invalid-mount]: a bind mount has no option `uid`
     --> Dockerfile:3:35
      |
    3 |     --mount=type=bind,target=/uid,uid=1,requird \
      |                                   ^^^^^
      |
      = help: only cache, secret and ssh mounts have it

    error[invalid-mount]: there is no mount option `requird`
     --> Dockerfile:3:41
      |
    3 |     --mount=type=bind,target=/uid,uid=1,requird \
      |                                         ^^^^^^^
      |
      = help: did you mean `required`?

    error[invalid-mount]: there is no mount type `cahce`
     --> Dockerfile:4:13
      |
    4 |     --mount=type=cahce,\
      |             ^^^^^^^^^^
      |
      = help: did you mean `cache`?

    error[invalid-flag-value]: `nome` is not a value of `--network`
     --> Dockerfile:5:21
      |
    5 | target=/b --network=nome --devise=gpu true
      |                     ^^^^
      |
      = help: did you mean `--network=none`?

    7 errors
    ");
}

/// A misspelt FROM takes the stage away from every line below: of that nothing is said, of all that is wrong otherwise
/// everything.
#[test]
fn all_errors_behind_a_misspelt_from() {
    let text_of = "FORM base\nRUN --mount=typ=bind true\nRUN --netwrok=none --mount=type=cach,target=/a true\nWORKDIR\nCOPPY a b\nEXPOSE 80 x\nCOPY --chmod=9 a b\n";
    insta::assert_snapshot!(text(&report(text_of), Terminal::default()), @r"
    error[unknown-instruction]: unknown instruction `FORM`
     --> Dockerfile:1:1
      |
    1 | FORM base
      | ^^^^
      |
      = help: did you mean `FROM`?

    error[invalid-mount]: there is no mount option `typ`
     --> Dockerfile:2:13
      |
    2 | RUN --mount=typ=bind true
      |             ^^^^^^^^
      |
      = help: did you mean `type`?

    error[unknown-flag]: unknown flag `--netwrok`
     --> Dockerfile:3:5
      |
    3 | RUN --netwrok=none --mount=type=cach,target=/a true
      |     ^^^^^^^^^
      |
      = help: did you mean `--network`?

    error[invalid-mount]: there is no mount type `cach`
     --> Dockerfile:3:28
      |
    3 | RUN --netwrok=none --mount=type=cach,target=/a true
      |                            ^^^^^^^^^
      |
      = help: did you mean `cache`?

    error[missing-argument]: WORKDIR needs an argument
     --> Dockerfile:4:1
      |
    4 | WORKDIR
      | ^^^^^^^ nothing follows
      |
      = help: write it behind the instruction, on the same line

    error[unknown-instruction]: unknown instruction `COPPY`
     --> Dockerfile:5:1
      |
    5 | COPPY a b
      | ^^^^^
      |
      = help: did you mean `COPY`?

    error[invalid-port]: `x` is not a port: `x` is not a port number between 0 and 65535
     --> Dockerfile:6:11
      |
    6 | EXPOSE 80 x
      |           ^
      |
      = help: ports look like `80`, `53/udp` or `8000-8010`; protocols are tcp, udp and sctp

    error[invalid-mode]: mode `9` is not an octal number between 0 and 07777
     --> Dockerfile:7:14
      |
    7 | COPY --chmod=9 a b
      |              ^
      |
      = help: write an octal number such as `755`, or changes such as `u+x,go-w`

    8 errors
    ");
}

#[test]
fn workflow_commands() {
    insta::assert_snapshot!(github::commands(&report(REFUSED)), @r"
    ::error file=sub dir/Dockerfile,line=2,endLine=2,col=6,endColumn=11,title=unknown-flag::unknown flag `--form`%0Adid you mean `--from`?
    ::error file=sub dir/Dockerfile,line=3,endLine=3,col=12,endColumn=18,title=invalid-signal::`50%25 off` is not a signal%0Awrite a name such as `SIGTERM`, or a number
    ");
    insta::assert_snapshot!(github::commands(&report(WARNED)), @r"
    ::warning file=sub dir/Dockerfile,line=1,endLine=1,col=13,endColumn=14,title=FromAsCasing::`as` is not cased like `FROM`%0Awrite both in upper case, or both in lower case
    ::warning file=sub dir/Dockerfile,line=2,endLine=2,col=5,endColumn=12,title=LegacyKeyValueFormat::ENV `GREETING` is written without `=`%0Awrite name=value; quote a value that holds blanks
    ::warning file=sub dir/Dockerfile,line=4,endLine=4,col=1,endColumn=1,title=NoEmptyContinuation::a blank line stands inside this instruction%0Aremove the blank line, or put a `#` on it
    ");
}

#[test]
fn json_has_the_references_shape() {
    let document = json::check(&report(REFUSED));
    assert_eq!(document["warnings"], serde_json::json!([]));
    assert_eq!(
        document["buildError"]["location"]["ranges"][0]["start"]["line"],
        2
    );
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(2));
    assert_eq!(document["sources"][0]["filename"], "sub dir/Dockerfile");
    let warned = json::check(&report(WARNED));
    insta::assert_snapshot!(format!("{:#}", warned["warnings"][1]), @r#"
    {
      "description": "ENV or LABEL is written without `=`",
      "detail": "ENV `GREETING` is written without `=`",
      "help": "write name=value; quote a value that holds blanks",
      "isMendable": true,
      "location": {
        "ranges": [
          {
            "end": {
              "line": 2
            },
            "start": {
              "line": 2
            }
          }
        ]
      },
      "place": {
        "column": 5,
        "endColumn": 13,
        "endLine": 2,
        "line": 2
      },
      "ruleName": "LegacyKeyValueFormat",
      "severity": "warning"
    }
    "#);
    assert_eq!(warned.get("buildError"), None);
}

/// What the schema of SARIF 2.1.0 demands of the parts that are used here.
#[test]
fn sarif_is_valid() {
    for text in [WARNED, REFUSED, "FROM a\n", "\u{feff}", "FROM a AS é\n"] {
        let report = report(text);
        let log = sarif::log(&report);
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        let driver = &run["tool"]["driver"];
        assert_eq!(driver["name"], "rbuild");
        let rules = driver["rules"].as_array().unwrap();
        for rule in rules {
            for key in ["shortDescription", "fullDescription", "help"] {
                assert!(
                    rule[key]["text"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
                );
            }
            assert!(matches!(
                rule["defaultConfiguration"]["level"].as_str(),
                Some("error" | "warning")
            ));
        }
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), findings(&report).count());
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert!(matches!(
                result["level"].as_str(),
                Some("error" | "warning")
            ));
            assert!(
                result["message"]["text"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
            );
            for location in result["locations"].as_array().unwrap() {
                assert_is_place(&location["physicalLocation"]);
            }
            for fix in result["fixes"].as_array().into_iter().flatten() {
                for change in fix["artifactChanges"].as_array().unwrap() {
                    assert_eq!(change["artifactLocation"]["uri"], "sub%20dir/Dockerfile");
                    for replacement in change["replacements"].as_array().unwrap() {
                        assert_is_region(&replacement["deletedRegion"]);
                        assert!(replacement["insertedContent"]["text"].is_string());
                    }
                }
            }
        }
    }
    let log = sarif::log(&report(WARNED));
    let fix = &log["runs"][0]["results"][0]["fixes"][0]["artifactChanges"][0]["replacements"][0];
    assert_eq!(fix["insertedContent"]["text"], "AS");
}

fn assert_is_place(place: &Value) {
    assert_eq!(place["artifactLocation"]["uri"], "sub%20dir/Dockerfile");
    assert_is_region(&place["region"]);
}

fn assert_is_region(region: &Value) {
    let number = |key: &str| region[key].as_u64().unwrap();
    assert!(
        number("startLine") >= 1 && number("startColumn") >= 1,
        "{region}"
    );
    let (start, end) = (
        (number("startLine"), number("startColumn")),
        (number("endLine"), number("endColumn")),
    );
    assert!(start <= end, "{region}");
}

#[test]
fn a_diff_can_be_applied() {
    let source = Source::new("Dockerfile", b"from a\r\nRUN b\nRUN c\nENV d e f");
    let mended = mend(&source, &PlanOptions::default());
    let mend = Mend {
        source,
        path: Some(PathBuf::from("./Dockerfile")),
        mended,
    };
    let text = diff(&mend, Terminal::default());
    insta::assert_snapshot!(text.replace('\r', "<CR>"), @r#"
    --- Dockerfile
    +++ Dockerfile
    @@ -1,4 +1,4 @@
    -from a<CR>
    +FROM a<CR>
     RUN b
     RUN c
    -ENV d e f
    \ No newline at end of file
    +ENV d="e f"
    \ No newline at end of file
    "#);
}

#[test]
fn explanations_are_complete() {
    for name in [
        "FromAsCasing",
        "unknown-flag",
        "step-failed",
        "forward-reference",
    ] {
        let code = rbuild_frontend::codes::find(name).unwrap();
        let text = explanation::text(code);
        assert!(text.starts_with(&format!("{name} (")), "{text}");
        assert_eq!(text.contains("Mended:"), name != "step-failed", "{text}");
    }
}
