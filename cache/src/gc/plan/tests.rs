use super::*;
use crate::db::{MountUse, RecordUse};
use crate::gc::Kind;

/// Seconds since the epoch of the tests' present.
const NOW: i64 = 1_000_000_000;

/// Everything a plan is made of, put together by hand.
#[derive(Default)]
struct World {
    inventory: Inventory,
    holds: Holds,
    options: PruneOptions,
}

impl World {
    /// A layer of `size` bytes, used `hours` ago.
    fn layer(mut self, name: &str, size: u64, hours: i64) -> Self {
        self.inventory.layers.push(LayerUse {
            snapshot: name.to_owned(),
            diff_id: format!("diff-{name}"),
            used: NOW - hours * 3600,
            disk: Some(size),
        });
        self
    }

    /// A step whose result is `chain` (names apart by blanks), which took `seconds`.
    fn record(mut self, chain: &str, seconds: u64) -> Self {
        let id = i64::try_from(self.inventory.records.len()).unwrap() + 1;
        self.inventory.records.push(RecordUse {
            id,
            chain: words(chain),
            title: format!("RUN {chain}"),
            cost_us: seconds * 1_000_000,
        });
        self
    }

    fn image(mut self, id: &str, chain: &str, tags: &str) -> Self {
        self.inventory.images.push(ImageUse {
            id: id.to_owned(),
            manifest: None,
            chain: words(chain),
            created: NOW - 3600,
            tags: words(tags),
        });
        self.blob(id, 10, 0)
    }

    fn blob(mut self, digest: &str, size: u64, hours: i64) -> Self {
        self.inventory.blobs.push(BlobUse {
            digest: digest.to_owned(),
            size,
            used: NOW - hours * 3600,
        });
        self
    }

    fn packed(mut self, layer: &str, digest: &str) -> Self {
        let row = (format!("diff-{layer}"), digest.to_owned());
        self.inventory.packed.push(row);
        self
    }

    fn pulled(mut self, layer: &str, digest: &str, location: &str) -> Self {
        let locations = format!("[\"{location}\"]");
        let row = (format!("diff-{layer}"), digest.to_owned(), locations);
        self.inventory.originals.push(row);
        self
    }

    fn mount(mut self, name: &str, size: u64, hours: i64) -> Self {
        self.inventory.mounts.push(MountUse {
            directory: name.to_owned(),
            title: name.to_owned(),
            created: NOW,
            used: NOW - hours * 3600,
            disk: Some(size),
        });
        self
    }

    fn holding(mut self, snapshot: &str) -> Self {
        self.holds.snapshots.insert(snapshot.to_owned());
        self
    }

    fn at_most(mut self, bytes: u64) -> Self {
        self.options.max_used_space = Some(bytes);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut PruneOptions)) -> Self {
        change(&mut self.options);
        self
    }

    fn plan(&self) -> Plan {
        let inventory = &self.inventory;
        let present = (inventory.layers.iter())
            .map(|layer| layer.snapshot.clone())
            .collect();
        let total = inventory
            .layers
            .iter()
            .filter_map(|layer| layer.disk)
            .sum::<u64>()
            + inventory.blobs.iter().map(|blob| blob.size).sum::<u64>()
            + inventory
                .mounts
                .iter()
                .filter_map(|mount| mount.disk)
                .sum::<u64>();
        plan(
            &Facts {
                inventory,
                holds: &self.holds,
                present: &present,
                stat_caches: &[],
                now: NOW,
                total,
                free: 1000,
            },
            &self.options,
        )
    }

    /// Names of all that goes, sorted.
    fn gone(&self) -> String {
        let plan = self.plan();
        let mut names: Vec<String> = [plan.snapshots, plan.images, plan.blobs, plan.mounts]
            .concat()
            .into_iter()
            .collect();
        names.sort();
        names.dedup();
        names.join(" ")
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn what_a_tag_a_lease_or_a_running_build_needs_stays() {
    let steps = || {
        World::default()
            .layer("base", 100, 5)
            .layer("tagged", 10, 5)
            .layer("loose", 10, 5)
            .record("base tagged", 5)
            .record("base loose", 5)
    };
    let table: Vec<(&str, World, &str)> = vec![
        ("nothing needs anything", steps(), "base loose tagged"),
        (
            "a tag needs its chain and config",
            steps().image("img", "base tagged", "app:1"),
            "loose",
        ),
        (
            "an image without a tag needs nothing",
            steps().image("img", "base tagged", ""),
            "base img loose tagged",
        ),
        (
            "tagged images go when asked",
            steps()
                .image("img", "base tagged", "app:1")
                .with(|options| options.includes_tagged = true),
            "base img loose tagged",
        ),
        (
            "but not one that a lease holds",
            steps()
                .image("img", "base tagged", "app:1")
                .holding("base")
                .holding("tagged")
                .with(|options| options.includes_tagged = true),
            "loose",
        ),
        (
            "a lease holds, and what it stands on stays in the chain",
            steps().holding("loose"),
            "tagged",
        ),
        (
            "an untagged image in use stays",
            steps()
                .image("img", "base loose", "")
                .holding("base")
                .holding("loose"),
            "tagged",
        ),
        (
            "a layer that stands in two chains stays for the one that is needed",
            World::default()
                .layer("base", 1, 1)
                .layer("other", 1, 1)
                .layer("link", 1, 1)
                .record("other link", 1)
                .image("img", "base link", "app"),
            "other",
        ),
        (
            "layers of a tagged image that lost one",
            World::default()
                .layer("kept", 1, 1)
                .image("img", "lost kept", "app"),
            "",
        ),
        (
            "config shared by two images",
            World::default()
                .image("img", "", "app")
                .image("other", "", ""),
            "other",
        ),
    ];
    for (name, world, expected) in table {
        assert_eq!(world.gone(), expected, "{name}");
    }
}

#[test]
fn blobs_stay_as_long_as_they_are_the_only_copy() {
    let pulled = |location: &str| {
        World::default()
            .layer("base", 100, 1)
            .blob("original", 50, 1)
            .pulled("base", "original", location)
    };
    let table: Vec<(&str, World, &str)> = vec![
        (
            "a registry has it",
            pulled("docker.io/library/debian").image("img", "base", "app"),
            "original",
        ),
        (
            "only a directory had it",
            pulled("oci-layout:///tmp/base").image("img", "base", "app"),
            "",
        ),
        (
            "and no tag needs it",
            pulled("oci-layout:///tmp/base").image("img", "base", ""),
            "base img original",
        ),
        (
            "packed layers are packed again",
            World::default()
                .layer("a", 1, 1)
                .blob("pack", 5, 1)
                .packed("a", "pack")
                .image("img", "a", "app"),
            "pack",
        ),
    ];
    for (name, world, expected) in table {
        assert_eq!(world.gone(), expected, "{name}");
    }
}

#[test]
fn the_least_regretted_goes_first_and_no_more_than_it_takes() {
    let table: Vec<(&str, World, &str)> = vec![
        (
            "a cheap step before a dear one",
            World::default()
                .layer("dear", 100, 1)
                .layer("cheap", 100, 1)
                .record("dear", 100)
                .record("cheap", 1)
                .at_most(150),
            "cheap",
        ),
        (
            "an old one before a new one",
            World::default()
                .layer("old", 100, 100)
                .layer("new", 100, 1)
                .record("old", 10)
                .record("new", 10)
                .at_most(150),
            "old",
        ),
        (
            "a large one before small ones",
            World::default()
                .layer("large", 1000, 1)
                .layer("small", 10, 1)
                .record("large", 10)
                .record("small", 10)
                .at_most(500),
            "large",
        ),
        (
            "the top of a chain before what it stands on",
            World::default()
                .layer("a", 100, 1)
                .layer("b", 100, 1)
                .record("a", 1)
                .record("a b", 1)
                .at_most(150),
            "b",
        ),
        (
            "a dear child keeps its parent; the stranger goes",
            World::default()
                .layer("parent", 100, 1)
                .layer("child", 1, 1)
                .layer("stranger", 100, 1)
                .record("parent", 1)
                .record("parent child", 1000)
                .record("stranger", 50)
                .at_most(150),
            "stranger",
        ),
        (
            "the packed blob of a layer that is gone goes before all",
            World::default()
                .layer("a", 100, 1)
                .record("a", 1)
                .blob("dead", 10, 0)
                .packed("gone", "dead")
                .at_most(105),
            "dead",
        ),
        (
            "a cache mount by its age",
            World::default()
                .mount("old", 100, 1000)
                .mount("new", 100, 0)
                .at_most(150),
            "old",
        ),
        (
            "nothing below the limit",
            World::default().layer("a", 1, 1).at_most(2),
            "",
        ),
        (
            "what a tag needs stays, however small the limit",
            World::default()
                .layer("a", 100, 1)
                .image("img", "a", "app")
                .at_most(0),
            "",
        ),
        (
            "the limit counts it all the same",
            World::default()
                .layer("a", 100, 1)
                .layer("b", 10, 1)
                .record("b", 1)
                .image("img", "a", "app")
                .at_most(100),
            "b",
        ),
        (
            "reserved space is stronger than the limit",
            World::default()
                .layer("a", 100, 1)
                .at_most(0)
                .with(|options| options.reserved_space = Some(100)),
            "",
        ),
        (
            "as much as the disk lacks",
            World::default()
                .layer("a", 100, 1)
                .layer("b", 100, 2)
                .with(|options| options.min_free_space = Some(1050)),
            "b",
        ),
        (
            "enough is free",
            World::default()
                .layer("a", 100, 1)
                .with(|options| options.min_free_space = Some(1000)),
            "",
        ),
    ];
    for (name, world, expected) in table {
        assert_eq!(world.gone(), expected, "{name}");
    }
}

#[test]
fn filters_choose() {
    let world = || {
        World::default()
            .layer("old", 1, 48)
            .layer("new", 1, 1)
            .record("old", 1)
            .record("new", 1)
            .mount("mount", 1, 48)
            .blob("sha256:abc", 1, 48)
    };
    let kinds = |kind: Kind| {
        move |options: &mut PruneOptions| {
            options.kinds.insert(kind);
        }
    };
    let table: Vec<(&str, World, &str)> = vec![
        ("kind", world().with(kinds(Kind::CacheMount)), "mount"),
        ("another kind", world().with(kinds(Kind::Step)), "new old"),
        (
            "age",
            world().with(|options| {
                options.unused_for = Some(std::time::Duration::from_hours(24));
            }),
            "mount old sha256:abc",
        ),
        (
            "id",
            world().with(|options| options.ids = vec!["ab".to_owned()]),
            "sha256:abc",
        ),
        (
            "an old parent stays for its new child",
            World::default()
                .layer("old", 1, 48)
                .layer("new", 1, 1)
                .record("old new", 1)
                .with(|options| {
                    options.unused_for = Some(std::time::Duration::from_hours(24));
                }),
            "",
        ),
    ];
    for (name, world, expected) in table {
        assert_eq!(world.gone(), expected, "{name}");
    }
}

#[test]
fn records_go_with_their_layers_and_say_what_they_were() {
    let world = World::default()
        .layer("a", 100, 1)
        .layer("b", 10, 1)
        .record("a", 1)
        .record("a b", 2)
        .record("lost b", 3);
    let plan = world.plan();
    let mut records = plan.records.clone();
    records.sort_unstable();
    assert_eq!(records, [1, 2, 3]);
    let titles: Vec<(&str, u64)> = (plan.items.iter())
        .map(|item| (item.title.as_str(), item.bytes))
        .collect();
    assert!(titles.contains(&("RUN a b", 10)), "{titles:?}");
    assert!(titles.contains(&("RUN a", 100)), "{titles:?}");

    // However much room there is: a record of a layer that is gone is of no use.
    let plan = World {
        options: PruneOptions {
            max_used_space: Some(1 << 40),
            ..PruneOptions::default()
        },
        ..world
    }
    .plan();
    assert_eq!(plan.records, [3]);
    assert!(plan.snapshots.is_empty());
}
