//! A line typed at the prompt: parsing is total, and a refusal says something.

use godwit_toolstack::command::parse_line;

/// One input: the line. Returns whether it was accepted.
pub(crate) fn judge(input: &[u8]) -> bool {
    let line = String::from_utf8_lossy(input);
    match parse_line(&line) {
        Ok(commands) => commands.len() <= line.len(),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
