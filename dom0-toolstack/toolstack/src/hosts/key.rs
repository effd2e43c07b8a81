//! The file of this host's key: text, with the fingerprint as its own check.
//!
//! ```text
//! godwit-host-key 1
//! secret 64 hexadecimal digits
//! fingerprint abcd-...
//! ```

use alloc::format;
use alloc::string::String;
use godwit_migrate::channel::{Fingerprint, Identity};

const FIRST_LINE: &str = "godwit-host-key 1";
const SECRET_BYTES: usize = 32;

/// The file's text.
pub fn encode(identity: &Identity) -> String {
    let secret = identity.secret().iter();
    let secret: String = secret.map(|byte| format!("{byte:02x}")).collect();
    let fingerprint = identity.public().fingerprint();
    format!("{FIRST_LINE}\nsecret {secret}\nfingerprint {fingerprint}\n")
}

/// Reads the file. The error does not show what is in it.
pub fn decode(bytes: &[u8]) -> Result<Identity, &'static str> {
    let text = core::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err("it does not begin as a key of this version does");
    }
    let secret = lines.next().and_then(|line| line.strip_prefix("secret "));
    let secret = secret.and_then(hex).ok_or("its secret is damaged")?;
    let check = lines
        .next()
        .and_then(|line| line.strip_prefix("fingerprint "));
    let check = check.and_then(|text| Fingerprint::parse(text).ok());
    let identity = Identity::from_secret(secret);
    match check == Some(identity.public().fingerprint()) && lines.next().is_none() {
        true => Ok(identity),
        false => Err("its fingerprint is not that of its secret"),
    }
}

fn hex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut out = [0; SECRET_BYTES];
    if text.len() != 2 * SECRET_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, place) in out.iter_mut().enumerate() {
        *place = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(out)
}
