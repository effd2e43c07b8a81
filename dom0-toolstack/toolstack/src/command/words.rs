//! A line into words, with a shell's quoting: `'…'` as it stands, `"…"` with `\"` and `\\`, `\x`
//! outside quotes, `;` between commands, `#` at the start of a word begins a comment.
//!
//! The splitter never fails: what is still open at the end is reported beside the words, so that
//! completion can work on half a line and the parser can refuse it.

use alloc::string::String;
use alloc::vec::Vec;

/// A word of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// Its text without quoting.
    pub text: String,
    /// Byte offset of its first character, quotes included, in the line.
    pub start: usize,
}

/// What was still open at the end of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// Between words.
    Nothing,
    /// In a word.
    Word,
    /// In a quoted part.
    Quote(char),
    /// After a backslash.
    Backslash,
}

/// A line in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Words {
    /// The commands; empty ones between semicolons are kept.
    pub commands: Vec<Vec<Word>>,
    /// How the line ended.
    pub open: Open,
}

/// Splits a line. Total; the work and the result are linear in the line.
pub fn split(line: &str) -> Words {
    let mut commands = alloc::vec![Vec::new()];
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices().peekable();
    let mut open = Open::Nothing;
    while let Some((at, c)) = chars.next() {
        let escapes = c == '\\'
            && match quote {
                None => true,
                Some('"') => matches!(chars.peek(), Some((_, '"' | '\\')) | None),
                Some(_) => false,
            };
        match quote {
            Some(mark) if mark == c => quote = None,
            None if c == '\'' || c == '"' => {
                begin(&mut word, at);
                quote = Some(c);
            }
            None if c == ';' || c.is_whitespace() => {
                finish(&mut commands, &mut word);
                if c == ';' {
                    commands.push(Vec::new());
                }
            }
            None if c == '#' && word.is_none() => break,
            Some(_) | None if escapes => {
                begin(&mut word, at);
                match chars.next() {
                    Some((_, escaped)) => begin(&mut word, at).push(escaped),
                    None => open = Open::Backslash,
                }
            }
            Some(_) | None => begin(&mut word, at).push(c),
        }
    }
    open = match (open, quote) {
        (Open::Backslash, _) => Open::Backslash,
        (_, Some(mark)) => Open::Quote(mark),
        (_, None) if word.is_some() => Open::Word,
        (_, None) => Open::Nothing,
    };
    finish(&mut commands, &mut word);
    Words { commands, open }
}

fn begin(word: &mut Option<Word>, start: usize) -> &mut String {
    let word = word.get_or_insert_with(|| Word {
        text: String::new(),
        start,
    });
    &mut word.text
}

fn finish(commands: &mut [Vec<Word>], word: &mut Option<Word>) {
    let last = commands.last_mut().expect("there is always a command");
    last.extend(word.take());
}

/// `text` as a word that [`split`] reads back as `text`.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(line: &str) -> Vec<Vec<String>> {
        let words = split(line);
        let command = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect();
        words.commands.into_iter().map(command).collect()
    }

    #[test]
    fn quoting_is_a_shells() {
        let want = alloc::vec![
            alloc::vec!["a", "b c", "d\"e", "f\\g", "h i"],
            alloc::vec![],
            alloc::vec!["", "x#y", "name=t 1"],
        ];
        let line = r#"a 'b c' "d\"e" "f\g" h\ i ;; '' x#y name="t 1" # rest ; more"#;
        assert_eq!(texts(line), want);
        assert_eq!(split("a 'b").open, Open::Quote('\''));
        assert_eq!(split("a \\").open, Open::Backslash);
        assert_eq!(split("a \"\\").open, Open::Backslash);
        assert_eq!(split("a b").open, Open::Word);
        assert_eq!(split("a b ").open, Open::Nothing);
        assert_eq!(split("é ü").commands[0][1].start, 3);
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(text in ".{0,40}") {
            prop_assert_eq!(texts(&quoted(&text)), [[text]]);
        }

        #[test]
        fn any_line_splits(line in "[ ;'\"\\\\#a\u{e9}]{0,30}") {
            let words = split(&line);
            for word in words.commands.iter().flatten() {
                prop_assert!(line.is_char_boundary(word.start));
            }
        }
    }
}
