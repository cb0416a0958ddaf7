//! Where hooks of Rollouts may be: whoever writes a Rollout must not reach by the controller what he cannot reach himself.

use std::net::IpAddr;

use http::Uri;

/// Hosts that hooks may be at.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// These alone: names, `*.` and what names end in, addresses, each perhaps with a port. Empty: all but the
    /// controller's own machine and link.
    pub fn new(allowed: Vec<String>) -> Hosts {
        Hosts(allowed.into_iter().map(|host| host.trim().to_ascii_lowercase()).filter(|h| !h.is_empty()).collect())
    }

    /// None is named.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a URL is at one of them.
    ///
    /// # Errors
    /// Why not, and what would allow it.
    pub fn check(&self, url: &str) -> Result<(), String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no address: {error}"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = match (uri.port_u16(), scheme) {
            (Some(port), "http" | "https") => port,
            (None, "https") => 443,
            (None, "http") => 80,
            _ => return Err(format!("{url:?} is neither http:// nor https://")),
        };
        let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        if self.0.is_empty() {
            let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
            let is_near = host == "localhost" || host.ends_with(".localhost") || address.is_some_and(is_near);
            if is_near {
                return Err(format!("{host} is the controller's own machine or link; --hook-hosts could allow it"));
            }
            return Ok(());
        }
        let is_allowed = self.0.iter().any(|pattern| {
            let (name, wanted) = match pattern.rsplit_once(':') {
                Some((name, number)) if !number.ends_with(']') && number.parse::<u16>().is_ok() => {
                    (name, number.parse().ok())
                }
                _ => (pattern.as_str(), None),
            };
            let is_host = match name.strip_prefix('*') {
                Some(end) => host.len() > end.len() && end.starts_with('.') && host.ends_with(end),
                None => host == name,
            };
            is_host && wanted.is_none_or(|wanted: u16| wanted == port)
        });
        if is_allowed { Ok(()) } else { Err(format!("{host}:{port} is none of the hosts that --hook-hosts allows")) }
    }
}

/// Loopback, link and no address at all: what listens there trusts who calls it.
pub fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some_and(|v4| is_near(IpAddr::V4(v4)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed() {
        let check = |allowed: &[&str], url: &str| {
            Hosts::new(allowed.iter().map(|host| (*host).to_owned()).collect()).check(url).is_ok()
        };
        for (allowed, url, is_good) in [
            (&[][..], "https://hooks.example/gate", true),
            (&[], "http://10.0.0.7:8080/", true),
            (&[], "http://127.0.0.1:10250/", false),
            (&[], "http://localhost/", false),
            (&[], "http://169.254.169.254/latest/meta-data", false),
            (&[], "http://[::1]/", false),
            (&[], "http://[::ffff:127.0.0.1]/", false),
            (&[], "http://0.0.0.0/", false),
            (&["hooks.example"], "https://HOOKS.example./x", true),
            (&["hooks.example"], "https://hooks.example.evil/x", false),
            (&["*.example"], "https://a.b.example/", true),
            (&["*.example"], "https://example/", false),
            (&["*.example"], "https://notexample/", false),
            (&["*example"], "https://notexample/", false),
            (&["gate.svc:8443"], "https://gate.svc:8443/", true),
            (&["gate.svc:8443"], "https://gate.svc/", false),
            (&["gate.svc:443"], "https://gate.svc/", true),
            (&["127.0.0.1"], "http://127.0.0.1:9/", true),
            (&["hooks.example"], "http://x@hooks.example:80@evil/", false),
        ] {
            assert_eq!(check(allowed, url), is_good, "{allowed:?} {url}");
        }
    }
}
