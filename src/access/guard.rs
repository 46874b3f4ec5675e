//! The guard: every call on every port passes it.

use super::sessions::{Sessions, csrf_token};
use super::tls::Tls;
use super::tokens::{Digest, Holder, Tokens, digest};
use super::{Config, Credentials, Denial, DeniedReason, Error, Need, Port, Role, Roles, Stream, TlsConfig};
use crate::model::{Clock, Timestamp};
use crate::observe::{Collect, Counter, Exposition, Kind};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How often files are looked at for changes.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// Denials told in the log within one period; what goes beyond is counted, and told once.
const DENIALS_LOGGED: u64 = 1_000;
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Longest call name in the log: paths come from outside.
const LONGEST_CALL: usize = 200;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name of the token; `certificate` or `anyone` where there is none.
    pub name: Arc<str>,
    /// Whether it is the name of a token, which tells callers apart.
    pub has_token: bool,
    pub roles: Roles,
}

/// The guard of all ports.
pub struct Access {
    config: Config,
    tls: Option<Tls>,
    tokens: ArcSwapOption<Tokens>,
    tokens_digest: Mutex<Digest>,
    /// Neither tokens nor client certificates are configured: everyone may do everything.
    open: bool,
    anyone: Caller,
    certified: Caller,
    sessions: Mutex<Sessions>,
    clock: Arc<dyn Clock>,
    denied: [Counter; DeniedReason::ALL.len()],
    reload_failures: Counter,
    logged: Mutex<(Timestamp, u64)>,
}

impl Access {
    /// Reads tokens and certificates.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn open(config: &Config, tls: &TlsConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Error> {
        let tls = Tls::open(tls)?;
        let mut tokens_digest = Digest::default();
        let tokens = match &config.tokens_file {
            None => None,
            Some(path) => {
                let (tokens, digest) = read_tokens(path)?;
                tokens_digest = digest;
                Some(Arc::new(tokens))
            }
        };
        let open = tokens.is_none() && !tls.as_ref().is_some_and(Tls::wants_certificates);
        let client_roles = config.client_roles.iter().filter_map(|role| Role::parse(role)).collect();
        Ok(Arc::new(Self {
            config: config.clone(),
            tls,
            tokens: ArcSwapOption::new(tokens),
            tokens_digest: Mutex::new(tokens_digest),
            open,
            anyone: Caller { name: Arc::from("anyone"), has_token: false, roles: Roles::ALL },
            certified: Caller { name: Arc::from("certificate"), has_token: false, roles: client_roles },
            sessions: Mutex::new(Sessions::new()),
            clock,
            denied: Default::default(),
            reload_failures: Counter::default(),
            logged: Mutex::new((Timestamp::ZERO, 0)),
        }))
    }

    /// Whether everyone may do everything.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    #[must_use]
    pub const fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether it is safe to listen on this address.
    ///
    /// # Errors
    /// What is lacking, and what to set.
    pub fn check_address(&self, key: &'static str, address: SocketAddr) -> Result<(), Error> {
        if self.config.allow_insecure || is_loopback(address.ip()) {
            return Ok(());
        }
        let exposed = |lacking, wanted| Err(Error::Exposed { key, address, lacking, wanted });
        match (self.tls.is_some(), self.open) {
            (false, _) => exposed("there is no TLS", "tls.cert_file, tls.key_file and access.tokens_file"),
            (true, true) => exposed(
                "there are neither tokens nor client certificates",
                "access.tokens_file or tls.client_ca_file",
            ),
            (true, false) => Ok(()),
        }
    }

    /// TLS, if it is configured; and whether a trusted client certificate was shown.
    ///
    /// # Errors
    /// What went wrong, or that it took more than 10 s.
    pub async fn shake_hands(&self, port: Port, stream: TcpStream) -> io::Result<(Stream, bool)> {
        let Some(tls) = &self.tls else { return Ok((Stream::plain(stream), false)) };
        let shaking = TlsAcceptor::from(tls.server(port)).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_LIMIT, shaking)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let stream = Stream::tls(stream);
        let certificate = stream.has_certificate();
        Ok((stream, certificate))
    }

    /// Lets a call through if its caller may make it; `need` is what the table says, `None` if it says
    /// nothing. Each refusal is counted and told in the log.
    ///
    /// # Errors
    /// Why it is not let through.
    pub fn admit(
        &self,
        credentials: &Credentials<'_>,
        need: Option<Need>,
        call: &str,
    ) -> Result<Caller, Denial> {
        if need == Some(Need::Nothing) {
            return Ok(self.anyone.clone());
        }
        let caller = match self.identify(credentials) {
            Ok(caller) => caller,
            Err(reason) => return Err(self.deny(reason, call, None)),
        };
        match need {
            Some(Need::Role(role)) if caller.roles.may(role) => Ok(caller),
            _ => Err(self.deny(DeniedReason::Role, call, Some(&caller.name))),
        }
    }

    fn identify(&self, credentials: &Credentials<'_>) -> Result<Caller, DeniedReason> {
        if self.open {
            return Ok(self.anyone.clone());
        }
        match (credentials.bearer, credentials.session) {
            (Some(Some(token)), _) => self.holder(&digest(token)),
            (Some(None), _) => Err(DeniedReason::Unknown),
            (None, Some(session)) => match self.sessions.lock().token(session, self.clock.now()) {
                Ok(token) => self.holder(&token),
                Err(true) => Err(DeniedReason::Expired),
                Err(false) => Err(DeniedReason::Unknown),
            },
            (None, None) if credentials.certificate => Ok(self.certified.clone()),
            (None, None) => Err(DeniedReason::Missing),
        }
    }

    fn holder(&self, token: &Digest) -> Result<Caller, DeniedReason> {
        let tokens = self.tokens.load();
        let Holder { caller, expires } =
            tokens.as_ref().and_then(|tokens| tokens.get(token)).ok_or(DeniedReason::Unknown)?;
        if expires.is_some_and(|at| at <= self.clock.now()) {
            return Err(DeniedReason::Expired);
        }
        Ok(caller.clone())
    }

    /// Counts and tells a refusal.
    pub fn deny(&self, reason: DeniedReason, call: &str, caller: Option<&str>) -> Denial {
        if let Some(counter) = self.denied.get(reason as usize) {
            counter.add(1);
        }
        let call = call.get(..call.floor_char_boundary(LONGEST_CALL)).unwrap_or_default();
        let now = self.clock.now();
        let mut logged = self.logged.lock();
        if now.since(logged.0) >= LOG_PERIOD {
            *logged = (now, 0);
        }
        logged.1 = logged.1.saturating_add(1);
        let said = logged.1;
        drop(logged);
        if said <= DENIALS_LOGGED {
            tracing::warn!(reason = reason.as_str(), ?call, caller, "a call is refused");
        } else if said == DENIALS_LOGGED + 1 {
            tracing::warn!("many calls are refused: the others of these 10 s are only counted");
        }
        Denial(reason)
    }

    /// Refuses what a page of somebody else asks its reader's browser to do: the origin of a write must
    /// be the host that it is sent to, and without tokens that host must be an address or `localhost`, so
    /// that no foreign name can be made to lead here.
    ///
    /// # Errors
    /// [`DeniedReason::Origin`].
    pub fn check_origin(&self, headers: &http::HeaderMap, is_write: bool, call: &str) -> Result<(), Denial> {
        let text = |name: http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(http::header::HOST).unwrap_or_default();
        let foreign_name = self.open && !self.config.allow_insecure && !is_local_name(host);
        let foreign_origin = is_write
            && headers.get(http::header::ORIGIN).is_some_and(|origin| {
                let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
                authority.is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
            });
        if foreign_name || foreign_origin {
            return Err(self.deny(DeniedReason::Origin, call, None));
        }
        Ok(())
    }

    /// Whether pages of this origin may send telemetry.
    #[must_use]
    pub fn allows_origin(&self, origin: &[u8]) -> bool {
        self.config.cors_origins.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin))
    }

    /// Signs a browser in with a token; gives the cookie to set.
    ///
    /// # Errors
    /// That the token is not known or has expired.
    pub fn sign_in(&self, token: &str) -> Result<String, Denial> {
        const CALL: &str = "POST /login";
        let token = digest(token.trim().as_bytes());
        if let Err(reason) = self.holder(&token) {
            return Err(self.deny(reason, CALL, None));
        }
        let length = self.config.session.0;
        let id = self
            .sessions
            .lock()
            .begin(token, self.clock.now(), length)
            .ok_or_else(|| self.deny(DeniedReason::Unknown, CALL, None))?;
        Ok(self.cookie(&id, length.as_secs()))
    }

    /// Ends a session; gives the cookie that replaces its own.
    #[must_use]
    pub fn sign_out(&self, session: Option<&str>) -> String {
        if let Some(session) = session {
            self.sessions.lock().end(session);
        }
        self.cookie("", 0)
    }

    fn cookie(&self, id: &str, seconds: u64) -> String {
        let secure = if self.tls.is_some() { "; Secure" } else { "" };
        let name = super::credentials::SESSION;
        format!("{name}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
    }

    /// What a write within a session must carry.
    #[must_use]
    pub fn csrf_token(&self, session: &str) -> String {
        csrf_token(session)
    }

    /// Reads tokens and certificates again whenever they change, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RELOAD_EVERY).await;
            // Files may lie where reading takes long.
            let this = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || this.reload()).await {
                tracing::error!(%error, "tokens and certificates are not looked at any more");
                return;
            }
        }
    }

    /// Takes up what the files say now. What was read last holds on when they cannot be used.
    pub fn reload(&self) {
        let failed = |error: Error| {
            self.reload_failures.add(1);
            tracing::error!(%error, "what was read before holds on");
        };
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(true) => tracing::info!("new certificates are in use"),
                Ok(false) => {}
                Err(error) => failed(error),
            }
        }
        let Some(path) = &self.config.tokens_file else { return };
        match read_tokens(path) {
            Ok((tokens, digest)) => {
                let mut last = self.tokens_digest.lock();
                if *last != digest {
                    *last = digest;
                    self.tokens.store(Some(Arc::new(tokens)));
                    tracing::info!("new tokens are in use");
                }
            }
            Err(error) => failed(error),
        }
    }
}

fn read_tokens(path: &Path) -> Result<(Tokens, Digest), Error> {
    const KEY: &str = "access.tokens_file";
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(KEY, path)(error.to_string()))?;
    let tokens = Tokens::parse(&text).map_err(Error::file(KEY, path))?;
    Ok((tokens, digest(text.as_bytes())))
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(address.is_loopback(), |v4| v4.is_loopback()),
        IpAddr::V4(address) => address.is_loopback(),
    }
}

/// Whether a `Host` header names an address or `localhost`.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
}

impl Collect for Access {
    fn collect(&self, out: &mut Exposition) {
        out.by_label(
            "barograph_access_denied_total",
            "Calls that were not let through.",
            "reason",
            DeniedReason::ALL.iter().zip(&self.denied).map(|(reason, n)| (reason.as_str(), n.get())),
        );
        out.single(
            "barograph_access_reload_failures_total",
            Kind::Counter,
            "Times that changed tokens or certificates could not be used.",
            self.reload_failures.get() as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;

    fn open(config: &Config) -> Arc<Access> {
        Access::open(config, &TlsConfig::default(), Arc::new(SystemClock)).unwrap()
    }

    #[test]
    fn only_loopback_is_bound_without_tls_and_tokens() {
        let access = open(&Config::default());
        for (address, fine) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.1.2.3:1", false),
        ] {
            let checked = access.check_address("listen.http", address.parse().unwrap());
            assert_eq!(checked.is_ok(), fine, "{address}");
        }
        let told = access.check_address("listen.http", "0.0.0.0:1".parse().unwrap()).unwrap_err();
        assert!(told.to_string().contains("access.allow_insecure"), "{told}");
        let access = open(&Config { allow_insecure: true, ..Config::default() });
        assert!(access.check_address("listen.http", "0.0.0.0:1".parse().unwrap()).is_ok());
    }

    #[test]
    fn hosts_that_lead_here_by_a_foreign_name_are_refused() {
        let access = open(&Config::default());
        let check = |host: &str, origin: Option<&str>, write| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(http::header::ORIGIN, origin.parse().unwrap());
            }
            access.check_origin(&headers, write, "test").is_ok()
        };
        assert!(check("127.0.0.1:4320", None, true));
        assert!(check("localhost:4320", Some("http://localhost:4320"), true));
        assert!(check("[::1]:4320", Some("http://[::1]:4320"), true));
        assert!(!check("rebound.example:4320", None, false));
        assert!(!check("127.0.0.1:4320", Some("https://elsewhere.example"), true));
        assert!(!check("127.0.0.1:4320", Some("null"), true));
        assert!(check("127.0.0.1:4320", Some("https://elsewhere.example"), false), "a link leads here");
    }

    #[test]
    fn tokens_and_sessions_are_let_through_until_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        let write = |expires: &str| {
            let text = format!(
                "[[token]]\nname = \"reader\"\nroles = [\"read\"]\ntoken = \"t1\"\nexpires = {expires}\n"
            );
            std::fs::write(&file, text).unwrap();
        };
        write("2100-01-01T00:00:00Z");
        let access = open(&Config { tokens_file: Some(file.clone()), ..Config::default() });
        let with = |token: &'static str| Credentials {
            bearer: Some(Some(token.as_bytes())),
            ..Credentials::default()
        };
        let read = Some(Need::Role(Role::Read));
        let reason = |credentials: &Credentials<'_>, need| {
            access.admit(credentials, need, "test").err().map(|denial| denial.0)
        };
        assert_eq!(reason(&with("t1"), read), None);
        assert_eq!(reason(&with("t1"), Some(Need::Role(Role::Operate))), Some(DeniedReason::Role));
        assert_eq!(reason(&with("t1"), None), Some(DeniedReason::Role));
        assert_eq!(reason(&with("t2"), read), Some(DeniedReason::Unknown));
        assert_eq!(reason(&Credentials::default(), read), Some(DeniedReason::Missing));
        assert_eq!(reason(&Credentials::default(), Some(Need::Nothing)), None);
        let cookie = access.sign_in("t1").unwrap();
        assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("t1"), "{cookie}");
        let id = cookie.split(['=', ';']).nth(1).unwrap();
        let session = Credentials { session: Some(id), ..Credentials::default() };
        assert_eq!(reason(&session, read), None);
        write("2001-01-01T00:00:00Z");
        access.reload();
        assert_eq!(reason(&session, read), Some(DeniedReason::Expired));
        assert_eq!(reason(&with("t1"), read), Some(DeniedReason::Expired));
        std::fs::write(&file, "nonsense").unwrap();
        access.reload();
        assert_eq!(reason(&with("t1"), read), Some(DeniedReason::Expired), "the last that were read hold on");
        assert_eq!(access.reload_failures.get(), 1);
    }
}
