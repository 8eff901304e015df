//! The names our certificate is asked to carry: DNS names and IP addresses.
//! It does not resolve anything and sends no packet; what is not known locally is not in the certificate.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustls_pki_types::DnsName;

use super::TlsError;

/// Names in one certificate, at most: a hundred are 3 kB in every handshake, more is a mistake.
const MAX_NAMES: usize = 100;

/// Subject alternative names that a certificate has to carry, normalized: lower case, IP addresses in
/// their shortest form, each once, the subject's name first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// DNS names (also `*.example.com`) and IP addresses.
    pub names: Vec<String>,
}

impl Wanted {
    /// The same, and the names of an earlier certificate behind them. Replicas of two versions with
    /// different configured names then agree on one certificate instead of replacing each other's.
    pub(super) fn joined(&self, earlier: &[String]) -> Wanted {
        let mut names = self.names.clone();
        names.extend_from_slice(earlier);
        Wanted { names: distinct(names) }
    }
}

/// What our certificate should carry: the configured names, `localhost` and the loopback addresses, and
///
/// - in a cluster: the names of the Service (namespace, name).
/// - else, where `listen` says the address the server listens on: it or, when that is unspecified, the
///   addresses of the interfaces that hold the default routes, and the host name. Other interfaces
///   are not found without asking the operating system in its own way for each; name them.
///
/// Neither is known where pods before another cluster share it. Host name and addresses of a pod stay
/// out of what all replicas share: each new pod would add its own.
///
/// # Errors
/// [`TlsError::Name`] for a configured name that no certificate can carry.
pub fn wanted_names(
    configured: &[String],
    listen: Option<IpAddr>,
    service: Option<(&str, &str)>,
) -> Result<Wanted, TlsError> {
    let mut names = Vec::new();
    for name in configured {
        names.push(normalized(name).ok_or_else(|| TlsError::Name(name.clone()))?);
    }
    if let Some((namespace, service)) = service {
        let full = format!("{service}.{namespace}.svc");
        names.push(full.clone());
        names.push(service.to_owned());
        names.push(format!("{service}.{namespace}"));
        names.push(format!("{full}.cluster.local"));
    } else if let Some(listen) = listen {
        names.extend(host_name().as_deref().and_then(normalized));
        names.extend(addresses(listen).iter().map(IpAddr::to_string));
    }
    names.push("localhost".to_owned());
    names.push(Ipv4Addr::LOCALHOST.to_string());
    names.push(Ipv6Addr::LOCALHOST.to_string());
    Ok(Wanted { names: distinct(names) })
}

/// Lower case and checked; `None` for what is neither a DNS name nor an IP address.
fn normalized(name: &str) -> Option<String> {
    let name = name.trim().trim_end_matches('.');
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let name = name.to_ascii_lowercase();
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(&name)).ok()?;
    Some(name)
}

fn distinct(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).take(MAX_NAMES).collect()
}

/// The name of this machine. The standard library has no call for it: Linux has it in /proc, other
/// systems in /etc/hostname or in the environment.
fn host_name() -> Option<String> {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

/// The address listened on, or those by which the default routes leave.
fn addresses(listen: IpAddr) -> Vec<IpAddr> {
    if !listen.is_unspecified() {
        return vec![listen];
    }
    // Connecting a datagram socket chooses a source address and sends nothing. The targets are
    // the documentation ranges of RFC 5737 and RFC 3849: nobody's, so they take the default route.
    let v4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    let mut found = Vec::new();
    found.extend(source_address(Ipv4Addr::UNSPECIFIED.into(), v4));
    if listen.is_ipv6() {
        found.extend(source_address(Ipv6Addr::UNSPECIFIED.into(), v6));
    }
    found
}

fn source_address(any: IpAddr, target: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

    fn names(configured: &[&str], service: Option<(&str, &str)>) -> Vec<String> {
        let configured: Vec<String> = configured.iter().map(|name| (*name).to_owned()).collect();
        wanted_names(&configured, LOOPBACK, service).unwrap().names
    }

    #[test]
    fn a_machine_gets_localhost_and_the_loopback_addresses_once() {
        let names = names(&["LOCALHOST"], None);
        for name in ["localhost", "127.0.0.1", "::1"] {
            let times = names.iter().filter(|n| n.as_str() == name).count();
            assert_eq!(times, 1, "{name} in {names:?}");
        }
    }

    #[test]
    fn in_a_cluster_the_names_are_those_of_the_service_and_equal_on_every_replica() {
        assert_eq!(
            names(&["Dash.Example.com."], Some(("tools", "binnacle"))),
            [
                "dash.example.com",
                "binnacle.tools.svc",
                "binnacle",
                "binnacle.tools",
                "binnacle.tools.svc.cluster.local",
                "localhost",
                "127.0.0.1",
                "::1",
            ]
        );
    }

    #[test]
    fn a_specific_listen_address_is_a_name() {
        let listen: IpAddr = "192.0.2.7".parse().unwrap();
        let wanted = wanted_names(&[], Some(listen), None).unwrap();
        assert!(wanted.names.contains(&"192.0.2.7".to_owned()));
    }

    #[test]
    fn what_pods_share_without_a_service_has_no_name_of_a_pod() {
        let wanted = wanted_names(&["dash.example.com".to_owned()], None, None).unwrap();
        assert_eq!(wanted.names, ["dash.example.com", "localhost", "127.0.0.1", "::1"]);
    }

    #[test]
    fn wildcards_and_shortened_addresses_are_taken_and_nonsense_is_refused() {
        let names = names(&["*.example.com", "2001:0db8:0::1"], None);
        assert_eq!(names[..2], ["*.example.com", "2001:db8::1"]);
        for bad in ["", "two words", "a..b", "bücher.example", "https://x"] {
            let refused = wanted_names(&[bad.to_owned()], LOOPBACK, None);
            assert!(matches!(refused, Err(TlsError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn earlier_names_are_kept_behind_the_wanted_ones() {
        let wanted = Wanted { names: vec!["b".to_owned()] };
        let joined = wanted.joined(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(joined.names, ["b", "a"]);
    }
}
