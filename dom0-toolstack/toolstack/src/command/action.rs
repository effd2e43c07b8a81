//! Commands about one domain, about disks, stores, volumes and files, and about hosts.

use crate::config::{Disk, DiskTarget, Vif};
use crate::hosts::KnownHost;
use crate::operate::block_migrate::BlockMove;
use crate::operate::migrate::MoveOptions;
use alloc::string::String;
use alloc::vec::Vec;

/// What becomes of a domain that was saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterSave {
    /// It is gone.
    Destroy,
    /// It runs on.
    Run,
    /// It stays paused.
    Pause,
}

/// Which console of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleKind {
    /// The serial port, which every domain has.
    Serial,
    /// The virtio console, which dom0 serves.
    Virtio,
}

/// How `xl dirty-log` works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyLogOptions {
    /// Harvests while the domain runs.
    pub rounds: u32,
    /// Milliseconds between the end of one and the next.
    pub interval_ms: u32,
    /// The write quota of each vCPU meanwhile.
    pub pages_per_s: Option<u32>,
    /// Whether the domain is paused for each harvest.
    pub pauses: bool,
    /// Whether pages are named.
    pub verbose: bool,
}

/// What is to be done with one domain.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are those of the commands")]
pub enum Action {
    Destroy,
    Pause,
    Unpause,
    Console {
        kind: ConsoleKind,
        follow: bool,
    },
    /// Press the power button; with `again` it is to come back.
    Shutdown {
        again: bool,
        wait: bool,
    },
    Save {
        target: DiskTarget,
        after: AfterSave,
    },
    MigrateCancel,
    /// Give it another name.
    Rename {
        name: String,
    },
    DomId,
    DomName,
    ConfigList,
    ConfigUpdate {
        config: String,
        settings: Vec<String>,
    },
    /// All vCPUs if `vcpu` is `None`.
    VcpuPin {
        vcpu: Option<u16>,
        cpus: u64,
    },
    MemSet {
        mib: u64,
    },
    MemMax {
        mib: u64,
    },
    /// Count the pages it writes to, for so many seconds.
    DirtyRate {
        seconds: u32,
    },
    /// Examine the dirty log.
    DirtyLog(DirtyLogOptions),
    BlockList,
    BlockAttach(Disk),
    BlockDetach {
        index: u8,
    },
    NetworkList,
    NetworkAttach(Vif),
    /// By number or address.
    NetworkDetach {
        device: String,
    },
}

/// What `xl sched-credit2` shows or sets: without weight and cap it shows one domain or all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchedulerSet {
    /// The domain.
    pub domain: Option<String>,
    /// Its weight.
    pub weight: Option<u32>,
    /// Its cap, percent of one CPU.
    pub cap_percent: Option<u32>,
}

/// A volume, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Its store.
    pub store: String,
    /// Its name there.
    pub name: String,
}

/// What is to be done with disks, stores, volumes or files.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are those of the commands")]
pub enum StoreCommand {
    StoreList,
    StoreCreate { disk: String, name: String },
    StoreCheck { store: String },
    VolumeList { store: Option<String> },
    VolumeCreate { volume: Volume, bytes: u64 },
    VolumeDelete { volume: Volume },
    VolumeResize { volume: Volume, bytes: u64 },
    VolumeImport { volume: Volume, from: DiskTarget },
    VolumeExport { volume: Volume, to: DiskTarget },
    Ls { path: String },
    Cat { path: String },
    Rm { path: String },
}

/// What is to be done with domains that move between hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are those of the commands")]
pub enum MoveCommand {
    /// To the host of a name or address.
    Migrate {
        domains: Vec<String>,
        peer: String,
        options: MoveOptions,
        /// Events instead of text.
        json: bool,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Configuration files of domains that do not run.
    Offline {
        configs: Vec<String>,
        peer: String,
    },
    /// Disks of a domain, to other stores of this host.
    Disks {
        domain: String,
        wanted: BlockMove,
        json: bool,
        dry_run: bool,
    },
    Status {
        json: bool,
    },
    History {
        json: bool,
    },
    /// Of a domain that is given up: what could have become of it, or that its other host is gone for ever.
    Resolve {
        domain: String,
        peer_is_gone: bool,
        /// Nobody is asked again.
        yes: bool,
    },
    /// What a page costs.
    Costs,
    /// Shows it, or sets it.
    Limit {
        limit: Option<u32>,
    },
    Evacuate {
        peer: String,
        options: MoveOptions,
    },
    Return {
        peer: String,
    },
}

/// What is to be done with this host's key or the hosts it knows.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are those of the commands")]
pub enum HostCommand {
    /// With `new` another key is made first.
    Key {
        new: bool,
    },
    Add(KnownHost),
    List,
    Remove {
        name: String,
    },
}
