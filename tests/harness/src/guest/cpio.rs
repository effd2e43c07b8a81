//! The archive format of ramdisks: cpio "newc" (Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst). Owner root, time 0, inodes counted: the same entries give the same bytes.

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// Contents, and whether it may be executed.
    File(Vec<u8>, bool),
    /// Where it leads.
    Link(String),
    /// A character device: major, minor.
    Device(u32, u32),
}

/// Header magic.
const MAGIC: &str = "070701";
/// Ends the archive.
const TRAILER: &str = "TRAILER!!!";
/// Headers and contents begin at multiples of this.
const ALIGNMENT: usize = 4;

/// An archive that grows. Directories must come before what is in them.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// Appends an entry; `path` is relative.
    pub(super) fn add(&mut self, path: &str, kind: &Kind) {
        let (mode, contents, device): (u32, &[u8], _) = match kind {
            Kind::Directory => (0o040_755, &[], (0, 0)),
            Kind::File(contents, true) => (0o100_755, contents, (0, 0)),
            Kind::File(contents, false) => (0o100_644, contents, (0, 0)),
            Kind::Link(target) => (0o120_777, target.as_bytes(), (0, 0)),
            Kind::Device(major, minor) => (0o020_600, &[], (*major, *minor)),
        };
        self.inodes += 1;
        self.entry(self.inodes, path, mode, contents, device);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(0, TRAILER, 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, inode: u32, path: &str, mode: u32, contents: &[u8], device: (u32, u32)) {
        let size = u32::try_from(contents.len()).expect("ramdisks are under 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("paths are short");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize, check
        let fields = [
            inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.bytes.extend(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_fields_and_padding_that_linux_reads() {
        let mut archive = Archive::default();
        archive.add("bin/sh", &Kind::Link("busybox".to_owned()));
        let bytes = archive.finish();
        let header = "070701000000010000a1ff0000000000000000000000010000000000000007\
                      00000000000000000000000000000000000000070000000\
                      0bin/sh\0";
        assert_eq!(std::str::from_utf8(&bytes[..117]).unwrap(), header);
        // Contents at 120, padded from 127 to 128, where the trailer begins.
        assert_eq!(&bytes[117..120], [0; 3]);
        assert_eq!(&bytes[120..134], b"busybox\x00070701");
        assert!(bytes.len().is_multiple_of(4));
    }
}
