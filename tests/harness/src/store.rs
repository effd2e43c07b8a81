//! Store images made with other people's tools: sgdisk (package gdisk) for the partitions,
//! mtools for the files. So a boot test that reads one also tests that we read what others write.
//!
//! ```text
//! 1 MiB    GODWIT          FAT: guests/, kernels/, and the given files
//!          GODWIT-JOURNAL  zeroes
//!          volumes, each from a multiple of 1 MiB on
//! ```

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;
/// Partition types, as sgdisk writes them: Linux filesystem data, and basic data.
const LINUX_DATA: &str = "8300";
const BASIC_DATA: &str = "0700";
const FILES: &str = "GODWIT";
const JOURNAL: &str = "GODWIT-JOURNAL";
/// Directories that every store has.
const DIRECTORIES: [&str; 2] = ["guests", "kernels"];
/// What a disk must be a multiple of to suit Bochs' idea of cylinders (16 heads, 63 sectors).
const CYLINDER_BYTES: u64 = 16 * 63 * SECTOR_BYTES;

/// What a volume holds at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeContents {
    /// So many bytes of zeroes.
    Zeroes(u64),
    /// What this file holds, filled up to a sector.
    File(PathBuf),
}

/// A store to be made; [`StoreImage::write`] makes it.
#[derive(Clone, Debug)]
pub struct StoreImage {
    path: PathBuf,
    label: Option<String>,
    files_mib: u64,
    journal_mib: u64,
    free_mib: u64,
    files: Vec<(String, Vec<u8>)>,
    volumes: Vec<(String, VolumeContents)>,
}

impl StoreImage {
    /// A store at `path` without volumes, with 64 MiB for files, 4 for the journal, 16 free.
    pub fn new(path: impl Into<PathBuf>) -> StoreImage {
        StoreImage {
            path: path.into(),
            label: None,
            files_mib: 64,
            journal_mib: 4,
            free_mib: 16,
            files: Vec::new(),
            volumes: Vec::new(),
        }
    }

    /// The store's name; without one it has its device's.
    pub fn label(mut self, label: &str) -> StoreImage {
        self.label = Some(label.to_owned());
        self
    }

    /// Space no partition has.
    pub fn free_mib(mut self, mib: u64) -> StoreImage {
        self.free_mib = mib;
        self
    }

    /// Space for files; at least 16.
    pub fn files_mib(mut self, mib: u64) -> StoreImage {
        self.files_mib = mib;
        self
    }

    /// A file of the configuration partition, `guests/web.cfg`.
    pub fn file(mut self, name: &str, contents: &[u8]) -> StoreImage {
        self.files.push((name.to_owned(), contents.to_owned()));
        self
    }

    /// A volume.
    pub fn volume(mut self, name: &str, contents: VolumeContents) -> StoreImage {
        self.volumes.push((name.to_owned(), contents));
        self
    }

    /// Makes the image file anew.
    pub fn write(&self) -> Result<Store> {
        let mark = match &self.label {
            None => FILES.to_owned(),
            Some(label) => format!("{FILES}:{label}"),
        };
        let mut parts = vec![
            (mark, BASIC_DATA, self.files_mib * MIB),
            (JOURNAL.to_owned(), LINUX_DATA, self.journal_mib * MIB),
        ];
        for (name, contents) in &self.volumes {
            let bytes = match contents {
                VolumeContents::Zeroes(bytes) => *bytes,
                VolumeContents::File(file) => file
                    .metadata()
                    .with_context(|| format!("{}, for volume {name}", file.display()))?
                    .len(),
            };
            ensure!(bytes > 0, "volume {name} would be empty");
            parts.push((name.clone(), LINUX_DATA, bytes));
        }
        let all: u64 = parts.iter().map(|part| part.2.next_multiple_of(MIB)).sum();
        let disk = (all + (self.free_mib + 2) * MIB).next_multiple_of(CYLINDER_BYTES);
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        File::create(&self.path)?.set_len(disk)?;
        let mut arguments = vec!["--clear".to_owned(), "--set-alignment=2048".to_owned()];
        for (index, (name, kind, bytes)) in parts.iter().enumerate() {
            let (number, sectors) = (index + 1, bytes.div_ceil(SECTOR_BYTES));
            arguments.push(format!("--new={number}:0:+{}K", sectors.div_ceil(2)));
            arguments.push(format!("--typecode={number}:{kind}"));
            // sgdisk takes no name with a colon: the store's own is set below.
            if index > 0 {
                arguments.push(format!("--change-name={number}:{name}"));
            }
        }
        arguments.push(self.path.to_string_lossy().into_owned());
        run("sgdisk", "gdisk", &arguments)?;
        let image = self.path.to_string_lossy().into_owned();
        let label = ["--quiet", "--part-label", &image, "1", &parts[0].0];
        run("/sbin/sfdisk", "fdisk", &label.map(str::to_owned))?;
        let store = Store {
            path: self.path.clone(),
        };
        self.fill(&store)?;
        Ok(store)
    }

    fn fill(&self, store: &Store) -> Result<()> {
        let sectors = self.files_mib * MIB / SECTOR_BYTES;
        let image = store.files_image()?;
        // 4 sectors a cluster: FAT16 up to 128 MiB and FAT32 above.
        let geometry = ["-h", "16", "-s", "63", "-c", "4", "-v", FILES, "-T"];
        let mut arguments: Vec<String> = geometry.iter().map(|one| one.to_string()).collect();
        arguments.push(sectors.to_string());
        if self.files_mib > 128 {
            arguments.push("-F".to_owned());
        }
        arguments.extend(["-i".to_owned(), image, "::".to_owned()]);
        run("mformat", "mtools", &arguments)?;
        let mut made: Vec<String> = Vec::new();
        let wanted = self.files.iter().filter_map(|(name, _)| {
            let (directory, _) = name.trim_start_matches('/').rsplit_once('/')?;
            Some(directory)
        });
        for directory in DIRECTORIES.into_iter().chain(wanted) {
            if !made.iter().any(|one| one == directory) {
                store.mtool("mmd", &[&format!("::{directory}")])?;
                made.push(directory.to_owned());
            }
        }
        for (name, contents) in &self.files {
            store.write_file(name, contents)?;
        }
        for (name, contents) in &self.volumes {
            if let VolumeContents::File(file) = contents {
                store.write_volume(name, &std::fs::read(file)?)?;
            }
        }
        Ok(())
    }
}

/// A store in an image file that nobody else is writing to.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// A store that exists.
    pub fn open(path: impl Into<PathBuf>) -> Result<Store> {
        let store = Store { path: path.into() };
        store.files_image()?;
        Ok(store)
    }

    /// The image file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the configuration partition.
    pub fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        let work = tempfile::tempdir()?;
        let copy = work.path().join("copy");
        let from = format!("::{}", name.trim_start_matches('/'));
        self.mtool("mcopy", &[&from, &copy.to_string_lossy()])?;
        Ok(std::fs::read(copy)?)
    }

    /// Writes a file of the configuration partition; its directory must exist.
    pub fn write_file(&self, name: &str, contents: &[u8]) -> Result<()> {
        let mut copy = tempfile::NamedTempFile::new()?;
        copy.write_all(contents)?;
        let to = format!("::{}", name.trim_start_matches('/'));
        self.mtool("mcopy", &["-o", &copy.path().to_string_lossy(), &to])
    }

    /// The names of all partitions, the store's own among them, by number.
    pub fn partitions(&self) -> Result<Vec<String>> {
        Ok(self.table()?.into_iter().map(|part| part.name).collect())
    }

    /// All of a volume.
    pub fn read_volume(&self, name: &str) -> Result<Vec<u8>> {
        let part = self.part(|one| one == name, name)?;
        let mut bytes = vec![0; part.bytes as usize];
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(part.offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the start of a volume.
    pub fn write_volume(&self, name: &str, contents: &[u8]) -> Result<()> {
        let part = self.part(|one| one == name, name)?;
        ensure!(
            contents.len() as u64 <= part.bytes,
            "volume {name} has {} bytes only",
            part.bytes
        );
        let mut file = File::options().write(true).open(&self.path)?;
        file.seek(SeekFrom::Start(part.offset))?;
        Ok(file.write_all(contents)?)
    }

    /// Fails unless `sgdisk` and `fsck.fat` (package dosfstools) find nothing to complain about.
    pub fn check(&self) -> Result<()> {
        let image = self.path.to_string_lossy().into_owned();
        let said = run("sgdisk", "gdisk", &["--verify".to_owned(), image])?;
        ensure!(said.contains("No problems found"), "sgdisk says:\n{said}");
        let files = self.part(is_files, FILES)?;
        let mut bytes = vec![0; files.bytes as usize];
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(files.offset))?;
        file.read_exact(&mut bytes)?;
        let mut copy = tempfile::NamedTempFile::new()?;
        copy.write_all(&bytes)?;
        let copy = copy.path().to_string_lossy().into_owned();
        run("/sbin/fsck.fat", "dosfstools", &["-n".to_owned(), copy])?;
        Ok(())
    }

    fn part(&self, is: impl Fn(&str) -> bool, name: &str) -> Result<Part> {
        let found = self.table()?.into_iter().find(|part| is(&part.name));
        found.with_context(|| format!("{} has no partition {name}", self.path.display()))
    }

    /// The configuration partition as mtools wants it named.
    fn files_image(&self) -> Result<String> {
        let files = self.part(is_files, FILES)?;
        Ok(format!("{}@@{}", self.path.display(), files.offset))
    }

    fn mtool(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut all = vec!["-i".to_owned(), self.files_image()?];
        all.extend(arguments.iter().map(|one| one.to_string()));
        run(program, "mtools", &all)?;
        Ok(())
    }

    /// What `sgdisk` says of each partition in turn, until there is none.
    fn table(&self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let image = self.path.to_string_lossy().into_owned();
        for number in 1.. {
            let said = run(
                "sgdisk",
                "gdisk",
                &[format!("--info={number}"), image.clone()],
            )?;
            if said.contains("does not exist") {
                break;
            }
            let field = |name: &str| {
                let mut lines = said.lines();
                let line = lines.find_map(|line| line.strip_prefix(name));
                line.with_context(|| format!("sgdisk said no {name}:\n{said}"))
            };
            let sector = |text: &str| text.split_whitespace().next().unwrap_or("").parse::<u64>();
            let first = sector(field("First sector: ")?)?;
            let last = sector(field("Last sector: ")?)?;
            parts.push(Part {
                name: field("Partition name: ")?.trim_matches('\'').to_owned(),
                offset: first * SECTOR_BYTES,
                bytes: (last + 1 - first) * SECTOR_BYTES,
            });
        }
        Ok(parts)
    }
}

struct Part {
    name: String,
    offset: u64,
    bytes: u64,
}

fn is_files(name: &str) -> bool {
    name == FILES || name.starts_with("GODWIT:")
}

/// Runs a tool. Gives what it printed.
fn run(program: &str, package: &str, arguments: &[String]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        // Not the operator's settings, and names as they are.
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .with_context(|| format!("{program} of the package {package}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {arguments:?} failed:\n{said}{complaint}");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_holds_what_was_put_in() -> Result<()> {
        let work = tempfile::tempdir()?;
        let root = work.path().join("root");
        let contents: Vec<u8> = (0..1_500_000u32).map(|at| (at % 253) as u8).collect();
        std::fs::write(&root, &contents)?;
        let store = StoreImage::new(work.path().join("store.img"))
            .label("main")
            .file("guests/web server.cfg", b"name = 'web'\n")
            .volume("root", VolumeContents::File(root))
            .volume("data disk", VolumeContents::Zeroes(3 << 20))
            .write()?;
        store.check()?;
        let names = store.partitions()?;
        assert_eq!(
            names,
            ["GODWIT:main", "GODWIT-JOURNAL", "root", "data disk"]
        );
        let again = Store::open(store.path())?;
        assert_eq!(
            again.read_file("/guests/web server.cfg")?,
            b"name = 'web'\n"
        );
        let found = again.read_volume("root")?;
        assert_eq!(found[..contents.len()], contents);
        assert_eq!(again.read_volume("data disk")?, vec![0; 3 << 20]);
        assert!(again.read_volume("none").is_err());
        Ok(())
    }
}
