//! `parser/instructions.jsonl`: every accepted file's typed instructions.

use rbuild_frontend::instruction::{
    ArgPair, CommandLine, Healthcheck, Heredoc, Instruction, InstructionKind, NameValue,
    RunInstruction, SourceArgument, Stage, Transfer,
};
use rbuild_frontend::instructions;
use rbuild_frontend::source::Source;
use serde_json::{Map, Value, json};

use super::mounts;
use super::rows::{Report, dockerfile_of, dockerfiles, rows};

#[test]
fn typed_instructions() {
    let (cases, programs) = (dockerfiles(), rows("parser/instructions.jsonl"));
    let mut report = Report::new("parser/instructions.jsonl");
    for row in programs {
        let dockerfile = dockerfile_of(&cases, &row);
        let found = match instructions::parse(&Source::new("Dockerfile", dockerfile.as_bytes())) {
            Ok(program) => json!({
                "meta_args": program.global_args.iter().map(command).collect::<Vec<_>>(),
                "stages": program.stages.iter().map(stage).collect::<Vec<_>>(),
            }),
            Err(errors) => json!(errors.to_string()),
        };
        report.compare_file((dockerfile, &row), &comparable(&row), &found);
    }
    report.finish();
}

/// A row in one shape: absent and null lists mean the same, and so do mounts that can't be read, whatever is wrong. The
/// kinds of flags of a RUN come in no order.
fn comparable(row: &Value) -> Value {
    let strip = |value: &mut Value| {
        let Some(command) = value.as_object_mut() else {
            return;
        };
        if command.remove("MountsError").is_some() {
            command.insert("Mounts".into(), json!(mounts::UNREADABLE));
        }
        if let Some(flags) = command.get_mut("FlagsUsed").and_then(Value::as_array_mut) {
            flags.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
        for arg in command
            .get_mut("Args")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            arg.as_object_mut()
                .expect("an ARG's words are objects")
                .retain(|_, value| !value.is_null());
        }
        command.retain(|_, value| !value.is_null());
    };
    let Value::Object(mut row) = row.clone() else {
        return row.clone();
    };
    row.remove("id");
    let mut globals = row
        .remove("meta_args")
        .filter(Value::is_array)
        .unwrap_or_else(|| json!([]));
    for global in globals.as_array_mut().into_iter().flatten() {
        strip(global);
        if let Some(global) = global.as_object_mut() {
            global.insert("_type".into(), json!("ArgCommand"));
        }
    }
    let mut stages = row
        .remove("stages")
        .filter(Value::is_array)
        .unwrap_or_else(|| json!([]));
    for stage in stages.as_array_mut().into_iter().flatten() {
        let Some(stage) = stage.as_object_mut() else {
            continue;
        };
        let mut commands = stage
            .remove("Commands")
            .filter(Value::is_array)
            .unwrap_or_else(|| json!([]));
        commands
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(strip);
        stage.insert("Commands".into(), commands);
    }
    json!({ "meta_args": globals, "stages": stages })
}

fn stage(stage: &Stage) -> Value {
    json!({
        "Base": stage.base,
        "Name": stage.name.clone().unwrap_or_default(),
        "Platform": stage.platform.clone().unwrap_or_default(),
        "Commands": stage.instructions.iter().map(command).collect::<Vec<_>>(),
    })
}

fn command(instruction: &Instruction) -> Value {
    use InstructionKind as Kind;
    let (name, fields) = match &instruction.kind {
        Kind::Add(add) => {
            let mut fields = transfer(&add.transfer);
            fields.insert(
                "Checksum".into(),
                json!(add.checksum.clone().unwrap_or_default()),
            );
            insert_some(&mut fields, "KeepGitDir", add.keep_git_dir);
            insert_some(&mut fields, "Unpack", add.unpack);
            ("AddCommand", fields)
        }
        Kind::Arg(args) => {
            let args: Vec<_> = args.iter().map(|arg| self::arg(arg, instruction)).collect();
            ("ArgCommand", object(json!({ "Args": args })))
        }
        Kind::Cmd(line) => ("CmdCommand", command_line(line)),
        Kind::Copy(copy) => {
            let mut fields = transfer(&copy.transfer);
            fields.insert("From".into(), json!(copy.from.clone().unwrap_or_default()));
            fields.insert("Parents".into(), json!(copy.keeps_parents));
            ("CopyCommand", fields)
        }
        Kind::Entrypoint(line) => {
            let mut fields = command_line(line);
            // `[]` and nothing at all are recorded as null.
            fields.retain(|name, value| name != "CmdLine" || *value != json!([]));
            ("EntrypointCommand", fields)
        }
        Kind::Env(pairs) => ("EnvCommand", object(json!({ "Env": name_values(pairs) }))),
        Kind::Expose(ports) => ("ExposeCommand", object(json!({ "Ports": ports }))),
        Kind::Healthcheck(check) => (
            "HealthCheckCommand",
            object(json!({ "Health": health(check) })),
        ),
        Kind::Label(pairs) => (
            "LabelCommand",
            object(json!({ "Labels": name_values(pairs) })),
        ),
        Kind::Maintainer(name) => ("MaintainerCommand", object(json!({ "Maintainer": name }))),
        Kind::Onbuild(trigger) => ("OnbuildCommand", object(json!({ "Expression": trigger }))),
        Kind::Run(run) => ("RunCommand", run_fields(run)),
        Kind::Shell(shell) => ("ShellCommand", object(json!({ "Shell": shell }))),
        Kind::Stopsignal(signal) => ("StopSignalCommand", object(json!({ "Signal": signal }))),
        Kind::User(user) => ("UserCommand", object(json!({ "User": user }))),
        Kind::Volume(volumes) => ("VolumeCommand", object(json!({ "Volumes": volumes }))),
        Kind::Workdir(path) => ("WorkdirCommand", object(json!({ "Path": path }))),
    };
    let mut fields = fields;
    fields.insert("_type".into(), json!(name));
    Value::Object(fields)
}

/// One word of an `ARG`, and what the comment above says of it.
fn arg(arg: &ArgPair, instruction: &Instruction) -> Value {
    let comment = instruction.comments.iter().find_map(|comment| {
        let described = comment.strip_prefix(arg.name.as_str())?.strip_prefix(' ')?;
        Some(described.to_owned())
    });
    let mut fields = object(json!({
        "Key": arg.name,
        "DocComment": comment.unwrap_or_default(),
    }));
    if let Some(default) = &arg.default {
        fields.insert("Value".into(), json!(default));
    }
    Value::Object(fields)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn insert_some(fields: &mut Map<String, Value>, name: &str, value: Option<bool>) {
    if let Some(value) = value {
        fields.insert(name.into(), json!(value));
    }
}

fn name_values(pairs: &[NameValue]) -> Vec<Value> {
    pairs
        .iter()
        .map(|pair| json!({ "Key": pair.name, "Value": pair.value, "NoDelim": pair.is_legacy }))
        .collect()
}

fn command_line(line: &CommandLine) -> Map<String, Value> {
    let (words, is_shell) = match line {
        CommandLine::Shell(text) if text.is_empty() => (Vec::new(), true),
        CommandLine::Shell(text) => (vec![text.clone()], true),
        CommandLine::Exec(words) => (words.clone(), false),
    };
    object(json!({ "CmdLine": words, "PrependShell": is_shell }))
}

fn run_fields(run: &RunInstruction) -> Map<String, Value> {
    let mut fields = command_line(&run.command);
    let used = [
        ("device", !run.devices.is_empty()),
        ("mount", !run.mounts.is_empty()),
        ("network", run.network.is_some()),
        ("security", run.security.is_some()),
    ];
    let used: Vec<_> = used
        .iter()
        .filter(|(_, is_used)| *is_used)
        .map(|(name, _)| *name)
        .collect();
    fields.insert("FlagsUsed".into(), json!(used));
    fields.insert("Network".into(), json!(run.network.unwrap_or("default")));
    fields.insert("Security".into(), json!(run.security.unwrap_or("sandbox")));
    if !run.mounts.is_empty() {
        fields.insert("Mounts".into(), mounts::all(&run.mounts));
    }
    if !run.heredocs.is_empty() {
        let file = |heredoc: &Heredoc| json!({ "Name": heredoc.name, "Data": heredoc.content, "Chomp": heredoc.is_chomped });
        fields.insert("Files".into(), run.heredocs.iter().map(file).collect());
    }
    fields
}

fn transfer(transfer: &Transfer) -> Map<String, Value> {
    let mut paths = Vec::new();
    let mut contents = Vec::new();
    for source in &transfer.sources {
        match source {
            SourceArgument::Path(path) => paths.push(json!(path)),
            SourceArgument::Heredoc(heredoc) => contents.push(json!({
                "Path": heredoc.name,
                "Data": heredoc.body(),
                "Expand": heredoc.is_expanded,
            })),
        }
    }
    let mut fields = object(json!({
        "Chown": transfer.chown.clone().unwrap_or_default(),
        "Chmod": transfer.chmod.clone().unwrap_or_default(),
        "DestPath": transfer.destination,
        "Link": transfer.is_linked,
    }));
    let mut insert = |name: &str, list: Vec<Value>| {
        if !list.is_empty() {
            fields.insert(name.into(), Value::Array(list));
        }
    };
    insert("SourcePaths", paths);
    insert("SourceContents", contents);
    insert(
        "ExcludePatterns",
        transfer
            .exclude
            .iter()
            .map(|pattern| json!(pattern))
            .collect(),
    );
    fields
}

fn health(check: &Healthcheck) -> Value {
    let Healthcheck::Command {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    } = check
    else {
        return json!({ "Test": ["NONE"] });
    };
    let test = match command {
        CommandLine::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
        CommandLine::Exec(words) => [vec!["CMD".into()], words.clone()].concat(),
    };
    let mut health = object(json!({ "Test": test }));
    let numbers = [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
        ("Retries", retries),
    ];
    for (name, number) in numbers {
        if *number != 0 {
            health.insert(name.into(), json!(number));
        }
    }
    Value::Object(health)
}
