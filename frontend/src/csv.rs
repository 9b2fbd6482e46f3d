//! One CSV record: what `--mount` values are written in.
//!
//! A field may stand in double quotes to hold a comma; a doubled quote in it is a quote.

use std::ops::Range;

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it says, without the quotes around it.
    pub text: String,
    /// Its bytes in the record, quotes included.
    pub place: Range<usize>,
}

impl Field {
    /// The key in lower case and the value of `key=value`.
    pub fn pair(&self) -> Option<(String, &str)> {
        let (key, value) = self.text.split_once('=')?;
        Some((key.to_lowercase(), value))
    }
}

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
pub fn fields(record: &str) -> Result<Vec<Field>, CsvError> {
    let record = record
        .strip_suffix('\n')
        .map_or(record, |line| line.strip_suffix('\r').unwrap_or(line));
    if record.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let start = record.len() - rest.len();
        let (text, behind) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let length = rest.find(',').unwrap_or(rest.len());
            let (field, behind) = rest.split_at(length);
            if field.contains('"') {
                return Err(CsvError::BareQuote);
            }
            (field.to_owned(), behind)
        };
        let place = start..record.len() - behind.len();
        fields.push(Field { text, place });
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
            let expected: Result<Vec<_>, _> =
                expected.map(|fields| fields.iter().map(|field| (*field).to_owned()).collect());
            let found = fields(record);
            let found = found.map(|fields| fields.into_iter().map(|field| field.text).collect());
            assert_eq!(found, expected, "{record}");
        }
    }

    #[test]
    fn fields_know_where_they_stand() {
        let record = "a,\"b,\"\"c\",,d=e";
        let found = fields(record).expect("it is a record");
        let places: Vec<_> = found
            .iter()
            .map(|field| &record[field.place.clone()])
            .collect();
        assert_eq!(places, ["a", "\"b,\"\"c\"", "", "d=e"]);
    }
}
