//! Connections to and from known hosts: encrypted, or in clear where both operators ask for that.
//!
//! Who accepts looks at the first eight octets, which tell the channel's greeting from anything else. What
//! is in clear is taken only where the host was started with `migrate=plaintext`; else the peer is
//! told that, in a greeting that refuses. Who connects in clear knows such a greeting when it sees one.

use super::known::KnownHost;
use super::{Endpoint, SiteRandom};
use crate::operate::Toolstack;
use crate::site::Site;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use godwit_migrate::channel::{
    self, ChannelError, Fingerprint, MAGIC, Refusal, SecureLink, Session, Terms, Versions,
};
use godwit_migrate::link::{Link, LinkError};
use godwit_migrate::pipe::Pipe;
use godwit_migrate::stream;

/// Before the name of a peer that is to be connected to in clear, so that who asks it again after a
/// restart does it the same way.
pub const PLAINTEXT_PREFIX: &str = "plaintext:";
/// How long a handshake may take.
pub const HANDSHAKE_LIMIT_US: u64 = 10_000_000;

/// Whom to connect to, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A known host, encrypted.
    Known(KnownHost),
    /// An address, in clear.
    Plaintext(Endpoint),
}

impl Target {
    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Known(host) => &host.endpoint,
            Self::Plaintext(endpoint) => endpoint,
        }
    }
}

/// A link whose first octets have been read already.
pub struct Begun<L> {
    first: [u8; MAGIC.len()],
    unread: usize,
    link: L,
}

impl<L: Link> Link for Begun<L> {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        if self.unread == 0 {
            return self.link.read(out).await;
        }
        let rest = &self.first[self.first.len() - self.unread..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.unread -= count;
        Ok(count)
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.link.write_all(bytes).await
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.link.flush().await
    }
}

/// A link to a host.
pub enum HostLink<L> {
    /// Encrypted, to a proven host.
    Secure(Box<SecureLink<Begun<L>>>),
    /// In clear, to whoever is there.
    Plain(Begun<L>),
    /// In clear, and nothing has come yet: it may be a refusal.
    Unheard(L),
    /// To this host itself.
    Local(Pipe),
    /// Of no use any more.
    Over(LinkError),
}

impl<L: Link> Link for HostLink<L> {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        if let Self::Unheard(_) = self {
            // Put back below; a future that is dropped in between leaves a link that is over.
            let Self::Unheard(link) = core::mem::replace(self, Self::Over(LinkError::Closed))
            else {
                unreachable!("it was looked at");
            };
            *self = match hear(link).await {
                Ok(begun) => Self::Plain(begun),
                Err(error) => Self::Over(error),
            };
        }
        match self {
            Self::Secure(link) => link.read(out).await,
            Self::Plain(link) => link.read(out).await,
            Self::Local(link) => link.read(out).await,
            Self::Unheard(_) => unreachable!("something was heard"),
            Self::Over(error) => Err(error.clone()),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        match self {
            Self::Secure(link) => link.write_all(bytes).await,
            Self::Plain(link) => link.write_all(bytes).await,
            Self::Local(link) => link.write_all(bytes).await,
            Self::Unheard(link) => link.write_all(bytes).await,
            Self::Over(error) => Err(error.clone()),
        }
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Secure(link) => link.flush().await,
            Self::Plain(link) => link.flush().await,
            Self::Local(link) => link.flush().await,
            Self::Unheard(link) => link.flush().await,
            Self::Over(error) => Err(error.clone()),
        }
    }
}

/// What each version of this toolstack knows of the stream.
fn terms() -> Terms {
    Terms::with_stream(Versions {
        newest: stream::VERSION,
        oldest: stream::OLDEST,
    })
}

/// The known hosts as they are when somebody asks: an operator may change them meanwhile.
struct Book<'a, S: Site>(&'a Toolstack<S>);

impl<S: Site> channel::Hosts for Book<'_, S> {
    fn name_of(&self, fingerprint: &Fingerprint) -> Option<String> {
        self.0.known_hosts().name_of(fingerprint)
    }
}

impl<S: Site> Toolstack<S> {
    /// Whom `peer` means: a known host, or after [`PLAINTEXT_PREFIX`] such a one or an address. The
    /// error is for the operator.
    pub fn target(&self, peer: &str) -> Result<Target, String> {
        let Some(plain) = peer.strip_prefix(PLAINTEXT_PREFIX) else {
            let host = self.known_host(peer).map_err(|error| error.to_string())?;
            self.identity().map_err(|error| error.to_string())?;
            return Ok(Target::Known(host));
        };
        match self.known_hosts().find(plain) {
            Some(host) => Ok(Target::Plaintext(host.endpoint.clone())),
            None => Endpoint::parse(plain).map(Target::Plaintext),
        }
    }

    /// Makes of a connection to [`Target::endpoint`] a link to that host. To be given up after
    /// [`HANDSHAKE_LIMIT_US`].
    pub async fn greet<L: Link>(&self, link: L, target: &Target) -> Result<HostLink<L>, String> {
        let host = match target {
            Target::Plaintext(_) => return Ok(HostLink::Unheard(link)),
            Target::Known(host) => host,
        };
        let identity = self.identity().map_err(|error| error.to_string())?;
        // Nothing has been read.
        let begun = Begun {
            first: [0; MAGIC.len()],
            unread: 0,
            link,
        };
        let peer = (host.name.as_str(), host.fingerprint);
        let session = Session::alone(self.site.random());
        let random = &mut SiteRandom(&self.site);
        let secure = SecureLink::connect(begun, &identity, peer, terms(), session, random).await;
        let named = |error| format!("{} ({}): {error}", host.name, host.endpoint);
        Ok(HostLink::Secure(Box::new(secure.map_err(named)?)))
    }

    /// Makes of a connection that somebody at `from` made a link to a known host, whose name it gives;
    /// where `plaintext` is allowed, also a link in clear, and `from`. To be given up after
    /// [`HANDSHAKE_LIMIT_US`].
    pub async fn admit<L: Link>(
        &self,
        mut link: L,
        from: &str,
        plaintext: bool,
    ) -> Result<(HostLink<L>, String), ChannelError> {
        let first = first(&mut link).await?;
        let mut begun = Begun {
            first,
            unread: first.len(),
            link,
        };
        if first != MAGIC {
            if plaintext {
                return Ok((HostLink::Plain(begun), from.into()));
            }
            turn_away(&mut begun, Refusal::PlaintextRefused).await;
            return Err(ChannelError::Plaintext(first));
        }
        let Ok(identity) = self.identity() else {
            turn_away(&mut begun, Refusal::NoKey).await;
            return Err(ChannelError::NoEntropy("xl host-key tells more".into()));
        };
        let book = Book(self);
        let known = (&book, &self.hosts.sessions);
        let random = &mut SiteRandom(&self.site);
        let secure = SecureLink::accept(begun, &identity, known, terms(), random).await?;
        let name = secure.peer().name.clone();
        Ok((HostLink::Secure(Box::new(secure)), name))
    }
}

async fn first<L: Link>(link: &mut L) -> Result<[u8; MAGIC.len()], ChannelError> {
    let (mut first, mut at) = ([0; MAGIC.len()], 0);
    while at < first.len() {
        at += match link.read(&mut first[at..]).await {
            Err(LinkError::Closed) => return Err(ChannelError::Truncated("the greeting")),
            read => read?,
        };
    }
    Ok(first)
}

/// Tells a peer why it is not served, as far as it listens.
async fn turn_away<L: Link>(link: &mut L, refusal: Refusal) {
    let answer = channel::turn_away(terms(), refusal);
    if link.write_all(&answer).await.is_ok() {
        let _ = link.flush().await;
    }
}

/// The first answer in clear: what was wanted, or a greeting that refuses.
async fn hear<L: Link>(mut link: L) -> Result<Begun<L>, LinkError> {
    let first = match first(&mut link).await {
        Ok(first) => first,
        Err(ChannelError::Link(error)) => return Err(error),
        Err(_) => return Err(LinkError::Closed),
    };
    if first != MAGIC {
        let unread = first.len();
        return Ok(Begun {
            first,
            unread,
            link,
        });
    }
    let mut rest = [0; channel::HELLO_BYTES - MAGIC.len()];
    let mut at = 0;
    while at < rest.len() {
        at += link.read(&mut rest[at..]).await?;
    }
    let why = channel::refusal_of(&first, &rest);
    Err(LinkError::Failed(why.to_string()))
}
