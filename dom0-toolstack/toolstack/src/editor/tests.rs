//! The editor driven by bytes, judged by what its terminal shows.

use super::terminal::Terminal;
use super::*;
use proptest::prelude::*;

struct Session {
    editor: Editor,
    terminal: Terminal,
    events: Vec<Event>,
}

fn session_of(columns: usize) -> Session {
    let mut session = Session {
        editor: Editor::new("h# "),
        terminal: Terminal::new(columns),
        events: Vec::new(),
    };
    session.editor.resize(columns);
    let mut out = Vec::new();
    session.editor.show(&mut out);
    session.terminal.write(&out);
    session
}

fn session() -> Session {
    session_of(80)
}

/// Completes to words of a fixed list.
fn words(before: &str) -> Completion {
    let start = before.rfind(' ').map_or(0, |space| space + 1);
    let all = ["xl", "list", "list-all", "über", "übung"];
    let matching = all.iter().filter(|word| word.starts_with(&before[start..]));
    Completion {
        start,
        candidates: matching
            .map(|word| Candidate {
                text: String::from(*word),
                space: true,
            })
            .collect(),
    }
}

impl Session {
    fn keys(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            let mut out = Vec::new();
            let event = self.editor.feed(*byte, &mut words, &mut out);
            if let Some(event) = event {
                self.events.push(event);
                self.editor.show(&mut out);
            }
            self.terminal.write(&out);
        }
        self
    }

    /// Row and cursor column, which is what an operator sees.
    #[track_caller]
    fn shows(&mut self, row: &str, column: usize) -> &mut Self {
        assert_eq!(
            (self.terminal.row().as_str(), self.terminal.column()),
            (row, column)
        );
        self
    }

    #[track_caller]
    fn lines(&mut self, want: &[&str]) {
        let want: Vec<Event> = want
            .iter()
            .map(|line| Event::Line((*line).into()))
            .collect();
        assert_eq!(self.events, want);
    }
}

#[test]
fn inserts_moves_and_deletes() {
    let mut s = session();
    s.keys("helo\x1b[Dl\x01>\x05!").shows("h# >hello!", 10);
    s.keys("\x02\x7f\x06\x1b[H\x1b[3~").shows("h# hell!", 3);
    s.keys("\x1b[F?\r").lines(&["hell!?"]);
}

#[test]
fn typing_at_the_end_sends_only_what_was_typed() {
    let mut s = session();
    let before = s.terminal.bytes;
    s.keys("xl list");
    assert_eq!(s.terminal.bytes - before, 7);
}

#[test]
fn words_are_moved_over_and_cut() {
    let mut s = session();
    s.keys("one two-three  four\x1bb\x1bb")
        .shows("h# one two-three  four", 11);
    s.keys("\x1bf").shows("h# one two-three  four", 16);
    s.keys("\x17").shows("h# one   four", 7);
    s.keys("\x1bd").shows("h# one ", 7);
    s.keys("\x19").shows("h# one two-three  four", 22);
    s.keys("\x15\x19\x19")
        .shows("h# one two-three  fourone two-three  four", 41);
    s.keys("\x01\x1bd\x1bd\x0b\x19")
        .shows("h# one two-three  fourone two-three  four", 41);
    s.keys("\x1b[1;5D\x1b\x7f\x0b")
        .shows("h# one two-three  fourone two-", 30);
}

#[test]
fn history_keeps_the_draft_and_drops_repeats() {
    let mut s = session();
    s.keys("a\rb\rb\r  \rdraft\x1b[A").shows("h# b", 4);
    s.keys("\x1b[A").shows("h# a", 4);
    s.keys("\x10\x1b[B\x1b[B").shows("h# draft", 8);
    assert_eq!(s.terminal.bells, 1);
    s.keys("\x0e");
    assert_eq!(s.terminal.bells, 2);
    assert_eq!(s.editor.history().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn history_is_bounded() {
    let mut s = session();
    for number in 0..HISTORY_LINES_MAX + 5 {
        s.keys(&format!("line {number}\r"));
    }
    assert_eq!(s.editor.history().count(), HISTORY_LINES_MAX);
    assert_eq!(s.editor.history().next(), Some("line 5"));
}

#[test]
fn reverse_search() {
    let mut s = session();
    s.keys("xl list\rxl info\rping b\rkeep\x12in")
        .shows("(reverse-i-search)`in': ping b", 25);
    s.keys("\x12").shows("(reverse-i-search)`in': xl info", 27);
    s.keys("\x12").shows("(reverse-i-search)`in': xl info", 27);
    s.keys("q").shows("(failed reverse-i-search)`inq': ", 32);
    s.keys("\x7f").shows("(reverse-i-search)`in': ping b", 25);
    s.keys("\x07").shows("h# keep", 7);
    s.keys("\x12li\x05 -l\r");
    assert_eq!(s.events.last(), Some(&Event::Line("xl list -l".into())));
}

#[test]
fn completion_extends_then_lists() {
    let mut s = session();
    s.keys("x\t").shows("h# xl ", 6);
    s.keys("l\t").shows("h# xl list", 10);
    s.keys("\t");
    assert_eq!(s.terminal.bells, 1);
    s.keys("\t").shows("h# xl list", 10);
    assert_eq!(
        s.terminal.screen(),
        ["h# xl list", "list      list-all", "h# xl list"]
    );
    s.keys("-\t").shows("h# xl list-all ", 15);
    s.keys("zz\t");
    assert_eq!(s.terminal.bells, 2);
    s.keys("\x15ü\t").shows("h# üb", 5);
    s.keys("u\t").shows("h# übung ", 9);
}

#[test]
fn interrupt_end_of_input_and_clear() {
    let mut s = session();
    s.keys("abc\x03").shows("h# ", 3);
    s.keys("ab\x02\x04").shows("h# a", 4);
    s.keys("\x0c").shows("h# a", 4);
    assert_eq!(s.terminal.screen().len(), 1);
    s.keys("\x15\x04");
    assert_eq!(s.events, [Event::Interrupted, Event::EndOfInput]);
}

#[test]
fn long_lines_scroll_in_their_row() {
    let mut s = session_of(20);
    s.keys("abcdefghijklmnopqrstuvwxyz");
    assert!(s.terminal.row().ends_with("xyz"), "{}", s.terminal.row());
    s.keys("\x01").shows("h# abcdefghijklmnop", 3);
    s.keys("\x05\x1b[D!\r")
        .lines(&["abcdefghijklmnopqrstuvwxy!z"]);
    assert!(s.terminal.screen().len() == 2);
}

#[test]
fn wide_characters_take_their_columns() {
    let mut s = session();
    s.keys("日本x\x02\x02").shows("h# 日本x", 5);
    s.keys("é").shows("h# 日é本x", 6);
    s.keys("\x7f\x7f").shows("h# 本x", 3);
}

#[test]
fn a_line_has_a_limit() {
    let mut s = session();
    s.keys(&"y".repeat(LINE_CHARS_MAX + 1));
    assert_eq!(s.terminal.bells, 1);
    s.keys("\r").lines(&[&"y".repeat(LINE_CHARS_MAX)]);
}

#[test]
fn hidden_for_a_message_and_shown_again() {
    let mut s = session();
    s.keys("half");
    let mut out = Vec::new();
    s.editor.hide(&mut out);
    out.extend(b"message\r\n");
    s.editor.show(&mut out);
    s.terminal.write(&out);
    assert_eq!(s.terminal.screen(), ["message", "h# half"]);
}

proptest! {
    /// Whatever is typed, the row shows a window of the line with the cursor in its place.
    #[test]
    fn the_screen_is_the_line(
        keys in prop::collection::vec(
            prop::sample::select(std::vec![
                "a", "é", "日", " ", "\x1b[D", "\x1b[C", "\x01", "\x05", "\x7f", "\x04x", "\x0b",
                "\x15", "\x17", "\x19", "\x1bb", "\x1bf", "long-word", "\x1b[A", "\x1b[B", "z\r",
            ]),
            0..80,
        ),
        columns in 20usize..40,
    ) {
        let mut s = session_of(columns);
        s.keys(&keys.concat());
        let mut fresh = Terminal::new(columns);
        let mut out = Vec::new();
        let mut copy = s.editor.clone();
        copy.hide(&mut out);
        copy.show(&mut out);
        fresh.write(&out);
        let line = s.editor.buffer.line();
        let shown = s.terminal.row();
        let text = shown.strip_prefix("h# ").expect("the prompt stays");
        prop_assert!(line.contains(text.trim_end()), "{shown:?} of {line:?}");
        if line.chars().count() < 10 {
            prop_assert_eq!(fresh.row(), shown);
            prop_assert_eq!(fresh.column(), s.terminal.column());
        }
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut editor = Editor::new("h# ");
        let mut out = Vec::new();
        for byte in bytes {
            if editor.feed(byte, &mut words, &mut out).is_some() {
                editor.show(&mut out);
            }
        }
    }
}
