//! `key=value` arguments.

use std::collections::BTreeMap;

/// The arguments of a subcommand.
pub(crate) struct Arguments(BTreeMap<String, String>);

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let pair = |word: String| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("{word:?} is not of the form key=value")),
        };
        words.map(pair).collect::<Result<_, _>>().map(Arguments)
    }

    /// The text of `key`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The number of `key`, `default` when it is not given.
    pub(crate) fn number<N: std::str::FromStr>(&self, key: &str, default: N) -> Result<N, String> {
        self.text(key).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| format!("{key}={text} is no number"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_defaults_and_words_are_pairs() {
        let parse = |words: &[&str]| Arguments::parse(words.iter().map(|word| (*word).to_owned()));
        let arguments = parse(&["rate=5", "name=a=b"]).unwrap();
        assert_eq!(arguments.number("rate", 1), Ok(5));
        assert_eq!(arguments.number("pages", 7u64), Ok(7));
        assert_eq!(arguments.text("name"), Some("a=b"));
        assert!(arguments.number::<u32>("name", 0).is_err());
        assert!(parse(&["rate"]).is_err());
    }
}
