//! Which addresses may be reached where somebody else names them: public ones over TLS, and of the
//! others only those that the configuration allows. With an air gap, of all of them only hosts of
//! repositories and those that the configuration names.
//!
//! It is checked on the address of the very connection, so that a name cannot come to mean another
//! address in between; the gap before each request. What is said over the connection is not its
//! part.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::{BoxError, Service};
use url::Url;

/// For the addresses of a name. A resolver that needs longer is broken.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// For a connection to one address.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried: both families, and one that is down in each.
const ADDRESSES: usize = 4;

/// IANA's special-purpose addresses (RFC 6890 and its registry) with multicast and reserved ones.
/// 100.64/10 has the metadata of Alibaba Cloud, 169.254/16 that of nearly all others.
const SPECIAL_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Azure's metadata and DNS, at an address that looks public.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Those within 2000::/3, outside of which nothing is public: protocol assignments with Teredo,
/// documentation twice, and 6to4, which leads to IPv4 addresses.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Where clouds give a machine its keys, none of it public: of Alibaba Cloud, Azure, nearly all
/// others, and Oracle Cloud.
const METADATA_V4: [(Ipv4Addr, u32); 4] = [
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(192, 0, 0, 192), 32),
];

/// The same of Scaleway, AWS, Google Cloud, and those that have it on the link.
const METADATA_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// Which addresses may be reached. The default: public ones.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    allowed: Arc<[Allowed]>,
    loopback: bool,
    gap: Option<Gap>,
}

/// Beside the allowed ones, only these hosts are asked for anything.
#[derive(Debug, Clone, Default)]
struct Gap {
    /// Of the repositories that there are; clones share the set.
    known: Arc<ArcSwap<HashSet<Place>>>,
    /// Of the repository that a client is made for.
    own: Option<Place>,
}

/// A host, bare, and its port.
type Place = (String, u16);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowed {
    host: String,
    port: u16,
    /// Spoken to without TLS.
    plain: bool,
}

/// An entry of the configuration that names no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address that can be allowed: host:port is one, and http://host:port where there \
     is no TLS"
)]
pub struct BadAllowed(String);

/// An address that may not be reached. It does not say what a name means: that may be a secret of
/// the network that we stand in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "{host}:{port} has no public address; such are reached only where the configuration \
         allows {host}:{port}"
    )]
    Private { host: String, port: u16 },
    #[error(
        "{host}:{port} leads to where a cloud gives its machines their keys; that is reached only \
         where the configuration allows the address itself instead of a name"
    )]
    Metadata { host: String, port: u16 },
    #[error(
        "{host}:{port} would be asked without TLS; that is done only within private networks, \
         where the configuration allows http://{host}:{port}"
    )]
    Plain { host: String, port: u16 },
    #[error(
        "{host}:{port} is beyond the air gap (--charts-air-gapped): only the hosts of configured \
         repositories are asked for charts, and those that --chart-hosts names; {host}:{port} is \
         none of them"
    )]
    Gap { host: String, port: u16 },
}

impl Policy {
    /// Public addresses, and these: `host:port`, or `http://host:port` where there is no TLS, as it
    /// is of itself with loopback.
    pub fn new(allowed: &[String]) -> Result<Self, BadAllowed> {
        let allowed = allowed.iter().map(|text| {
            Allowed::parse(text).ok_or_else(|| BadAllowed(text.chars().take(200).collect()))
        });
        let allowed = allowed.collect::<Result<_, _>>()?;
        Ok(Self { allowed, ..Self::default() })
    }

    /// Every port of this machine besides, without TLS: for the demo.
    pub fn with_loopback(self) -> Self {
        Self { loopback: true, ..self }
    }

    /// No host but those of repositories and those that are allowed, whatever leads there.
    pub fn with_air_gap(self) -> Self {
        Self { gap: Some(Gap::default()), ..self }
    }

    pub fn has_air_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// These are all the repositories that there are, for this policy and its clones.
    pub(super) fn know<'a>(&self, bases: impl Iterator<Item = &'a Url>) {
        if let Some(gap) = &self.gap {
            gap.known.store(Arc::new(bases.map(place_of).collect()));
        }
    }

    /// The same for the client of one repository, which reaches its own host even before the
    /// repository is among those that there are: one is tried before it is made.
    pub(super) fn of(&self, base: &Url) -> Self {
        let own = |gap: &Gap| Gap { own: Some(place_of(base)), ..gap.clone() };
        Self { gap: self.gap.as_ref().map(own), ..self.clone() }
    }

    /// Refuses what is beyond the air gap. To be asked before each request: of a host beyond it not
    /// even the name is looked up.
    pub(super) fn crosses(&self, at: &Url) -> Result<(), Refused> {
        let Some(gap) = &self.gap else { return Ok(()) };
        let place = place_of(at);
        let known = gap.own.as_ref() == Some(&place) || gap.known.load().contains(&place);
        let (host, port) = place;
        if known || self.entries(&host, port).next().is_some() {
            return Ok(());
        }
        Err(Refused::Gap { host, port })
    }

    /// How this host is spoken to where an address does not say it: `https` or `http`.
    pub(super) fn scheme(&self, host: &str, port: Option<u16>) -> &'static str {
        let host = bare(host);
        let here = self.loopback && is_loopback(&host);
        let plain = port.is_some_and(|port| self.entries(&host, port).any(|one| one.plain));
        if here || plain { "http" } else { "https" }
    }

    fn entries(&self, host: &str, port: u16) -> impl Iterator<Item = &Allowed> {
        self.allowed.iter().filter(move |one| one.port == port && one.host == host)
    }

    /// Whether this address may be reached under this name.
    fn check(&self, secure: bool, host: &str, address: SocketAddr) -> Result<(), Refused> {
        let (host, port, ip) = (bare(host), address.port(), address.ip().to_canonical());
        let (public, here) = (is_public(ip), self.loopback && ip.is_loopback());
        if !public && !here && self.entries(&host, port).next().is_none() {
            return Err(Refused::Private { host, port });
        }
        // Who owns an allowed name may have it mean anything, some day this.
        if is_metadata(ip) && host.parse::<IpAddr>().is_err() {
            return Err(Refused::Metadata { host, port });
        }
        let plain = here || self.entries(&host, port).any(|one| one.plain);
        if !secure && (public || !plain) {
            return Err(Refused::Plain { host, port });
        }
        Ok(())
    }

    /// Those of a name's addresses that may be connected to, a few, in their order; the error tells
    /// why none may. What its owner puts beside a good one is left out.
    fn reach(
        &self,
        secure: bool,
        host: &str,
        found: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, Refused> {
        let (mut good, mut refused) = (Vec::new(), None);
        for address in found {
            match self.check(secure, host, *address) {
                Ok(()) => good.push(*address),
                Err(why) => refused = Some(why),
            }
        }
        good.truncate(ADDRESSES);
        match refused {
            Some(why) if good.is_empty() => Err(why),
            _ => Ok(good),
        }
    }
}

impl Allowed {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (host, port) = rest.rsplit_once(':')?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0)?;
        let host = bare(host);
        let named = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !named && host.parse::<Ipv6Addr>().is_err() {
            return None;
        }
        let plain = match scheme {
            "http" => true,
            "https" => false,
            "" => is_loopback(&host),
            _ => return None,
        };
        Some(Self { host, port, plain })
    }
}

fn place_of(url: &Url) -> Place {
    let port = url.port_or_known_default().unwrap_or_default();
    (bare(url.host_str().unwrap_or_default()), port)
}

/// Names of this machine. Registries here have no TLS, as every client of registries assumes.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A host without the brackets of an IPv6 address, in small letters, without the root's dot.
fn bare(host: &str) -> String {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = inner.unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn is_public(ip: IpAddr) -> bool {
    match meant(ip) {
        IpAddr::V4(ip) => !is_in_v4(ip, &SPECIAL_V4),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xe000) == 0x2000 && !is_in_v6(ip, &SPECIAL_V6),
    }
}

fn is_metadata(ip: IpAddr) -> bool {
    match meant(ip) {
        IpAddr::V4(ip) => is_in_v4(ip, &METADATA_V4),
        IpAddr::V6(ip) => is_in_v6(ip, &METADATA_V6),
    }
}

/// Of an IPv6 address that leads to one of IPv4, that one: a mapped one, and behind NAT64 (RFC
/// 6052), which is how networks of IPv6 alone reach the others.
fn meant(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => match ip.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                Ipv4Addr::new(a, b, c, d).into()
            }
            _ => ip.into(),
        },
        ip => ip,
    }
}

fn is_in_v4(ip: Ipv4Addr, nets: &[(Ipv4Addr, u32)]) -> bool {
    nets.iter().any(|(net, bits)| (u32::from(ip) ^ u32::from(*net)) >> (32 - bits) == 0)
}

fn is_in_v6(ip: Ipv6Addr, nets: &[(Ipv6Addr, u32)]) -> bool {
    nets.iter().any(|(net, bits)| (u128::from(ip) ^ u128::from(*net)) >> (128 - bits) == 0)
}

/// Connects where the policy allows it.
#[derive(Clone)]
pub(super) struct Connector(pub Policy);

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let policy = self.0.clone();
        async move { connect(&policy, &to, look_up).await }.boxed()
    }
}

/// All addresses that a name has now.
async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// The name is looked up once, and what was found is what is checked and then connected to: it may
/// mean something else a moment later.
async fn connect<F>(
    policy: &Policy,
    to: &Uri,
    look_up: impl FnOnce(String, u16) -> F,
) -> Result<TokioIo<TcpStream>, BoxError>
where
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    // Anything but https is taken for what may hear no secrets.
    let secure = to.scheme_str() == Some("https");
    let host = bare(to.host().unwrap_or_default());
    let port = to.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let found = timeout(LOOKUP_TIME, look_up(host.clone(), port)).await;
    let found = found.map_err(|_| "its name was not resolved in time")??;
    let mut last = BoxError::from("its name has no address");
    for address in policy.reach(secure, &host, &found)? {
        match timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(TokioIo::new(stream));
            }
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = "it did not take the connection in time".into(),
        }
    }
    Err(last)
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
