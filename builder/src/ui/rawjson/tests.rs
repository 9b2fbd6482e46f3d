//! What is printed, and that it is what the schema says.

use std::time::SystemTime;

use rbuild::event::{StepDescription, StepId};
use rbuild_frontend::diagnostic::Diagnostic;
use rbuild_frontend::source::{Source, Span};

use super::*;

/// A build of two steps, event by event.
fn events() -> Vec<Event> {
    let step = |number: usize, title: &str| StepDescription {
        stage: "app".to_owned(),
        number,
        of: 2,
        title: title.to_owned(),
        platform: None,
        lines: (number, number),
    };
    let (first, second) = (StepId(0), StepId(1));
    let finished = |step, outcome| Event::Finished {
        step,
        outcome,
        duration: Duration::from_millis(250),
    };
    let source = Source::new("Dockerfile", b"FROM base\nRUN make\n");
    let task = |result| Event::TaskFinished {
        task: 1,
        duration: Duration::from_secs(1),
        result,
    };
    vec![
        Event::Recorded {
            build: "abc".into(),
        },
        Event::Planned {
            steps: vec![step(1, "FROM base"), step(2, "RUN make")],
        },
        Event::Warning {
            diagnostic: Diagnostic {
                help: Some("write `WORKDIR /x`".into()),
                ..Diagnostic::warning("WorkdirRelativePath", Span::new(10, 13), "relative")
            },
            source,
        },
        Event::Notice("a word".into()),
        Event::TaskStarted {
            task: 1,
            title: "pulling base".into(),
        },
        Event::TaskProgress {
            task: 1,
            done: 5,
            total: Some(10),
        },
        Event::TaskProgress {
            task: 1,
            done: 6,
            total: None,
        },
        task(Ok("sha256:x".into())),
        task(Err("no".into())),
        finished(first, StepOutcome::Cached),
        Event::Started(second),
        Event::Explained {
            step: second,
            reasons: Vec::new(),
        },
        Event::Output {
            step: second,
            stream: Stream::Stdout,
            bytes: b"a\xff\n".to_vec(),
        },
        Event::Output {
            step: second,
            stream: Stream::Stderr,
            bytes: b"b\n".to_vec(),
        },
        finished(second, StepOutcome::Done),
        Event::Kept { step: second },
        finished(second, StepOutcome::Failed),
        finished(second, StepOutcome::Cancelled),
    ]
}

fn lines() -> Vec<String> {
    let mut view = RawJson {
        status: Status::beginning_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
    };
    let at = Duration::from_millis(1_500);
    events().iter().map(|event| view.show(at, event)).collect()
}

#[test]
fn one_object_a_line() {
    let lines = lines();
    assert!(lines.iter().all(|line| line.matches('\n').count() == 1));
    let of = |word: &str| -> String {
        let word = format!("\"event\":\"{word}\"");
        let lines = lines.iter().filter(|line| line.contains(&word));
        let lines = lines.map(|line| {
            line.replace(
                &rbuild::manifest::digest_of(b"step 1").to_string(),
                "STEP 1",
            )
        });
        lines
            .map(|line| {
                line.replace(
                    &rbuild::manifest::digest_of(b"task 1").to_string(),
                    "TASK 1",
                )
            })
            .collect()
    };
    insta::assert_snapshot!(of("started") + &of("output") + &of("finished") + &of("task-progress") + &of("warning"), @r#"
    {"at":1.5,"event":"started","step":1,"vertexes":[{"digest":"STEP 1","name":"[app 2/2] RUN make","started":"2023-11-14T22:13:21.5Z"}]}
    {"at":1.5,"event":"output","logs":[{"data":"Yf8K","stream":1,"timestamp":"2023-11-14T22:13:21.5Z","vertex":"STEP 1"}],"step":1,"stream":"stdout","text":"a�\n"}
    {"at":1.5,"event":"output","logs":[{"data":"Ygo=","stream":2,"timestamp":"2023-11-14T22:13:21.5Z","vertex":"STEP 1"}],"step":1,"stream":"stderr","text":"b\n"}
    {"at":1.5,"event":"finished","outcome":"cached","seconds":0.25,"step":0,"vertexes":[{"cached":true,"completed":"2023-11-14T22:13:21.5Z","digest":"sha256:19bf96829580153c328cca8df99267cd22088e10238dea0ee5f529b6c733a1ef","name":"[app 1/2] FROM base","started":"2023-11-14T22:13:21.5Z"}]}
    {"at":1.5,"event":"finished","outcome":"done","seconds":0.25,"step":1,"vertexes":[{"completed":"2023-11-14T22:13:21.5Z","digest":"STEP 1","name":"[app 2/2] RUN make","started":"2023-11-14T22:13:21.5Z"}]}
    {"at":1.5,"event":"finished","outcome":"failed","seconds":0.25,"step":1,"vertexes":[{"completed":"2023-11-14T22:13:21.5Z","digest":"STEP 1","error":"the step failed","name":"[app 2/2] RUN make","started":"2023-11-14T22:13:21.5Z"}]}
    {"at":1.5,"event":"finished","outcome":"cancelled","seconds":0.25,"step":1,"vertexes":[{"completed":"2023-11-14T22:13:21.5Z","digest":"STEP 1","error":"canceled","name":"[app 2/2] RUN make","started":"2023-11-14T22:13:21.5Z"}]}
    {"at":1.5,"done":5,"event":"task-progress","statuses":[{"current":5,"id":"pulling base","started":"2023-11-14T22:13:21.5Z","timestamp":"2023-11-14T22:13:21.5Z","total":10,"vertex":"TASK 1"}],"task":1,"total":10}
    {"at":1.5,"done":6,"event":"task-progress","statuses":[{"current":6,"id":"pulling base","started":"2023-11-14T22:13:21.5Z","timestamp":"2023-11-14T22:13:21.5Z","vertex":"TASK 1"}],"task":1,"total":null}
    {"at":1.5,"code":"WorkdirRelativePath","column":1,"event":"warning","file":"Dockerfile","help":"write `WORKDIR /x`","line":2,"message":"relative","warnings":[{"detail":["d3JpdGUgYFdPUktESVIgL3hg"],"level":1,"range":[{"end":{"character":3,"line":2},"start":{"character":0,"line":2}}],"short":"V29ya2RpclJlbGF0aXZlUGF0aDogcmVsYXRpdmU=","sourceInfo":{"filename":"Dockerfile"}}]}
    "#);
}

/// What a schema says of a value: the words of JSON Schema that ours uses.
fn check(schema: &Value, root: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return check(&root["$defs"][name], root, value, place);
    }
    let is_of = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{place}: the schema has a type `{other}`"),
    };
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        kinds => kinds
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
    };
    assert!(
        kinds.iter().any(|kind| is_of(kind)),
        "{place}: {value} is none of {kinds:?}"
    );
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{place}: {value}");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], root, item, &format!("{place}[{index}]"));
    }
    let Some(object) = value
        .as_object()
        .filter(|_| schema["properties"].is_object())
    else {
        return;
    };
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        assert!(
            object.contains_key(name),
            "{place}: `{name}` is missing in {value}"
        );
    }
    for (name, value) in object {
        let known = &schema["properties"][name];
        assert!(known.is_object(), "{place}: `{name}` is not in the schema");
        check(known, root, value, &format!("{place}.{name}"));
    }
}

#[test]
fn every_event_is_as_the_schema_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rawjson.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let branches = schema["oneOf"].as_array().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for line in lines() {
        let object: Value = serde_json::from_str(&line).unwrap();
        let name = object["event"].as_str().unwrap().to_owned();
        let branch = branches
            .iter()
            .find(|branch| branch["properties"]["event"]["const"] == *name);
        check(
            branch.unwrap_or_else(|| panic!("{name}")),
            &schema,
            &object,
            &name,
        );
        seen.insert(name);
    }
    // The last one is not an event of the build; a test of whole builds reads it.
    seen.insert("built".to_owned());
    assert_eq!(seen.len(), branches.len(), "{seen:?}");
}
