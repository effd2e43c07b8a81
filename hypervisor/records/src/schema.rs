//! What a record looks like, as a constant table: for the documentation, and for a fingerprint of
//! each version that shows when a shipped one was edited.

use crate::kind::Kind;
use core::fmt::{self, Write};

/// The type of a field as bytes see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// A little-endian integer.
    Unsigned {
        /// Its width.
        bits: u32,
    },
    /// One byte, 0 or 1.
    Boolean,
    /// One byte that stands for a name.
    Choice {
        /// The type's name.
        name: &'static str,
        /// Every value and what it stands for.
        values: &'static [(u8, &'static str)],
    },
    /// Fields one after another.
    Structure {
        /// The type's name.
        name: &'static str,
        /// The fields.
        fields: &'static [FieldSchema],
    },
    /// Elements one after another.
    Array {
        /// How many.
        count: usize,
        /// Of what.
        of: &'static Shape,
    },
    /// A byte 0, or a byte 1 and a value.
    Optional(&'static Shape),
    /// A 32-bit length and so many bytes.
    Bytes {
        /// The greatest length.
        most: usize,
    },
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Unsigned { bits } => write!(f, "u{bits}"),
            Shape::Boolean => f.write_str("bool"),
            Shape::Choice { name, values } => {
                write!(f, "{name} (u8:")?;
                for (value, meaning) in *values {
                    write!(f, " {value} {meaning}")?;
                }
                f.write_char(')')
            }
            Shape::Structure { name, fields } => {
                write!(f, "{name} {{")?;
                for field in *fields {
                    write!(f, " {}: {};", field.name, field.shape)?;
                }
                f.write_str(" }")
            }
            Shape::Array { count, of } => write!(f, "{count} of {of}"),
            Shape::Optional(of) => write!(f, "optional {of}"),
            Shape::Bytes { most } => write!(f, "up to {most} bytes"),
        }
    }
}

/// One field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldSchema {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub shape: Shape,
    /// What it is.
    pub doc: &'static str,
}

/// The fields that one version added.
#[derive(Clone, Copy, Debug)]
pub struct VersionSchema {
    /// The version.
    pub number: u16,
    /// What it added, in the order of the encoding.
    pub fields: &'static [FieldSchema],
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Its name.
    pub name: &'static str,
    /// The kind in its header.
    pub kind: Kind,
    /// What it is.
    pub doc: &'static str,
    /// Its versions from 1 on; a body of version n has the fields of all up to n.
    pub versions: &'static [VersionSchema],
}

impl VersionSchema {
    /// A number that changes when a field of this version changes its place, name or type
    /// (FNV-1a, 64 bits, over the printed fields).
    pub fn fingerprint(&self) -> u64 {
        struct Fnv(u64);
        impl Write for Fnv {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for byte in text.bytes() {
                    self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                Ok(())
            }
        }
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        for field in self.fields {
            write!(hash, "{}: {};", field.name, field.shape).expect("hashing does not fail");
        }
        hash.0
    }
}

/// As Markdown, a section a record.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "## {} (kind {:#06x})\n\n{}",
            self.name,
            self.kind.0,
            self.doc.trim()
        )?;
        for version in self.versions {
            writeln!(
                f,
                "\n| version {} | type | |\n|---|---|---|",
                version.number
            )?;
            for field in version.fields {
                writeln!(
                    f,
                    "| {} | {} | {} |",
                    field.name,
                    field.shape,
                    field.doc.trim()
                )?;
            }
        }
        Ok(())
    }
}
