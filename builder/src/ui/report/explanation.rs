//! What a code means, for `rbuild check --explain`.

use rbuild_frontend::codes::{Code, Example};

pub(super) fn text(code: Code) -> String {
    let (name, summary, why, example) = match code {
        Code::Rule(rule) => (rule.name, rule.summary, rule.why, rule.example),
        Code::Error(error) => (error.name, error.summary, error.why, error.example),
    };
    let kind = match code {
        Code::Rule(rule) if rule.is_experimental => "experimental build check",
        Code::Rule(_) => "build check",
        Code::Error(_) => "error",
    };
    let fix = match code {
        Code::Rule(rule) => format!("\nThe way out: {}.\n", rule.fix),
        Code::Error(_) => String::new(),
    };
    format!(
        "{name} ({kind}): {summary}\n\n{why}\n{fix}{}",
        shown(&example)
    )
}

fn shown(example: &Example) -> String {
    if example.text.is_empty() {
        return String::new();
    }
    let indented = |text: &str| -> String {
        let lines = text
            .lines()
            .map(|line| format!("    {line}").trim_end().to_owned() + "\n");
        lines.collect()
    };
    let ignore = match example.ignore {
        "" => String::new(),
        ignore => format!("\nwith a .dockerignore of\n\n{}", indented(ignore)),
    };
    let target = match example.target {
        "" => String::new(),
        target => format!("\nbuilt with --target {target}\n"),
    };
    let arg = match example.build_arg {
        ("", _) => String::new(),
        (name, value) => format!("\nbuilt with --build-arg {name}={value}\n"),
    };
    format!(
        "\nFor example:\n\n{}{ignore}{target}{arg}\nMended:\n\n{}",
        indented(example.text),
        indented(example.mended)
    )
}
