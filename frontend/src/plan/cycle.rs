//! Stages that need each other's results.

use super::checks::Place;

/// For each stage the stages it copies from or mounts, and where it says so.
pub(super) type Edges<'a> = Vec<Vec<(usize, Place<'a>)>>;

/// A path of edges that returns to a stage on it, the closing edge last.
pub(super) fn find<'a>(edges: &Edges<'a>) -> Option<Vec<(usize, Place<'a>)>> {
    let mut visits = vec![Visit::Not; edges.len()];
    (0..edges.len()).find_map(|start| find_from(edges, &mut visits, start))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Not,
    Open,
    Done,
}

/// Searches what one stage needs. Not recursive: files can be long.
fn find_from<'a>(
    edges: &[Vec<(usize, Place<'a>)>],
    visits: &mut [Visit],
    start: usize,
) -> Option<Vec<(usize, Place<'a>)>> {
    if visits[start] != Visit::Not {
        return None;
    }
    visits[start] = Visit::Open;
    let mut open = vec![(start, 0)];
    let mut path: Vec<(usize, Place<'a>)> = Vec::new();
    while let Some((stage, next)) = open.last_mut() {
        let Some(&(needed, place)) = edges[*stage].get(*next) else {
            visits[*stage] = Visit::Done;
            open.pop();
            path.pop();
            continue;
        };
        *next += 1;
        match visits[needed] {
            Visit::Done => {}
            Visit::Not => {
                visits[needed] = Visit::Open;
                path.push((needed, place));
                open.push((needed, 0));
            }
            Visit::Open => {
                let begin = open
                    .iter()
                    .position(|(stage, _)| *stage == needed)
                    .unwrap_or_default();
                let mut cycle = path.split_off(begin);
                cycle.push((needed, place));
                return Some(cycle);
            }
        }
    }
    None
}
