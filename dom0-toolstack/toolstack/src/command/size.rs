//! Amounts of memory and disk as `xl` takes them: a number with `b`, `k`, `m`, `g` or `t`.

use alloc::format;
use alloc::string::String;

/// Reads an amount in bytes; without a letter it is in MiB. Not 0. The error says what is wrong.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.as_bytes() {
        [b'b' | b'B'] => Some(0),
        [b'k' | b'K'] => Some(10),
        [] | [b'm' | b'M'] => Some(20),
        [b'g' | b'G'] => Some(30),
        [b't' | b'T'] => Some(40),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok().filter(|number| *number != 0);
    let bytes = number.zip(shift).and_then(|(number, shift)| {
        let bytes = number << shift;
        (bytes >> shift == number).then_some(bytes)
    });
    bytes.ok_or_else(|| format!("'{text}' is no amount: a number, in MiB or with b, k, m, g, t"))
}

/// As [`bytes`], in whole MiB.
pub(super) fn mib(text: &str) -> Result<u64, String> {
    match bytes(text)? >> 20 {
        0 => Err(format!("'{text}' is less than 1 MiB")),
        mib => Ok(mib),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_letters() {
        for (text, want) in [
            ("1", 1 << 20),
            ("512b", 512),
            ("4K", 4096),
            ("2g", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "0", "m", "1mm", "-1", "1.5g", "99999999999999t", "é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(mib("3g"), Ok(3072));
        assert!(mib("1023k").is_err());
    }
}
