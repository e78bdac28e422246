//! The one way out: limits on time, size and redirects, and which addresses may be reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use url::{Host, Url};

/// Limits of the way out.
#[derive(Clone, Copy, Debug)]
pub struct EgressConfig {
    /// Whether this machine and private networks may be reached.
    pub allow_private: bool,
    /// Longest time for one request, redirects included.
    pub timeout: Duration,
    /// Largest response body, in bytes.
    pub max_response_bytes: usize,
    /// Most redirects that are followed.
    pub max_redirects: usize,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self { allow_private: false, timeout: Duration::from_secs(30), max_response_bytes: 1 << 20, max_redirects: 5 }
    }
}

/// Why there is no way out.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The client cannot be built.
    #[error("cannot build the HTTP client")]
    Build(#[from] reqwest::Error),
}

/// A client with its limits.
#[derive(Clone)]
pub struct Egress {
    pub(crate) client: reqwest::Client,
    pub(crate) config: EgressConfig,
}

impl Egress {
    /// Builds it.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(config: EgressConfig) -> Result<Self, EgressError> {
        // Somebody else in the process may have installed the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let allow_private = config.allow_private;
        let redirects = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > config.max_redirects {
                return attempt.error(Refused("too many redirects".into()));
            }
            match check(attempt.url(), allow_private) {
                Ok(()) => attempt.follow(),
                Err(refused) => attempt.error(refused),
            }
        });
        let client = reqwest::Client::builder()
            .user_agent(concat!("novaflow/", env!("CARGO_PKG_VERSION")))
            .redirect(redirects)
            .dns_resolver(Arc::new(Resolver { allow_private }))
            .timeout(config.timeout)
            .connect_timeout(config.timeout.min(Duration::from_secs(10)))
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, config })
    }

    /// Whether a URL may be reached, as far as it says itself; names are looked at when they are resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Refused> {
        check(url, self.config.allow_private)
    }
}

/// An address that may not be reached.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub String);

fn check(url: &Url, allow_private: bool) -> Result<(), Refused> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refused(format!("scheme '{}' is not http or https", url.scheme())));
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        _ => return Ok(()),
    };
    if allow_private || is_public(address) { Ok(()) } else { Err(private(address)) }
}

fn private(address: IpAddr) -> Refused {
    Refused(format!("{address} is not a public address"))
}

/// Whether an address is one that anybody on the internet may have.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || shared
                || benchmark)
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public(IpAddr::V4(v4)),
            None => {
                let first = v6.segments()[0];
                let unique_local = first & 0xfe00 == 0xfc00;
                let link_local = first & 0xffc0 == 0xfe80;
                // 64:ff9b::/96 leads to any IPv4 address, private ones among them.
                let translated = first == 0x64 && v6.segments()[1] == 0xff9b;
                !(v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || unique_local
                    || link_local
                    || translated)
            }
        },
    }
}

/// Resolves names and keeps only addresses that may be reached, so that a name cannot hide a private one.
struct Resolver {
    allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let allowed: Vec<_> =
                found.iter().copied().filter(|address| allow_private || is_public(address.ip())).collect();
            match (allowed.is_empty(), found.first()) {
                (true, Some(address)) => Err(Box::new(private(address.ip())) as Box<_>),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{check, is_public};

    #[test]
    fn private_addresses_are_told_from_public_ones_however_they_are_written() {
        for private in
            ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fe80::1", "fd00::1"]
        {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for mapped in ["::ffff:10.0.0.1", "64:ff9b::a00:1"] {
            assert!(!is_public(mapped.parse().unwrap()), "{mapped}");
        }
        for public in ["1.1.1.1", "2606:4700::1111", "172.32.0.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for url in ["http://2130706433/", "http://0x7f.1/", "http://[::1]/", "file:///etc/passwd"] {
            assert!(check(&url.parse().unwrap(), false).is_err(), "{url}");
        }
    }
}
