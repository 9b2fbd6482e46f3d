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
    let letters_of_written = set_of(&written);
    let limit = written.len().div_ceil(2).min(2);
    let mut rows = Rows::default();
    let mut letters = Vec::new();
    known
        .into_iter()
        .take(MAX_KNOWN)
        .filter_map(|name| {
            letters.clear();
            if name.is_ascii() {
                let lower = name.bytes().map(|byte| byte.to_ascii_lowercase());
                letters.extend(lower.map(char::from));
            } else {
                letters.extend(name.chars().flat_map(char::to_lowercase));
            }
            // Each letter that one has more is a step, and so is each one that the other has not.
            let missing = |set: u64| (set.count_ones() as usize) > limit;
            let letters_of_name = set_of(&letters);
            let is_near = letters.len().abs_diff(written.len()) <= limit
                && !missing(letters_of_written & !letters_of_name)
                && !missing(letters_of_name & !letters_of_written);
            is_near.then(|| (rows.distance(&written, &letters), name))
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Which letters a word has; some share a place, so that there may be more.
fn set_of(word: &[char]) -> u64 {
    let place = |letter: &char| 1 << (u32::from(*letter) % u64::BITS);
    word.iter().map(place).fold(0, |set, bit: u64| set | bit)
}

/// Lines of the table of distances, kept from name to name.
#[derive(Default)]
struct Rows {
    before: Vec<usize>,
    above: Vec<usize>,
    row: Vec<usize>,
}

impl Rows {
    /// Levenshtein distance in which two neighbours that changed places count once: the commonest slip of fingers.
    fn distance(&mut self, left: &[char], right: &[char]) -> usize {
        self.above.clear();
        self.above.extend(0..=right.len());
        for (line, a) in left.iter().enumerate() {
            self.row.clear();
            self.row.push(line + 1);
            for (column, b) in right.iter().enumerate() {
                let replaced = self.above[column] + usize::from(a != b);
                let longer = self.above[column + 1].min(self.row[column]) + 1;
                let mut best = replaced.min(longer);
                let is_swap =
                    line > 0 && column > 0 && *a == right[column - 1] && left[line - 1] == *b;
                if is_swap {
                    best = best.min(self.before[column - 1] + 1);
                }
                self.row.push(best);
            }
            std::mem::swap(&mut self.before, &mut self.above);
            std::mem::swap(&mut self.above, &mut self.row);
        }
        self.above[right.len()]
    }
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
