//! Reading a stream.

use super::frame::{Frame, FrameKind, Head, PREAMBLE_BYTES, Preamble};
use super::{BODY_BYTES_MAX, FRAME_HEADER_BYTES, Source, SourceError, VERSION};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why a stream is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamError {
    /// It does not begin as one.
    NoStream,
    /// Of a version that cannot be read.
    Version(u16),
    /// The preamble is damaged.
    Preamble,
    /// It ends in the middle; the number of the frame.
    Truncated(u32),
    /// A frame is longer than any.
    TooLong(u32),
    /// A frame's checksum is wrong: the frame is damaged or of another stream.
    Damaged(u32),
    /// Another frame belongs here.
    OutOfOrder {
        /// Number expected.
        expected: u32,
        /// Number found.
        found: u32,
    },
    /// The END frame has a body.
    BadEnd,
    /// Asked for more after the end.
    AfterEnd,
    /// The source failed.
    Source(String),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::NoStream => f.write_str("there is no saved domain here"),
            StreamError::Version(version) => write!(
                f,
                "a stream of version {version}, this toolstack reads version {VERSION}"
            ),
            StreamError::Preamble => f.write_str("the beginning of the stream is damaged"),
            StreamError::Truncated(frame) => write!(f, "the stream ends in frame {frame}"),
            StreamError::TooLong(frame) => {
                write!(
                    f,
                    "frame {frame} says it is longer than {BODY_BYTES_MAX} bytes"
                )
            }
            StreamError::Damaged(frame) => write!(f, "the checksum of frame {frame} is wrong"),
            StreamError::OutOfOrder { expected, found } => {
                write!(f, "frame {found} where frame {expected} belongs")
            }
            StreamError::BadEnd => f.write_str("the last frame is not empty"),
            StreamError::AfterEnd => f.write_str("there is nothing after the last frame"),
            StreamError::Source(why) => f.write_str(why),
        }
    }
}

/// Reads a stream from a source, frame by frame. Allocates one body at a time.
pub struct Reader<S: Source> {
    source: S,
    preamble: Preamble,
    sequence: u32,
    ended: bool,
}

impl<S: Source> Reader<S> {
    /// Reads the preamble.
    pub async fn begin(mut source: S) -> Result<Self, StreamError> {
        let mut bytes = [0; PREAMBLE_BYTES];
        match source.read(&mut bytes).await {
            Ok(()) => {}
            Err(SourceError::End) => return Err(StreamError::NoStream),
            Err(SourceError::Failed(why)) => return Err(StreamError::Source(why)),
        }
        Ok(Self {
            source,
            preamble: Preamble::decode(&bytes)?,
            sequence: 0,
            ended: false,
        })
    }

    /// The preamble.
    pub fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// The next frame; `None` after the END frame.
    pub async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        if self.ended {
            return Err(StreamError::AfterEnd);
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.fill(&mut bytes).await?;
        let head = Head::decode(&bytes);
        if head.length as usize > BODY_BYTES_MAX {
            return Err(StreamError::TooLong(self.sequence));
        }
        let mut body: Vec<u8> = alloc::vec![0; head.length as usize];
        self.fill(&mut body).await?;
        if head.crc != head.checksum(self.preamble.stream_id, &[&body]) {
            return Err(StreamError::Damaged(self.sequence));
        }
        if head.sequence != self.sequence {
            return Err(StreamError::OutOfOrder {
                expected: self.sequence,
                found: head.sequence,
            });
        }
        self.sequence = self.sequence.wrapping_add(1);
        if head.kind == FrameKind::END {
            self.ended = true;
            return match body.is_empty() {
                true => Ok(None),
                false => Err(StreamError::BadEnd),
            };
        }
        Ok(Some(Frame {
            kind: head.kind,
            version: head.version,
            body,
        }))
    }

    async fn fill(&mut self, out: &mut [u8]) -> Result<(), StreamError> {
        match self.source.read(out).await {
            Ok(()) => Ok(()),
            Err(SourceError::End) => Err(StreamError::Truncated(self.sequence)),
            Err(SourceError::Failed(why)) => Err(StreamError::Source(why)),
        }
    }
}
