//! COPY and ADD: what lands where, with which owner and mode.

use crate::support::{Place, tool};

#[test]
fn wildcards_owners_modes_and_destinations() {
    let place = Place::new();
    place
        .file("src/a.txt", "a")
        .file("src/b.txt", "b")
        .file("src/c.md", "c")
        .file("one", "1");
    let image = place
        .build(
            "FROM base\nCOPY src/*.txt /texts/\nCOPY --chown=app:extra --chmod=600 one /owned\n\
             COPY src /tree\nWORKDIR /work\nCOPY one .\n",
        )
        .ok()
        .image;
    assert_eq!(image.text("texts/a.txt"), "a");
    assert!(image.entry("texts/c.md").is_none());
    let owned = image.entry("owned").unwrap();
    assert_eq!(
        (owned.uid, owned.gid, owned.mode & 0o7777),
        (1000, 1002, 0o600)
    );
    assert_eq!(image.text("tree/c.md"), "c");
    assert_eq!(image.text("work/one"), "1");
    let tree = image.entry("tree/c.md").unwrap();
    assert_eq!((tree.uid, tree.gid), (0, 0), "context files are root's");
}

#[test]
fn a_name_needs_a_file_system_to_look_it_up_in() {
    let place = Place::new();
    place.file("f", "1").file("passwd", "app:x:7:8::/:\n");
    for (dockerfile, words) in [
        (
            "FROM base\nCOPY --link --chown=app f /\n",
            "leave out `--link`",
        ),
        ("FROM scratch\nCOPY --chown=1:app f /\n", "`1:app`"),
        ("FROM scratch\nADD --chown=app f /\n", "`app`"),
        ("FROM scratch\nUSER app\nWORKDIR /w\n", "give numbers"),
    ] {
        let (code, message) = place.build(dockerfile).err();
        assert!(code == 1 && message.contains(words), "{message}");
    }
    let built = place
        .build(
            "FROM scratch\nCOPY passwd /etc/\nCOPY --chown=app:unknown f /\n\
             COPY --link --chown=root:5 --chmod=7755 f /d/g\n",
        )
        .ok();
    let said = "`COPY --chown=app:unknown f /`: the image has no `unknown`";
    assert_eq!(built.log.matches(said).count(), 1, "{}", built.log);
    assert!(!built.log.contains("has no `app`"), "{}", built.log);
    let image = built.image;
    let owner = |path: &str| {
        let entry = image.entry(path).unwrap();
        (entry.uid, entry.gid, entry.mode & 0o7777)
    };
    assert_eq!(owner("f"), (7, 8, 0o644));
    assert_eq!(owner("d/g"), (0, 5, 0o7755));
    assert_eq!(owner("d"), (0, 5, 0o755), "not the bits above");
}

#[test]
fn ignored_files_stay_out() {
    let place = Place::new();
    place
        .file("keep", "1")
        .file("secret", "1")
        .file("dir/a", "1")
        .file("dir/b", "1");
    place.file(".dockerignore", "secret\ndir/*\n!dir/b\n");
    let image = place.build("FROM base\nCOPY . /all/\n").ok().image;
    assert!(image.entry("all/keep").is_some());
    assert!(image.entry("all/secret").is_none());
    assert!(image.entry("all/dir/a").is_none());
    assert!(image.entry("all/dir/b").is_some());
}

#[test]
fn archives_are_extracted_by_content() {
    let place = Place::new();
    place.file("pack/inner/file", "x");
    let context = place.context();
    tool(
        "tar",
        [
            "-C",
            context.join("pack").to_str().unwrap(),
            "-czf",
            context.join("data.bin").to_str().unwrap(),
            "inner",
        ],
    );
    place.file("not-an-archive.tar.gz", "plain text");
    let image = place
        .build(
            "FROM base\nADD data.bin /out/\nADD not-an-archive.tar.gz /out/\nCOPY data.bin /kept\n",
        )
        .ok()
        .image;
    assert_eq!(image.text("out/inner/file"), "x");
    assert_eq!(image.text("out/not-an-archive.tar.gz"), "plain text");
    assert!(
        image
            .entry("kept")
            .unwrap()
            .content
            .starts_with(&[0x1f, 0x8b]),
        "COPY never unpacks"
    );
}

#[test]
fn symlinks_do_not_leave_the_context_or_the_root() {
    let place = Place::new();
    place.file("real", "inside");
    std::os::unix::fs::symlink("/etc/shadow", place.context().join("escape")).unwrap();
    std::os::unix::fs::symlink("real", place.context().join("link")).unwrap();
    let image = place
        .build("FROM base\nCOPY link /followed\nRUN ln -s / /up && ln -s ../../../../data /far\nCOPY real /up/far/deep/file\n")
        .ok()
        .image;
    assert_eq!(image.text("followed"), "inside");
    assert_eq!(image.text("data/deep/file"), "inside");
    let (code, log) = place.build("FROM base\nCOPY escape /x\n").err();
    assert_eq!(code, 1);
    assert!(log.contains("escape") && log.contains("not found"), "{log}");
}

#[test]
fn from_another_stage_and_from_an_image() {
    let place = Place::new();
    let image = place
        .build(
            "FROM base AS made\nRUN mkdir /out && echo made > /out/file && chmod 4755 /out/file\n\
             FROM scratch\nCOPY --from=made /out /in\nCOPY --from=base /data/one /one\n",
        )
        .ok()
        .image;
    assert_eq!(image.text("in/file"), "made\n");
    assert_eq!(image.entry("in/file").unwrap().mode & 0o7777, 0o4755);
    assert_eq!(image.text("one"), "1");
    assert_eq!(image.layers.len(), 2);
}
