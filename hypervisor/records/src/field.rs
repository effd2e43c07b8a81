//! The types a field can have: integers, booleans, arrays, options, bounded byte strings; and,
//! through [`structure!`](crate::structure) and [`choice!`](crate::choice), structures and named
//! alternatives. Every value has exactly one encoding.

use crate::schema::Shape;
use crate::wire::{Fault, Reader, Writer};
use core::fmt;

/// Where arbitrary values come from: any 64 bits at each call.
pub type Bits<'a> = &'a mut dyn FnMut() -> u64;

/// A type that can be a field of a record.
pub trait Field: Sized + Clone + PartialEq + fmt::Debug {
    /// The most bytes a value takes.
    const MAX_BYTES: usize;
    /// What it looks like, for the documentation and the fingerprint of a version.
    const SHAPE: Shape;
    /// Writes the value's one encoding.
    fn put(&self, writer: &mut Writer<'_>);
    /// Reads a value; anything but its one encoding is a fault.
    fn take(reader: &mut Reader<'_>) -> Result<Self, Fault>;
    /// An arbitrary value, for laws, fuzzing and simulation.
    fn sample(bits: Bits<'_>) -> Self;
}

macro_rules! integers {
    ($($ty:ty),+) => { $(
        impl Field for $ty {
            const MAX_BYTES: usize = size_of::<$ty>();
            const SHAPE: Shape = Shape::Unsigned { bits: <$ty>::BITS };
            fn put(&self, writer: &mut Writer<'_>) {
                writer.put(&self.to_le_bytes());
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, Fault> {
                reader.take().map(<$ty>::from_le_bytes)
            }
            fn sample(bits: Bits<'_>) -> Self {
                bits() as $ty
            }
        }
    )+ };
}
integers!(u8, u16, u32, u64);

impl Field for bool {
    const MAX_BYTES: usize = 1;
    const SHAPE: Shape = Shape::Boolean;
    fn put(&self, writer: &mut Writer<'_>) {
        writer.put(&[u8::from(*self)]);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        match reader.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Fault::NotBoolean(other)),
        }
    }
    fn sample(bits: Bits<'_>) -> Self {
        bits() & 1 != 0
    }
}

/// The elements one after another.
impl<T: Field + Default, const N: usize> Field for [T; N] {
    const MAX_BYTES: usize = N * T::MAX_BYTES;
    const SHAPE: Shape = Shape::Array {
        count: N,
        of: &T::SHAPE,
    };
    fn put(&self, writer: &mut Writer<'_>) {
        self.iter().for_each(|element| element.put(writer));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut elements = [const { None::<T> }; N];
        for element in &mut elements {
            *element = Some(T::take(reader)?);
        }
        Ok(elements.map(Option::unwrap_or_default))
    }
    fn sample(bits: Bits<'_>) -> Self {
        core::array::from_fn(|_| T::sample(bits))
    }
}

/// A byte 0, or a byte 1 and the value.
impl<T: Field> Field for Option<T> {
    const MAX_BYTES: usize = 1 + T::MAX_BYTES;
    const SHAPE: Shape = Shape::Optional(&T::SHAPE);
    fn put(&self, writer: &mut Writer<'_>) {
        self.is_some().put(writer);
        if let Some(value) = self {
            value.put(writer);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        bool::take(reader)?.then(|| T::take(reader)).transpose()
    }
    fn sample(bits: Bits<'_>) -> Self {
        bool::sample(bits).then(|| T::sample(bits))
    }
}

/// Up to `N` bytes whose meaning is given elsewhere. Encoded as a 32-bit length and the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes<const N: usize> {
    length: usize,
    /// Zero from `length` on, so that equal strings are equal structures.
    data: [u8; N],
}

impl<const N: usize> Bytes<N> {
    /// No bytes.
    pub const fn empty() -> Self {
        Self {
            length: 0,
            data: [0; N],
        }
    }

    /// A copy of `bytes`, or `None` if they are more than `N`.
    pub fn copy_of(bytes: &[u8]) -> Option<Self> {
        let mut copy = Self::empty();
        copy.data.get_mut(..bytes.len())?.copy_from_slice(bytes);
        copy.length = bytes.len();
        Some(copy)
    }

    /// The bytes, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.data[..self.length]
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.data[..self.length]
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

impl<const N: usize> Field for Bytes<N> {
    const MAX_BYTES: usize = 4 + N;
    const SHAPE: Shape = Shape::Bytes { most: N };
    fn put(&self, writer: &mut Writer<'_>) {
        const { assert!(N <= u32::MAX as usize) };
        (self.length as u32).put(writer);
        writer.put(self.as_slice());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let length = u32::take(reader)?;
        if length as usize > N {
            return Err(Fault::TooLong(length));
        }
        let bytes = reader.take_slice(length as usize)?;
        Self::copy_of(bytes).ok_or(Fault::TooLong(length))
    }
    fn sample(bits: Bits<'_>) -> Self {
        let mut sample = Self::empty();
        let raw = bits();
        // Short ones mostly, the longest sometimes.
        sample.length = if raw & 0xf == 0 {
            N
        } else {
            N.min(raw as usize >> 4 & 0x3f)
        };
        for chunk in sample.data[..sample.length].chunks_mut(8) {
            chunk.copy_from_slice(&bits().to_le_bytes()[..chunk.len()]);
        }
        sample
    }
}
