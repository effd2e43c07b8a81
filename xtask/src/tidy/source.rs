//! A source file and just enough of a Rust lexer: comments and literals blanked out, so that
//! braces and words can be counted.

/// One file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Path from the repository's root, with `/`.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
    /// The same with comments and the insides of literals blanked, line for line; only for Rust.
    pub(crate) code: String,
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of its `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = if path.ends_with(".rs") {
            blank(text)
        } else {
            String::new()
        };
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Where `word` stands in the code as a whole word.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let inside =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let bytes = self.code.as_bytes();
        self.code
            .match_indices(word)
            .map(|(at, _)| at)
            .filter(move |&at| {
                let before = at.checked_sub(1).and_then(|before| bytes.get(before));
                !inside(before) && !inside(bytes.get(at + word.len()))
            })
    }

    /// Line of an offset, from 1.
    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// Functions with bodies, nested ones too.
    pub(crate) fn functions(&self) -> Vec<Function> {
        self.words("fn")
            .filter_map(|at| self.function(at))
            .collect()
    }

    fn function(&self, at: usize) -> Option<Function> {
        let rest = &self.code[at + 2..];
        let name: String = rest
            .trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        // `fn(...)` is a type.
        if name.is_empty() {
            return None;
        }
        let mut depth = 0;
        let mut brackets = 0;
        for (offset, byte) in rest.bytes().enumerate() {
            match byte {
                b'(' | b'[' => brackets += 1,
                b')' | b']' => brackets -= 1,
                // A declaration without a body; `[u8; 4]` has its `;` inside brackets.
                b';' if depth == 0 && brackets == 0 => return None,
                b'{' => depth += 1,
                b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        let lines = rest[..offset].matches('\n').count() + 1;
                        return Some(Function {
                            name,
                            line: self.line_of(at),
                            lines,
                        });
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// Blanks comments and the insides of literals; keeps every line feed and every length.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !continues_word(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => at,
            },
            b'\'' => char_end(bytes, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    // Only whole literals and comments were blanked, so what is left is whole characters.
    String::from_utf8(out).expect("blanking keeps characters whole")
}

/// Whether the byte before belongs to the same word; `br"` and `cr"` are literals, too.
fn continues_word(bytes: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else {
        return false;
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let prefix = matches!(bytes[before], b'b' | b'c') && (before == 0 || !word(bytes[before - 1]));
    word(bytes[before]) && !prefix
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|&b| b == b'\n')
        .map_or(bytes.len(), |n| at + n)
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// End of `r"…"` or `r#"…"#`; `None` when `r` begins something else.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    if bytes.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), "#".repeat(hashes).as_bytes()].concat();
    let start = at + 2 + hashes;
    let found = bytes[start..]
        .windows(close.len())
        .position(|window| window == close);
    Some(found.map_or(bytes.len(), |n| start + n + close.len()))
}

/// End of a character literal; `at` itself when the quote begins a lifetime.
fn char_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes[at + 3..].iter().position(|&b| b == b'\'');
        return close.map_or(bytes.len(), |n| at + 3 + n + 1);
    }
    // One character, up to four bytes, then the closing quote.
    let text = std::str::from_utf8(&bytes[at + 1..]).unwrap_or_default();
    let width = text.chars().next().map_or(0, char::len_utf8);
    if bytes.get(at + 1 + width) == Some(&b'\'') {
        at + width + 2
    } else {
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("x.rs", text)
    }

    #[test]
    fn literals_and_comments_are_blanked_and_lines_stay() {
        let code =
            source("a(\"}\\\"{\", '{', '\\'', 'é'); // }\n/* { /* } */\n*/ b::<'a>(br#\"\"}\"#)")
                .code;
        assert_eq!(code.matches(['{', '}', '"', '\'']).count(), 1, "{code}");
        assert_eq!(code.lines().count(), 3);
        assert!(code.contains("b::<'a>("));
    }

    #[test]
    fn a_word_is_a_whole_word() {
        let source = source("unsafe { unsafe_code; r#unsafe } // unsafe\n\"unsafe\"; unsafe");
        assert_eq!(source.words("unsafe").count(), 3);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let text = "trait T { fn a(x: [u8; 4]); }\ntype F = fn(u8);\n\
                    fn b<T>()\nwhere T: X {\n  if x { \"}\" }\n  fn c() {}\n}\n";
        let found: Vec<_> = source(text).functions();
        let expected = [("b", 3, 5), ("c", 6, 1)].map(|(name, line, lines)| Function {
            name: name.to_owned(),
            line,
            lines,
        });
        assert_eq!(found, expected);
    }
}
