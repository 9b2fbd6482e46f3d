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

/// Makes [`KEYWORDS`] and [`named`] of one table.
macro_rules! keywords {
    ($($keyword:ident $name:literal,)*) => {
        /// All of them with their names, the commonest first.
        const KEYWORDS: &[(Keyword, &str)] = &[$((Keyword::$keyword, $name)),*];

        /// The instruction of a name in upper case.
        fn named(word: &str) -> Option<Keyword> {
            match word {
                $($name => Some(Keyword::$keyword),)*
                _ => None,
            }
        }
    };
}

keywords! {
    Run "RUN",
    From "FROM",
    Copy "COPY",
    Env "ENV",
    Arg "ARG",
    Workdir "WORKDIR",
    Cmd "CMD",
    User "USER",
    Entrypoint "ENTRYPOINT",
    Add "ADD",
    Label "LABEL",
    Expose "EXPOSE",
    Volume "VOLUME",
    Shell "SHELL",
    Onbuild "ONBUILD",
    Healthcheck "HEALTHCHECK",
    Stopsignal "STOPSIGNAL",
    Maintainer "MAINTAINER",
}

impl Keyword {
    /// The instruction that a word names, in whatever case.
    pub fn of(word: &str) -> Self {
        // Most are written so.
        let found = named(word).or_else(|| {
            if word.is_ascii() {
                return named(&word.to_ascii_uppercase());
            }
            // Letters beyond ASCII can have their lower case in it.
            named(&letters::lower(word).to_ascii_uppercase())
        });
        found.unwrap_or(Self::Unknown)
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
