//! `parser/cases.jsonl`: a mended file means what it meant, and mending it again changes nothing.

use super::rows::{notice, rows, text};
use super::same::mend_and_check;

#[test]
fn files_keep_their_meaning() {
    let rows = rows("parser/cases.jsonl");
    let mut mended = 0;
    for row in &rows {
        let dockerfile = text(row, "dockerfile");
        mended += usize::from(mend_and_check(dockerfile) != dockerfile);
    }
    notice(&format!(
        "parser/cases.jsonl: {mended} of {} files were mended",
        rows.len()
    ));
}
