//! Keys of the sections `access` and `tls`.

use super::Role;
use crate::settings::Seconds;
use std::path::PathBuf;
use std::time::Duration;

crate::settings! {
    /// Who may call what. Without tokens and client certificates everyone who reaches a port may do
    /// everything, and the ports are bound to loopback addresses only.
    pub struct Config in "access" {
        /// TOML file of bearer tokens: `[[token]]` with `name`, `roles` (ingest, read, operate, admin),
        /// `token` or `sha256` (hexadecimal digest of the token), and if it is to end, `expires`. Read
        /// again within 5 s when it changes.
        tokens_file: Option<PathBuf> = None, "a readable file";
        /// Binds addresses other than loopback although there is no TLS, or neither tokens nor client
        /// certificates. Whoever reaches such a port can read and write everything.
        allow_insecure: bool = false, "true or false";
        /// What the holder of a client certificate of `tls.client_ca_file` may do without a token.
        client_roles: Vec<String> = vec!["ingest".to_owned()], "a list of ingest, read, operate, admin",
            |roles| roles.iter().all(|role| Role::parse(role).is_some());
        /// Origins whose pages may send telemetry over OTLP/HTTP, such as `https://shop.example`.
        /// Requests of pages from elsewhere are refused.
        cors_origins: Vec<String> = Vec::new(), "a list of SCHEME://HOST[:PORT]",
            |origins| origins.iter().all(|origin| is_origin(origin));
        /// How long a browser stays signed in.
        session: Seconds = Seconds(Duration::from_secs(12 * 3_600)), "1m to 30d",
            |length| (60..=30 * 86_400).contains(&length.0.as_secs());
    }
}

crate::settings! {
    /// TLS on all four ports. The files are read again within 5 s when they change; connections that are
    /// open stay open.
    pub struct TlsConfig in "tls" {
        /// PEM file with the certificate and those that lead to its authority.
        cert_file: Option<PathBuf> = None, "a readable file";
        /// PEM file with the certificate's private key.
        key_file: Option<PathBuf> = None, "a readable file";
        /// PEM file of the authorities whose client certificates are trusted. With it the OTLP ports
        /// take connections with such a certificate only; on the other two a token does as well.
        client_ca_file: Option<PathBuf> = None, "a readable file";
    }
}

fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    !rest.is_empty()
        && rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::Value;

    #[test]
    fn origins_and_roles_are_checked() {
        let mut config = Config::default();
        let list = |text: &str| Value::Array(vec![Value::String(text.to_owned())]);
        for origin in ["https://shop.example", "http://localhost:8080"] {
            assert_eq!(config.set("cors_origins", &list(origin)), Ok(()));
        }
        for wrong in ["*", "null", "shop.example", "https://", "https://a/b"] {
            assert!(config.set("cors_origins", &list(wrong)).is_err(), "{wrong}");
        }
        assert!(config.set("client_roles", &list("root")).is_err());
    }
}
