//! The macros that declare guest state once: `record!`, and `structure!` and `choice!` for the
//! types of its fields.
//!
//! A version that has shipped is never edited, neither in the record nor in a structure or choice
//! it uses: what is new goes into a new version, with the value the field has in records written
//! before it was known. Fingerprints in the tests hold this.

use crate::field::Bits;
use crate::kind::Kind;
use crate::schema::Schema;
use crate::wire::{DecodeError, EncodeError};
use core::fmt;

/// A piece of guest state with a versioned encoding. Implemented by [`record!`](crate::record).
pub trait Record: Sized + Clone + PartialEq + fmt::Debug {
    /// The kind in the header.
    const KIND: Kind;
    /// The name in errors and documentation.
    const NAME: &'static str;
    /// The version written by [`encode`](Record::encode), and the latest that decodes.
    const NEWEST: u16;
    /// A buffer of this size takes every value, header included.
    const MAX_BYTES: usize;
    /// The layout.
    const SCHEMA: &'static Schema;

    /// Writes the newest version to the start of `buffer`. Returns the record's bytes.
    fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        self.encode_as(Self::NEWEST, buffer)
    }
    /// Writes an older version, for a peer that knows no later one. Fails rather than lose
    /// anything: a field the version lacks must have the value the version implies.
    fn encode_as(&self, version: u16, buffer: &mut [u8]) -> Result<usize, EncodeError>;
    /// Reads exactly one record of any known version.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
    /// An arbitrary value, not necessarily one that a CPU or device can have.
    fn sample(bits: Bits<'_>) -> Self;
}

/// Declares a record.
///
/// ```
/// use godwit_records::{Kind, Record, record};
/// record! {
///     /// An example.
///     pub struct Lamp = Kind::TEST;
///     version 1 {
///         /// Whether it is on.
///         lit: bool = false;
///     }
///     version 2 {
///         /// In percent. Lamps of version 1 could not be dimmed.
///         brightness: u8 = 50, before 100;
///     }
/// }
/// let mut buffer = [0; Lamp::MAX_BYTES];
/// let old = [0xff, 0xff, 1, 0, 1, 0, 0, 0, 1];
/// let lamp = Lamp::decode(&old).unwrap();
/// assert_eq!(lamp, Lamp { lit: true, brightness: 100 });
/// assert_eq!(lamp.encode_as(1, &mut buffer), Ok(old.len()));
/// assert_eq!(Lamp::reset().brightness, 50);
/// ```
#[macro_export]
macro_rules! record {
    (
        $(#[doc = $doc:literal])+
        pub struct $Name:ident = $kind:expr;
        version 1 { $(
            $(#[doc = $d1:literal])+
            $f1:ident: $t1:ty = $r1:expr;
        )+ }
        $( version $n:literal { $(
            $(#[doc = $d:literal])+
            $f:ident: $t:ty = $r:expr, before $b:expr;
        )+ } )*
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $Name {
            $( $(#[doc = $d1])+ pub $f1: $t1, )+
            $( $( $(#[doc = $d])+ pub $f: $t, )+ )*
        }

        impl $Name {
            /// The state after power-on.
            pub const fn reset() -> Self {
                Self { $( $f1: $r1, )+ $( $( $f: $r, )+ )* }
            }
        }

        impl $crate::Record for $Name {
            const KIND: $crate::Kind = $kind;
            const NAME: &'static str = stringify!($Name);
            const NEWEST: u16 = {
                let numbers: &[u16] = &[1, $($n),*];
                let mut index = 0;
                while index < numbers.len() {
                    assert!(numbers[index] as usize == index + 1, "versions count from 1");
                    index += 1;
                }
                numbers.len() as u16
            };
            const MAX_BYTES: usize = $crate::HEADER_BYTES
                $( + <$t1 as $crate::Field>::MAX_BYTES )+
                $( $( + <$t as $crate::Field>::MAX_BYTES )+ )*;
            const SCHEMA: &'static $crate::Schema = &$crate::Schema {
                name: stringify!($Name),
                kind: $kind,
                doc: concat!($($doc),+),
                versions: &[
                    $crate::VersionSchema {
                        number: 1,
                        fields: &[ $( $crate::FieldSchema {
                            name: stringify!($f1),
                            shape: <$t1 as $crate::Field>::SHAPE,
                            doc: concat!($($d1),+),
                        } ),+ ],
                    },
                    $( $crate::VersionSchema {
                        number: $n,
                        fields: &[ $( $crate::FieldSchema {
                            name: stringify!($f),
                            shape: <$t as $crate::Field>::SHAPE,
                            doc: concat!($($d),+),
                        } ),+ ],
                    }, )*
                ],
            };

            fn encode_as(
                &self,
                version: u16,
                buffer: &mut [u8],
            ) -> Result<usize, $crate::EncodeError> {
                if version == 0 || version > Self::NEWEST {
                    return Err($crate::EncodeError::UnknownVersion { version });
                }
                let mut writer = $crate::Writer::begin(buffer, Self::KIND, version);
                $( $crate::Field::put(&self.$f1, &mut writer); )+
                $( $(
                    let implied: $t = $b;
                    if version >= $n {
                        $crate::Field::put(&self.$f, &mut writer);
                    } else if self.$f != implied {
                        let field = stringify!($f);
                        return Err($crate::EncodeError::NotExpressible { field });
                    }
                )+ )*
                writer.finish()
            }

            fn decode(bytes: &[u8]) -> Result<Self, $crate::DecodeError> {
                let (_version, mut reader) =
                    $crate::Reader::open(Self::NAME, bytes, Self::KIND, Self::NEWEST)?;
                let value = Self {
                    $( $f1: reader.field(stringify!($f1))?, )+
                    $( $(
                        $f: if _version >= $n { reader.field(stringify!($f))? } else { $b },
                    )+ )*
                };
                reader.close()?;
                Ok(value)
            }

            fn sample(bits: $crate::Bits<'_>) -> Self {
                Self {
                    $( $f1: $crate::Field::sample(bits), )+
                    $( $( $f: $crate::Field::sample(bits), )+ )*
                }
            }
        }
    };
}

/// Declares a structure that records can have as a field: its fields one after another.
#[macro_export]
macro_rules! structure {
    (
        $(#[doc = $doc:literal])+
        pub struct $Name:ident { $(
            $(#[doc = $d:literal])+
            $f:ident: $t:ty,
        )+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $Name {
            $( $(#[doc = $d])+ pub $f: $t, )+
        }

        impl $crate::Field for $Name {
            const MAX_BYTES: usize = 0 $( + <$t as $crate::Field>::MAX_BYTES )+;
            const SHAPE: $crate::Shape = $crate::Shape::Structure {
                name: stringify!($Name),
                fields: &[ $( $crate::FieldSchema {
                    name: stringify!($f),
                    shape: <$t as $crate::Field>::SHAPE,
                    doc: concat!($($d),+),
                } ),+ ],
            };
            fn put(&self, writer: &mut $crate::Writer<'_>) {
                $( $crate::Field::put(&self.$f, writer); )+
            }
            fn take(reader: &mut $crate::Reader<'_>) -> Result<Self, $crate::Fault> {
                Ok(Self { $( $f: $crate::Field::take(reader)?, )+ })
            }
            fn sample(bits: $crate::Bits<'_>) -> Self {
                Self { $( $f: $crate::Field::sample(bits), )+ }
            }
        }
    };
}

/// Declares named alternatives that records can have as a field: one byte.
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        pub enum $Name:ident { $(
            $(#[doc = $d:literal])+
            $value:literal $Variant:ident,
        )+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $Name { $( $(#[doc = $d])+ $Variant, )+ }

        impl $Name {
            /// Every alternative.
            pub const ALL: &[Self] = &[ $( Self::$Variant ),+ ];
        }

        impl $crate::Field for $Name {
            const MAX_BYTES: usize = 1;
            const SHAPE: $crate::Shape = $crate::Shape::Choice {
                name: stringify!($Name),
                values: &[ $( ($value, stringify!($Variant)) ),+ ],
            };
            fn put(&self, writer: &mut $crate::Writer<'_>) {
                let byte: u8 = match self { $( Self::$Variant => $value, )+ };
                writer.put(&[byte]);
            }
            fn take(reader: &mut $crate::Reader<'_>) -> Result<Self, $crate::Fault> {
                match reader.take()? {
                    $( [$value] => Ok(Self::$Variant), )+
                    [other] => Err($crate::Fault::UnknownValue(other)),
                }
            }
            fn sample(bits: $crate::Bits<'_>) -> Self {
                Self::ALL[bits() as usize % Self::ALL.len()]
            }
        }
    };
}
