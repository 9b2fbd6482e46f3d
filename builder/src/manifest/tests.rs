use super::*;

const HEX: &str = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

fn manifest(layer: &str, config: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"sha256:{HEX}","size":2}},
        "layers":[{{"mediaType":"{layer}","digest":"sha256:{HEX}","size":2}}]}}"#
    )
}

#[test]
fn every_known_shape_is_told_apart() {
    let good = manifest(media::OCI_LAYER_GZIP, media::OCI_CONFIG);
    let docker = manifest(media::DOCKER_LAYER_GZIP, media::DOCKER_CONFIG);
    let rows: &[(&str, &str, Option<&str>, &str)] = &[
        ("untyped manifest", &good, None, "manifest"),
        (
            "typed by header",
            &good,
            Some(media::OCI_MANIFEST),
            "manifest",
        ),
        ("docker", &docker, Some(media::DOCKER_MANIFEST), "manifest"),
        (
            "generic header",
            &good,
            Some("application/json; charset=utf-8"),
            "manifest",
        ),
        (
            "untyped index",
            r#"{"schemaVersion":2,"manifests":[]}"#,
            None,
            "index",
        ),
        (
            "schema 1",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            None,
            "schema 1",
        ),
        (
            "schema 3",
            r#"{"schemaVersion":3,"manifests":[]}"#,
            None,
            "schema version 3",
        ),
        (
            "html",
            "<html>hello</html>",
            Some("text/html"),
            "not a manifest but `text/html`",
        ),
        (
            "cut off",
            r#"{"schemaVersion":2,"#,
            Some(media::OCI_MANIFEST),
            "not a valid image manifest",
        ),
        (
            "wrong type",
            &good,
            Some(media::OCI_CONFIG),
            "is not an image manifest",
        ),
        (
            "two minds",
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            Some(media::OCI_MANIFEST),
            "says itself",
        ),
        (
            "both lists",
            r#"{"schemaVersion":2,"manifests":[],"config":{}}"#,
            None,
            "at once",
        ),
        (
            "nothing",
            r#"{"schemaVersion":2}"#,
            None,
            "media type `none`",
        ),
    ];
    for (name, text, announced, expected) in rows {
        let answer = match parse_document(text.as_bytes(), *announced) {
            Ok(Document::Manifest(_)) => "manifest".to_owned(),
            Ok(Document::Index(_)) => "index".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(answer.contains(expected), "{name}: {answer}");
    }
}

#[test]
fn unusable_layers_and_configs_are_named() {
    let rows = [
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            media::OCI_CONFIG,
            "not distributable",
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            media::OCI_CONFIG,
            "not distributable",
        ),
        (
            "application/x-lha",
            media::OCI_CONFIG,
            "layer 1 has media type `application/x-lha`",
        ),
        (
            media::OCI_LAYER,
            "application/vnd.cncf.helm.config.v1+json",
            "not a container image",
        ),
    ];
    for (layer, config, expected) in rows {
        let error = parse_document(manifest(layer, config).as_bytes(), None).expect_err(layer);
        assert!(error.to_string().contains(expected), "{error}");
    }
}
