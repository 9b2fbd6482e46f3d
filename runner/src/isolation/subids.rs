//! `/etc/subuid` and `/etc/subgid`, and the maps made of them.
//!
//! One grant a line, `name-or-number:first:count`; a user may have several. Pure.

use super::IdRange;
use super::advice::FIRST_GRANT;

/// The kernel takes 340 lines in a map (since 4.15).
const MAX_LINES: usize = 340;

/// Ids granted to a user: first and count.
pub(super) type Grant = (u32, u32);

/// The grants of one user, by name or by number, in the file's order. Lines that make no sense are skipped, as
/// newuidmap does.
pub(super) fn parse(text: &str, name: Option<&str>, uid: u32) -> Vec<Grant> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            if owner != number && Some(owner) != name {
                return None;
            }
            let (first, count) = (
                first.trim().parse::<u32>().ok()?,
                count.trim().parse::<u32>().ok()?,
            );
            // The last id of all means "none" to the kernel.
            let count = count.min(u32::MAX - first);
            (count > 0).then_some((first, count))
        })
        .collect()
}

/// The first id that no grant in the file covers, nor any id below it that useradd would not grant.
pub(super) fn end(text: &str) -> u32 {
    let ends = text.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        let first: u32 = fields.next()?.trim().parse().ok()?;
        first.checked_add(fields.next()?.trim().parse().ok()?)
    });
    ends.max().unwrap_or(0).max(FIRST_GRANT)
}

/// The map with nothing but the caller, as root.
pub(super) fn only(id: u32) -> IdRange {
    IdRange {
        inside: 0,
        outside: id,
        count: 1,
    }
}

/// The caller as 0, then the granted ids from 1 on. No id outside appears twice, which the kernel would refuse:
/// neither the caller's own nor one that two grants share.
pub(super) fn map(own: u32, grants: &[Grant]) -> Vec<IdRange> {
    let mut lines = vec![only(own)];
    let mut taken = vec![(u64::from(own), u64::from(own) + 1)];
    let mut next = 1;
    for &(first, count) in grants {
        let whole = (u64::from(first), u64::from(first) + u64::from(count));
        for (start, end) in without(whole, &taken) {
            let room = u64::from(u32::MAX - next);
            let count = u32::try_from((end - start).min(room)).unwrap_or(0);
            if lines.len() == MAX_LINES || count == 0 {
                return lines;
            }
            lines.push(IdRange {
                inside: next,
                outside: u32::try_from(start).unwrap_or(u32::MAX),
                count,
            });
            next += count;
        }
        taken.push(whole);
    }
    lines
}

/// The parts of `whole` that none of `taken` covers, in order. Ends are exclusive.
fn without(whole: (u64, u64), taken: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = vec![whole];
    for &(start, end) in taken {
        left = left
            .into_iter()
            .flat_map(|(from, to)| [(from, to.min(start)), (from.max(end), to)])
            .filter(|(from, to)| from < to)
            .collect();
    }
    left
}

/// A map that changes no id, for the ids of `/proc/self/uid_map`.
pub(super) fn identity(own_map: &str) -> Vec<IdRange> {
    own_map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (inside, count) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
            Some(IdRange {
                inside,
                outside: inside,
                count,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_by_name_and_number() {
        let text = "other:1:5\nann:100000:65536\n1000:300000:10\nann:x:5\nann:7\n\nann:5:0\nann:4294967290:100\n";
        assert_eq!(
            parse(text, Some("ann"), 1000),
            [(100_000, 65_536), (300_000, 10), (4_294_967_290, 5)]
        );
        assert_eq!(parse(text, None, 1000), [(300_000, 10)]);
        assert_eq!(end("a:100000:65536\nb:5:10\nbroken\n"), 165_536);
        assert_eq!(end(""), FIRST_GRANT);
        assert_eq!(parse(text, Some("bob"), 1001), []);
    }

    #[test]
    fn maps() {
        type Rows = [(
            &'static str,
            u32,
            &'static [Grant],
            &'static [(u32, u32, u32)],
        )];
        let rows: &Rows = &[
            ("none", 1000, &[], &[(0, 1000, 1)]),
            (
                "one",
                1000,
                &[(100_000, 65_536)],
                &[(0, 1000, 1), (1, 100_000, 65_536)],
            ),
            (
                "several",
                1000,
                &[(100, 10), (500, 5)],
                &[(0, 1000, 1), (1, 100, 10), (11, 500, 5)],
            ),
            (
                "own id inside",
                1000,
                &[(998, 5)],
                &[(0, 1000, 1), (1, 998, 2), (3, 1001, 2)],
            ),
            ("only the own id", 1000, &[(1000, 1)], &[(0, 1000, 1)]),
            (
                "overlapping",
                1,
                &[(100, 10), (105, 10), (100, 3)],
                &[(0, 1, 1), (1, 100, 10), (11, 110, 5)],
            ),
        ];
        for (name, own, grants, expected) in rows {
            let made: Vec<_> = map(*own, grants)
                .iter()
                .map(|line| (line.inside, line.outside, line.count))
                .collect();
            assert_eq!(made, *expected, "{name}");
        }
    }

    #[test]
    fn a_map_has_no_more_lines_than_the_kernel_takes() {
        let grants: Vec<Grant> = (0..500).map(|number| (10_000 + 2 * number, 1)).collect();
        assert_eq!(map(1000, &grants).len(), MAX_LINES);
    }

    #[test]
    fn own_ids_stay_what_they_are() {
        let map = identity("         0       1000          1\n         1     100000      65536\n");
        let expected = [(0, 0, 1), (1, 1, 65_536)].map(|(inside, outside, count)| IdRange {
            inside,
            outside,
            count,
        });
        assert_eq!(map, expected);
    }
}
