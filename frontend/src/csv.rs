//! One CSV record: what `--mount` values are written in.
//!
//! A field may stand in double quotes to hold a comma; a doubled quote in it is a quote.

/// Why a text is no CSV record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// There is nothing in it.
    #[error("there is nothing in it")]
    Empty,
    /// A quote in the middle of a field that does not begin with one.
    #[error("a field with a quote in it must be quoted as a whole")]
    BareQuote,
    /// Text behind a closing quote, or no closing quote.
    #[error("a quoted field is not closed, or something follows its closing quote")]
    BadQuote,
}

/// Cuts a record into fields.
pub fn fields(record: &str) -> Result<Vec<String>, CsvError> {
    let record = record
        .strip_suffix('\n')
        .map_or(record, |line| line.strip_suffix('\r').unwrap_or(line));
    if record.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let behind = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, behind) = quoted_field(quoted)?;
            fields.push(field);
            behind
        } else {
            let length = rest.find(',').unwrap_or(rest.len());
            let (field, behind) = rest.split_at(length);
            if field.contains('"') {
                return Err(CsvError::BareQuote);
            }
            fields.push(field.to_owned());
            behind
        };
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(fields),
            None => return Err(CsvError::BadQuote),
        }
    }
}

/// The field behind an opening quote, and what follows its closing one.
fn quoted_field(text: &str) -> Result<(String, &str), CsvError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once('"').ok_or(CsvError::BadQuote)?;
        field.push_str(part);
        let Some(next) = behind.strip_prefix('"') else {
            return Ok((field, behind));
        };
        field.push('"');
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut() {
        let table: &[(&str, Result<&[&str], CsvError>)] = &[
            ("a", Ok(&["a"])),
            ("a,,b", Ok(&["a", "", "b"])),
            ("a,", Ok(&["a", ""])),
            ("\"a,b\",c", Ok(&["a,b", "c"])),
            ("\"a\"\"b\"", Ok(&["a\"b"])),
            ("", Err(CsvError::Empty)),
            ("a\"b", Err(CsvError::BareQuote)),
            ("\"a", Err(CsvError::BadQuote)),
            ("\"a\"b", Err(CsvError::BadQuote)),
        ];
        for (record, expected) in table {
            let expected =
                expected.map(|fields| fields.iter().map(|field| (*field).to_owned()).collect());
            assert_eq!(fields(record), expected, "{record}");
        }
    }
}
