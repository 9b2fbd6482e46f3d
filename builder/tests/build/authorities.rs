//! `--ca-cert`: what RUN steps see of it, and that nothing else does.

use std::fs;

use crate::support::Place;

const ONE: &str = "-----BEGIN CERTIFICATE-----\nb25lIGF1dGhvcml0eQ==\n-----END CERTIFICATE-----\n";
const OTHER: &str =
    "-----BEGIN CERTIFICATE-----\nYW5vdGhlciBhdXRob3JpdHk=\n-----END CERTIFICATE-----\n";

#[test]
fn steps_find_the_added_authority_and_layers_and_keys_do_not() {
    let place = Place::new();
    let flag = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        format!("--ca-cert={}", path.display())
    };
    let (one, other) = (flag("one.pem", ONE), flag("other.pem", OTHER));
    let dockerfile = "FROM base\nENV CURL_CA_BUNDLE=/own\n\
        RUN for file in $SSL_CERT_FILE $NODE_EXTRA_CA_CERTS $REQUESTS_CA_BUNDLE $GIT_SSL_CAINFO; do grep -c b25lIGF1dGhvcml0eQ== $file; done; \
        echo curl $CURL_CA_BUNDLE\n";
    let first = place.build(dockerfile).arg(&one).ok();
    let found = first
        .log
        .lines()
        .filter(|line| line.ends_with(" 1"))
        .count();
    assert_eq!(found, 4, "{}", first.log);
    assert!(first.log.contains("curl /own"), "{}", first.log);
    assert!(first.image.entry("dev/rbuild/certificates.pem").is_none());
    place
        .build(dockerfile)
        .arg(&other)
        .ok()
        .expect(&[("RUN for file", true)]);
    place
        .build(dockerfile)
        .ok()
        .expect(&[("RUN for file", true)]);
}

#[test]
fn what_is_no_certificate_is_refused_by_its_flag() {
    let place = Place::new();
    let path = place.path().join("none.pem");
    fs::write(&path, "none").unwrap();
    for (path, reason) in [
        (path.as_path(), "no certificate in PEM form"),
        ("/does/not/exist".as_ref(), "No such file"),
    ] {
        let flag = format!("--ca-cert={}", path.display());
        let (code, log) = place.build("FROM base\n").arg(&flag).err();
        assert_eq!(code, 2, "{log}");
        assert!(log.contains("--ca-cert") && log.contains(reason), "{log}");
    }
}
