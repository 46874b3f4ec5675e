//! Files that say who may call what, and what callers show for it.

use super::files::folder;
use super::targets::Target;
use barograph::access::{Access, Config, Credentials, Error, TlsConfig, cookie};
use barograph::model::ManualClock;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

const TOKENS: &str = "[[token]]
name = \"collector\"
roles = [\"ingest\"]
token = \"hunter2\"

[[token]]
name = \"ci\"
roles = [\"operate\", \"read\"]
sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"
expires = 2027-01-31T00:00:00Z
";

fn open(config: &Config, tls: &TlsConfig) -> Result<Arc<Access>, Error> {
    Access::open(config, tls, Arc::new(ManualClock::default()))
}

/// What is wrong stands in one line, which names the file.
fn assert_names(file: &Path, error: &Error) {
    let text = error.to_string();
    assert!(text.contains(&file.display().to_string()), "no file in {text}");
    assert!(!text.contains('\n'), "more than a line: {text}");
}

/// `access.tokens_file`: no error quotes a value, which could be a secret.
pub fn tokens() -> Target {
    Target {
        name: "tokens",
        seeds: || vec![TOKENS.as_bytes().to_vec()],
        run: |input| {
            let dir = folder();
            let file = dir.path().join("tokens.toml");
            fs::write(&file, input).expect("written");
            let config = Config { tokens_file: Some(file.clone()), ..Config::default() };
            if let Err(error) = open(&config, &TlsConfig::default()) {
                assert_names(&file, &error);
                let text = error.to_string();
                assert!(!text.contains("hunter2") || text.contains("unknown key"), "a secret in {text}");
            }
        },
    }
}

/// A certificate and its key, made once.
static CERTIFICATE: LazyLock<(String, String)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
});

/// `tls.cert_file` and `tls.client_ca_file`.
pub fn certificates() -> Target {
    Target {
        name: "certificates",
        seeds: || vec![CERTIFICATE.0.clone().into_bytes(), CERTIFICATE.0.repeat(2).into_bytes()],
        run: |input| {
            let dir = folder();
            let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            fs::write(&certificate, input).expect("written");
            fs::write(&key, &CERTIFICATE.1).expect("written");
            let tls = TlsConfig {
                cert_file: Some(certificate.clone()),
                key_file: Some(key),
                client_ca_file: Some(certificate.clone()),
            };
            if let Err(error) = open(&Config::default(), &tls) {
                assert_names(&certificate, &error);
            }
        },
    }
}

/// `tls.key_file`.
pub fn private_key() -> Target {
    Target {
        name: "private_key",
        seeds: || vec![CERTIFICATE.1.clone().into_bytes()],
        run: |input| {
            let dir = folder();
            let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            fs::write(&certificate, &CERTIFICATE.0).expect("written");
            fs::write(&key, input).expect("written");
            let tls = TlsConfig { cert_file: Some(certificate), key_file: Some(key), client_ca_file: None };
            if let Err(error) = open(&Config::default(), &tls) {
                // A key that can be read and is another one is told of the certificate.
                assert_names(dir.path(), &error);
            }
        },
    }
}

/// Headers by which a caller says who it is.
pub fn credentials() -> Target {
    Target {
        name: "credentials",
        seeds: || {
            [
                &b"Bearer hunter2"[..],
                b"barograph_session=0123456789abcdef; other=\"a\"",
                b"a=b;;=c; barograph_session=",
            ]
            .map(<[u8]>::to_vec)
            .to_vec()
        },
        run: |input| {
            let Ok(value) = HeaderValue::from_bytes(input) else { return };
            let headers: HeaderMap = [(AUTHORIZATION, value.clone()), (COOKIE, value)].into_iter().collect();
            let found = Credentials::of(&headers, false);
            if let Some(Some(token)) = found.bearer {
                let was_sent = token.is_empty() || input.windows(token.len()).any(|part| part == token);
                assert!(was_sent, "a token that was not sent");
            }
            let _ = cookie(&headers, "barograph_session");
        },
    }
}
