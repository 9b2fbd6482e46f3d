//! In which order things are worth keeping.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that can be kept or not. Keeping it takes keeping its parent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    /// What losing it would cost, in seconds, less the longer it was not used.
    pub(super) regret: f64,
    /// Bytes.
    pub(super) size: f64,
    /// Position of what it stands on.
    pub(super) parent: Option<usize>,
}

/// A set of things that are kept or lost together: a thing, and what stands on it and is worth more a byte.
struct Block {
    regret: f64,
    size: f64,
    /// In keeping order; the first one's parent is in another block.
    members: Vec<usize>,
    /// Goes up with every change, so that old entries of the heap are known.
    version: u32,
    is_out: bool,
}

/// A block as the heap orders it: most regret a byte on top.
struct Ranked {
    density: f64,
    block: usize,
    version: u32,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Ranked {}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.density
            .total_cmp(&other.density)
            .then(other.block.cmp(&self.block))
    }
}

/// All positions, best kept first, parents before what stands on them: the last one is removed first.
///
/// A large layer is worth as much as the steps that stand on it: the block of most regret a byte is joined to the one it
/// stands on, until it stands on nothing that is not kept already (Horn's algorithm for trees). Where blocks end up,
/// no other order that keeps parents first would keep more regret in the bytes so far.
pub(super) fn keep_order(weights: &[Weight]) -> Vec<usize> {
    let mut blocks: Vec<Block> = weights
        .iter()
        .enumerate()
        .map(|(position, weight)| Block {
            regret: weight.regret,
            size: weight.size,
            members: vec![position],
            version: 0,
            is_out: false,
        })
        .collect();
    let mut block_of: Vec<usize> = (0..weights.len()).collect();
    let rank = |blocks: &[Block], block: usize| Ranked {
        density: density(&blocks[block]),
        block,
        version: blocks[block].version,
    };
    let mut heap: BinaryHeap<Ranked> = (0..blocks.len())
        .map(|block| rank(&blocks, block))
        .collect();
    let mut order = Vec::with_capacity(weights.len());
    while let Some(best) = heap.pop() {
        let block = best.block;
        if blocks[block].is_out || blocks[block].version != best.version {
            continue;
        }
        let parent = weights[blocks[block].members[0]]
            .parent
            .map(|parent| block_of[parent]);
        blocks[block].is_out = true;
        let members = std::mem::take(&mut blocks[block].members);
        match parent.filter(|parent| !blocks[*parent].is_out) {
            None => order.extend(members),
            Some(parent) => {
                for member in &members {
                    block_of[*member] = parent;
                }
                let (regret, size) = (blocks[block].regret, blocks[block].size);
                let joined = &mut blocks[parent];
                joined.regret += regret;
                joined.size += size;
                joined.members.extend(members);
                joined.version += 1;
                heap.push(rank(&blocks, parent));
            }
        }
    }
    order
}

fn density(block: &Block) -> f64 {
    // What takes no room is always worth keeping.
    if block.size > 0.0 {
        block.regret / block.size
    } else {
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(regret: f64, size: f64, parent: Option<usize>) -> Weight {
        Weight {
            regret,
            size,
            parent,
        }
    }

    #[test]
    fn what_is_worth_most_a_byte_is_kept_first() {
        let table: &[(&str, Vec<Weight>, Vec<usize>)] = &[
            ("nothing", vec![], vec![]),
            (
                "flat things by density",
                vec![
                    weight(1.0, 10.0, None),
                    weight(5.0, 10.0, None),
                    weight(1.0, 1.0, None),
                ],
                vec![2, 1, 0],
            ),
            (
                "a parent before its child, however dear that is",
                vec![weight(0.0, 10.0, None), weight(100.0, 1.0, Some(0))],
                vec![0, 1],
            ),
            (
                "a dear child makes its cheap parent dearer than a stranger",
                vec![
                    weight(0.0, 10.0, None),
                    weight(5.0, 1.0, None),
                    weight(100.0, 1.0, Some(0)),
                ],
                vec![0, 2, 1],
            ),
            (
                "a cheap child does not hold its parent back",
                vec![
                    weight(100.0, 10.0, None),
                    weight(1.0, 10.0, Some(0)),
                    weight(5.0, 10.0, None),
                ],
                vec![0, 2, 1],
            ),
            (
                "what takes no room is kept",
                vec![weight(9.0, 1.0, None), weight(0.0, 0.0, None)],
                vec![1, 0],
            ),
        ];
        for (name, weights, expected) in table {
            assert_eq!(&keep_order(weights), expected, "{name}");
        }
    }

    #[test]
    fn parents_always_come_first_and_everything_comes_once() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let weights: Vec<Weight> = (0..40_u32)
                .map(|position| {
                    let parent = next(u64::from(position) + 1);
                    let parent = usize::try_from(parent).unwrap();
                    weight(
                        f64::from(u32::try_from(next(100)).unwrap()),
                        f64::from(u32::try_from(next(50)).unwrap()),
                        (parent < position as usize).then_some(parent),
                    )
                })
                .collect();
            let order = keep_order(&weights);
            let mut place = vec![usize::MAX; weights.len()];
            for (at, position) in order.iter().enumerate() {
                assert_eq!(place[*position], usize::MAX, "twice");
                place[*position] = at;
            }
            for (position, weight) in weights.iter().enumerate() {
                assert_ne!(place[position], usize::MAX, "lost");
                if let Some(parent) = weight.parent {
                    assert!(place[parent] < place[position]);
                }
            }
        }
    }
}
