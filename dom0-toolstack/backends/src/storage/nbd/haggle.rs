//! The handshake: what server and client agree on before the first request.

use super::Stream;
use super::url::EXPORT_BYTES_MAX;
use super::wire::*;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::future::poll_fn;

/// Bytes of an answer to an option; a name and a description fit.
const ANSWER_BYTES_MAX: u32 = 64 << 10;
/// Answers to one option: exports of a list, facts about an export.
const ANSWERS_MAX: usize = 4096;
/// Most bytes of a request where the server sets no limit (proto.md, "Block size constraints").
const TRANSFER_BYTES_DEFAULT: u32 = 32 << 20;

/// What an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its size in bytes.
    pub bytes: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Bytes of a block: 512 or 4096.
    pub block_bytes: u32,
    /// Most bytes of one request.
    pub transfer_bytes_max: u32,
    /// Replies may come in chunks.
    pub structured: bool,
}

/// An export in a server's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What the server says about it.
    pub description: String,
}

/// Greets the server and asks for an export; requests may follow.
pub async fn go(stream: &mut dyn Stream, export: &str) -> Result<Export, ProtocolError> {
    greet(stream).await?;
    let structured = ask_structured(stream).await?;
    about(stream, OPTION_GO, export, structured).await
}

/// Greets the server, asks what an export is, and takes leave.
pub async fn info(stream: &mut dyn Stream, export: &str) -> Result<Export, ProtocolError> {
    greet(stream).await?;
    let found = about(stream, OPTION_INFO, export, false).await;
    send_option(stream, OPTION_ABORT, &[]).await?;
    found
}

/// Greets the server, asks for its exports, and takes leave.
pub async fn list(stream: &mut dyn Stream) -> Result<Vec<Listed>, ProtocolError> {
    greet(stream).await?;
    send_option(stream, OPTION_LIST, &[]).await?;
    let mut exports = Vec::new();
    for _ in 0..ANSWERS_MAX {
        match answer(stream, OPTION_LIST).await? {
            (REPLY_ACK, _) => {
                send_option(stream, OPTION_ABORT, &[]).await?;
                return Ok(exports);
            }
            (REPLY_SERVER, bytes) => {
                let (length, rest) = take_u32(&bytes)?;
                let name = rest.get(..length as usize);
                let name = name.ok_or(ProtocolError::TooShort)?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                exports.push(Listed {
                    name: text(name),
                    description: text(&rest[name.len()..]),
                });
            }
            (kind, bytes) => return Err(refused(kind, &bytes)),
        }
    }
    Err(ProtocolError::TooMany)
}

async fn greet(stream: &mut dyn Stream) -> Result<(), ProtocolError> {
    let mut hello = [0; 18];
    read_all(stream, &mut hello).await?;
    let (magic, rest) = take_u64(&hello)?;
    let (style, rest) = take_u64(rest)?;
    let (flags, _) = take_u16(rest)?;
    if magic != SERVER_MAGIC {
        return Err(ProtocolError::NotNbd);
    }
    if style != OPTION_MAGIC || flags & FIXED_NEWSTYLE == 0 {
        return Err(ProtocolError::OldStyle);
    }
    let ours = u32::from(FIXED_NEWSTYLE | flags & NO_ZEROES);
    write_all(stream, &ours.to_be_bytes()).await
}

/// Whether the server may answer in chunks from now on.
async fn ask_structured(stream: &mut dyn Stream) -> Result<bool, ProtocolError> {
    send_option(stream, OPTION_STRUCTURED, &[]).await?;
    match answer(stream, OPTION_STRUCTURED).await? {
        (REPLY_ACK, _) => Ok(true),
        (kind, _) if kind & REPLY_ERROR != 0 => Ok(false),
        (kind, _) => Err(ProtocolError::WrongReply(kind)),
    }
}

async fn about(
    stream: &mut dyn Stream,
    option: u32,
    export: &str,
    structured: bool,
) -> Result<Export, ProtocolError> {
    assert!(export.len() <= EXPORT_BYTES_MAX, "an export from a URL");
    let mut ask = Vec::new();
    ask.extend_from_slice(&(export.len() as u32).to_be_bytes());
    ask.extend_from_slice(export.as_bytes());
    ask.extend_from_slice(&1u16.to_be_bytes());
    ask.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
    send_option(stream, option, &ask).await?;
    let mut size = None;
    let mut sizes = (1, TRANSFER_BYTES_DEFAULT);
    for _ in 0..ANSWERS_MAX {
        match answer(stream, option).await? {
            (REPLY_ACK, _) => {
                let (bytes, flags) = size.ok_or(ProtocolError::NoExport)?;
                return judge(bytes, flags, sizes, structured);
            }
            (REPLY_INFO, bytes) => match take_u16(&bytes)? {
                (INFO_EXPORT, rest) => {
                    let (bytes, rest) = take_u64(rest)?;
                    size = Some((bytes, take_u16(rest)?.0));
                }
                (INFO_BLOCK_SIZE, rest) => {
                    let (smallest, rest) = take_u32(rest)?;
                    let (_preferred, rest) = take_u32(rest)?;
                    sizes = (smallest, take_u32(rest)?.0);
                }
                // Names and descriptions, which we did not ask for and the server may send.
                (_, _) => {}
            },
            (kind, bytes) => return Err(refused(kind, &bytes)),
        }
    }
    Err(ProtocolError::TooMany)
}

fn judge(
    bytes: u64,
    flags: u16,
    (smallest, longest): (u32, u32),
    structured: bool,
) -> Result<Export, ProtocolError> {
    let block_bytes = match smallest {
        1..=512 if smallest.is_power_of_two() => 512,
        513..=4096 if smallest.is_power_of_two() => 4096,
        _ => return Err(ProtocolError::BlockSize(smallest)),
    };
    if longest < block_bytes {
        return Err(ProtocolError::BlockSize(longest));
    }
    Ok(Export {
        bytes,
        flags,
        block_bytes,
        transfer_bytes_max: longest / block_bytes * block_bytes,
        structured,
    })
}

async fn send_option(
    stream: &mut dyn Stream,
    option: u32,
    data: &[u8],
) -> Result<(), ProtocolError> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    write_all(stream, &bytes).await
}

/// One answer to `option`: its kind and its data.
async fn answer(stream: &mut dyn Stream, option: u32) -> Result<(u32, Vec<u8>), ProtocolError> {
    let mut head = [0; 20];
    read_all(stream, &mut head).await?;
    let (magic, rest) = take_u64(&head)?;
    let (answered, rest) = take_u32(rest)?;
    let (kind, rest) = take_u32(rest)?;
    let (bytes, _) = take_u32(rest)?;
    if magic != OPTION_REPLY_MAGIC {
        return Err(ProtocolError::Magic(magic));
    }
    if answered != option {
        return Err(ProtocolError::WrongOption(answered));
    }
    if bytes > ANSWER_BYTES_MAX {
        return Err(ProtocolError::TooLong(bytes));
    }
    let mut data = vec![0; bytes as usize];
    read_all(stream, &mut data).await?;
    Ok((kind, data))
}

fn refused(kind: u32, data: &[u8]) -> ProtocolError {
    if kind & REPLY_ERROR == 0 {
        return ProtocolError::WrongReply(kind);
    }
    ProtocolError::Refused {
        code: kind & !REPLY_ERROR,
        message: printable(data),
    }
}

/// A server's words, for a console: no control characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).collect()
}

async fn read_all(stream: &mut dyn Stream, out: &mut [u8]) -> Result<(), ProtocolError> {
    let mut at = 0;
    while at < out.len() {
        let read = poll_fn(|context| stream.poll_read(context, &mut out[at..])).await;
        match read.map_err(ProtocolError::Stream)? {
            0 => return Err(ProtocolError::Closed),
            bytes => at += bytes,
        }
    }
    Ok(())
}

async fn write_all(stream: &mut dyn Stream, bytes: &[u8]) -> Result<(), ProtocolError> {
    let mut at = 0;
    while at < bytes.len() {
        let written = poll_fn(|context| stream.poll_write(context, &bytes[at..])).await;
        match written.map_err(ProtocolError::Stream)? {
            0 => return Err(ProtocolError::Closed),
            bytes => at += bytes,
        }
    }
    Ok(())
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), ProtocolError> {
    let (head, rest) = bytes.split_first_chunk().ok_or(ProtocolError::TooShort)?;
    Ok((*head, rest))
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), ProtocolError> {
    take(bytes).map(|(head, rest)| (u16::from_be_bytes(head), rest))
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), ProtocolError> {
    take(bytes).map(|(head, rest)| (u32::from_be_bytes(head), rest))
}

fn take_u64(bytes: &[u8]) -> Result<(u64, &[u8]), ProtocolError> {
    take(bytes).map(|(head, rest)| (u64::from_be_bytes(head), rest))
}
