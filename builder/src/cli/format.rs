//! `--format`: a path such as `.Config.Env[0]`, or a template in the language that docker takes (Go's), as far as scripts use it.
//!
//! ```text
//! {{.Config.Env}} {{json .Config}} {{index .Config.Labels "k"}} {{len .RootFS.Layers}} {{join .Config.Cmd " "}}
//! {{range .RepoTags}}{{println .}}{{else}}none{{end}}   {{if .Variant}}/{{.Variant}}{{end}}   {{.Id | printf}}
//! ```
//!
//! Pure. Variables, definitions and comparisons of Go's templates are not there, and said to be so.

use serde_json::Value;

/// Blocks in blocks, parentheses in parentheses.
const MAX_DEPTH: usize = 32;

/// What is wrong with a `--format`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// It can't be read.
    #[error("the template is not valid: {0}")]
    Template(String),
    /// It asks for what can't be done with this image.
    #[error("the template can't be filled in: {0}")]
    Value(String),
    /// A path that leads nowhere.
    #[error("there is nothing at `{0}`")]
    Nothing(String),
}

/// Fills in a template, or follows a path; ends with a line end.
pub(crate) fn render(format: &str, value: &Value) -> Result<String, FormatError> {
    let mut text = if format == "json" {
        value.to_string()
    } else if format.contains("{{") {
        let nodes = Parser::of(format)?.nodes()?;
        let mut text = String::new();
        write_nodes(&nodes, value, value, &mut text)?;
        text
    } else {
        follow(format, value)?
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// `.Config.Env[0]`, `Config.Labels["a.b"]`: a string as it is, everything else as JSON.
fn follow(path: &str, value: &Value) -> Result<String, FormatError> {
    let nothing = || FormatError::Nothing(path.to_owned());
    let mut found = value;
    let mut rest = path.strip_prefix('.').unwrap_or(path);
    while !rest.is_empty() {
        let step = if let Some(inside) = rest.strip_prefix('[') {
            let (step, behind) = match inside.strip_prefix('"') {
                Some(quoted) => quoted.split_once("\"]"),
                None => inside.split_once(']'),
            }
            .ok_or_else(nothing)?;
            rest = behind;
            step
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (step, behind) = rest.split_at(end);
            rest = behind;
            step
        };
        rest = rest.strip_prefix('.').unwrap_or(rest);
        found = match found {
            Value::Array(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
            other => other.get(step),
        }
        .ok_or_else(nothing)?;
    }
    Ok(match found {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
}

/// Commands; each has the one before it as its last argument.
type Pipeline = Vec<Command>;

/// A function with arguments, or one operand.
type Command = Vec<Operand>;

#[derive(Debug)]
enum Operand {
    /// `.A.B`; from the outermost value with `$`.
    Field(bool, Vec<String>),
    Literal(Value),
    Function(String),
    Group(Pipeline),
}

struct Parser<'a> {
    /// Texts and actions in turn, the first a text.
    pieces: std::vec::IntoIter<Piece<'a>>,
    depth: usize,
}

enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// What ended a list of nodes.
#[derive(PartialEq)]
enum End {
    Input,
    Else(String),
    Close,
}

impl<'a> Parser<'a> {
    fn of(format: &'a str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut rest = format;
        let mut trims = false;
        while let Some((text, behind)) = rest.split_once("{{") {
            let (action, behind) = behind
                .split_once("}}")
                .ok_or_else(|| wrong("`{{` without `}}`"))?;
            let text = if trims { text.trim_start() } else { text };
            let (action, text) = match action.strip_prefix("- ") {
                Some(action) => (action, text.trim_end()),
                None => (action, text),
            };
            let (action, is_trimming) = match action.strip_suffix(" -") {
                Some(action) => (action, true),
                None => (action, false),
            };
            pieces.push(Piece::Text(text));
            if !(action.starts_with("/*") && action.ends_with("*/")) {
                pieces.push(Piece::Action(action.trim()));
            }
            (rest, trims) = (behind, is_trimming);
        }
        pieces.push(Piece::Text(if trims { rest.trim_start() } else { rest }));
        Ok(Self {
            pieces: pieces.into_iter(),
            depth: 0,
        })
    }

    fn nodes(mut self) -> Result<Vec<Node>, FormatError> {
        match self.list()? {
            (nodes, End::Input) => Ok(nodes),
            _ => Err(wrong("`else` or `end` without a beginning")),
        }
    }

    fn list(&mut self) -> Result<(Vec<Node>, End), FormatError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(wrong("it is nested too deeply"));
        }
        let mut nodes = Vec::new();
        let end = loop {
            let Some(piece) = self.pieces.next() else {
                break End::Input;
            };
            let action = match piece {
                Piece::Text("") => continue,
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.to_owned()));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (word, rest) = action
                .split_once(char::is_whitespace)
                .unwrap_or((action, ""));
            match word {
                "end" => break End::Close,
                "else" => break End::Else(rest.trim().to_owned()),
                "if" | "range" | "with" => {
                    let node = self.block(word, rest)?;
                    nodes.push(node);
                }
                "define" | "template" | "block" | "break" | "continue" => {
                    return Err(wrong(format!("`{word}` is not supported")));
                }
                _ => nodes.push(Node::Print(pipeline(action)?)),
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn block(&mut self, word: &str, condition: &str) -> Result<Node, FormatError> {
        let condition = pipeline(condition)?;
        let (body, end) = self.list()?;
        let otherwise = match end {
            End::Input => return Err(wrong(format!("`{word}` without `end`"))),
            End::Close => Vec::new(),
            End::Else(rest) if rest.is_empty() => match self.list()? {
                (nodes, End::Close) => nodes,
                _ => return Err(wrong(format!("`{word}` without `end`"))),
            },
            End::Else(rest) => match rest.strip_prefix("if ") {
                // Its `end` is ours.
                Some(condition) => vec![self.block("if", condition)?],
                None => return Err(wrong(format!("`else {rest}` is not supported"))),
            },
        };
        Ok(match word {
            "if" => Node::If(condition, body, otherwise),
            "range" => Node::Range(condition, body, otherwise),
            _ => Node::With(condition, body, otherwise),
        })
    }
}

fn pipeline(text: &str) -> Result<Pipeline, FormatError> {
    let mut rest = text;
    let parsed = commands(&mut rest, 0)?;
    if rest.is_empty() {
        Ok(parsed)
    } else {
        Err(wrong(format!("`{rest}` is too much in `{text}`")))
    }
}

fn commands(rest: &mut &str, depth: usize) -> Result<Pipeline, FormatError> {
    if depth > MAX_DEPTH {
        return Err(wrong("it is nested too deeply"));
    }
    let mut pipeline = vec![Vec::new()];
    loop {
        *rest = rest.trim_start();
        let Some(next) = rest.chars().next().filter(|next| *next != ')') else {
            break;
        };
        if next == '|' {
            *rest = &rest[1..];
            pipeline.push(Vec::new());
            continue;
        }
        let operand = operand(rest, next, depth)?;
        if let Some(command) = pipeline.last_mut() {
            command.push(operand);
        }
    }
    if pipeline.iter().any(Vec::is_empty) {
        return Err(wrong("something is missing in `{{…}}` or beside `|`"));
    }
    Ok(pipeline)
}

fn operand(rest: &mut &str, next: char, depth: usize) -> Result<Operand, FormatError> {
    match next {
        '(' => {
            *rest = &rest[1..];
            let group = commands(rest, depth + 1)?;
            *rest = rest
                .strip_prefix(')')
                .ok_or_else(|| wrong("`(` without `)`"))?;
            Ok(Operand::Group(group))
        }
        '"' => {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            let text = values.next().and_then(Result::ok);
            let text = text.ok_or_else(|| wrong("a quote is not closed"))?;
            *rest = &rest[values.byte_offset()..];
            Ok(Operand::Literal(text.into()))
        }
        '`' => {
            let (text, behind) = rest[1..]
                .split_once('`')
                .ok_or_else(|| wrong("a quote is not closed"))?;
            *rest = behind;
            Ok(Operand::Literal(text.into()))
        }
        _ => {
            let is_end = |letter: char| letter.is_whitespace() || "()|\"`".contains(letter);
            let (word, behind) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
            *rest = behind;
            word_operand(word)
        }
    }
}

fn word_operand(word: &str) -> Result<Operand, FormatError> {
    let (is_root, path) = match word.strip_prefix('$') {
        Some(path) => (true, path),
        None => (false, word),
    };
    if let Some(fields) = path.strip_prefix('.') {
        let fields: Vec<String> = fields.split('.').map(str::to_owned).collect();
        return match fields.as_slice() {
            [only] if only.is_empty() => Ok(Operand::Field(is_root, Vec::new())),
            fields if fields.iter().any(String::is_empty) => {
                Err(wrong(format!("`{word}` is no field")))
            }
            _ => Ok(Operand::Field(is_root, fields)),
        };
    }
    if is_root {
        return if path.is_empty() {
            Ok(Operand::Field(true, Vec::new()))
        } else {
            Err(wrong(format!(
                "variables such as `{word}` are not supported"
            )))
        };
    }
    if let Ok(number) = word.parse::<i64>() {
        return Ok(Operand::Literal(number.into()));
    }
    Ok(match word {
        "true" => Operand::Literal(true.into()),
        "false" => Operand::Literal(false.into()),
        "nil" => Operand::Literal(Value::Null),
        _ => Operand::Function(word.to_owned()),
    })
}

fn write_nodes(
    nodes: &[Node],
    root: &Value,
    dot: &Value,
    to: &mut String,
) -> Result<(), FormatError> {
    for node in nodes {
        match node {
            Node::Text(text) => to.push_str(text),
            Node::Print(pipeline) => to.push_str(&shown(&evaluate(pipeline, root, dot)?)),
            Node::If(condition, body, otherwise) => {
                let is_so = is_true(&evaluate(condition, root, dot)?);
                write_nodes(if is_so { body } else { otherwise }, root, dot, to)?;
            }
            Node::With(condition, body, otherwise) => {
                let value = evaluate(condition, root, dot)?;
                if is_true(&value) {
                    write_nodes(body, root, &value, to)?;
                } else {
                    write_nodes(otherwise, root, dot, to)?;
                }
            }
            Node::Range(condition, body, otherwise) => {
                let items: Vec<Value> = match evaluate(condition, root, dot)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(unfit("range", &other)),
                };
                if items.is_empty() {
                    write_nodes(otherwise, root, dot, to)?;
                }
                for item in &items {
                    write_nodes(body, root, item, to)?;
                }
            }
        }
    }
    Ok(())
}

fn evaluate(pipeline: &Pipeline, root: &Value, dot: &Value) -> Result<Value, FormatError> {
    let mut last: Option<Value> = None;
    for command in pipeline {
        let (name, operands) = match command.split_first() {
            Some((Operand::Function(name), operands)) => (Some(name), operands),
            _ => (None, command.as_slice()),
        };
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            arguments.push(match operand {
                Operand::Field(is_root, path) => field(if *is_root { root } else { dot }, path),
                Operand::Literal(value) => value.clone(),
                Operand::Group(group) => evaluate(group, root, dot)?,
                Operand::Function(name) => call(name, &[])?,
            });
        }
        arguments.extend(last.take());
        last = Some(match (name, arguments.len()) {
            (Some(name), _) => call(name, &arguments)?,
            (None, 1) => arguments.remove(0),
            (None, _) => return Err(wrong("a value has no arguments")),
        });
    }
    Ok(last.unwrap_or(Value::Null))
}

/// What an object does not have is null, as a map of Go's has it.
fn field(value: &Value, path: &[String]) -> Value {
    let found = path.iter().try_fold(value, |value, name| value.get(name));
    found.cloned().unwrap_or(Value::Null)
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, FormatError> {
    let text = |value: &Value| shown(value);
    Ok(match (name, arguments) {
        ("json", [value]) => value.to_string().into(),
        ("len", [value]) => match value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            Value::Null => 0,
            other => return Err(unfit("len", other)),
        }
        .into(),
        ("index", [value, keys @ ..]) => {
            let mut found = value;
            for key in keys {
                found = match (found, key) {
                    (Value::Array(items), Value::Number(at)) => {
                        let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                        let item = at.and_then(|at| items.get(at));
                        item.ok_or_else(|| FormatError::Value(format!("there is no item {key}")))?
                    }
                    (Value::Object(map), Value::String(name)) => map.get(name).unwrap_or(&EMPTY),
                    (Value::Null, _) => &EMPTY,
                    (other, _) => return Err(unfit("index", other)),
                };
            }
            found.clone()
        }
        ("join", [Value::Array(items), Value::String(between)]) => items
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(between)
            .into(),
        ("join", [Value::Null, Value::String(_)]) => "".into(),
        ("split", [Value::String(whole), Value::String(between)]) => {
            whole.split(between.as_str()).collect::<Vec<_>>().into()
        }
        ("upper", [value]) => text(value).to_uppercase().into(),
        ("lower", [value]) => text(value).to_lowercase().into(),
        ("truncate", [value, Value::Number(most)]) => {
            let most = most.as_u64().and_then(|most| usize::try_from(most).ok());
            let kept = text(value)
                .chars()
                .take(most.unwrap_or(0))
                .collect::<String>();
            kept.into()
        }
        ("print", values) => values.iter().map(text).collect::<String>().into(),
        ("println", values) => {
            let words: Vec<String> = values.iter().map(text).collect();
            format!("{}\n", words.join(" ")).into()
        }
        ("not", [value]) => (!is_true(value)).into(),
        ("eq", [one, other]) => (one == other).into(),
        ("ne", [one, other]) => (one != other).into(),
        ("and", [.., last]) => {
            let first = arguments.iter().find(|value| !is_true(value));
            first.unwrap_or(last).clone()
        }
        ("or", [.., last]) => {
            let first = arguments.iter().find(|value| is_true(value));
            first.unwrap_or(last).clone()
        }
        (
            "json" | "len" | "index" | "join" | "split" | "upper" | "lower" | "truncate" | "not"
            | "eq" | "ne" | "and" | "or",
            arguments,
        ) => {
            return Err(FormatError::Value(format!(
                "`{name}` can't be given {} of this kind",
                match arguments.len() {
                    1 => "1 value".to_owned(),
                    count => format!("{count} values"),
                }
            )));
        }
        _ => return Err(wrong(format!("there is no function `{name}`"))),
    })
}

/// What a map of strings gives for a key that it does not have.
static EMPTY: Value = Value::String(String::new());

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_so) => *is_so,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", shown(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

fn wrong(words: impl Into<String>) -> FormatError {
    FormatError::Template(words.into())
}

fn unfit(function: &str, value: &Value) -> FormatError {
    let kind = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    FormatError::Value(format!("`{function}` can't be done with {kind}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image() -> Value {
        json!({
            "Id": "sha256:ab", "RepoTags": ["a:1", "b:2"], "Variant": "", "Size": 12,
            "Config": { "Env": ["A=1", "B=2"], "Labels": { "x.y": "z", "k": "v" }, "Cmd": null },
        })
    }

    #[test]
    fn templates_and_paths_are_filled_in() {
        let table = [
            ("{{.Id}}", "sha256:ab"),
            ("{{ .Id }} {{.Size}}", "sha256:ab 12"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[k:v x.y:z]"),
            ("{{json .Config.Env}}", "[\"A=1\",\"B=2\"]"),
            ("{{index .Config.Labels \"x.y\"}}", "z"),
            ("{{index .Config.Labels \"none\"}}", ""),
            ("{{index .RepoTags 1}}", "b:2"),
            ("{{(index .RepoTags 0) | upper}}", "A:1"),
            ("{{len .RepoTags}}", "2"),
            ("{{join .RepoTags \", \"}}", "a:1, b:2"),
            ("{{range .RepoTags}}<{{.}}>{{end}}", "<a:1><b:2>"),
            ("{{range .RepoTags}}{{println .}}{{end}}", "a:1\nb:2"),
            ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
            ("{{if .Variant}}v{{else}}no{{end}}", "no"),
            ("{{if .None}}a{{else if .Id}}b{{else}}c{{end}}", "b"),
            ("{{with .Config}}{{.Env}}{{$.Size}}{{end}}", "[A=1 B=2]12"),
            ("{{if and (eq .Size 12) (not .Variant)}}yes{{end}}", "yes"),
            ("a {{- /* words */ -}} b", "ab"),
            ("{{.Nothing}}", "<no value>"),
            ("{{truncate .Id 6}}", "sha256"),
            (".Id", "sha256:ab"),
            ("Config.Env[1]", "B=2"),
            (".Config.Labels[\"x.y\"]", "z"),
            (".Config.Env", "[\"A=1\",\"B=2\"]"),
            (".RepoTags.0", "a:1"),
        ];
        for (format, expected) in table {
            assert_eq!(
                render(format, &image()),
                Ok(format!("{expected}\n")),
                "{format}"
            );
        }
        assert_eq!(
            render("json", &json!({"a": 1})),
            Ok("{\"a\":1}\n".to_owned())
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let deep = "(".repeat(100);
        let deep = format!("{{{{{deep}}}}}");
        let blocks = "{{if .}}".repeat(100);
        let table = [
            ("{{.Id", "`{{` without `}}`"),
            ("{{end}}", "without a beginning"),
            ("{{if .Id}}x", "`if` without `end`"),
            ("{{what .Id}}", "no function `what`"),
            ("{{$x := 1}}", "variables such as `$x`"),
            ("{{template \"x\"}}", "`template` is not supported"),
            ("{{.A..B}}", "is no field"),
            ("{{}}", "something is missing"),
            ("{{.Id |}}", "something is missing"),
            ("{{\"x}}", "a quote is not closed"),
            ("{{(.Id}}", "`(` without `)`"),
            ("{{.Id)}}", "is too much"),
            ("{{range .Id}}{{end}}", "can't be done with a string"),
            ("{{index .RepoTags 9}}", "there is no item 9"),
            ("{{join .Id}}", "can't be given 1 value"),
            (&deep, "too deeply"),
            (&blocks, "too deeply"),
            (".Config.None", "there is nothing at `.Config.None`"),
            ("Config[", "there is nothing"),
        ];
        for (format, expected) in table {
            let error = render(format, &image()).expect_err(format).to_string();
            assert!(error.contains(expected), "{format}: {error}");
        }
    }
}
