//! "Did you mean": the known name that is closest to what was written.

/// Names that are compared; a file with more is hostile.
const MAX_KNOWN: usize = 1_000;

/// The known name with the smallest edit distance, if it is close enough to be meant. Case counts as no difference.
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Real names are short; do not spend time on a whole line that was taken for one.
    if written.len() > 32 {
        return None;
    }
    let written: Vec<char> = written.to_lowercase().chars().collect();
    let limit = written.len().div_ceil(2).min(2);
    known
        .into_iter()
        .take(MAX_KNOWN)
        .map(|name| {
            (
                distance(&written, &name.to_lowercase().chars().collect::<Vec<_>>()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein distance in which two neighbours that changed places count once: the commonest slip of fingers.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (line, a) in left.iter().enumerate() {
        let mut row = vec![line + 1];
        for (column, b) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(a != b);
            let mut best = replaced.min(above[column + 1] + 1).min(row[column] + 1);
            let is_swap = line > 0 && column > 0 && *a == right[column - 1] && left[line - 1] == *b;
            if is_swap {
                best = best.min(before[column - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let known = ["ENV", "FROM", "RUN", "COPY", "CMD"];
        for (written, expected) in [
            ("FORM", Some("FROM")),
            ("cpy", Some("COPY")),
            ("RNU", Some("RUN")),
            ("X", None),
            ("BANANA", None),
        ] {
            assert_eq!(closest(written, known), expected, "{written}");
        }
    }
}
