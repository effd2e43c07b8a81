//! The options of dom0's boot module: `name=host-a ip=10.77.0.1/24 gw=10.77.0.254`.
//!
//! A wrong option never keeps dom0 from coming up: it is reported, and what it would have set stays
//! at its default, so that the operator has a console to mend it from.

use super::address::Ipv4Prefix;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use godwit_backends::network::segment::Segment;

/// The name of a host that was given none.
pub const NAME_DEFAULT: &str = "godwit";
/// The longest host name, in bytes (a DHCP client may send 32).
pub const NAME_BYTES_MAX: usize = 32;
/// The most options looked at; the rest is reported and ignored.
pub const OPTIONS_MAX: usize = 64;

/// Where the IPv4 address comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipv4Source {
    /// There is none: IPv6 link-local only.
    None,
    /// Given at boot.
    Static(Ipv4Prefix),
    /// Asked for by DHCP.
    Dhcp,
}

/// How much dom0 writes to the console by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// What fails.
    Error,
    /// And what is odd.
    Warn,
    /// And what happens.
    Info,
    /// And how.
    Debug,
}

/// What dom0 was told at boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostOptions {
    /// Host name: letters, digits, `-`; the prompt is this and `# `.
    pub name: String,
    /// IPv4 address.
    pub ipv4: Ipv4Source,
    /// Default gateway, only with a static address.
    pub gateway: Option<Ipv4Addr>,
    /// Whether the card is to receive frames for guests on the bridge: not where the network passes
    /// on only what is addressed to the host itself (port security, most clouds).
    pub bridge: bool,
    /// The network of guests behind the gateway.
    pub guests: Segment,
    /// Whether other hosts may send domains without encryption.
    pub plaintext: bool,
    /// Console log level.
    pub log_level: LogLevel,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            name: NAME_DEFAULT.into(),
            ipv4: Ipv4Source::None,
            gateway: None,
            bridge: true,
            guests: Segment::default(),
            plaintext: false,
            log_level: LogLevel::Warn,
        }
    }
}

impl HostOptions {
    /// Reads the arguments of the dom0 module. Returns the options and what is wrong, one sentence
    /// each.
    pub fn parse(arguments: &str) -> (Self, Vec<String>) {
        let mut options = Self::default();
        let mut problems = Vec::new();
        let mut words = arguments.split_ascii_whitespace();
        for word in words.by_ref().take(OPTIONS_MAX) {
            let Some((key, value)) = word.split_once('=') else {
                problems.push(format!("option {word}: no value, write {word}=..."));
                continue;
            };
            if let Err(problem) = options.set(key, value) {
                problems.push(format!("option {word}: {problem}"));
            }
        }
        if words.next().is_some() {
            problems.push(format!(
                "more than {OPTIONS_MAX} options: the rest is ignored"
            ));
        }
        if let Some(problem) = options.drop_useless_gateway() {
            problems.push(problem);
        }
        (options, problems)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "name" => self.name = host_name(value)?.into(),
            "ip" if value == "dhcp" => self.ipv4 = Ipv4Source::Dhcp,
            "ip" if value == "none" => self.ipv4 = Ipv4Source::None,
            "ip" => self.ipv4 = Ipv4Source::Static(Ipv4Prefix::parse(value)?),
            "gw" => {
                self.gateway = Some(value.parse().map_err(|_| "not an IPv4 address")?);
            }
            "bridge" => {
                self.bridge = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err("not on or off"),
                }
            }
            "guests" => {
                let prefix = Ipv4Prefix::parse(value)?;
                let segment = Segment::new(prefix.address, prefix.bits);
                self.guests = segment.ok_or("write the gateway's address, with /16 to /30")?;
            }
            "migrate" => {
                self.plaintext = match value {
                    "encrypted" => false,
                    "plaintext" => true,
                    _ => return Err("not encrypted or plaintext"),
                }
            }
            "loglvl" => {
                self.log_level = match value {
                    "error" => LogLevel::Error,
                    "warn" => LogLevel::Warn,
                    "info" => LogLevel::Info,
                    "debug" => LogLevel::Debug,
                    _ => return Err("not error, warn, info or debug"),
                }
            }
            _ => return Err("unknown (known: name, ip, gw, bridge, guests, migrate, loglvl)"),
        }
        Ok(())
    }

    fn drop_useless_gateway(&mut self) -> Option<String> {
        let gateway = self.gateway?;
        let problem = match self.ipv4 {
            Ipv4Source::Static(prefix) if prefix.contains(gateway) => return None,
            Ipv4Source::Static(prefix) => format!("gw={gateway} is not in {prefix}: ignored"),
            Ipv4Source::Dhcp => format!("gw={gateway}: DHCP gives the gateway: ignored"),
            Ipv4Source::None => format!("gw={gateway} without ip=: ignored"),
        };
        self.gateway = None;
        Some(problem)
    }
}

/// Checks the name of a host.
pub(crate) fn host_name(value: &str) -> Result<&str, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if value.is_empty() || value.len() > NAME_BYTES_MAX {
        return Err("a host name has 1 to 32 characters");
    }
    if !value.bytes().all(plain) || value.starts_with('-') || value.ends_with('-') {
        return Err("a host name has letters, digits and inner hyphens");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_line_is_read_whole() {
        let (options, problems) =
            HostOptions::parse("name=host-a ip=10.77.0.1/24  gw=10.77.0.254 loglvl=debug");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(options.name, "host-a");
        assert_eq!(
            options.ipv4,
            Ipv4Source::Static(Ipv4Prefix::parse("10.77.0.1/24").unwrap())
        );
        assert_eq!(options.gateway, Some(Ipv4Addr::new(10, 77, 0, 254)));
        assert_eq!(options.log_level, LogLevel::Debug);
    }

    #[test]
    fn wrong_options_are_named_and_leave_the_default() {
        let (options, problems) = HostOptions::parse("name=-x ip=10.0.0.1 mtu=9000 quiet gw=z");
        assert_eq!(options, HostOptions::default());
        assert_eq!(problems.len(), 5, "{problems:?}");
        for (problem, word) in problems
            .iter()
            .zip(["name=", "ip=", "mtu=", "quiet", "gw="])
        {
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn guests_are_told_of() {
        let (options, problems) = HostOptions::parse("bridge=off guests=172.16.5.1/20");
        assert!(problems.is_empty() && !options.bridge);
        assert_eq!(
            options.guests,
            Segment::new([172, 16, 5, 1].into(), 20).unwrap()
        );
        let (options, problems) = HostOptions::parse("bridge=no guests=10.0.0.0/24");
        assert_eq!((options, problems.len()), (HostOptions::default(), 2));
    }

    #[test]
    fn plaintext_has_to_be_asked_for() {
        for (line, plaintext, problems) in [
            ("", false, 0),
            ("migrate=plaintext", true, 0),
            ("migrate=encrypted", false, 0),
            ("migrate=on", false, 1),
        ] {
            let (options, told) = HostOptions::parse(line);
            assert_eq!((options.plaintext, told.len()), (plaintext, problems));
        }
    }

    #[test]
    fn a_gateway_needs_a_network_it_is_in() {
        for line in [
            "ip=10.0.0.1/24 gw=10.0.1.1",
            "ip=dhcp gw=10.0.0.1",
            "gw=10.0.0.1",
        ] {
            let (options, problems) = HostOptions::parse(line);
            assert_eq!((options.gateway, problems.len()), (None, 1), "{line}");
        }
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let line = "a=b ".repeat(OPTIONS_MAX * 3);
        let (_, problems) = HostOptions::parse(&line);
        assert_eq!(problems.len(), OPTIONS_MAX + 1);
    }
}
