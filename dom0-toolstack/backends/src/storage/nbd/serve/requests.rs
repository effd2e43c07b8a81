//! Requests, one after the other.

use super::conversation::Conversation;
use super::{ServeError, Served, TRANSFER_BYTES_MAX};
use crate::disk::DiskError;
use crate::storage::copy::zero;
use crate::storage::nbd::wire::*;
use alloc::vec;

/// One request.
struct Request {
    flags: u16,
    command: u16,
    cookie: [u8; 8],
    offset: u64,
    bytes: u32,
}

impl Request {
    async fn hear(client: &mut Conversation<'_>) -> Result<Request, ServeError> {
        if client.hear_array().await? != REQUEST_MAGIC.to_be_bytes() {
            return Err(ServeError::NotNbd);
        }
        Ok(Request {
            flags: u16::from_be_bytes(client.hear_array().await?),
            command: u16::from_be_bytes(client.hear_array().await?),
            cookie: client.hear_array().await?,
            offset: u64::from_be_bytes(client.hear_array().await?),
            bytes: u32::from_be_bytes(client.hear_array().await?),
        })
    }

    fn check_flags(&self) -> Result<(), u32> {
        let known = match self.command {
            WRITE_ZEROES => FUA | NO_HOLE,
            _ => FUA,
        };
        match self.flags & !known {
            0 => Ok(()),
            _ => Err(EINVAL),
        }
    }

    /// The blocks it is about: the first and how many. The error is a number of the protocol.
    fn blocks(&self, served: &Served) -> Result<(u64, u64), u32> {
        let geometry = served.blocks.disk().geometry();
        let (size, bytes) = (u64::from(geometry.block_bytes), u64::from(self.bytes));
        let end = self.offset.checked_add(bytes);
        let writes = self.command != READ;
        match end {
            _ if writes && served.read_only => Err(EPERM),
            Some(end) if end <= geometry.bytes() => {
                match (self.offset % size, bytes % size, bytes) {
                    (0, 0, 1..) => Ok((self.offset / size, bytes / size)),
                    (_, _, _) => Err(EINVAL),
                }
            }
            // What is beyond the end of a disk that is written to is no space (proto.md, "Error values").
            Some(_) | None if writes => Err(ENOSPC),
            Some(_) | None => Err(EINVAL),
        }
    }
}

/// Answers until the client takes leave.
pub(super) async fn answer(
    served: &Served,
    client: &mut Conversation<'_>,
) -> Result<(), ServeError> {
    let mut buffer = vec![0; TRANSFER_BYTES_MAX as usize];
    loop {
        let request = Request::hear(client).await?;
        if request.command == DISCONNECT {
            return Ok(());
        }
        let has_data = matches!(request.command, READ | WRITE);
        if request.command == WRITE && request.bytes > TRANSFER_BYTES_MAX {
            return Err(ServeError::TooLong(request.bytes));
        }
        let bytes = if has_data { request.bytes } else { 0 }.min(TRANSFER_BYTES_MAX);
        let data = &mut buffer[..bytes as usize];
        if request.command == WRITE {
            client.hear(data).await?;
        }
        let done = carry_out(served, &request, data).await;
        client.add(&SIMPLE_MAGIC.to_be_bytes());
        client.add(&done.err().unwrap_or(0).to_be_bytes());
        client.add(&request.cookie);
        if request.command == READ && done.is_ok() {
            client.add(data);
        }
        client.say().await?;
    }
}

async fn carry_out(served: &Served, request: &Request, data: &mut [u8]) -> Result<(), u32> {
    request.check_flags()?;
    let (blocks, disk) = (&served.blocks, served.blocks.disk());
    match request.command {
        READ if request.bytes > TRANSFER_BYTES_MAX => Err(EINVAL),
        READ => {
            let (first, _) = request.blocks(served)?;
            blocks.read(first, data).await.map_err(number)
        }
        WRITE => {
            let (first, _) = request.blocks(served)?;
            blocks.write(first, data).await.map_err(number)?;
            last(served, request).await
        }
        FLUSH => disk.flush().await.map_err(number),
        TRIM => {
            let (first, count) = request.blocks(served)?;
            if disk.geometry().can_discard {
                disk.discard(first, count).await.map_err(number)?;
            }
            last(served, request).await
        }
        WRITE_ZEROES => {
            let (first, count) = request.blocks(served)?;
            let may_discard = request.flags & NO_HOLE == 0;
            let zeroed = zero(blocks, first, count, may_discard);
            zeroed.await.map_err(number)?;
            last(served, request).await
        }
        _ => Err(EINVAL),
    }
}

/// Makes it last if the client wants that before it is answered.
async fn last(served: &Served, request: &Request) -> Result<(), u32> {
    match request.flags & FUA {
        0 => Ok(()),
        _ => served.blocks.flush().await.map_err(number),
    }
}

/// The protocol's number of an error.
fn number(error: DiskError) -> u32 {
    match error {
        DiskError::OutOfRange => EINVAL,
        DiskError::ReadOnly => EPERM,
        DiskError::Unsupported => ENOTSUP,
        DiskError::NoSpace => ENOSPC,
        DiskError::Failed(_) | DiskError::Gone(_) => EIO,
    }
}
