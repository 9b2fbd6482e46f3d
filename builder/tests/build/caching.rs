//! What runs again after which change: exactly what depends on it.

use crate::support::Place;

const THREE: &str = "FROM base\nCOPY a /a\nRUN cat /a > /b\nCOPY c /c\n";

#[test]
fn a_second_build_runs_nothing() {
    let place = Place::new();
    place.file("a", "1").file("c", "1");
    let first = place.build(THREE).ok();
    first.expect(&[
        ("COPY a /a", false),
        ("RUN cat", false),
        ("COPY c /c", false),
    ]);
    let second = place.build(THREE).ok();
    second.expect(&[("COPY a /a", true), ("RUN cat", true), ("COPY c /c", true)]);
    assert_eq!(
        first.image.config, second.image.config,
        "a cached build gives the same image"
    );
}

#[test]
fn one_changed_file_runs_what_depends_on_it() {
    let place = Place::new();
    place.file("a", "1").file("c", "1");
    place.build(THREE).ok();
    place.file("c", "2");
    place
        .build(THREE)
        .ok()
        .expect(&[("COPY a /a", true), ("RUN cat", true), ("COPY c /c", false)]);
    place.file("a", "2");
    let third = place.build(THREE).ok();
    third.expect(&[
        ("COPY a /a", false),
        ("RUN cat", false),
        ("COPY c /c", false),
    ]);
    assert_eq!(third.image.text("b"), "2");
}

#[test]
fn a_mode_bit_counts_and_a_time_does_not() {
    let place = Place::new();
    place.file("a", "1").file("c", "1").mode("a", 0o644);
    place.build(THREE).ok();
    place.file("a", "1");
    place.build(THREE).ok().expect(&[("COPY a /a", true)]);
    place.mode("a", 0o755);
    place
        .build(THREE)
        .ok()
        .expect(&[("COPY a /a", false), ("RUN cat", false)]);
}

#[test]
fn same_size_and_time_but_other_content_is_seen() {
    let place = Place::new();
    place.file("a", "1").file("c", "1");
    place.build(THREE).ok();
    let path = place.context().join("a");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "2").unwrap();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert_eq!(place.build(THREE).ok().image.text("a"), "2");
}

#[test]
fn a_build_arg_counts_from_its_declaration_on() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN echo before\nARG V\nRUN echo after\n";
    place.build(dockerfile).arg("--build-arg=V=1").ok();
    let second = place.build(dockerfile).arg("--build-arg=V=2").ok();
    second.expect(&[("RUN echo before", true), ("RUN echo after", false)]);
}

#[test]
fn spelling_and_comments_do_not_count() {
    let place = Place::new();
    place.build("FROM base\nRUN echo x\n").ok();
    place
        .build("# new\nfrom base\nrun   echo x\n")
        .ok()
        .expect(&[("RUN echo x", true)]);
}

#[test]
fn the_same_result_stops_the_rebuild() {
    let place = Place::new();
    place.file("a", "1").file("b", "1");
    let dockerfile =
        "FROM base\nCOPY a /in\nRUN echo constant > /out; rm /in\nRUN cat /out > /next\n";
    place.build(dockerfile).ok();
    place.file("a", "2");
    let second = place.build(dockerfile).ok();
    second.expect(&[("COPY a /in", false), ("RUN echo constant", false)]);
    // The layer of COPY differs, so what follows runs: only the merged content is the same.
    let dockerfile = "FROM base AS one\nCOPY a /in\nRUN cat /in > /dev/null; echo same > /out\nFROM base\nCOPY --from=one /out /out\nRUN cat /out\n";
    place.build(dockerfile).ok();
    place.file("a", "3");
    place.build(dockerfile).ok().expect(&[
        ("RUN cat /in", false),
        ("COPY --from=one", true),
        ("RUN cat /out", true),
    ]);
    let dockerfile = "FROM base\nARG V\nRUN echo fixed > /file\nRUN cat /file\n";
    place
        .build("FROM base\nRUN echo fixed > /file # 1\nRUN cat /file\n")
        .ok();
    place
        .build("FROM base\nRUN echo fixed > /file # 2\nRUN cat /file\n")
        .ok()
        .expect(&[("RUN echo fixed", false), ("RUN cat /file", true)]);
    let _ = dockerfile;
}

#[test]
fn no_cache_filter_is_not_bypassed_by_children() {
    let place = Place::new();
    let dockerfile = "FROM base AS a\nRUN cat /proc/sys/kernel/random/uuid > /time\nFROM a AS b\nRUN cat /time > /copy\n";
    let first = place.build(dockerfile).ok();
    let second = place.build(dockerfile).arg("--no-cache-filter=a").ok();
    second.expect(&[("RUN cat /proc", false), ("RUN cat /time", false)]);
    assert_ne!(first.image.text("copy"), second.image.text("copy"));
    assert_eq!(second.image.text("time"), second.image.text("copy"));
    let third = place.build(dockerfile).ok();
    third.expect(&[("RUN cat /proc", true), ("RUN cat /time", true)]);
    assert_eq!(
        third.image.text("copy"),
        second.image.text("copy"),
        "the newest result wins"
    );
}

#[test]
fn no_cache_runs_everything_again() {
    let place = Place::new();
    let dockerfile = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /time\n";
    let first = place.build(dockerfile).ok();
    let second = place.build(dockerfile).arg("--no-cache").ok();
    assert_ne!(first.image.text("time"), second.image.text("time"));
}

#[test]
fn an_unneeded_stage_is_not_run() {
    let place = Place::new();
    let dockerfile = "FROM base AS broken\nRUN false_command\nFROM base\nRUN echo fine\n";
    let built = place.build(dockerfile).ok();
    assert!(!built.log.contains("false_command"), "{}", built.log);
}

#[test]
fn link_does_not_depend_on_what_is_below() {
    let place = Place::new();
    place.file("a", "1").file("below", "1");
    let dockerfile = "FROM base\nCOPY below /below\nCOPY --link a /a\n";
    place.build(dockerfile).ok();
    place.file("below", "2");
    place
        .build(dockerfile)
        .ok()
        .expect(&[("COPY below", false), ("COPY --link a", true)]);
}

#[test]
fn another_image_to_copy_from_is_another_input() {
    let place = Place::new();
    // Two images that differ in the file that is copied, under one instruction text but for the name.
    for (name, content) in [("one", "1"), ("two", "2")] {
        place
            .build(&format!("FROM base\nRUN echo {content} > /which\n"))
            .arg("-t")
            .arg(name)
            .ok();
    }
    let first = place
        .build("FROM base\nCOPY --from=one /which /which\n")
        .arg("--pull=never")
        .ok();
    assert_eq!(first.image.text("which"), "1\n");
    let second = place
        .build("FROM base\nCOPY --from=two /which /which\n")
        .arg("--pull=never")
        .ok();
    assert_eq!(second.image.text("which"), "2\n");
}

#[test]
fn no_build_mixes_two_results_of_one_step() {
    let place = Place::new();
    // `a` and `b` stand on `p`; the build of `b` runs `p` again and never looks at `a`.
    let dockerfile = "FROM base AS p\nRUN cat /proc/sys/kernel/random/uuid > /p\nFROM p AS a\nRUN cat /p > /a\n\
        FROM p AS b\nRUN cat /p > /b\nFROM scratch AS both\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n";
    place.build(dockerfile).arg("--target=a").ok();
    place
        .build(dockerfile)
        .arg("--target=b")
        .arg("--no-cache-filter=p")
        .ok();
    let image = place.build(dockerfile).ok().image;
    assert_eq!(image.text("a"), image.text("b"));
}
