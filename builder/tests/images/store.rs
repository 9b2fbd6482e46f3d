//! Images of the store, and layers that were made here.

use std::fs;
use std::path::Path;

use rbuild::export::ExportOptions;
use rbuild::image::{BuiltImage, assemble};
use rbuild::images::Images;
use rbuild::options::{Output, OutputCompression, OutputKind, PullPolicy};
use rbuild_cache::{DiffId, Entry, EntryKind, LayerRecord, SnapshotId};
use rbuild_frontend::graph::{ImageReference, PlannedHistory};
use rbuild_frontend::image_config::HistoryEntry;
use rbuild_runner::job::{FileJob, FileOperation, LayerEntry, OverlaySpec};

use super::place::{Layout, Place, run};
use super::{layout_reference, output, place_chain, pulled_image, resolve, three_layers};

#[tokio::test]
async fn images_of_the_store_are_named_listed_and_used_as_bases() {
    let Some(place) = Place::new() else { return };
    let built = pulled_image(&place).await;
    let options = ExportOptions {
        has_index: false,
        tags: vec!["app".to_owned()],
        ..ExportOptions::default()
    };
    let output = Output {
        destination: None,
        ..output(OutputKind::Image, Path::new(""))
    };
    let exported = place
        .exporter()
        .export(
            std::slice::from_ref(&built),
            &output,
            &options,
            &place.lease,
        )
        .await
        .expect("stored");
    assert_eq!(exported.config_digest.as_ref(), Some(&built.config_digest));
    let images = Images::new(place.sources.store.clone());
    images.tag("app", "team/app:2").expect("tagged");
    let listed = images.list().expect("listed");
    let names: Vec<_> = listed
        .iter()
        .map(|line| line.name.as_deref().unwrap_or("-"))
        .collect();
    assert_eq!(names, ["app:latest", "team/app:2"]);
    let shown = images
        .inspect(&built.config_digest.digest()[..12])
        .expect("by short id");
    assert_eq!(
        shown["RepoTags"],
        serde_json::json!(["app:latest", "team/app:2"])
    );
    assert_eq!(shown["Config"]["Env"][0], "ARCH=amd64");
    assert_eq!(
        images
            .history("app")
            .expect("history")
            .iter()
            .filter(|line| line.size.is_some())
            .count(),
        3
    );
    let from = resolve(
        &place,
        &ImageReference::Name("app".to_owned()),
        PullPolicy::Never,
    )
    .await
    .expect("from the store");
    assert_eq!(
        place
            .sources
            .chain(&from, &place.lease)
            .await
            .expect("here"),
        built.chain
    );
    images.remove("app").expect("untagged");
    images.remove("team/app:2").expect("removed");
    let error = resolve(
        &place,
        &ImageReference::Name("app".to_owned()),
        PullPolicy::Never,
    )
    .await
    .expect_err("gone");
    assert!(
        error
            .to_string()
            .contains("`docker.io/library/app:latest` is not in the local store"),
        "{error}"
    );
    assert!(
        images
            .inspect("app")
            .expect_err("gone")
            .to_string()
            .contains("no image `app`")
    );
}

#[tokio::test]
async fn a_failed_export_leaves_no_archive() {
    let Some(place) = Place::new() else { return };
    let built = pulled_image(&place).await;
    // A bit flips in the last blob of the store.
    let layer = built.chain.layers()[2];
    let original = place
        .sources
        .store
        .original(&layer.diff_id)
        .expect("store")
        .expect("known");
    let blob = place.sources.store.blob_path(&original.digest);
    let mut bytes = fs::read(&blob).expect("blob");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).expect("write");
    let archive = place.path("out/image.tar");
    let output = output(OutputKind::Oci, &archive);
    let outcome = place
        .exporter()
        .export(&[built], &output, &ExportOptions::default(), &place.lease)
        .await;
    assert!(place_chain(&outcome.expect_err("damaged")).contains(original.digest.as_ref()));
    assert_eq!(
        fs::read_dir(place.path("out")).expect("made").count(),
        0,
        "no archive, no temporary file"
    );
}

/// An image of one base layer and one made here, with a time of its own.
async fn made_here(place: &Place, epoch: Option<i64>) -> BuiltImage {
    let mut layout = Layout::new(place.path("layout"));
    let image = layout.image(&three_layers()[..1], "amd64");
    layout.tag(image, None);
    let base = resolve(
        place,
        &layout_reference(&layout.path, None),
        PullPolicy::Missing,
    )
    .await
    .expect("base");
    let below = place
        .sources
        .chain(&base, &place.lease)
        .await
        .expect("a chain");
    let scratch = place.lease.scratch("step").expect("scratch");
    let job = FileJob {
        root: OverlaySpec {
            lowers: below.snapshot_paths(&place.sources.store),
            scratch: scratch.clone(),
        },
        sources: Vec::new(),
        operations: vec![FileOperation::MakeDirectory {
            path: b"/made/here".to_vec(),
            owner: Vec::new(),
            mtime: None,
        }],
    };
    let sealed = place.sources.spawner.files(job).expect("a layer").layer;
    let entry = |entry: LayerEntry| Entry {
        path: entry.path,
        kind: EntryKind::Directory { is_opaque: false },
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        xattrs: entry.xattrs,
        mtime: (entry.mtime, entry.mtime_nanos),
    };
    let diff_id = DiffId(sealed.diff_id.parse().expect("a digest"));
    let record = LayerRecord {
        diff_id: diff_id.clone(),
        tar_size: sealed.tar_size,
        created: 1_700_000_000,
        created_nanos: 5,
        entries: sealed.entries.into_iter().map(entry).collect(),
        implied: Vec::new(),
    };
    let snapshot = SnapshotId::of_layer(&diff_id);
    let layer = place
        .lease
        .commit_snapshot(&scratch.join("upper"), &record, &snapshot)
        .expect("committed");
    let made = HistoryEntry {
        created_by: "WORKDIR /made/here".to_owned(),
        ..HistoryEntry::default()
    };
    let history = [PlannedHistory::New {
        entry: made,
        step: None,
    }];
    assemble(base.config.clone(), &history, below.with(layer), epoch)
}

#[tokio::test]
async fn layers_made_here_are_packed_the_same_everywhere() {
    let epoch = Some(1_500_000_000);
    let mut rewritten = Vec::new();
    for _ in 0..2 {
        let Some(place) = Place::new() else { return };
        let built = made_here(&place, epoch).await;
        assert_eq!(built.base_layers, 1);
        let options = ExportOptions {
            has_index: false,
            tags: vec!["app".to_owned()],
            source_date_epoch: epoch,
            ..ExportOptions::default()
        };
        for (name, compression) in [
            ("gzip", OutputCompression::Gzip),
            ("zstd", OutputCompression::Zstd),
            ("plain", OutputCompression::Uncompressed),
        ] {
            let archive = place.path(name);
            for rewrites_timestamps in [false, true] {
                let output = Output {
                    compression,
                    rewrites_timestamps,
                    ..output(OutputKind::Oci, &archive)
                };
                let exported = place
                    .exporter()
                    .export(
                        std::slice::from_ref(&built),
                        &output,
                        &options,
                        &place.lease,
                    )
                    .await
                    .expect(name);
                let is_same = exported.config_digest.as_ref() == Some(&built.config_digest);
                assert_ne!(
                    is_same, rewrites_timestamps,
                    "{name}: rewriting gives other diff_ids"
                );
                if rewrites_timestamps {
                    rewritten.push(exported.descriptor.expect("packed"));
                }
                let source = format!("oci-archive:{}:latest", archive.display());
                let config = run(&["skopeo", "inspect", "--config", &source]);
                assert!(config.contains("2017-07-14T02:40:00Z"), "{config}");
                let copy = format!("dir:{}", place.path("copied").display());
                run(&["skopeo", "copy", &source, &copy]); // checks digests and diff_ids
            }
        }
    }
    assert_eq!(
        rewritten[..3],
        rewritten[3..],
        "two stores, one set of bytes"
    );
}
