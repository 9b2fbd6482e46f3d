//! The words that begin instructions.

use crate::letters;

/// An instruction of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the instruction of its name")]
pub enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
    /// A word that is no instruction.
    Unknown,
}

/// All of them with their names, the commonest first.
const KEYWORDS: [(Keyword, &str); 18] = [
    (Keyword::Run, "RUN"),
    (Keyword::From, "FROM"),
    (Keyword::Copy, "COPY"),
    (Keyword::Env, "ENV"),
    (Keyword::Arg, "ARG"),
    (Keyword::Workdir, "WORKDIR"),
    (Keyword::Cmd, "CMD"),
    (Keyword::User, "USER"),
    (Keyword::Entrypoint, "ENTRYPOINT"),
    (Keyword::Add, "ADD"),
    (Keyword::Label, "LABEL"),
    (Keyword::Expose, "EXPOSE"),
    (Keyword::Volume, "VOLUME"),
    (Keyword::Shell, "SHELL"),
    (Keyword::Onbuild, "ONBUILD"),
    (Keyword::Healthcheck, "HEALTHCHECK"),
    (Keyword::Stopsignal, "STOPSIGNAL"),
    (Keyword::Maintainer, "MAINTAINER"),
];

impl Keyword {
    /// The instruction that a word names, in whatever case.
    pub fn of(word: &str) -> Self {
        let find = |word: &str| {
            let first = word.as_bytes().first().map(u8::to_ascii_uppercase);
            let mut keywords = KEYWORDS.iter();
            keywords.find(|(_, name)| {
                name.len() == word.len()
                    && name.as_bytes().first().copied() == first
                    && name.eq_ignore_ascii_case(word)
            })
        };
        // Letters beyond ASCII can have their lower case in it.
        let found = if word.is_ascii() {
            find(word)
        } else {
            find(&letters::lower(word))
        };
        found.map_or(Self::Unknown, |(keyword, _)| *keyword)
    }

    /// Its name in upper case; empty for none.
    pub fn name(self) -> &'static str {
        let mut keywords = KEYWORDS.iter();
        let found = keywords.find(|(keyword, _)| *keyword == self);
        found.map_or("", |(_, name)| name)
    }

    /// The names of all instructions, in upper case.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KEYWORDS.iter().map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_instructions() {
        for (word, wanted) in [
            ("RUN", Keyword::Run),
            ("From", Keyword::From),
            ("wor\u{212a}dir", Keyword::Workdir),
            ("RUNS", Keyword::Unknown),
            ("expo\u{17f}e", Keyword::Unknown),
            ("", Keyword::Unknown),
        ] {
            assert_eq!(Keyword::of(word), wanted, "{word}");
        }
    }
}
