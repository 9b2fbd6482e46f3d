//! Git repositories as contexts and as what ADD adds.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::servers::{GitServer, Repository, WebServer};
use super::support::Place;

const DOCKERFILE: &str = "FROM scratch\nCOPY . /all/\n";

/// A place with a repository `app.git` that is served.
struct Forge {
    place: Place,
    app: Repository,
    server: GitServer,
}

impl Forge {
    fn new() -> Self {
        let place = Place::new();
        let app = Repository::new(place.path().join("repositories/app.git"));
        app.file("Dockerfile", DOCKERFILE)
            .file("f", "one")
            .file("dir/Dockerfile", DOCKERFILE)
            .file("dir/g", "g");
        let server = GitServer::start(&place.path().join("repositories"));
        Self { place, app, server }
    }

    /// The repository's address and what stands behind it.
    fn url(&self, rest: &str) -> String {
        format!("{}{rest}", self.server.url("app.git"))
    }
}

#[test]
fn a_repository_is_a_context_at_any_reference() {
    let forge = Forge::new();
    let first = forge.app.commit();
    forge.app.git(&["tag", "light"]);
    forge.app.git(&["tag", "--annotate", "--message=v1", "v1"]);
    forge.app.git(&["branch", "feature/x"]);
    forge.app.git(&["update-ref", "refs/pull/1/head", "HEAD"]);
    fs::set_permissions(
        forge.app.path().join("f"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    forge.app.file("f", "two").commit();
    let prepare = |rest: &str| forge.place.build_context(forge.url(rest));
    let built = prepare("").ok();
    assert_eq!(built.image.text("all/f"), "two");
    assert!(built.image.entry("all/.git").is_none());
    let entry = built.image.entry("all/f").unwrap();
    assert_eq!((entry.uid, entry.gid, entry.mode), (0, 0, 0o755));
    assert_eq!(built.image.entry("all/dir/g").unwrap().mode, 0o644);
    let mut is_cached = false;
    for rest in [
        "#v1",
        "#light",
        "#refs/tags/v1",
        "#feature/x",
        "#refs/pull/1/head",
        "?tag=v1",
        "?branch=feature/x",
        &format!("#{first}"),
        &format!("?ref={first}"),
        &format!("?tag=v1&checksum={}", &first[..10]),
        &format!("?branch=feature/x&commit={first}&fetch-by-commit"),
    ] {
        let built = prepare(rest).ok();
        assert_eq!(built.image.text("all/f"), "one", "{rest}");
        // They all are the same commit: nothing runs again.
        built.expect(&[("COPY . /all/", is_cached)]);
        is_cached = true;
    }
    for rest in ["#main:dir", "?subdir=dir", "#main:/x/../dir/"] {
        let built = prepare(rest).ok();
        assert!(built.image.entry("all/g").is_some(), "{rest}");
        assert!(built.image.entry("all/f").is_none(), "{rest}");
    }
}

#[test]
fn a_pinned_commit_is_asked_once_and_a_branch_in_every_build() {
    let forge = Forge::new();
    let first = forge.app.commit();
    let dockerfile = format!(
        "FROM scratch\nADD {} /pinned/\nADD {} /main/\n",
        forge.url(&format!("#{first}")),
        forge.url("#main:dir")
    );
    let titles = ["/pinned/", "/main/"];
    let prepare = || forge.place.build(&dockerfile).ok();
    let built = prepare();
    assert_eq!(built.image.text("pinned/f"), "one");
    assert!(built.image.entry("pinned/.git").is_none());
    prepare().expect(&titles.map(|title| (title, true)));
    forge.app.file("dir/g", "changed").commit();
    let built = prepare();
    built.expect(&[(titles[0], true), (titles[1], false)]);
    assert_eq!(built.image.text("main/g"), "changed");
    // A commit that does not touch the subdirectory is another commit; what is made of it is the same.
    let pinned = format!(
        "FROM scratch\nADD {} /pinned/\n",
        forge.url(&format!("#{first}"))
    );
    fs::rename(forge.app.path(), forge.place.path().join("gone")).unwrap();
    forge.place.build(&pinned).ok().expect(&[(titles[0], true)]);
    forge
        .place
        .build_context(forge.url(&format!("#{first}")))
        .ok();
    let (_, log) = forge.place.build_context(forge.url("")).err();
    assert!(log.contains("cannot read the references of"), "{log}");
}

#[test]
fn the_git_directory_is_kept_where_it_is_asked_for() {
    let forge = Forge::new();
    let commit = forge.app.commit();
    let head = |rest: &str, flag: &str| {
        let dockerfile = format!("FROM scratch\nADD {flag} {} /r/\n", forge.url(rest));
        let built = forge.place.build(&dockerfile).ok();
        let head = built.image.entry("r/.git/HEAD");
        head.map(|entry| String::from_utf8_lossy(&entry.content).trim().to_owned())
    };
    assert_eq!(head("#main", ""), None);
    assert_eq!(head("#main", "--keep-git-dir"), Some(commit.clone()));
    assert_eq!(head("?keep-git-dir", ""), Some(commit.clone()));
    assert_eq!(head("#main:dir", "--keep-git-dir"), None);
    let built = forge
        .place
        .build_context(forge.url("#main"))
        .arg("--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
        .ok();
    let config = built.image.text("all/.git/config");
    assert!(config.contains(&forge.url("")), "{config}");
    assert!(built.image.entry("all/.git/FETCH_HEAD").is_none());
    assert!(built.image.entry("all/.git/hooks").is_none());
}

#[test]
fn an_expected_commit_is_checked() {
    let forge = Forge::new();
    let commit = forge.app.commit();
    let prepare = |checksum: &str| {
        let url = forge.url("#main");
        let text = format!("FROM scratch\nADD --checksum={checksum} {url} /r/\n");
        forge.place.build(&text)
    };
    assert_eq!(prepare(&commit).ok().image.text("r/f"), "one");
    assert_eq!(prepare(&commit[..12]).ok().image.text("r/f"), "one");
    let wrong = "0".repeat(40);
    let (code, log) = prepare(&wrong).err();
    assert_eq!(code, 1);
    assert!(
        log.contains(&format!("is the commit `{commit}`, not `{wrong}`")),
        "{log}"
    );
    let (_, log) = prepare("nonsense").err();
    assert!(log.contains("`nonsense` is not a commit"), "{log}");
}

#[test]
fn submodules_come_along_unless_they_speak_something_else() {
    let forge = Forge::new();
    let library = Repository::new(forge.place.path().join("repositories/library.git"));
    library.file("l", "of the submodule").commit();
    let url = forge.server.url("library.git");
    forge.app.git(&["submodule", "--quiet", "add", &url, "lib"]);
    forge.app.commit();
    let built = forge.place.build_context(forge.url("")).ok();
    assert_eq!(built.image.text("all/lib/l"), "of the submodule");
    assert!(built.image.entry("all/lib/.git").is_none());
    let built = forge.place.build_context(forge.url("?submodules=0")).ok();
    assert!(built.image.entry("all/lib/l").is_none());
    let trace = forge.place.path().join("executed");
    for url in [
        format!("ext::sh -c touch% {}", trace.display()),
        library.path().display().to_string(),
        format!("file://{}", library.path().display()),
    ] {
        forge
            .app
            .file(
                ".gitmodules",
                &format!("[submodule \"lib\"]\n\tpath = lib\n\turl = {url}\n"),
            )
            .commit();
        let (code, log) = forge.place.build_context(forge.url("")).err();
        assert_eq!(code, 1, "{url}");
        assert!(log.contains("not allowed"), "{url}: {log}");
        assert!(!trace.exists(), "{url}");
    }
}

#[test]
fn what_leads_out_of_a_repository_is_refused() {
    let forge = Forge::new();
    std::os::unix::fs::symlink("/etc", forge.app.path().join("outside")).unwrap();
    std::os::unix::fs::symlink("dir", forge.app.path().join("inside")).unwrap();
    forge.app.commit();
    for (rest, expected) in [
        ("#main:outside", "`outside` is a symlink"),
        ("#main:inside", "`inside` is a symlink"),
        ("#main:f", "`f` is a file"),
        ("#main:nope", "`nope` is not there"),
        ("#main:.git", "`.git` is not part of the repository"),
        ("#-x", "`-x` can't be the name of a branch, tag or commit"),
        ("?ref=--upload-pack=true", "can't be the name"),
        ("?ref=main:refs/heads/x", "can't be the name"),
        ("#nope", "has no branch or tag `nope`"),
        ("#abcdef0", "write all of its digits"),
        ("?nonsense=1", "no query key `nonsense`"),
    ] {
        let (code, log) = forge.place.build_context(forge.url(rest)).err();
        assert_eq!(code, 1, "{rest}");
        assert!(log.contains(expected), "{rest}: {log}");
    }
    // No protocol of a repository, so a directory that is not there.
    for context in ["file:///etc", "ext::sh -c true"] {
        let (code, log) = forge.place.build_context(context).err();
        assert_eq!(code, 2, "{context}");
        assert!(log.contains("does not exist"), "{log}");
    }
}

/// `basic`, and `x-access-token:secret` in base64.
const AUTHORIZATION: &str = "basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0";

#[test]
fn a_private_repository_gets_the_token_and_nobody_else_sees_it() {
    let forge = Forge::new();
    forge.app.commit();
    forge.app.git(&["update-server-info"]);
    // The server knows files only: no shallow fetches, no single commits.
    let web = WebServer::start();
    let served = forge.place.path().join("web");
    fs::create_dir(&served).unwrap();
    std::os::unix::fs::symlink(forge.app.path().join(".git"), served.join("repository.git"))
        .unwrap();
    web.directory(&served, Some(AUTHORIZATION));
    let url = web.url("/repository.git");
    let (_, log) = forge.place.build_context(&url).err();
    assert!(log.contains("--secret id=GIT_AUTH_TOKEN"), "{log}");
    let file = forge.place.path().join("token");
    fs::write(&file, "secret\n").unwrap();
    for id in [
        "GIT_AUTH_TOKEN".to_owned(),
        format!("GIT_AUTH_TOKEN.{}", web.host()),
    ] {
        let secret = format!("--secret=id={id},src={}", file.display());
        let built = forge.place.build_context(&url).arg(&secret).ok();
        assert_eq!(built.image.text("all/f"), "one");
        assert!(!built.log.contains("secret"), "{}", built.log);
    }
    fs::write(&file, AUTHORIZATION).unwrap();
    let secret = format!("--secret=id=GIT_AUTH_HEADER,src={}", file.display());
    forge.place.build_context(&url).arg(&secret).ok();
    fs::write(&file, "two\nlines").unwrap();
    let secret = format!("--secret=id=GIT_AUTH_TOKEN,src={}", file.display());
    let (_, log) = forge
        .place
        .build_context(format!("{url}#main"))
        .arg(&secret)
        .err();
    assert!(log.contains("not one line of printable ASCII"), "{log}");
    // Credentials in an address are not shown.
    let with_password = url.replace("http://", "http://user:pa55word@");
    let (_, log) = forge
        .place
        .build_context(format!("{with_password}#x"))
        .err();
    assert!(!log.contains("pa55word"), "{log}");
}

#[test]
fn ssh_uses_the_key_that_was_given() {
    let forge = Forge::new();
    forge.app.commit();
    // Stands in for ssh: writes down how it was called, and runs the command here.
    let programs = forge.place.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let called = forge.place.path().join("called");
    let script = format!(
        "#!/bin/sh\necho \"$SSH_AUTH_SOCK $*\" >> {}\nfor last in \"$@\"; do :; done\nexec sh -c \"$last\"\n",
        called.display()
    );
    fs::write(programs.join("ssh"), script).unwrap();
    fs::set_permissions(programs.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let repository = forge.app.path().display();
    let scp = format!("git@localhost:{repository}");
    let run = |context: &str, arguments: &[&str], agent: &str| {
        let prepared = forge.place.build_context(context);
        let mut command = arguments
            .iter()
            .fold(prepared, |prepared, argument| prepared.arg(argument))
            .command();
        let output = command
            .env("PATH", &path)
            .env("SSH_AUTH_SOCK", agent)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (is_ok, log) = run(&scp, &[], "");
    assert!(
        !is_ok && log.contains("the build was given no key"),
        "{log}"
    );
    let key = forge.place.path().join("key");
    fs::write(&key, "").unwrap();
    let (is_ok, log) = run(&scp, &[&format!("--ssh=default={}", key.display())], "");
    assert!(is_ok, "{log}");
    let words = fs::read_to_string(&called).unwrap();
    assert!(words.contains(&format!("-i {}", key.display())), "{words}");
    assert!(
        words.contains("-F /dev/null") && words.contains("StrictHostKeyChecking=accept-new"),
        "{words}"
    );
    // The user's agent, without being told.
    let socket = forge.place.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::remove_file(&called).unwrap();
    let (is_ok, log) = run(
        &format!("ssh://git@localhost{repository}"),
        &[],
        socket.to_str().unwrap(),
    );
    assert!(is_ok, "{log}");
    let words = fs::read_to_string(&called).unwrap();
    assert!(words.starts_with(socket.to_str().unwrap()), "{words}");
}

#[test]
fn a_missing_git_is_named() {
    let forge = Forge::new();
    let output = forge
        .place
        .build_context(forge.url(""))
        .command()
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("there is no `git` in PATH"), "{log}");
    assert!(log.contains("apt-get install git"), "{log}");
}

#[test]
fn a_repository_is_a_named_context_and_has_a_time() {
    let forge = Forge::new();
    forge.app.git(&["add", "--all"]);
    let date = "--date=@1000000000 +0000";
    forge.app.git(&["commit", "--quiet", "--message=x", date]);
    // The committer's time counts, not the author's.
    let time: u64 = forge
        .app
        .git(&["log", "-1", "--format=%ct"])
        .parse()
        .unwrap();
    let named = format!("--build-context=src={}", forge.url("#main"));
    let built = forge
        .place
        .build("FROM base\nARG SOURCE_DATE_EPOCH\nCOPY --from=src f /\nRUN --mount=from=src,target=/m cat /m/dir/g > /g && echo $SOURCE_DATE_EPOCH > /epoch\n")
        .arg(&named)
        .arg("--build-arg=SOURCE_DATE_EPOCH=src")
        .ok();
    assert_eq!(built.image.text("f"), "one");
    assert_eq!(built.image.text("g"), "g");
    assert_eq!(built.image.text("epoch"), format!("{time}\n"));
    // With an epoch the main context's files have the commit's time.
    let built = forge
        .place
        .build_context(forge.url(""))
        .arg("--build-arg=SOURCE_DATE_EPOCH=context")
        .ok();
    assert_eq!(built.image.entry("all/f").unwrap().mtime, time);
    let built = forge.place.build_context(forge.url("?mtime=commit")).ok();
    assert_eq!(built.image.entry("all/dir").unwrap().mtime, time);
}
