//! What a check asks.

use http::Uri;
use std::fmt;

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `GET` over HTTP/1.1, with TLS if the scheme is `https`. Redirects are not followed.
    Http(Uri),
    /// `grpc.health.v1.Health/Check` of the service that the path names, over HTTP/2; `grpcs` with TLS.
    Grpc { host: String, port: u16, tls: bool, service: String },
    /// Whether a connection is taken.
    Tcp { host: String, port: u16 },
    /// Whether a name has addresses: asked of a server, or as the system asks.
    Dns { server: Option<(String, u16)>, name: String },
}

/// `HOST`, `HOST:PORT`, `[V6]:PORT`.
fn host_and_port(text: &str, default: Option<u16>) -> Result<(String, u16), String> {
    let authority: http::uri::Authority = text.parse().map_err(|_| format!("{text:?} is no HOST:PORT"))?;
    if text.contains('@') {
        return Err("holds a user name or password, which is not supported".to_owned());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().or(default).ok_or_else(|| format!("{text:?} names no port"))?;
    if host.is_empty() { Err("names no host".to_owned()) } else { Ok((host, port)) }
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once(':').ok_or("names no scheme")?;
        let after = rest.strip_prefix("//");
        let (authority, path) = after.map_or(("", rest), |rest| match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        });
        let path = path.trim_start_matches('/');
        match scheme {
            "http" | "https" => {
                host_and_port(authority, Some(if scheme == "http" { 80 } else { 443 }))?;
                url.parse().map(Self::Http).map_err(|_| "is not a URL".to_owned())
            }
            "grpc" | "grpcs" => {
                let tls = scheme == "grpcs";
                let (host, port) = host_and_port(authority, Some(if tls { 443 } else { 80 }))?;
                Ok(Self::Grpc { host, port, tls, service: path.to_owned() })
            }
            "tcp" if path.is_empty() => {
                host_and_port(authority, None).map(|(host, port)| Self::Tcp { host, port })
            }
            "dns" => {
                let server =
                    if authority.is_empty() { None } else { Some(host_and_port(authority, Some(53))?) };
                let is_name = path.len() <= 253
                    && path.trim_end_matches('.').split('.').all(|label| (1..=63).contains(&label.len()))
                    && path.is_ascii();
                if !is_name {
                    return Err(format!("{path:?} is no name to look up"));
                }
                Ok(Self::Dns { server, name: path.trim_end_matches('.').to_owned() })
            }
            _ => Err("begins with none of http://, https://, grpc://, grpcs://, tcp://, dns:".to_owned()),
        }
    }

    /// Host and port that it goes to; of a look-up by the system there are none.
    #[must_use]
    pub fn peer(&self) -> Option<(&str, u16)> {
        match self {
            Self::Http(uri) => {
                let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
                Some((uri.host()?, uri.port_u16().unwrap_or(default)))
            }
            Self::Grpc { host, port, .. } | Self::Tcp { host, port } => Some((host, *port)),
            Self::Dns { server, .. } => server.as_ref().map(|(host, port)| (host.as_str(), *port)),
        }
    }

    /// What it is called in a list of operations.
    #[must_use]
    pub fn operation(&self) -> String {
        match self {
            Self::Http(uri) => format!("GET {}", uri.path()),
            Self::Grpc { .. } => "grpc.health.v1.Health/Check".to_owned(),
            Self::Tcp { .. } => "TCP connect".to_owned(),
            Self::Dns { name, .. } => format!("DNS {name}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(uri) => uri.fmt(f),
            Self::Grpc { host, port, tls, service } => {
                write!(f, "grpc{}://{host}:{port}/{service}", if *tls { "s" } else { "" })
            }
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Dns { server: Some((host, port)), name } => write!(f, "dns://{host}:{port}/{name}"),
            Self::Dns { server: None, name } => write!(f, "dns:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        for (url, shown, peer) in [
            ("http://shop/health?x=1", "http://shop/health?x=1", Some(("shop", 80))),
            ("https://shop:8443/", "https://shop:8443/", Some(("shop", 8443))),
            ("grpc://shop:50051/shop.Cart", "grpc://shop:50051/shop.Cart", Some(("shop", 50_051))),
            ("grpcs://shop", "grpcs://shop:443/", Some(("shop", 443))),
            ("tcp://127.0.0.1:5432", "tcp://127.0.0.1:5432", Some(("127.0.0.1", 5_432))),
            ("dns:shop.example.", "dns:shop.example", None),
            ("dns://9.9.9.9/shop.example", "dns://9.9.9.9:53/shop.example", Some(("9.9.9.9", 53))),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.to_string().as_str(), target.peer()), (shown, peer));
        }
    }

    #[test]
    fn what_is_no_target_is_said() {
        for (url, wrong) in [
            ("shop", "no scheme"),
            ("ftp://shop", "none of"),
            ("tcp://shop", "no port"),
            ("http://me:secret@shop/", "password"),
            ("http:///health", "HOST"),
            ("dns:", "no name"),
            ("dns:a..b", "no name"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(wrong), "{url}: {error}");
        }
    }
}
