//! The binary and real registries: logins, certificates, tokens, mirrors, pushes and pulls; judged by skopeo and podman.

#[path = "support/double.rs"]
mod double;
#[path = "support/home.rs"]
mod home;
#[path = "support/place.rs"]
mod place;
#[path = "support/registry.rs"]
mod registry;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use double::{Double, Reply};
use home::{Home, told};
use place::run;
use registry::{Guard, LOGIN, Registry};

/// `alice` with the password of [`LOGIN`], as `htpasswd -B` writes it.
const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuugcO5vo4i5a2aa/W7eUDccAcfGbEhsYO\n";

/// Digest of what skopeo finds.
fn skopeo_digest(name: &str, arguments: &[&str]) -> String {
    let name = format!("docker://{name}");
    let mut command = vec!["skopeo", "inspect", "--format", "{{.Digest}}"];
    command.extend(arguments);
    command.push(&name);
    run(&command).trim().to_owned()
}

#[test]
fn a_registry_with_a_login_and_a_certificate_of_its_own() {
    let Some(home) = Home::new() else { return };
    let (ca, certificate, key) = home.certificates();
    let htpasswd = home.write("htpasswd", HTPASSWD);
    let guard = Guard {
        tls: Some((&certificate, &key)),
        htpasswd: Some(&htpasswd),
        token: None,
    };
    let registry = Registry::guarded(&home.path("registry"), &guard);
    let name = format!("{}/team/app:1", registry.address);
    let (done, log) = home.build("one", &["-t", &name]);
    assert!(done, "{log}");

    let (done, log) = home.try_rbuild(&["push", "--tls-verify", &name]);
    assert!(
        !done && log.contains("certificate"),
        "not trusted yet: {log}"
    );
    let authority = home.write(
        &format!(".config/containers/certs.d/{}/ca.crt", registry.address),
        &fs::read_to_string(&ca).expect("readable"),
    );
    let (done, log) = home.try_rbuild(&["push", &name]);
    let help = format!("rbuild login {}", registry.address);
    assert!(!done && log.contains(&help), "nobody is logged in: {log}");
    let (done, log) = home.login(&registry.address, "wrong");
    assert!(!done && log.contains("denied"), "{log}");
    let config = home.path(".docker/config.json");
    assert!(!config.exists(), "a refused login is not kept");
    let (done, log) = home.login(&registry.address, LOGIN.1);
    assert!(
        done && log.contains("config.json") && !log.contains(LOGIN.1),
        "{log}"
    );
    let mode = fs::metadata(&config).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let pushed = home.rbuild(&["push", &name]);
    let digest = pushed
        .trim()
        .rsplit(' ')
        .next()
        .expect("a digest")
        .to_owned();
    let credentials = format!("{}:{}", LOGIN.0, LOGIN.1);
    let certificates = authority
        .parent()
        .expect("a directory")
        .to_str()
        .expect("UTF-8");
    let by_skopeo = ["--creds", &credentials, "--cert-dir", certificates];
    assert_eq!(skopeo_digest(&name, &by_skopeo), digest);
    assert_eq!(
        home.rbuild(&["push", &name]),
        pushed,
        "the manifest stays the same"
    );
    let (done, log) = home.elsewhere(&["pull", &name]);
    assert!(done && log.contains("sha256:"), "{log}");

    let info = home.rbuild(&["info", &registry.address]);
    for words in ["user alice", "config.json", "certs.d", "verified"] {
        assert!(info.contains(words), "{words}: {info}");
    }
    assert!(!info.contains(LOGIN.1), "{info}");
    let (done, log) = home.try_rbuild(&["--log-level", "trace", "push", &name]);
    assert!(
        done && !log.contains(LOGIN.1) && !log.contains("Basic "),
        "{log}"
    );

    let log = home.rbuild(&["logout", &registry.address]);
    assert!(log.contains("forgotten in"), "{log}");
    let (done, _) = home.elsewhere(&["pull", &name]);
    assert!(!done, "logged out");
    let (done, log) = home.elsewhere(&["pull", "--creds", &credentials, &name]);
    assert!(done, "{log}");
    fs::remove_file(&authority).expect("removed");
    let (done, log) =
        home.elsewhere(&["pull", "--tls-verify=false", "--creds", &credentials, &name]);
    assert!(done, "without certificates when asked: {log}");
    let directory = home.path("trusted");
    fs::create_dir(&directory).expect("made");
    fs::copy(&ca, directory.join("x.crt")).expect("copied");
    let directory = directory.to_str().expect("UTF-8");
    let (done, log) = home.elsewhere(&[
        "pull",
        "--cert-dir",
        directory,
        "--creds",
        &credentials,
        &name,
    ]);
    assert!(done, "with a directory by flag: {log}");
}

#[test]
fn helpers_keep_and_give_credentials() {
    let Some(home) = Home::new() else { return };
    let htpasswd = home.write("htpasswd", HTPASSWD);
    let guard = Guard {
        htpasswd: Some(&htpasswd),
        ..Guard::default()
    };
    let registry = Registry::guarded(&home.path("registry"), &guard);
    let kept = home.path("kept");
    let helper = home.write(
        "bin/docker-credential-shelf",
        &format!(
            "#!/bin/sh\ncase $1 in\nget) cat >/dev/null; test -e {0} || {{ echo 'credentials not found in native keychain'; exit 1; }}; cat {0};;\nstore) cat >{0};;\nerase) rm {0};;\nesac\n",
            kept.display()
        ),
    );
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("executable");
    let config = home.write(
        ".docker/config.json",
        &format!(
            r#"{{"credHelpers":{{"{}":"shelf"}},"other":1}}"#,
            registry.address
        ),
    );
    let before = fs::read_to_string(&config).expect("readable");
    let name = format!("{}/app:1", registry.address);
    let (done, log) = home.login(&registry.address, LOGIN.1);
    assert!(done && log.contains("docker-credential-shelf"), "{log}");
    assert_eq!(
        fs::read_to_string(&config).expect("readable"),
        before,
        "no password in the file"
    );
    let (done, log) = home.build("one", &["-t", &name, "--push"]);
    assert!(done && log.contains("pushing"), "{log}");
    let log = home.rbuild(&["logout", &registry.address]);
    assert!(
        log.contains("docker-credential-shelf") && !kept.exists(),
        "{log}"
    );

    // A helper that is not there takes nothing away from what is public; one that fails is named.
    fs::remove_file(&helper).expect("removed");
    let (done, log) = home.try_rbuild(&["push", &name]);
    assert!(
        !done && log.contains("docker-credential-shelf` is not in PATH"),
        "{log}"
    );
    let helper = home.write(
        "bin/docker-credential-shelf",
        "#!/bin/sh\necho vault is sealed >&2\nexit 3\n",
    );
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("executable");
    let (done, log) = home.try_rbuild(&["push", &name]);
    assert!(
        !done && log.contains("failed to get: vault is sealed"),
        "{log}"
    );

    // Podman's file goes before Docker's.
    let auth = base64(&format!("{}:{}", LOGIN.0, LOGIN.1));
    home.write(
        "run/containers/auth.json",
        &format!(
            r#"{{"auths":{{"{}/app":{{"auth":"{auth}"}}}}}}"#,
            registry.address
        ),
    );
    let pushed = home.rbuild(&["push", &name]);
    assert!(pushed.contains("sha256:"), "{pushed}");
    let (done, log) = home.try_rbuild(&["info", &name]);
    assert!(done && log.contains("run/containers/auth.json"), "{log}");
}

fn base64(text: &str) -> String {
    let encoded = place::through(&["base64", "-w0"], text.as_bytes());
    String::from_utf8(encoded).expect("ASCII").trim().to_owned()
}

/// A token server whose tokens a registry believes, signed with `key`; tokens are good for `seconds`.
async fn token_server(key: PathBuf, certificate: &Path, seconds: u64) -> Double {
    let pem = fs::read_to_string(certificate).expect("readable");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    Double::start(move |seen, _| {
        let expected = format!("Basic {}", base64(&format!("{}:{}", LOGIN.0, LOGIN.1)));
        let is_known = seen.authorization.as_deref() == Some(&expected);
        let mut access = Vec::new();
        for pair in seen.query.split('&') {
            let Some(scope) = pair.strip_prefix("scope=") else {
                continue;
            };
            let scope = scope
                .replace("%3A", ":")
                .replace("%2F", "/")
                .replace("%2C", ",");
            let parts: Vec<&str> = scope.splitn(3, ':').collect();
            let [kind, name, actions] = parts[..] else {
                continue;
            };
            // Strangers may read what is public.
            let actions: Vec<&str> = actions
                .split(',')
                .filter(|action| is_known || (*action == "pull" && name.starts_with("public/")))
                .collect();
            access.push(serde_json::json!({ "type": kind, "name": name, "actions": actions }));
        }
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let url_safe = |bytes: &[u8]| {
            let text = place::through(&["base64", "-w0"], bytes);
            let text = String::from_utf8(text).expect("ASCII");
            text.trim_end_matches('=')
                .replace('+', "-")
                .replace('/', "_")
        };
        let header = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
        let claims = serde_json::json!({
            "iss": "issuer", "aud": "registry", "sub": "", "jti": "1", "access": access,
            "iat": now - 60, "nbf": now - 60, "exp": now + seconds,
        });
        let text = format!(
            "{}.{}",
            url_safe(header.to_string().as_bytes()),
            url_safe(claims.to_string().as_bytes())
        );
        let key = key.to_str().expect("UTF-8");
        let signature = place::through(
            &["openssl", "dgst", "-sha256", "-sign", key],
            text.as_bytes(),
        );
        let token = format!("{text}.{}", url_safe(&signature));
        Reply::ok(format!(r#"{{"token":"{token}","expires_in":{seconds}}}"#))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_is_asked_once_for_each_need() {
    let Some(home) = Home::new() else { return };
    let (ca, ..) = home.certificates();
    let server = token_server(home.path("ca.key"), &ca, 300).await;
    let realm = format!("http://127.0.0.1:{}/token", server.port);
    let guard = Guard {
        token: Some((&realm, &ca)),
        ..Guard::default()
    };
    let registry = Registry::guarded(&home.path("registry"), &guard);
    let name = format!("{}/public/app:1", registry.address);
    let (done, log) = home.build("one", &["-t", &name]);
    assert!(done, "{log}");
    let (done, log) = home.try_rbuild(&["push", &name]);
    assert!(
        !done && log.contains("denied"),
        "strangers don't push: {log}"
    );
    let (done, log) = home.login(&registry.address, LOGIN.1);
    assert!(done, "{log}");
    let before = server.count("/token");
    home.rbuild(&["push", &name]);
    assert_eq!(
        server.count("/token"),
        before + 1,
        "one token for the whole push"
    );
    let other = format!("{}/private/app:1", registry.address);
    home.rbuild(&["tag", &name, &other]);
    home.rbuild(&["push", &name, &other]);
    assert_eq!(
        skopeo_digest(
            &other,
            &[
                "--tls-verify=false",
                "--creds",
                &format!("{}:{}", LOGIN.0, LOGIN.1)
            ]
        ),
        skopeo_digest(
            &name,
            &[
                "--tls-verify=false",
                "--creds",
                &format!("{}:{}", LOGIN.0, LOGIN.1)
            ]
        ),
    );
    let mounts = server
        .seen()
        .iter()
        .any(|seen| seen.query.matches("scope=").count() == 2);
    assert!(mounts, "a mount asks for both repositories in one token");
    home.rbuild(&["logout", &registry.address]);
    let (done, log) = home.elsewhere(&["pull", &name]);
    assert!(done, "what is public can be had by anyone: {log}");
    let (done, log) = home.elsewhere(&["pull", &other]);
    assert!(!done && log.contains("rbuild login"), "{log}");
}

#[test]
fn configured_names_lead_where_the_files_say() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let pushed = format!("{}/hub/library/tool:1", registry.address);
    let (done, log) = home.build("one", &["-t", &pushed, "--push"]);
    assert!(done, "{log}");
    let conf = home.write(
        ".config/containers/registries.conf",
        &format!(
            "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1\"\n\
             [[registry.mirror]]\nlocation = \"{0}/hub\"\n\
             [[registry]]\nprefix = \"example.com/x\"\nlocation = \"{0}/hub/library\"\n\
             [[registry]]\nlocation = \"bad.example\"\nblocked = true\n",
            registry.address
        ),
    );
    home.write(
        ".config/containers/registries.conf.d/alias.conf",
        &format!(
            "[aliases]\nshort = \"{}/hub/library/tool\"\n",
            registry.address
        ),
    );
    for name in ["tool:1", "example.com/x/tool:1", "short:1"] {
        let (done, log) = home.elsewhere(&["pull", name]);
        assert!(done, "{name}: {log}");
    }
    home.write("context/Dockerfile", "FROM short:1\n");
    let context = home.path("context");
    let (done, log) = home.elsewhere(&["build", context.to_str().expect("UTF-8")]);
    assert!(done, "{log}");
    let (done, log) = home.elsewhere(&["pull", "bad.example/a"]);
    assert!(
        !done && log.contains("is blocked") && log.contains("registries.conf"),
        "{log}"
    );
    let info = home.rbuild(&["info", "tool:1"]);
    assert!(
        info.contains("mirror") && info.contains(conf.to_str().expect("UTF-8")),
        "{info}"
    );
    // Pushes never go to a mirror.
    home.rbuild(&["tag", &pushed, "example.com/x/new:1"]);
    home.rbuild(&["push", "example.com/x/new:1"]);
    let digest = skopeo_digest(
        &format!("{}/hub/library/new:1", registry.address),
        &["--tls-verify=false"],
    );
    assert!(digest.starts_with("sha256:"), "{digest}");
    fs::write(&conf, "[[registry]\n").expect("written");
    let (done, log) = home.elsewhere(&["pull", "tool:1"]);
    assert!(
        !done && log.contains("registries.conf` can't be used"),
        "{log}"
    );
}

#[test]
fn archives_and_outputs_are_taken_by_others() {
    let Some(home) = Home::new() else { return };
    let registry = Registry::start(&home.path("registry"));
    let name = format!("{}/app", registry.address);
    let archive = home.path("docker.tar");
    let oci = home.path("oci.tar");
    let docker = format!("type=docker,dest={},name=app:1", archive.display());
    let zstd = format!(
        "type=oci,dest={},compression=zstd,annotation-index.a=b",
        oci.display()
    );
    let push = format!("type=registry,\"name={name}:1,{name}:2\",oci-mediatypes=false");
    let metadata = home.path("metadata.json");
    let (done, log) = home.build(
        "one",
        &[
            "-o",
            &docker,
            "-o",
            &zstd,
            "-o",
            &push,
            "--metadata-file",
            metadata.to_str().expect("UTF-8"),
        ],
    );
    assert!(done, "{log}");
    let shown = |text: &str| run(&["skopeo", "inspect", "--raw", text]);
    let manifest = shown(&format!("docker-archive:{}", archive.display()));
    assert!(manifest.contains("sha256"), "{manifest}");
    let index = shown(&format!("oci-archive:{}", oci.display()));
    assert!(index.contains("\"a\":\"b\""), "{index}");
    let tls = ["--tls-verify=false"];
    assert_eq!(
        skopeo_digest(&format!("{name}:1"), &tls),
        skopeo_digest(&format!("{name}:2"), &tls)
    );
    let raw = run(&[
        "skopeo",
        "inspect",
        "--tls-verify=false",
        "--raw",
        &format!("docker://{name}:1"),
    ]);
    assert!(
        raw.contains("vnd.docker.distribution.manifest.v2+json"),
        "{raw}"
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(metadata).expect("readable")).expect("JSON");
    assert!(
        metadata["image.name"]
            .as_str()
            .is_some_and(|names| names.contains("/app:2")),
        "{metadata}"
    );

    // Saved from the store: several images in one archive, on stdout.
    home.rbuild(&["tag", &format!("{name}:1"), "app:1"]);
    home.rbuild(&["tag", &format!("{name}:1"), "second:x"]);
    let saved = home
        .command("root", &["save", "app:1", "second:x"])
        .output()
        .expect("it runs");
    assert!(saved.status.success(), "{}", told(&saved).1);
    let both = home.path("both.tar");
    fs::write(&both, &saved.stdout).expect("written");
    for tag in ["app:1", "second:x"] {
        let shown = run(&[
            "skopeo",
            "inspect",
            "--config",
            &format!("docker-archive:{}:{tag}", both.display()),
        ]);
        assert!(shown.contains("diff_ids"), "{shown}");
    }
    let storage = home.path("podman");
    let (root, runroot) = (storage.join("root"), storage.join("run"));
    let loaded = run(&[
        "podman",
        "--root",
        root.to_str().expect("UTF-8"),
        "--runroot",
        runroot.to_str().expect("UTF-8"),
        "--storage-driver=vfs",
        "load",
        "-q",
        "-i",
        both.to_str().expect("UTF-8"),
    ]);
    assert!(
        loaded.contains("app:1") && loaded.contains("second:x"),
        "{loaded}"
    );

    // All tags at once, and a base in another compression.
    home.rbuild(&["push", "--all-tags", &name]);
    home.write(
        "context/Dockerfile",
        &format!("FROM {name}:1\nCOPY file /other\n"),
    );
    let forced = home.path("forced");
    let output = format!(
        "type=oci,tar=false,dest={},compression=zstd,force-compression=true",
        forced.display()
    );
    let context = home.path("context");
    let (done, log) = home.elsewhere(&["build", "-o", &output, context.to_str().expect("UTF-8")]);
    assert!(done, "{log}");
    let raw = shown(&format!("oci:{}", forced.display()));
    assert_eq!(raw.matches("tar+zstd").count(), 2, "{raw}");
    run(&[
        "skopeo",
        "copy",
        &format!("oci:{}", forced.display()),
        &format!("dir:{}", home.path("dir").display()),
    ]);
}
