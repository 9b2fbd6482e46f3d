//! A build as a terminal shows it, and the questions asked of what it made.

use std::process::Command;

use crate::support::Place;

/// Runs rbuild on a pseudo-terminal and gives what stands on it (scrolled-off rows included) and the exit code.
fn on_a_terminal(place: &Place, columns: u16, rows: u16, arguments: &str) -> (String, i32) {
    let rbuild = env!("CARGO_BIN_EXE_rbuild");
    let root = place.path().join("root");
    let line = format!(
        "stty cols {columns} rows {rows}; {rbuild} --root {} {arguments}",
        root.display()
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .env_remove("BUILDKIT_PROGRESS")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    // Tall enough that nothing scrolls off.
    let mut terminal = vt100::Parser::new(rows, columns, 500);
    terminal.process(&output.stdout);
    let mut shown = Vec::new();
    // The parser shows a window of what was written: its top is reached by scrolling back as far as it goes.
    terminal.screen_mut().set_scrollback(usize::MAX);
    let mut left = terminal.screen().scrollback();
    while left > 0 {
        shown.extend(terminal.screen().rows(0, columns).next());
        left -= 1;
        terminal.screen_mut().set_scrollback(left);
    }
    shown.extend(terminal.screen().rows(0, columns));
    let text: Vec<String> = shown.iter().map(|row| row.trim_end().to_owned()).collect();
    (
        text.join("\n").trim_end().to_owned(),
        output.status.code().unwrap_or(-1),
    )
}

fn arguments(place: &Place, dockerfile: &str, more: &str) -> String {
    std::fs::write(place.path().join("Dockerfile"), dockerfile).unwrap();
    format!(
        "build --network none -t app -f {0}/Dockerfile --build-context=base=oci-layout://{0}/base {more} {0}/context",
        place.path().display()
    )
}

const THREE_STEPS: &str =
    "FROM base\nRUN echo a line that is not kept; sleep 0.3\nRUN echo two > /two\n";

#[test]
fn what_ran_stays_and_what_it_wrote_goes() {
    let place = Place::new();
    let arguments = arguments(&place, THREE_STEPS, "");
    let (shown, code) = on_a_terminal(&place, 80, 12, &arguments);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(shown.matches("[2/3] RUN echo a line").count(), 1, "{shown}");
    assert!(!shown.contains("    a line that is not kept"), "{shown}");
    assert!(!shown.contains("running"), "{shown}");
    assert!(
        shown.contains("built  docker.io/library/app:latest"),
        "{shown}"
    );
    let (again, code) = on_a_terminal(&place, 80, 12, &arguments);
    assert_eq!(code, 0, "{again}");
    assert!(again.contains("CACHED 2 steps"), "{again}");
    assert!(again.contains("steps  0 run, 2 cached"), "{again}");
}

#[test]
fn a_failure_stands_below_what_ran() {
    let place = Place::new();
    let arguments = arguments(&place, "FROM base\nRUN echo the last words; false\n", "");
    let (shown, code) = on_a_terminal(&place, 60, 20, &arguments);
    assert_eq!(code, 1, "{shown}");
    let ran = shown.find("FAILED after").unwrap();
    let said = shown.find("| the last words").unwrap();
    assert!(
        ran < said && said < shown.find("error[step-failed]").unwrap(),
        "{shown}"
    );
}

#[test]
fn a_build_that_grows_past_its_budget_is_neither_kept_nor_named() {
    let place = Place::new();
    place.file("model", &"x".repeat(300_000));
    let dockerfile = "FROM base\nCOPY model /model\nRUN echo > /small\n";
    let run = |more: &str| {
        place
            .build(dockerfile)
            .arg("--tag=app")
            .arg(&format!("--budget={more}"))
            .err()
            .1
    };
    let said = run("added=200kB,layers=1");
    assert!(
        said.contains("added are 0.4 MB of 0.2 MB, layers are 3 of 1"),
        "{said}"
    );
    assert!(said.contains("0.4 MB `COPY model /model"), "{said}");
    let images = place.rbuild().arg("images").output().unwrap();
    assert!(!String::from_utf8_lossy(&images.stdout).contains("app"));
    place
        .build(dockerfile)
        .arg("--budget=size=1GB,layers=3")
        .ok();
}

#[test]
fn layers_say_what_they_waste() {
    let place = Place::new();
    place.file("big", &"x".repeat(500_000));
    let dockerfile = "FROM base\nCOPY big /opt/big\nRUN rm /opt/big && echo > /opt/small\nRUN chmod 600 /opt/small\n";
    place.build(dockerfile).arg("--tag=app").ok();
    let json = place
        .rbuild()
        .args(["layers", "app", "--format=json"])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 4);
    assert_eq!(layers[2]["wasted"], 500_000);
    let change = |layer: usize, path: &str| {
        let changes = layers[layer]["changes"].as_array().unwrap();
        let found = changes.iter().find(|change| change["path"] == path);
        found.map(|change| change["change"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(change(1, "opt/big").as_deref(), Some("added"));
    assert_eq!(change(2, "opt/big").as_deref(), Some("removed"));
    assert_eq!(change(2, "opt/small").as_deref(), Some("added"));
    assert_eq!(change(3, "opt/small").as_deref(), Some("metadata"));
    let tree = place
        .rbuild()
        .args(["layers", "app", "3"])
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(
        tree.contains("-   big") && tree.contains("500.0 kB wasted"),
        "{tree}"
    );
    let none = place
        .rbuild()
        .args(["layers", "app", "5"])
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn a_build_that_failed_has_a_report() {
    let place = Place::new();
    let path = place.path().join("report.html");
    let dockerfile = "FROM base AS one\nRUN echo from the first > /a\nFROM base\nCOPY --from=one /a /a\nRUN echo 'the <end>'; false\n";
    let report = format!("--report={}", path.display());
    place.build(dockerfile).arg(&report).err();
    let text = std::fs::read_to_string(&path).unwrap();
    for part in [
        "id=\"timeline\"",
        "id=\"graph\"",
        "id=\"dockerfile\"",
        "the &lt;end&gt;",
        "COPY --from=one",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let again = place.path().join("again.html");
    let written = place
        .rbuild()
        .args(["report", "last", "-o"])
        .arg(&again)
        .status();
    assert!(written.unwrap().success());
    let again = std::fs::read_to_string(&again).unwrap();
    assert!(again.contains("the &lt;end&gt;"));
}

#[test]
fn a_plan_and_a_build_are_drawn() {
    let place = Place::new();
    let dockerfile = "FROM base AS one\nRUN echo > /a\nFROM base\nCOPY --from=one /a /a\n";
    place.build(dockerfile).ok();
    let graph = |arguments: &[&str]| {
        let output = place
            .rbuild()
            .arg("graph")
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let built: serde_json::Value =
        serde_json::from_str(&graph(&["--build=last", "--format=json"])).unwrap();
    let steps = built["steps"].as_array().unwrap();
    // Both stages stand on the same image.
    assert_eq!(steps.len(), 3);
    let copy = steps
        .iter()
        .find(|step| step["title"] == "COPY --from=one /a /a")
        .unwrap();
    assert_eq!(copy["needs"].as_array().unwrap().len(), 2);
    assert_eq!(copy["state"], "done");
    let file = place.path().join("Dockerfile");
    let base = format!(
        "--build-context=base=oci-layout://{}/base",
        place.path().display()
    );
    let context = place.context();
    let plan = |format: &str| {
        graph(&[
            "-f",
            file.to_str().unwrap(),
            &base,
            &format!("--format={format}"),
            context.to_str().unwrap(),
        ])
    };
    assert!(plan("mermaid").starts_with("flowchart TB\n"));
    assert!(plan("dot").starts_with("digraph build {\n"));
    assert!(plan("svg").starts_with("<svg "));
    // What a build would take from the cache is marked: all of it, then what does not stand on the changed step.
    let states = || {
        let planned: serde_json::Value = serde_json::from_str(&plan("json")).unwrap();
        let steps = planned["steps"].as_array().unwrap().clone();
        let state = |title: &str| {
            let step = steps.iter().find(|step| step["title"] == title);
            step.unwrap_or_else(|| panic!("{title}: {steps:?}"))["state"].clone()
        };
        (
            steps.len(),
            state("RUN echo > /a"),
            state("COPY --from=one /a /a"),
        )
    };
    assert_eq!(states(), (3, "cached".into(), "cached".into()));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "RUN echo > /b\n").unwrap();
    let planned: serde_json::Value = serde_json::from_str(&plan("json")).unwrap();
    let steps = planned["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4);
    assert!(steps[3]["state"].is_null(), "{steps:?}");
    assert_eq!(states(), (4, "cached".into(), "cached".into()));
    let builds = place.rbuild().args(["builds", "--format=json"]).output();
    let builds: serde_json::Value = serde_json::from_slice(&builds.unwrap().stdout).unwrap();
    assert_eq!(
        builds.as_array().unwrap().len(),
        1,
        "to look is no build: {builds}"
    );
}

/// The tree of layers takes the whole screen, and gives it back as it was.
#[test]
fn layers_are_walked_through() {
    let place = Place::new();
    let arguments = arguments(&place, THREE_STEPS, "-q");
    assert_eq!(on_a_terminal(&place, 80, 12, &arguments).1, 0);
    let root = place.path().join("root");
    let line = format!(
        "stty cols 80 rows 12; {} --root {} layers app; echo \"left with $?\"; stty -a",
        env!("CARGO_BIN_EXE_rbuild"),
        root.display()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The last layer, opened; then out.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"Gl\x1b[Bq").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let (before, after) = text.split_once("\x1b[?1049l").expect("it is left");
    assert!(
        before.contains("\x1b[?1049h") && before.contains("RUN echo two"),
        "{text}"
    );
    assert!(
        after.contains("left with 0") && after.contains(" icanon") && after.contains(" echo "),
        "{after}"
    );
}
