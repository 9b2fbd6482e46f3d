//! The verbs that look after the store, on one that builds made.

use super::support::Place;

fn run(place: &Place, arguments: &[&str]) -> (bool, String) {
    let output = place.rbuild().args(arguments).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn ok(place: &Place, arguments: &[&str]) -> String {
    let (is_ok, text) = run(place, arguments);
    assert!(is_ok, "{arguments:?}:\n{text}");
    text
}

fn json(place: &Place, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(place, arguments)).unwrap()
}

const DOCKERFILE: &str = "FROM base\n\
    RUN --mount=type=cache,target=/root/.cache echo kept > /root/.cache/f; echo built > /out\n\
    RUN cat /out > /copy\n";

#[test]
fn what_a_name_needs_stays_and_the_rest_goes() {
    let place = Place::new();
    place.build(DOCKERFILE).arg("--tag=app").ok();
    place.build("FROM base\nRUN echo other > /other\n").ok();
    let before = json(&place, &["du", "-v", "--format", "json"]);
    let planned = json(&place, &["prune", "--dry-run", "--format", "json"]);
    let pruned = json(&place, &["prune", "--force", "--format", "json"]);
    assert_eq!(planned["items"], pruned["items"]);
    let titles: Vec<&str> = (pruned["items"].as_array().unwrap().iter())
        .map(|item| item["title"].as_str().unwrap())
        .collect();
    assert!(titles.contains(&"RUN echo other > /other"), "{titles:?}");
    assert!(titles.contains(&"/root/.cache"), "{titles:?}");
    assert!(!titles.contains(&"RUN cat /out > /copy"), "{titles:?}");
    let after = json(&place, &["du", "--format", "json"]);
    assert!(after["total"].as_u64() < before["total"].as_u64());
    // What the image stands on is there, and its steps are hits; the other one runs again.
    place
        .build(DOCKERFILE)
        .arg("--tag=app")
        .ok()
        .expect(&[("RUN --mount", true), ("RUN cat", true)]);
    place
        .build("FROM base\nRUN echo other > /other\n")
        .ok()
        .expect(&[("RUN echo other", false)]);
    let (is_ok, text) = run(&place, &["prune", "--all"]);
    assert!(!is_ok && text.contains("add `--force`"), "{text}");
    ok(&place, &["prune", "--all", "--force"]);
    assert!(!ok(&place, &["images"]).contains("app"));
    place
        .build(DOCKERFILE)
        .ok()
        .expect(&[("RUN --mount", false), ("RUN cat", false)]);
}

#[test]
fn one_cache_mount_is_emptied() {
    let place = Place::new();
    let dockerfile = |number: u32| {
        format!(
            "FROM base\nRUN --mount=type=cache,id=one,target=/a --mount=type=cache,id=two,target=/b \
             cat /a/f /b/f > /seen 2>/dev/null; echo {number} > /a/f; echo {number} > /b/f; true\n"
        )
    };
    place.build(&dockerfile(1)).ok();
    let listed = json(&place, &["cache", "ls", "--format", "json"]);
    let ids: Vec<&str> = (listed.as_array().unwrap().iter())
        .map(|mount| mount["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["one", "two"]);
    let removed = ok(&place, &["cache", "rm", "one"]);
    assert!(removed.starts_with("removed one ("), "{removed}");
    let built = place.build(&dockerfile(2)).ok();
    assert_eq!(built.image.text("seen"), "1\n", "the other one stayed");
    let (is_ok, text) = run(&place, &["cache", "rm", "three"]);
    assert!(!is_ok && text.contains("no cache mount `three`"), "{text}");
}

#[test]
fn a_store_beyond_its_budget_is_pruned_after_the_build() {
    let place = Place::new();
    place.build("FROM base\nRUN echo first > /first\n").ok();
    let build = place
        .build("FROM base\nRUN echo second > /second\n")
        .arg("--tag=app");
    let output = build
        .command()
        .env("RBUILD_CACHE_MAX_USED", "1k")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("beyond its budget"), "{text}");
    place
        .build("FROM base\nRUN echo second > /second\n")
        .ok()
        .expect(&[("RUN echo second", true)]);
    place
        .build("FROM base\nRUN echo first > /first\n")
        .ok()
        .expect(&[("RUN echo first", false)]);
    let (is_ok, text) = {
        let output = place
            .rbuild()
            .arg("images")
            .env("RBUILD_CACHE_MAX_USED", "much")
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert!(!is_ok && text.contains("RBUILD_CACHE_MAX_USED"), "{text}");
}
