//! Which step of an earlier build is which step of this one.
//!
//! Stages belong together by name, unnamed ones by number; a stage that is left over is taken for the earlier build's
//! last one if it is the last itself. Within a stage the longest common run of equal titles is found first; what lies
//! between two of those is paired in order where the instruction is the same, so that an edited line finds what it was.

/// What there is to recognise a step by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Platform, where several are built.
    pub(crate) platform: String,
    /// Name of the stage, or its number.
    pub(crate) stage: String,
    /// The instruction.
    pub(crate) title: String,
}

/// Longest stage that is aligned: the table of a comparison is its square.
const MAX_STEPS: usize = 4_000;

/// For each step now, the position of the same step then.
pub(crate) fn align(now: &[Place], then: &[Place]) -> Vec<Option<usize>> {
    let mut found = vec![None; now.len()];
    for platform in distinct(now.iter().map(|place| place.platform.as_str())) {
        let stages_now =
            distinct(of_platform(now, platform).map(|(_, place)| place.stage.as_str()));
        let stages_then =
            distinct(of_platform(then, platform).map(|(_, place)| place.stage.as_str()));
        for stage in &stages_now {
            let other = if stages_then.contains(stage) {
                Some(*stage)
            } else {
                let is_last = stages_now.last() == Some(stage);
                let last = stages_then.last().copied();
                last.filter(|last| is_last && !stages_now.contains(last))
            };
            let Some(other) = other else { continue };
            let now_here = positions(now, platform, stage);
            let then_here = positions(then, platform, other);
            if now_here.len().max(then_here.len()) <= MAX_STEPS {
                align_stage(now, &now_here, then, &then_here, &mut found);
            }
        }
    }
    found
}

fn distinct<'text>(texts: impl Iterator<Item = &'text str>) -> Vec<&'text str> {
    let mut all: Vec<&str> = Vec::new();
    for text in texts {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

fn of_platform<'places>(
    places: &'places [Place],
    platform: &'places str,
) -> impl Iterator<Item = (usize, &'places Place)> {
    places
        .iter()
        .enumerate()
        .filter(move |(_, place)| place.platform == platform)
}

fn positions(places: &[Place], platform: &str, stage: &str) -> Vec<usize> {
    of_platform(places, platform)
        .filter(|(_, place)| place.stage == stage)
        .map(|(position, _)| position)
        .collect()
}

/// The first word: `RUN`, `COPY`.
fn instruction(place: &Place) -> &str {
    place.title.split(' ').next().unwrap_or_default()
}

fn align_stage(
    now: &[Place],
    now_here: &[usize],
    then: &[Place],
    then_here: &[usize],
    found: &mut [Option<usize>],
) {
    let equal = |a: usize, b: usize| now[now_here[a]].title == then[then_here[b]].title;
    let pairs = longest_common(now_here.len(), then_here.len(), equal);
    let mut from = (0, 0);
    let ends = pairs
        .iter()
        .copied()
        .chain([(now_here.len(), then_here.len())]);
    for (a, b) in ends {
        // In the gap before this pair: in order, by instruction.
        let mut next = from.1;
        for left in from.0..a {
            let is_same = |right: &usize| {
                instruction(&now[now_here[left]]) == instruction(&then[then_here[*right]])
            };
            if let Some(right) = (next..b).find(is_same) {
                found[now_here[left]] = Some(then_here[right]);
                next = right + 1;
            }
        }
        if a < now_here.len() {
            found[now_here[a]] = Some(then_here[b]);
        }
        from = (a + 1, b + 1);
    }
}

/// Positions of a longest common subsequence.
fn longest_common(
    left: usize,
    right: usize,
    equal: impl Fn(usize, usize) -> bool,
) -> Vec<(usize, usize)> {
    let width = right + 1;
    let mut lengths = vec![0_u32; (left + 1) * width];
    for a in (0..left).rev() {
        for b in (0..right).rev() {
            lengths[a * width + b] = if equal(a, b) {
                lengths[(a + 1) * width + b + 1] + 1
            } else {
                lengths[(a + 1) * width + b].max(lengths[a * width + b + 1])
            };
        }
    }
    let (mut a, mut b) = (0, 0);
    let mut pairs = Vec::new();
    while a < left && b < right {
        if equal(a, b) {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if lengths[(a + 1) * width + b] >= lengths[a * width + b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `stage:title` words, `_` for a space.
    fn places(text: &str) -> Vec<Place> {
        text.split_whitespace()
            .map(|word| {
                let (stage, title) = word.split_once(':').unwrap();
                Place {
                    platform: String::new(),
                    stage: stage.to_owned(),
                    title: title.replace('_', " "),
                }
            })
            .collect()
    }

    #[test]
    fn steps_find_what_they_were() {
        let table: &[(&str, &str, &str, &[Option<usize>])] = &[
            (
                "same",
                "a:FROM_x a:RUN_1",
                "a:FROM_x a:RUN_1",
                &[Some(0), Some(1)],
            ),
            (
                "an edited line",
                "a:FROM_x a:RUN_make_-j2 a:COPY_b",
                "a:FROM_x a:RUN_make a:COPY_b",
                &[Some(0), Some(1), Some(2)],
            ),
            (
                "an inserted line",
                "a:RUN_1 a:RUN_new a:RUN_2",
                "a:RUN_1 a:RUN_2",
                &[Some(0), None, Some(1)],
            ),
            (
                "a removed line",
                "a:RUN_1 a:RUN_3",
                "a:RUN_1 a:RUN_2 a:RUN_3",
                &[Some(0), Some(2)],
            ),
            (
                "the same line twice",
                "a:RUN_1 a:COPY_x a:RUN_1",
                "a:RUN_1 a:COPY_y a:RUN_1",
                &[Some(0), Some(1), Some(2)],
            ),
            (
                "a moved stage",
                "b:RUN_1 a:RUN_1",
                "a:RUN_1 b:RUN_1",
                &[Some(1), Some(0)],
            ),
            (
                "the last stage got another number",
                "new:RUN_0 1:RUN_1",
                "0:RUN_1",
                &[None, Some(0)],
            ),
            (
                "another kind of instruction",
                "a:RUN_1 a:WORKDIR_/x",
                "a:RUN_1 a:COPY_x",
                &[Some(0), None],
            ),
            ("nothing then", "a:RUN_1", "", &[None]),
        ];
        for (name, now, then, expected) in table {
            assert_eq!(&align(&places(now), &places(then)), expected, "{name}");
        }
    }

    #[test]
    fn platforms_are_apart() {
        let mut now = places("a:RUN_1 a:RUN_1");
        now[0].platform = "linux/arm64".into();
        now[1].platform = "linux/amd64".into();
        let mut then = now.clone();
        then.reverse();
        assert_eq!(align(&now, &then), [Some(1), Some(0)]);
    }
}
