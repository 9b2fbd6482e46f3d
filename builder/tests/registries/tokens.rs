//! A token server of our own in front of the real registry.

use std::fs;
use std::path::{Path, PathBuf};

use super::double::{Double, Reply};
use super::home::Home;
use super::place;
use super::registry::{Guard, LOGIN, Registry};
use super::{base64, skopeo_digest};

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
