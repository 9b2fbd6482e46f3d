//! `rbuild layers`: what each layer of an image adds, changes and wastes.

use std::collections::BTreeMap;

use rbuild::layers::{Change, ChangeKind, ImageLayers, LayerView};
use serde_json::{Value, json};

use super::ansi::clean_line;
use super::table::{instruction, shorten_command, table};
use super::{print_json, units, write_stdout};

/// All layers as a table, or with `is_json` everything about each.
pub(crate) fn print_layers(image: &ImageLayers, is_json: bool) {
    if is_json {
        let layers = image.layers.iter().enumerate();
        let layers: Vec<Value> = layers.map(|(at, layer)| layer_json(at, layer)).collect();
        return print_json(&json!({"image_id": image.image_id, "layers": layers}));
    }
    let size: u64 = image.layers.iter().map(|layer| layer.size).sum();
    let wasted: u64 = image.layers.iter().map(LayerView::wasted).sum();
    let row = |(at, layer): (usize, &LayerView)| {
        vec![
            (at + 1).to_string(),
            units::bytes(layer.size),
            layer.count(ChangeKind::Added).to_string(),
            changed(layer).to_string(),
            layer.count(ChangeKind::Removed).to_string(),
            units::bytes(layer.wasted()),
            shorten_command(&instruction(&layer.created_by), false),
        ]
    };
    let head = [
        "LAYER", "SIZE", "ADDED", "CHANGED", "REMOVED", "WASTED", "MADE BY",
    ];
    write_stdout(&table(&head, image.layers.iter().enumerate().map(row)));
    write_stdout(&format!(
        "{} in {} layers; {} of them are wasted: shipped, and hidden by an upper layer\n",
        units::bytes(size),
        image.layers.len(),
        units::bytes(wasted),
    ));
}

/// Files whose content changed, and those that only got another owner or mode.
fn changed(layer: &LayerView) -> usize {
    layer.count(ChangeKind::Changed) + layer.count(ChangeKind::Metadata)
}

/// One layer (counted from 0) as a tree, `depth` directories deep; what is deeper is summed up.
pub(crate) fn print_tree(at: usize, layer: &LayerView, depth: usize) {
    write_stdout(&tree(at, layer, depth));
}

fn tree(at: usize, layer: &LayerView, depth: usize) -> String {
    let mut root = Node::default();
    for change in &layer.changes {
        root.put(change);
    }
    let mut text = format!(
        "layer {}  {}  {} wasted\n{}\n",
        at + 1,
        units::bytes(layer.size),
        units::bytes(layer.wasted()),
        clean_line(instruction(&layer.created_by).as_bytes(), false),
    );
    root.write(&mut text, 0, depth);
    if layer.changes.is_empty() {
        text += "it changes nothing that can be seen\n";
    }
    text
}

/// A directory, or a path at the end of one.
#[derive(Default)]
struct Node<'a> {
    /// What is done to the path itself; a directory between has none.
    changes: Vec<&'a Change>,
    below: BTreeMap<&'a [u8], Node<'a>>,
    /// Sums of everything at and below it.
    size: u64,
    hidden: u64,
    count: usize,
}

impl<'a> Node<'a> {
    fn put(&mut self, change: &'a Change) {
        let mut node = self;
        node.add(change);
        for name in change.path.split(|&byte| byte == b'/') {
            node = node.below.entry(name).or_default();
            node.add(change);
        }
        node.changes.push(change);
    }

    fn add(&mut self, change: &Change) {
        self.size += change.size;
        self.hidden += change.hidden;
        self.count += 1;
    }

    /// The heaviest first: that is what one looks for.
    fn write(&self, text: &mut String, level: usize, depth: usize) {
        let mut below: Vec<(&&[u8], &Node)> = self.below.iter().collect();
        below.sort_by_key(|(name, node)| (std::cmp::Reverse(node.size + node.hidden), **name));
        for (name, node) in below {
            let mark = match node.changes.as_slice() {
                [] => " ",
                [.., change] => mark(change.kind),
            };
            let slash = if node.below.is_empty() { "" } else { "/" };
            let name = clean_line(name, false);
            let mut words = format!("{mark} {}{name}{slash}", "  ".repeat(level));
            words = format!("{words:<50} {:>10}", units::bytes(node.size));
            if node.hidden > 0 {
                words = format!("{words}  {} wasted", units::bytes(node.hidden));
            }
            let is_cut = level + 1 >= depth && !node.below.is_empty();
            if is_cut {
                let plural = if node.count == 1 { "" } else { "s" };
                words = format!("{words}  {} path{plural}", node.count);
            }
            text.push_str(&words);
            text.push('\n');
            if !is_cut {
                node.write(text, level + 1, depth);
            }
        }
    }
}

/// What stands before a path.
pub(super) fn mark(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "+",
        ChangeKind::Changed => "~",
        ChangeKind::Metadata => "=",
        ChangeKind::Removed => "-",
    }
}

fn layer_json(at: usize, layer: &LayerView) -> Value {
    let change = |change: &Change| {
        json!({
            "path": String::from_utf8_lossy(&change.path), "size": change.size, "hidden": change.hidden,
            "change": match change.kind {
                ChangeKind::Added => "added",
                ChangeKind::Changed => "changed",
                ChangeKind::Metadata => "metadata",
                ChangeKind::Removed => "removed",
            },
        })
    };
    json!({
        "layer": at + 1, "diff_id": layer.diff_id, "created_by": layer.created_by, "size": layer.size,
        "wasted": layer.wasted(), "changes": layer.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn trees() {
        let change = |path: &str, kind, size, hidden| Change {
            path: path.into(),
            kind,
            size,
            hidden,
        };
        let layer = LayerView {
            diff_id: oci_spec::image::Digest::from_str(&format!("sha256:{}", "1".repeat(64)))
                .unwrap(),
            created_by: "RUN make install".into(),
            size: 12_400_000,
            changes: vec![
                change("app", ChangeKind::Added, 0, 0),
                change("app/bin/main", ChangeKind::Added, 12_000_000, 0),
                change("app/lib/a", ChangeKind::Added, 10, 0),
                change("etc/passwd", ChangeKind::Changed, 1_200, 1_100),
                change("etc/shadow", ChangeKind::Metadata, 900, 900),
                change("var/cache", ChangeKind::Removed, 0, 30_000_000),
            ],
        };
        insta::assert_snapshot!(tree(2, &layer, 2), @r"
        layer 3  12.4 MB  30.0 MB wasted
        RUN make install
          var/                                                    0 B  30.0 MB wasted
        -   cache                                                 0 B  30.0 MB wasted
        + app/                                                12.0 MB
            bin/                                              12.0 MB  1 path
            lib/                                                 10 B  1 path
          etc/                                                 2.1 kB  2.0 kB wasted
        ~   passwd                                             1.2 kB  1.1 kB wasted
        =   shadow                                              900 B  900 B wasted
        ");
    }
}
