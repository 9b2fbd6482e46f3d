//! The tree of an image: its layers, and below each the paths that it changes, the heaviest first.

use std::cmp::Reverse;
use std::collections::HashMap;

use rbuild::layers::{Change, ImageLayers, LayerView};

use crate::ui::ansi::clean_line;
use crate::ui::layers::mark;
use crate::ui::table::instruction;

/// A layer, or a path in one.
#[derive(Debug)]
pub(super) struct Node {
    /// What stands before the name: the layer's number, or what is done to the path.
    pub(super) mark: String,
    pub(super) name: String,
    /// Bytes here and below.
    pub(super) size: u64,
    /// Bytes of lower layers that are hidden here and below.
    pub(super) hidden: u64,
    pub(super) level: usize,
    pub(super) parent: Option<usize>,
    pub(super) below: Vec<usize>,
    pub(super) is_open: bool,
}

/// All nodes; parents stand before their children.
pub(super) fn of(image: &ImageLayers) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (at, layer) in image.layers.iter().enumerate() {
        add_layer(&mut nodes, at, layer);
    }
    let weights: Vec<(u64, String)> = nodes
        .iter()
        .map(|node: &Node| (node.size + node.hidden, node.name.clone()))
        .collect();
    for node in &mut nodes {
        node.below
            .sort_by_key(|&index| (Reverse(weights[index].0), weights[index].1.as_str()));
    }
    nodes
}

/// Those that have no parent, lowest layer first.
pub(super) fn layers(nodes: &[Node]) -> impl DoubleEndedIterator<Item = usize> {
    (0..nodes.len()).filter(|&index| nodes[index].parent.is_none())
}

fn add_layer(nodes: &mut Vec<Node>, at: usize, layer: &LayerView) {
    let top = nodes.len();
    nodes.push(Node {
        mark: format!("{:>3}", at + 1),
        name: clean_line(instruction(&layer.created_by).as_bytes(), false),
        // The layer's own tar has more than its files: that is what is shipped.
        size: layer.size,
        hidden: layer.wasted(),
        level: 0,
        parent: None,
        below: Vec::new(),
        is_open: false,
    });
    // Nodes by the length of their path in the change that is put.
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    for change in &layer.changes {
        put(nodes, &mut known, top, change);
    }
}

fn put<'a>(
    nodes: &mut Vec<Node>,
    known: &mut HashMap<&'a [u8], usize>,
    top: usize,
    change: &'a Change,
) {
    let path = change.path.as_slice();
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let ends = slashes.map(|(at, _)| at).chain([path.len()]);
    let (mut parent, mut start) = (top, 0);
    for (depth, end) in ends.enumerate() {
        let index = *known.entry(&path[..end]).or_insert_with(|| {
            nodes.push(Node {
                mark: " ".to_owned(),
                name: clean_line(&path[start..end], false),
                size: 0,
                hidden: 0,
                level: depth + 1,
                parent: Some(parent),
                below: Vec::new(),
                is_open: false,
            });
            let index = nodes.len() - 1;
            nodes[parent].below.push(index);
            index
        });
        nodes[index].size += change.size;
        nodes[index].hidden += change.hidden;
        (parent, start) = (index, end + 1);
    }
    mark(change.kind).clone_into(&mut nodes[parent].mark);
}
