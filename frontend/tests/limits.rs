//! Inputs made to hurt. Each ends, in an answer or in an error with a name; nothing here is measured, but anything
//! quadratic would not come to an end while somebody waits.

use std::collections::BTreeMap;
use std::fmt::Write;

use rbuild_frontend::ast::{MAX_FILE, MAX_INSTRUCTIONS};
use rbuild_frontend::graph::{Graph, PlanOptions, Planned, ResolvedImage};
use rbuild_frontend::ignore_file::{IgnoreFile, IgnoreMatcher};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::instruction::InstructionKind;
use rbuild_frontend::instructions;
use rbuild_frontend::source::Source;
use rbuild_frontend::word::{self, MAX_EXPANSION, WordError};
use rbuild_frontend::{csv, git_reference::GitReference, plan, reference::Reference};

/// The plan, or the error's code.
fn planned(text: &str) -> Result<Graph, &'static str> {
    let source = Source::new("Dockerfile", text.as_bytes());
    let program = instructions::parse(&source).map_err(|errors| errors.first().code)?;
    let mut images = BTreeMap::new();
    loop {
        match plan(&program, &PlanOptions::default(), &images)
            .map_err(|errors| errors.first().code)?
        {
            Planned::Ready(graph) => return Ok(*graph),
            Planned::Needs(requests) => {
                let config = ImageConfig::default();
                images.extend(requests.into_iter().map(|request| {
                    let config = config.clone();
                    (request, ResolvedImage { config })
                }));
            }
        }
    }
}

fn code(text: &str) -> &'static str {
    planned(text).expect_err("it is refused")
}

/// `count` lines made from their numbers.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for number in 0..count {
        text.push_str(&line(number));
        text.push('\n');
    }
    text
}

#[test]
fn long_lines_and_large_files_are_refused() {
    assert_eq!(code(&"x".repeat(100 << 20)), "file-too-large");
    assert_eq!(code(&"x".repeat(MAX_FILE)), "line-too-long");
    assert_eq!(code(&"\n".repeat(MAX_FILE)), "no-instructions");
    assert_eq!(code(&"#\n".repeat(MAX_FILE / 2)), "no-instructions");
    let continued = format!("FROM scratch\nRUN {}", "a\\\n".repeat(MAX_FILE / 16));
    let graph = planned(&continued).expect("one long instruction is one instruction");
    assert_eq!(graph.steps.len(), 1);
}

#[test]
fn too_many_instructions_are_refused() {
    assert_eq!(
        code(&lines(1_000_000, |_| "RUN x".to_owned())),
        "too-many-instructions"
    );
    assert_eq!(
        code(&lines(1_000_000, |number| format!("FROM a AS {number:x}"))),
        "too-many-instructions"
    );
    assert_eq!(
        code(&"X\n".repeat(MAX_INSTRUCTIONS + 1)),
        "too-many-instructions"
    );
    let many = lines(MAX_INSTRUCTIONS - 1, |_| "RUN x".to_owned());
    let graph = planned(&format!("FROM scratch\n{many}")).expect("so many are taken");
    assert_eq!(graph.steps.len(), MAX_INSTRUCTIONS - 1);
}

#[test]
fn many_stages_are_planned() {
    let chain = lines(MAX_INSTRUCTIONS / 2, |number| match number {
        0 => "FROM scratch AS s0\nRUN x".to_owned(),
        _ => format!("FROM s{} AS s{number}\nENV a{}=1", number - 1, number % 10),
    });
    // Every stage of a chain has the history of all below.
    assert_eq!(code(&chain), "plan-too-large");
    let wide = lines(MAX_INSTRUCTIONS / 2, |number| {
        format!("FROM scratch AS s{number}\nCOPY a /")
    });
    assert_eq!(planned(&wide).expect("only one is needed").steps.len(), 1);
    let needed = lines(MAX_INSTRUCTIONS / 2 - 1, |number| match number {
        0 => "FROM scratch AS s0\nCOPY a /".to_owned(),
        _ => format!("FROM scratch AS s{number}\nCOPY --from=s{} / /", number - 1),
    });
    let graph = planned(&needed).expect("each needs the one above");
    assert_eq!(graph.steps.len(), MAX_INSTRUCTIONS / 2 - 1);
    let circle = lines(MAX_INSTRUCTIONS / 2, |number| {
        let next = (number + 1) % (MAX_INSTRUCTIONS / 2);
        format!("FROM scratch AS s{number}\nCOPY --from=s{next} / /")
    });
    assert_eq!(code(&circle), "circular-dependency");
}

#[test]
fn variables_that_every_step_sees_are_counted() {
    let half = MAX_INSTRUCTIONS / 2 - 1;
    for instruction in ["ENV", "ARG"] {
        let set = lines(half, |number| format!("{instruction} a{number}=1"));
        let graph = planned(&format!("FROM scratch\n{set}RUN x")).expect("one RUN sees them all");
        assert_eq!(graph.steps.len(), 1);
        let run = lines(half, |_| "RUN x".to_owned());
        assert_eq!(code(&format!("FROM scratch\n{set}{run}")), "plan-too-large");
    }
    let again = lines(MAX_INSTRUCTIONS - 2, |number| format!("ENV a=$a{number}"));
    assert!(planned(&format!("FROM scratch\n{again}")).is_ok());
    let one_line = (0..100_000).fold(String::from("ENV"), |mut line, number| {
        let _ = writeln!(line, " a{number}=$b{number} \\");
        line
    });
    let graph = planned(&format!("FROM scratch\n{one_line}")).expect("one long ENV");
    assert_eq!(graph.image.config.env.len(), 100_001);
}

#[test]
fn variables_do_not_grow_without_end() {
    // Each line is ten times the one above.
    let growing = lines(12, |number| match number {
        0 => "ENV v0=xxxxxxxxxx".to_owned(),
        _ => format!("ENV v{number}={}", format!("$v{}", number - 1).repeat(10)),
    });
    assert_eq!(code(&format!("FROM scratch\n{growing}")), "expansion");
    let global = growing.replace("ENV", "ARG");
    assert_eq!(code(&format!("{global}FROM scratch")), "expansion");
    // No single word is too long, all together are.
    let wide = lines(1_000, |number| format!("LABEL l{number}=$v5"));
    let growing = lines(6, |number| match number {
        0 => "ENV v0=xxxxxxxxxx".to_owned(),
        _ => format!("ENV v{number}={}", format!("$v{}", number - 1).repeat(10)),
    });
    assert_eq!(
        code(&format!("FROM scratch\n{growing}{wide}")),
        "plan-too-large"
    );
    let environment = BTreeMap::from([("v".to_owned(), "x".repeat(100_000))]);
    for (word, expected) in [
        ("$v".repeat(200), Err(WordError::TooLong)),
        (format!("\"{}\"", "$v".repeat(200)), Err(WordError::TooLong)),
        (
            format!("${{v//x/{}}}", "y".repeat(1_000)),
            Err(WordError::TooLong),
        ),
        ("$v".repeat(100), Ok(10_000_000)),
    ] {
        let found = word::expand(&word, '\\', &environment).map(|found| found.text.len());
        assert_eq!(found, expected);
    }
    const { assert!(MAX_EXPANSION < 200 * 100_000) };
    let slow = format!("${{v#{}}}", "a*".repeat(10_000));
    assert!(matches!(
        word::expand(&slow, '\\', &environment),
        Err(WordError::TooMuchToMatch { .. })
    ));
    // What is not too much by itself is so when it is repeated, in a word and in a file.
    let some = format!("${{v#{}}}", "a*".repeat(1_000));
    assert!(word::expand(&some, '\\', &environment).is_ok());
    assert!(matches!(
        word::expand(&some.repeat(2), '\\', &environment),
        Err(WordError::TooMuchToMatch { .. })
    ));
    let value = format!("FROM scratch\nENV v={}\n", "x".repeat(60_000));
    let some = format!("LABEL l=${{v#{}}}\n", "a*".repeat(1_000));
    assert!(planned(&format!("{value}{some}")).is_ok());
    assert_eq!(code(&format!("{value}{}", some.repeat(3))), "expansion");
}

/// What a FROM says is made of variables too, and said again in what is wrong with it.
#[test]
fn long_words_of_many_stages_are_counted() {
    let growing = format!("ARG a={}\nARG b={}\n", "x".repeat(60_000), "$a".repeat(250));
    for (stage, expected) in [
        // A build check expands them before: nothing is left for the rest.
        ("FROM $b", "expansion"),
        ("FROM scratch\nARG b\nEXPOSE $b", "invalid-port"),
        ("FROM --platform=$b scratch", "invalid-platform"),
        ("FROM scratch${b#x*}", "expansion"),
        ("FROM scratch\nONBUILD EXPOSE $b", ""),
    ] {
        let text = format!("{growing}{}", lines(20_000, |_| stage.to_owned()));
        assert_eq!(
            planned(&text).err().unwrap_or_default(),
            expected,
            "{stage}"
        );
    }
    // Written out they are as long as a file at most, all together.
    let written = lines(250, |number| format!("FROM {}{number}", "x".repeat(60_000)));
    assert_eq!(code(&written), "invalid-image-name");
    let names = lines(250, |number| {
        format!("FROM scratch AS {}{number}", "x".repeat(60_000))
    });
    assert!(planned(&names).is_ok());
    let long = "x".repeat(30_000);
    let chain = lines(250, |number| match number {
        0 => format!("FROM scratch AS {long}0"),
        _ => format!("FROM {long}{} AS {long}{number}", number - 1),
    });
    assert!(planned(&chain).is_ok());
    // A broken file is looked at as well as a whole one.
    let broken = format!(
        "{growing}FORM a\n{}",
        lines(90_000, |_| "EXPOSE $b x".to_owned())
    );
    assert_eq!(code(&broken), "unknown-instruction");
}

#[test]
fn deep_nesting_ends() {
    for (text, expected) in [
        (
            format!("FROM a\n{}RUN x", "ONBUILD ".repeat(8_000)),
            "invalid-trigger",
        ),
        (
            format!("FROM a\n{}RUN x", "ONBUILD \\\n".repeat(100_000)),
            "invalid-trigger",
        ),
        (format!("FROM {}", "${a:-".repeat(10_000)), "expansion"),
        (
            format!("FROM a\nENV b={}", "${a:-\\\n".repeat(100_000)),
            "expansion",
        ),
        (
            format!("FROM a\nEXPOSE {}", "${a+".repeat(10_000)),
            "expansion",
        ),
    ] {
        assert_eq!(code(&text), expected);
    }
    let json = format!("FROM scratch\nRUN {}", "[".repeat(60_000));
    assert_eq!(
        planned(&json)
            .expect("it is a text for the shell")
            .steps
            .len(),
        1
    );
}

#[test]
fn many_triggers_are_counted() {
    let triggers = lines(5_000, |_| "ONBUILD ENV a=b".to_owned());
    let children = lines(1_000, |number| format!("FROM base AS c{number}\n"));
    let all = (0..1_000).fold(String::from("FROM scratch\n"), |mut text, number| {
        let _ = writeln!(text, "COPY --from=c{number} / /");
        text
    });
    let text = format!("FROM scratch AS base\n{triggers}{children}{all}");
    assert_eq!(code(&text), "too-many-instructions");
}

#[test]
fn many_heredocs_and_words_are_read() {
    let count = 100_000;
    let names = lines(count, |number| format!(" <<{number:x}\\"));
    let bodies = lines(count, |number| format!("{number:x}"));
    let text = format!("FROM scratch\nCOPY{names} /x/\n{bodies}");
    let source = Source::new("Dockerfile", text.as_bytes());
    let program = instructions::parse(&source).expect("they are all ended");
    let InstructionKind::Copy(copy) = &program.stages[0].instructions[0].kind else {
        panic!("not a COPY")
    };
    assert_eq!(copy.transfer.sources.len(), count);
    let unended = format!("FROM scratch\nRUN{names}");
    assert_eq!(code(&unended), "unterminated-heredoc");
    let one_name = format!(
        "FROM scratch\nCOPY{} /x/\n{}",
        " <<e\\\n".repeat(count),
        "e\n".repeat(count)
    );
    assert_eq!(planned(&one_name).expect("all of one name").steps.len(), 1);
    let words = format!("FROM scratch\nCOPY {} /x/", "a\\\n ".repeat(200_000));
    assert_eq!(
        planned(&words).expect("a great many sources").steps.len(),
        1
    );
    let unset = format!("FROM scratch\nCOPY {} /x/", "$a\\\n ".repeat(100_000));
    let graph = planned(&unset).expect("each is empty");
    assert_eq!(graph.warnings.len(), 100_000);
}

#[test]
fn many_mounts_flags_and_ports_are_read() {
    let mounts = lines(100_000, |number| {
        format!(" --mount=from=a,target=/m{number}\\")
    });
    let text = format!("FROM scratch AS a\nCOPY x /\nFROM scratch\nRUN{mounts} x");
    assert_eq!(
        planned(&text)
            .expect("a hundred thousand mounts")
            .steps
            .len(),
        2
    );
    let wrong = format!("{text} \nRUN{mounts} --mount=tpye=cache x");
    assert_eq!(code(&wrong), "invalid-mount");
    let exclude = format!(
        "FROM scratch\nCOPY{} a /",
        " --exclude=x\\\n".repeat(100_000)
    );
    assert_eq!(
        planned(&exclude).expect("a great many flags").steps.len(),
        1
    );
    let ports = lines(1_000, |_| "EXPOSE 0-65535".to_owned());
    assert_eq!(code(&format!("FROM scratch\n{ports}")), "plan-too-large");
    let option = format!("FROM scratch\nRUN --mount={} x", "a,\\\n".repeat(200_000));
    assert_eq!(code(&option), "invalid-mount");
}

#[test]
fn small_languages_end() {
    let patterns = "a*".repeat(20_000);
    let matcher = IgnoreMatcher::new([patterns.as_str()]).expect("a pattern");
    assert!(!matcher.matches("a".repeat(10_000).as_bytes()));
    let file = "**/x\n".repeat(100_000);
    let file = IgnoreFile::parse(file.as_bytes()).expect("an ignore file");
    assert_eq!(file.patterns.len(), 100_000);
    assert!(file.matcher().expect("patterns").matches(b"a/b/x"));
    assert!(Reference::parse(&"a/".repeat(1_000_000)).is_err());
    assert!(Reference::parse(&format!("a{}", "-".repeat(1_000_000))).is_err());
    let query = format!("https://h/r.git?{}", "ref=a&".repeat(200_000));
    assert!(GitReference::parse(&query).is_err());
    assert!(GitReference::parse(&format!("https://h/{}.git", "%41".repeat(1_000_000))).is_ok());
    assert_eq!(
        csv::fields(&",".repeat(1_000_000)).map(|fields| fields.len()),
        Ok(1_000_001)
    );
    assert!(csv::fields(&"\"\"".repeat(1_000_001)).is_ok());
}
