//! Partition names: up to 36 UTF-16 units, the rest zeroes.

use alloc::string::String;
use core::fmt;

/// UTF-16 units of a name.
pub const NAME_UNITS_MAX: usize = 36;

/// A partition's name, kept unit for unit: a name that is no valid UTF-16 survives a rewrite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(pub [u16; NAME_UNITS_MAX]);

/// A name is longer than the 36 UTF-16 units GPT has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTooLong {
    /// Its length in UTF-16 units.
    pub units: usize,
}

impl Name {
    /// From text.
    pub fn new(text: &str) -> Result<Name, NameTooLong> {
        let mut units = [0; NAME_UNITS_MAX];
        let mut count = 0;
        for unit in text.encode_utf16() {
            if let Some(place) = units.get_mut(count) {
                *place = unit;
            }
            count += 1;
        }
        if count > NAME_UNITS_MAX {
            return Err(NameTooLong { units: count });
        }
        Ok(Name(units))
    }

    /// As text; what is no valid UTF-16 shows as replacement characters.
    pub fn text(&self) -> String {
        let end = self.0.iter().position(|unit| *unit == 0);
        String::from_utf16_lossy(&self.0[..end.unwrap_or(NAME_UNITS_MAX)])
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}
