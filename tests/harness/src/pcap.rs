//! Capture files in the classic pcap format, nanosecond flavour (magic 0xa1b23c4d), link type
//! Ethernet: Wireshark and tcpdump read them.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const VERSION: (u16, u16) = (2, 4);
const SNAP_LENGTH: u32 = 65_535;
const LINK_TYPE_ETHERNET: u32 = 1;

/// An open capture file.
pub(crate) struct Capture {
    file: BufWriter<File>,
}

impl Capture {
    /// Creates the file and writes its header.
    pub(crate) fn create(path: &Path) -> Result<Capture> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        file.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
        file.write_all(&VERSION.0.to_le_bytes())?;
        file.write_all(&VERSION.1.to_le_bytes())?;
        file.write_all(&[0; 8])?;
        file.write_all(&SNAP_LENGTH.to_le_bytes())?;
        file.write_all(&LINK_TYPE_ETHERNET.to_le_bytes())?;
        file.flush()?;
        Ok(Capture { file })
    }

    /// Appends one frame; flushed at once, so that a capture can be read while it grows.
    pub(crate) fn record(&mut self, frame: &[u8], at: SystemTime) -> Result<()> {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let length = (frame.len() as u32).to_le_bytes();
        self.file
            .write_all(&(since.as_secs() as u32).to_le_bytes())?;
        self.file.write_all(&since.subsec_nanos().to_le_bytes())?;
        self.file.write_all(&length)?;
        self.file.write_all(&length)?;
        self.file.write_all(frame)?;
        Ok(self.file.flush()?)
    }
}

/// The frames of a capture file of ours, without what is not whole at its end.
pub fn captured(path: &Path) -> Result<Vec<Vec<u8>>> {
    const HEADER_BYTES: usize = 24;
    const RECORD_BYTES: usize = 16;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(RECORD_BYTES) {
        let length = u32::from_le_bytes(record[8..12].try_into().expect("four octets"));
        let Some((frame, after)) = after.split_at_checked(length as usize) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = after;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn header_and_records_parse_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcap");
        let mut capture = Capture::create(&path).unwrap();
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        capture.record(&[1, 2, 3], at).unwrap();
        capture.record(&[9; 60], at).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(20)), (0xa1b2_3c4d, 0x0004_0002, 1));
        assert_eq!(
            (word(24), word(28), word(32), word(36)),
            (1_700_000_000, 123_456_789, 3, 3)
        );
        assert_eq!(bytes[40..43], [1, 2, 3]);
        assert_eq!(word(43 + 8), 60);
        assert_eq!(bytes.len(), 43 + 16 + 60);
        let mut frames = vec![vec![1, 2, 3], vec![9; 60]];
        assert_eq!(captured(&path).unwrap(), frames);
        std::fs::write(&path, &bytes[..100]).unwrap();
        frames.pop();
        assert_eq!(captured(&path).unwrap(), frames);
    }
}
