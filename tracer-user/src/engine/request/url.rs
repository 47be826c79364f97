//! The target of a request and the names of hosts, taken apart (RFC 9112, section 3.2).

use std::borrow::Cow;

use crate::model::HostAndPort;

/// Parameters of a query that hold what a request is signed with: the semantic conventions ask for their values to be left out.
const SIGNATURES: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];

/// What takes their place.
const LEFT_OUT: &str = "REDACTED";

/// The parts of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'target> {
    /// The scheme, where the target is a whole URL.
    pub scheme: Option<&'target str>,
    /// The host with its port, likewise.
    pub host: Option<&'target str>,
    /// The path.
    pub path: &'target str,
    /// The query.
    pub query: Option<&'target str>,
}

/// Takes a target apart.
pub fn split_target<'target>(method: &str, target: &'target str) -> Target<'target> {
    if method == "CONNECT" {
        return Target { scheme: None, host: Some(target), path: "", query: None };
    }
    let whole = ["http", "https"].into_iter().find_map(|scheme| {
        let rest = target.get(scheme.len()..)?.strip_prefix("://")?;
        target[..scheme.len()].eq_ignore_ascii_case(scheme).then_some((scheme, rest))
    });
    let (scheme, host, rest) = match whole {
        Some((scheme, rest)) => {
            let (host, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            // A password is nobody's business.
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            (Some(scheme), Some(host).filter(|host| !host.is_empty()), rest)
        }
        None => (None, None, target),
    };
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let path = if path.is_empty() { "/" } else { path };
    Target { scheme, host, path, query: query.filter(|query| !query.is_empty()) }
}

/// The query without what requests are signed with.
pub fn without_signatures(query: &str) -> String {
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, value)) if SIGNATURES.contains(&name) && !value.is_empty() => {
            Cow::Owned(format!("{name}={LEFT_OUT}"))
        }
        _ => Cow::Borrowed(parameter),
    });
    parameters.collect::<Vec<_>>().join("&")
}

/// A host, which may be an address of version 6 in brackets, and its port.
pub fn host_and_port(text: &str) -> Option<HostAndPort> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, rest)| (host, rest.strip_prefix(':')))?,
        None => match text.split_once(':') {
            // More than one colon: an address without brackets.
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            Some(_) => (text, None),
            None => (text, None),
        },
    };
    let port = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    (!host.is_empty()).then(|| HostAndPort { host: host.into(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        let split = |target| {
            let Target { scheme, host, path, query } = split_target("GET", target);
            (scheme, host, path, query)
        };
        assert_eq!(split("/a/b?c=d?e"), (None, None, "/a/b", Some("c=d?e")));
        assert_eq!(split("/a?"), (None, None, "/a", None));
        assert_eq!(split("*"), (None, None, "*", None));
        assert_eq!(split("HTTP://me:secret@host:80?x"), (Some("http"), Some("host:80"), "/", Some("x")));
        assert_eq!(split("https:///path"), (Some("https"), None, "/path", None));
        assert_eq!(split("é"), (None, None, "é", None));
        assert_eq!(split_target("CONNECT", "host:443").host, Some("host:443"));
    }

    #[test]
    fn signatures_are_left_out_and_nothing_else() {
        assert_eq!(
            without_signatures("sig=1&q=sig&Signature=&X-Goog-Signature=ab=c&AWSAccessKeyId=k&signature=2"),
            "sig=REDACTED&q=sig&Signature=&X-Goog-Signature=REDACTED&AWSAccessKeyId=REDACTED&signature=2"
        );
    }

    #[test]
    fn hosts_and_their_ports() {
        let of = |text| host_and_port(text).map(|found| (found.host.to_string(), found.port));
        let found = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(of("host:80"), found("host", Some(80)));
        assert_eq!(of("[::1]:80"), found("::1", Some(80)));
        assert_eq!(of("::1"), found("::1", None));
        assert_eq!(of("host:many"), found("host", None));
        assert_eq!((of(""), of(":80"), of("[::1")), (None, None, None));
    }
}
