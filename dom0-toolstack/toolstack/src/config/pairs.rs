//! Texts of `key=value` separated by commas, as entries of `disk` and `vif` are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most fields of an entry.
pub(super) const FIELDS_MAX: usize = 32;

/// The fields of an entry, without blanks around them.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let blank = text.trim().is_empty();
    text.split(',').map(str::trim).filter(move |_| !blank)
}

/// Fields by key, in their order.
#[derive(Default)]
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Adds a field.
    pub(super) fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        if self.0.len() == FIELDS_MAX {
            return Err(format!("more than {FIELDS_MAX} fields"));
        }
        self.0.push((key.into(), value.trim().into()));
        Ok(())
    }

    /// All of them.
    pub(super) fn take(self) -> Vec<(String, String)> {
        self.0
    }
}

/// Sets what may be set once.
pub(super) fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("'{key}' is given twice")),
    }
}
