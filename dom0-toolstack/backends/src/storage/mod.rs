//! Stores, volumes, the configuration file system, and disks elsewhere (NBD).
