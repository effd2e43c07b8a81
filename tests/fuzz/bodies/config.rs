//! A domain configuration as an operator writes it: parsing is total, and what it accepts keeps
//! the promises of `Config`.

use godwit_toolstack::config::{
    CMDLINE_BYTES_MAX, DISKS_MAX, MEMORY_MIB_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, VCPUS_MAX,
    VIFS_MAX, parse,
};

/// One input: the file, then an override after each zero byte. Returns whether it was accepted.
pub(crate) fn judge(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let (file, overrides) = text.split_once('\0').unwrap_or((&text, ""));
    let overrides: Vec<String> = overrides
        .split('\0')
        .filter(|given| !given.is_empty())
        .map(String::from)
        .collect();
    match parse("fuzz.cfg", file, &overrides) {
        Ok(config) => {
            assert!((1..=NAME_BYTES_MAX).contains(&config.name.len()));
            assert!(!config.name.chars().any(char::is_control));
            assert!(config.memory_mib <= config.memory_max_mib);
            assert!(config.memory_max_mib <= MEMORY_MIB_MAX);
            assert!((1..=VCPUS_MAX).contains(&config.vcpus));
            let kernel = config.kernel.to_string();
            assert!(!kernel.is_empty() && kernel.len() <= PATH_BYTES_MAX);
            assert!(config.disks.len() <= DISKS_MAX && config.vifs.len() <= VIFS_MAX);
            assert!(config.cpus.len() <= 1 || config.cpus.len() == config.vcpus as usize);
            assert!(config.cmdline.len() <= CMDLINE_BYTES_MAX);
            assert!(!config.cmdline.chars().any(char::is_control));
            assert!((1..=65535).contains(&config.weight));
            assert_eq!(parse("again", &config.render(), &[]), Ok(config));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
