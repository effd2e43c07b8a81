//! Which partition is what, by its name, and which names a volume may have.

use super::error::StoreError;
use super::gpt::{Name, Partition, Table};
use super::info::{JOURNAL_PARTITION, STORE_PARTITION};
use alloc::string::ToString;

/// The label in a store partition's name, empty for none. `None`: it is another partition.
pub(super) fn label(name: &str) -> Option<&str> {
    match name.strip_prefix(STORE_PARTITION)? {
        "" => Some(""),
        rest => rest.strip_prefix(':'),
    }
}

pub(super) fn is_volume(partition: &Partition) -> bool {
    let name = partition.name.text();
    !name.is_empty() && label(&name).is_none() && name != JOURNAL_PARTITION
}

pub(super) fn find(table: &Table, name: &str) -> Result<Partition, StoreError> {
    let volumes = table.partitions().iter().filter(|one| is_volume(one));
    let mut named = volumes.filter(|one| one.name.text() == name);
    match (named.next(), named.next()) {
        (None, _) => Err(StoreError::NoSuchVolume(name.to_string())),
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => Err(StoreError::Ambiguous(name.to_string())),
    }
}

/// Whether text may be the name of a volume or a store.
pub(super) fn check_text(text: &str) -> Result<(), StoreError> {
    let why = match () {
        () if text.is_empty() => "it is empty",
        () if text.chars().any(char::is_control) => "it has control characters",
        () if text.contains(['/', ',', ':', '"', '\'']) => "it has one of / , : \" '",
        () if text.trim() != text => "it begins or ends with a space",
        () => return Ok(()),
    };
    Err(StoreError::bad_name(text, why))
}

pub(super) fn check_name(text: &str) -> Result<Name, StoreError> {
    check_text(text)?;
    if text.starts_with(STORE_PARTITION) {
        let why = "names that begin with GODWIT are the store's own";
        return Err(StoreError::bad_name(text, why));
    }
    Name::new(text).map_err(|error| StoreError::too_long(text, error))
}

/// The slot of a volume that was found before: its GUID and first block must still be the same.
pub(super) fn slot_of(table: &Table, known: &Partition) -> Result<u32, StoreError> {
    let is = |one: &&Partition| one.guid == known.guid && one.blocks.first == known.blocks.first;
    let found = table.partitions().iter().find(is);
    let gone = || StoreError::NoSuchVolume(known.name.text());
    found.map(|one| one.slot).ok_or_else(gone)
}

/// That no volume has this name.
pub(super) fn unused(table: &Table, name: &str) -> Result<(), StoreError> {
    match find(table, name) {
        Err(StoreError::NoSuchVolume(_)) => Ok(()),
        Ok(_) | Err(_) => Err(StoreError::Exists(name.to_string())),
    }
}
