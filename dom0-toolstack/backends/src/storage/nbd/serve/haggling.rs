//! What is agreed on before the first request.

use super::conversation::Conversation;
use super::{ServeError, Served, TRANSFER_BYTES_MAX};
use crate::storage::nbd::wire::*;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of an option; a name of the longest kind fits.
const OPTION_BYTES_MAX: u32 = 16 << 10;
/// Options of one client.
const OPTIONS_MAX: usize = 64;
/// Zeroes that end the old answer to a name, unless they are not wanted.
const OLD_PADDING_BYTES: usize = 124;

/// What came of it.
pub(super) enum Agreed {
    /// Requests follow.
    Transmission,
    /// The client has what it wanted to know.
    Leave,
}

/// Greets a client and answers its options.
pub(super) async fn agree(
    served: &Served,
    client: &mut Conversation<'_>,
) -> Result<Agreed, ServeError> {
    client.add(&SERVER_MAGIC.to_be_bytes());
    client.add(&OPTION_MAGIC.to_be_bytes());
    client.add(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    client.say().await?;
    let flags = u32::from_be_bytes(client.hear_array().await?);
    let known = u32::from(FIXED_NEWSTYLE | NO_ZEROES);
    if flags & u32::from(FIXED_NEWSTYLE) == 0 || flags & !known != 0 {
        return Err(ServeError::NotNbd);
    }
    for _ in 0..OPTIONS_MAX {
        let (option, data) = hear_option(client).await?;
        match option {
            OPTION_EXPORT_NAME => {
                let pads = flags & u32::from(NO_ZEROES) == 0;
                return by_name(served, client, &data, pads).await;
            }
            OPTION_ABORT => {
                reply(client, option, REPLY_ACK, &[]);
                // It may have hung up already.
                let _ = client.say().await;
                return Ok(Agreed::Leave);
            }
            OPTION_LIST if data.is_empty() => list(served, client),
            OPTION_LIST => reply(client, option, REPLY_INVALID, &[]),
            OPTION_INFO | OPTION_GO => {
                let found = about(served, client, option, &data);
                if found && option == OPTION_GO {
                    client.say().await?;
                    return Ok(Agreed::Transmission);
                }
            }
            _ => reply(client, option, REPLY_UNSUPPORTED, &[]),
        }
        client.say().await?;
    }
    Err(ServeError::TooMany)
}

async fn hear_option(client: &mut Conversation<'_>) -> Result<(u32, Vec<u8>), ServeError> {
    if client.hear_array().await? != OPTION_MAGIC.to_be_bytes() {
        return Err(ServeError::NotNbd);
    }
    let option = u32::from_be_bytes(client.hear_array().await?);
    let bytes = u32::from_be_bytes(client.hear_array().await?);
    if bytes > OPTION_BYTES_MAX {
        return Err(ServeError::TooLong(bytes));
    }
    let mut data = vec![0; bytes as usize];
    client.hear(&mut data).await?;
    Ok((option, data))
}

fn reply(client: &mut Conversation<'_>, option: u32, kind: u32, data: &[u8]) {
    client.add(&OPTION_REPLY_MAGIC.to_be_bytes());
    client.add(&option.to_be_bytes());
    client.add(&kind.to_be_bytes());
    client.add(&(data.len() as u32).to_be_bytes());
    client.add(data);
}

fn list(served: &Served, client: &mut Conversation<'_>) {
    let mut data = (served.name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(served.name.as_bytes());
    reply(client, OPTION_LIST, REPLY_SERVER, &data);
    reply(client, OPTION_LIST, REPLY_ACK, &[]);
}

/// The name an INFO or GO asks for, if the option is whole.
fn asked_name(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (count, wanted) = rest.split_first_chunk()?;
    // All there is to know is said, whatever was asked for.
    (wanted.len() == usize::from(u16::from_be_bytes(*count)) * 2).then_some(name)
}

/// Says what the export is. Whether it is the one that was asked for.
fn about(served: &Served, client: &mut Conversation<'_>, option: u32, data: &[u8]) -> bool {
    match asked_name(data) {
        None => reply(client, option, REPLY_INVALID, &[]),
        Some(name) if name != served.name.as_bytes() => {
            reply(client, option, REPLY_UNKNOWN, &[]);
        }
        Some(_) => {
            let (bytes, flags) = facts(served);
            let mut export = INFO_EXPORT.to_be_bytes().to_vec();
            export.extend_from_slice(&bytes.to_be_bytes());
            export.extend_from_slice(&flags.to_be_bytes());
            reply(client, option, REPLY_INFO, &export);
            let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
            let block_bytes = served.blocks.block_bytes() as u32;
            for size in [block_bytes, PREFERRED_BYTES, TRANSFER_BYTES_MAX] {
                sizes.extend_from_slice(&size.to_be_bytes());
            }
            reply(client, option, REPLY_INFO, &sizes);
            reply(client, option, REPLY_ACK, &[]);
            return true;
        }
    }
    false
}

/// The old way of asking: an unknown name has no answer but the end.
async fn by_name(
    served: &Served,
    client: &mut Conversation<'_>,
    name: &[u8],
    pads: bool,
) -> Result<Agreed, ServeError> {
    if name != served.name.as_bytes() {
        return Err(ServeError::NoExport);
    }
    let (bytes, flags) = facts(served);
    client.add(&bytes.to_be_bytes());
    client.add(&flags.to_be_bytes());
    if pads {
        client.add(&[0; OLD_PADDING_BYTES]);
    }
    client.say().await?;
    Ok(Agreed::Transmission)
}

/// Size in bytes, and transmission flags.
fn facts(served: &Served) -> (u64, u16) {
    let writable = match served.read_only {
        true => FLAG_READ_ONLY,
        false => FLAG_TRIM | FLAG_WRITE_ZEROES,
    };
    let flags = FLAG_HAS_FLAGS | FLAG_FLUSH | FLAG_FUA | writable;
    (served.blocks.disk().geometry().bytes(), flags)
}
