//! Boot modules: files GRUB loaded beside the hypervisor, each with a string whose first word is
//! its name and whose rest is its arguments.

use crate::table::{Align, Table};
use alloc::format;
use alloc::string::String;

/// A boot module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootModule<'a> {
    /// First word of its string.
    pub name: &'a str,
    /// The rest of its string, without surrounding spaces.
    pub arguments: &'a str,
    /// Its contents.
    pub bytes: &'a [u8],
}

impl<'a> BootModule<'a> {
    /// From a module's string and contents.
    pub fn new(string: &'a str, bytes: &'a [u8]) -> Self {
        let string = string.trim();
        let (name, arguments) = string
            .split_once(char::is_whitespace)
            .unwrap_or((string, ""));
        Self {
            name,
            arguments: arguments.trim(),
            bytes,
        }
    }

    /// The first module called `name`.
    pub fn find<'b>(modules: &'b [BootModule<'a>], name: &str) -> Option<&'b BootModule<'a>> {
        modules.iter().find(|module| module.name == name)
    }
}

/// What `modules` prints.
pub fn render(modules: &[BootModule<'_>]) -> String {
    if modules.is_empty() {
        return "no boot modules besides dom0 (GRUB: module2 /boot/FILE NAME)\n".into();
    }
    let mut table = Table::new(&[
        ("Name", Align::Left, 16),
        ("KiB", Align::Right, 8),
        ("Arguments", Align::Left, 0),
    ]);
    for module in modules {
        table.row(alloc::vec![
            module.name.into(),
            format!("{}", module.bytes.len().div_ceil(1024)),
            module.arguments.into(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_name() {
        let all = [
            BootModule::new(" micro  a=b c ", b"1"),
            BootModule::new("", b""),
            BootModule::new("linux", &[0; 1025]),
        ];
        assert_eq!((all[0].name, all[0].arguments), ("micro", "a=b c"));
        assert_eq!((all[1].name, all[1].arguments), ("", ""));
        assert_eq!(BootModule::find(&all, "linux").unwrap().bytes.len(), 1025);
        assert_eq!(BootModule::find(&all, "mic"), None);
        let text = render(&all);
        assert!(text.contains("micro                   1 a=b c\n"), "{text}");
        assert!(text.contains("linux                   2\n"), "{text}");
    }
}
