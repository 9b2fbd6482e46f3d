//! The binary and real registries: logins, certificates, tokens, mirrors, pushes and pulls; judged by skopeo and podman.

#[path = "../support/double.rs"]
mod double;
#[path = "../support/home.rs"]
mod home;
#[path = "../support/place.rs"]
mod place;
#[path = "../support/registry.rs"]
mod registry;

mod implementations;
mod limits;
mod outputs;
mod proxies;
mod tokens;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use home::Home;
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
    let pull = ["pull", "--tls-verify=true", "--creds", &credentials];
    let (done, log) = home.elsewhere(&[&pull[..], &[&name]].concat());
    assert!(!done, "without the authority: {log}");
    let ca = ca.to_str().expect("UTF-8");
    let (done, log) = home.elsewhere(&[&pull[..], &["--ca-cert", ca, &name]].concat());
    assert!(done, "with the authority by flag: {log}");
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
    let info = home.rbuild(&["info", "short:1"]);
    assert!(info.contains("registries.conf.d/alias.conf"), "{info}");
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
