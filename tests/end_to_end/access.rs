//! Who may call what: every RPC and path with every kind of credentials, TLS, client certificates, the
//! page's session.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::eventually;
use crate::support::http::{self, Sent};
use crate::support::otlp::Export;
use ::http::Method;
use bytes::Bytes;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

const PATIENCE: Duration = Duration::from_secs(30);
const UNAUTHENTICATED: i32 = 16;
const PERMISSION_DENIED: i32 = 7;

const INGEST: &str = "ingest-secret-27b1";
const READ: &str = "read-secret-9c4e";
const OPERATE: &str = "operate-secret-5d0a";
const ADMIN: &str = "admin-secret-e33f";
const EXPIRED: &str = "expired-secret-77aa";
const WRONG: &str = "wrong-secret-1f1f";
const SECRETS: [&str; 6] = [INGEST, READ, OPERATE, ADMIN, EXPIRED, WRONG];

fn write_tokens(folder: &Path) -> String {
    let token = |role: &str, token: &str, more: &str| {
        format!("[[token]]\nname = \"the-{role}\"\nroles = [\"{role}\"]\ntoken = \"{token}\"\n{more}\n")
    };
    let text = [
        token("ingest", INGEST, ""),
        token("read", READ, ""),
        token("operate", OPERATE, ""),
        token("admin", ADMIN, "expires = 2100-01-01T00:00:00Z"),
        token("admin", EXPIRED, "expires = 2020-01-01T00:00:00Z"),
    ];
    let file = folder.join("tokens.toml");
    std::fs::write(&file, text.concat()).expect("written");
    format!("access.tokens_file={:?}", file.display().to_string())
}

/// What a call needs, told from its name and not from the table that is tested.
fn needed(method: &str) -> &'static str {
    let verbs = [
        ("Export", "ingest"),
        ("Get", "read"),
        ("List", "read"),
        ("Follow", "read"),
        ("Download", "read"),
        ("ServerReflectionInfo", "read"),
        ("Tell", "operate"),
        ("Acknowledge", "operate"),
        ("AddNote", "operate"),
        ("AddExemption", "operate"),
        ("AddAdjustment", "operate"),
        ("UndoAdjustment", "operate"),
        ("EndExemption", "operate"),
        ("Search", "read"),
        ("Explain", "read"),
        ("Resolve", "operate"),
    ];
    let verb = verbs.iter().find(|(verb, _)| method.starts_with(verb));
    verb.unwrap_or_else(|| panic!("say here what {method} needs")).1
}

/// Credentials, and which needs they meet.
fn holders() -> Vec<(&'static str, Option<String>, &'static [&'static str], bool)> {
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    vec![
        ("none", None, &[], false),
        ("a wrong token", bearer(WRONG), &[], false),
        ("an expired token", bearer(EXPIRED), &[], false),
        ("another scheme", Some(format!("Basic {ADMIN}")), &[], false),
        ("nothing after the scheme", Some("Bearer ".to_owned()), &[], false),
        ("ingest", bearer(INGEST), &["ingest"], true),
        ("read", bearer(READ), &["read"], true),
        ("operate", bearer(OPERATE), &["read", "operate"], true),
        ("admin", bearer(ADMIN), &["ingest", "read", "operate", "admin"], true),
    ]
}

fn rpcs() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(barograph::api::DESCRIPTORS).expect("descriptors");
    let mut all: Vec<String> = ["trace.v1.Trace", "logs.v1.Logs", "metrics.v1.Metrics"]
        .map(|service| format!("/opentelemetry.proto.collector.{service}Service/Export"))
        .into();
    for file in &set.file {
        for service in &file.service {
            let methods = service.method.iter();
            all.extend(methods.map(|rpc| format!("/{}.{}/{}", file.package(), service.name(), rpc.name())));
        }
    }
    all.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    all
}

/// What is open to all: it tells nothing, and ends no session but one's own.
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/login", "/logout"];

/// Methods and paths of the page's port, as the routers are written down, with a name where any may stand: whoever
/// adds one has it tested.
fn routes() -> Vec<(Method, String)> {
    let mut routes = Vec::new();
    for file in ["src/web/router.rs", "src/web/sign_in.rs", "src/serve/http.rs"] {
        let text = std::fs::read_to_string(file).expect("a file of ours");
        for route in text.split(".route(").skip(1) {
            let mut parts = route.splitn(3, '"');
            let path = parts.nth(1).expect("a path").replace("{id}", "x").replace("{*file}", "spans.parquet");
            let handlers = parts.next().expect("handlers");
            let line = handlers.lines().next().unwrap_or_default();
            for (word, method) in [("get(", Method::GET), ("post(", Method::POST)] {
                if line.contains(word) {
                    routes.push((method, path.clone()));
                }
            }
        }
    }
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_with_every_kind_of_credentials_is_let_through_or_refused_as_the_table_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let daemon = Daemon::start(&data, &[&write_tokens(folder.path())]);
    let mut refusals = 0usize;
    let mut calls = 0usize;
    for rpc in rpcs() {
        let need = needed(rpc.rsplit('/').next().expect("a name"));
        let port = if rpc.ends_with("/Export") { "otlp_grpc" } else { "query" };
        let url = format!("{}{rpc}", daemon.url(port));
        for (who, authorization, may, known) in holders() {
            let mut headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
            headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
            calls += 1;
            let sent = Sent::Whole(Bytes::from_static(&[0; 5]));
            let call = http::send(&url, (Method::POST, true), &headers, sent);
            let answer = match tokio::time::timeout(Duration::from_millis(1_500), call).await {
                Ok(answer) => answer.unwrap_or_else(|error| panic!("{rpc} with {who}: {error}")),
                // A stream that stays open was let through.
                Err(_) => {
                    assert!(may.contains(&need), "{rpc} with {who} stays open");
                    continue;
                }
            };
            let expected = match (may.contains(&need), known) {
                (true, _) => None,
                (false, false) => Some(UNAUTHENTICATED),
                (false, true) => Some(PERMISSION_DENIED),
            };
            let refused =
                answer.grpc_status.filter(|status| [UNAUTHENTICATED, PERMISSION_DENIED].contains(status));
            assert_eq!(refused, expected, "{rpc} with {who}: {answer:?}");
            refusals += usize::from(refused.is_some());
        }
    }
    let json = ("content-type", "application/json");
    let mut paths = vec![
        ("otlp_http", Method::POST, "/v1/traces".to_owned(), "ingest"),
        ("otlp_http", Method::POST, "/v1/logs".to_owned(), "ingest"),
        ("otlp_http", Method::POST, "/v1/metrics".to_owned(), "ingest"),
        ("otlp_http", Method::GET, "/v1/traces".to_owned(), "ingest"),
        ("otlp_http", Method::POST, "/nowhere".to_owned(), "ingest"),
        ("http", Method::HEAD, "/metrics".to_owned(), "read"),
        ("http", Method::GET, "/nowhere".to_owned(), "read"),
        ("http", Method::DELETE, "/v1/changes".to_owned(), "nobody"),
        ("http", Method::POST, "/metrics".to_owned(), "nobody"),
    ];
    let routes = routes();
    assert!(routes.len() > 15, "{routes:?}");
    for (method, path) in routes {
        if !OPEN.contains(&path.as_str()) {
            let need = if method == Method::GET { "read" } else { "operate" };
            paths.push(("http", method, path, need));
        }
    }
    for (port, method, path, need) in paths {
        for (who, authorization, may, known) in holders() {
            let mut headers = vec![json];
            headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
            calls += 1;
            let sent = Sent::Whole(Bytes::from_static(b"{}"));
            let url = format!("{}{path}", daemon.url(port));
            let answer = http::send(&url, (method.clone(), false), &headers, sent)
                .await
                .unwrap_or_else(|error| panic!("{method} {path} with {who}: {error}"));
            let expected = match (may.contains(&need), known) {
                (true, _) => None,
                (false, false) => Some(401),
                (false, true) => Some(403),
            };
            let refused = Some(answer.status).filter(|status| [401, 403].contains(status));
            assert_eq!(refused, expected, "{method} {path} with {who}: {answer:?}");
            refusals += usize::from(refused.is_some());
        }
    }
    // What tells nothing is open to all.
    for path in OPEN.into_iter().filter(|path| *path != "/logout") {
        let (status, _) = http::get(&format!("{}{path}", daemon.url("http"))).await.expect("an answer");
        assert_eq!(status, 200, "{path}");
    }
    // Each refusal is counted and told in the log; no secret is, nor in what the daemon says of itself.
    let headers = [("authorization", format!("Bearer {READ}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let metrics = format!("{}/metrics", daemon.url("http"));
    let metrics = http::send(&metrics, (Method::GET, false), &headers, Sent::Whole(Bytes::new())).await;
    let metrics = String::from_utf8(metrics.expect("metrics").body.to_vec()).expect("text");
    let denied: f64 = metrics
        .lines()
        .filter_map(|line| {
            line.strip_prefix("barograph_access_denied_total{")?.rsplit(' ').next()?.parse::<f64>().ok()
        })
        .sum();
    assert_eq!(denied as usize, refusals, "all refusals are counted");
    let log = eventually("all refusals are in the log", PATIENCE, async || {
        let log = std::fs::read_to_string(data.join("log")).expect("a log");
        (log.matches("a call is refused").count() == refusals).then_some(log)
    })
    .await;
    for secret in SECRETS {
        assert!(!log.contains(secret), "the log holds {secret}");
        assert!(!metrics.contains(secret), "the metrics hold {secret}");
    }
    println!("{calls} calls, {refusals} refused, counted and logged without a secret");
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_takes_a_token_once_and_writes_carry_a_csrf_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&folder.path().join("data"), &[&write_tokens(folder.path())]);
    let url = |path: &str| format!("{}{path}", daemon.url("http"));
    let send = async |method: Method, path: &str, headers: &[(&str, &str)], body: String| {
        http::send(&url(path), (method, false), headers, Sent::Whole(body.into())).await.expect("an answer")
    };
    let html = ("accept", "text/html");
    let answer = send(Method::GET, "/", &[html], String::new()).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers["location"], "/login");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let answer = send(Method::POST, "/login", &[form], format!("token={WRONG}")).await;
    assert_eq!((answer.status, answer.headers.get("set-cookie")), (401, None));
    let answer = send(Method::POST, "/login", &[form], format!("token={OPERATE}")).await;
    assert_eq!(answer.status, 303);
    let cookie = answer.headers["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains(OPERATE), "{cookie}");
    let cookie = ("cookie", cookie.split(';').next().expect("a pair"));
    assert_eq!(send(Method::GET, "/", &[html, cookie], String::new()).await.status, 200);

    let json = ("content-type", "application/json");
    let change = r#"{"service":"cart","kind":"deploy","title":"v2"}"#.to_owned();
    let without = send(Method::POST, "/v1/changes", &[cookie, json], change.clone()).await;
    assert_eq!(without.status, 403, "a write without the CSRF token");
    let session = send(Method::GET, "/session", &[cookie], String::new()).await;
    let session: serde_json::Value = serde_json::from_slice(&session.body).expect("JSON");
    let csrf = ("x-csrf-token", session["csrf_token"].as_str().expect("a token"));
    let with = send(Method::POST, "/v1/changes", &[cookie, json, csrf], change.clone()).await;
    assert_eq!(with.status, 201, "{with:?}");
    let foreign = ("origin", "https://elsewhere.example");
    let from_elsewhere =
        send(Method::POST, "/v1/changes", &[cookie, json, csrf, foreign], change.clone()).await;
    assert_eq!(from_elsewhere.status, 403);
    let bearer = format!("Bearer {OPERATE}");
    let by_token = send(Method::POST, "/v1/changes", &[json, ("authorization", &bearer)], change).await;
    assert_eq!(by_token.status, 201, "a token needs no CSRF token");

    assert_eq!(send(Method::POST, "/logout", &[cookie], String::new()).await.status, 303);
    assert_eq!(send(Method::GET, "/", &[cookie], String::new()).await.status, 401);
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_may_send_telemetry_only_if_they_are_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &["access.cors_origins=[\"https://shop.example\"]"]);
    let url = format!("{}/v1/traces", daemon.url("otlp_http"));
    let send = async |method: Method, origin: &str| {
        let headers = [("origin", origin), ("content-type", "application/json")];
        http::send(&url, (method, false), &headers, Sent::Whole("{}".into())).await.expect("an answer")
    };
    let asked = send(Method::OPTIONS, "https://shop.example").await;
    assert_eq!(asked.status, 204);
    assert_eq!(asked.headers["access-control-allow-origin"], "https://shop.example");
    let sent = send(Method::POST, "https://shop.example").await;
    assert_eq!(
        (sent.status, sent.headers["access-control-allow-origin"].as_bytes()),
        (200, &b"https://shop.example"[..])
    );
    for origin in ["https://elsewhere.example", "null", "http://shop.example"] {
        for method in [Method::OPTIONS, Method::POST] {
            let refused = send(method, origin).await;
            assert_eq!(refused.status, 403, "{origin}");
            assert!(!refused.headers.contains_key("access-control-allow-origin"));
        }
    }
    // Nor may a page change anything by way of its reader's browser.
    let headers = [("origin", "https://elsewhere.example"), ("content-type", "text/plain")];
    let changes = format!("{}/v1/changes", daemon.url("http"));
    let refused = http::send(&changes, (Method::POST, false), &headers, Sent::Whole("{}".into())).await;
    assert_eq!(refused.expect("an answer").status, 403);
    assert_eq!(daemon.stop(), Some(0));
}

/// An authority and what it signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for 127.0.0.1.
    pub fn sign(&self) -> (String, String) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signed").pem(), key.serialize_pem())
    }
}

fn tls_settings(folder: &Path) -> [String; 2] {
    ["cert", "key"]
        .map(|name| format!("tls.{name}_file={:?}", folder.join(format!("{name}.pem")).display().to_string()))
}

fn write_certificate(folder: &Path, authority: &Authority) {
    let (cert, key) = authority.sign();
    std::fs::write(folder.join("cert.pem"), cert).expect("written");
    std::fs::write(folder.join("key.pem"), key).expect("written");
}

/// An OTLP client over TLS that trusts one authority.
struct Secured(tonic::client::Grpc<tonic::transport::Channel>);

impl Secured {
    async fn connect(url: &str, tls: ClientTlsConfig) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(url.replace("http://", "https://")).expect("a URL");
        let endpoint = endpoint.tls_config(tls).map_err(|error| format!("{error:?}"))?;
        let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
        Ok(Self(tonic::client::Grpc::new(channel)))
    }

    async fn export(&mut self, token: Option<&str>) -> Result<(), tonic::Status> {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
        let Export::Traces(request) = Export::of(0, "secured", 1) else { panic!("traces") };
        let mut request = tonic::Request::new(request);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.metadata_mut().insert("authorization", value);
        }
        self.0.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".parse().expect("a path");
        let codec = tonic_prost::ProstCodec::<_, ExportTraceServiceResponse>::default();
        self.0.unary(request, path, codec).await.map(drop)
    }
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_new_certificates_are_taken_up_without_dropping_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Authority::new();
    write_certificate(folder.path(), &first);
    let tokens = write_tokens(folder.path());
    let [cert, key] = tls_settings(folder.path());
    let daemon = Daemon::start(&folder.path().join("data"), &[&tokens, &cert, &key]);
    let grpc = daemon.url("otlp_grpc");
    let mut old = Secured::connect(&grpc, trusting(&first)).await.expect("connected");
    old.export(Some(INGEST)).await.expect("taken");
    assert_eq!(old.export(None).await.expect_err("refused").code(), tonic::Code::Unauthenticated);
    assert!(http::get(&format!("{}/healthz", daemon.url("http"))).await.is_none(), "no plain HTTP");

    // The command line, with the authority and the token in files.
    std::fs::write(folder.path().join("ca.pem"), first.pem()).expect("written");
    std::fs::write(folder.path().join("token"), format!("{READ}\n")).expect("written");
    let ask = |files: &[(&str, &str)]| {
        let mut command = Command::new(&*BINARY);
        command.args(["status", "-o", "json", "--endpoint"]);
        command.arg(daemon.url("query").replace("http://", "https://"));
        for (argument, file) in files {
            command.arg(argument).arg(folder.path().join(file));
        }
        command.output().expect("it runs")
    };
    let answer = ask(&[("--ca-file", "ca.pem"), ("--token-file", "token")]);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let answer = ask(&[("--ca-file", "ca.pem")]);
    assert!(String::from_utf8_lossy(&answer.stderr).contains("--token-file"), "{answer:?}");
    assert!(!ask(&[("--token-file", "token")]).status.success(), "an authority that is not trusted");

    // A certificate of another authority: who connects from now on sees that, who is connected stays so.
    let second = Authority::new();
    write_certificate(folder.path(), &second);
    let mut new = eventually("the new certificate is in use", PATIENCE, async || {
        Secured::connect(&grpc, trusting(&second)).await.ok()
    })
    .await;
    new.export(Some(INGEST)).await.expect("taken");
    assert!(Secured::connect(&grpc, trusting(&first)).await.is_err(), "the old one is gone");
    old.export(Some(INGEST)).await.expect("the connection from before is still there");
    // What cannot be used is not taken up.
    std::fs::write(folder.path().join("cert.pem"), "nonsense").expect("written");
    eventually("the broken file is noticed", PATIENCE, async || {
        let log = std::fs::read_to_string(folder.path().join("data/log")).expect("a log");
        log.contains("what was read before holds on").then_some(())
    })
    .await;
    let mut again = Secured::connect(&grpc, trusting(&second)).await.expect("connected");
    again.export(Some(INGEST)).await.expect("taken");
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_without_a_trusted_certificate_are_turned_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let (servers, clients) = (Authority::new(), Authority::new());
    write_certificate(folder.path(), &servers);
    std::fs::write(folder.path().join("clients.pem"), clients.pem()).expect("written");
    let ca = format!("tls.client_ca_file={:?}", folder.path().join("clients.pem").display().to_string());
    let [cert, key] = tls_settings(folder.path());
    let tokens = write_tokens(folder.path());
    let daemon = Daemon::start(&folder.path().join("data"), &[&cert, &key, &ca, &tokens]);
    let grpc = daemon.url("otlp_grpc");
    let identity = |authority: &Authority| {
        let (cert, key) = authority.sign();
        trusting(&servers).identity(Identity::from_pem(cert, key))
    };
    let mut trusted = Secured::connect(&grpc, identity(&clients)).await.expect("connected");
    trusted.export(None).await.expect("a certificate is enough to send");
    for (who, tls) in
        [("without one", trusting(&servers)), ("with one of its own", identity(&Authority::new()))]
    {
        // The refusal may come after the handshake seems done.
        let refused = match Secured::connect(&grpc, tls).await {
            Ok(mut client) => client.export(Some(INGEST)).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "a sender {who}");
    }
    // A certificate that may send may not ask; a token may, without a certificate.
    std::fs::write(folder.path().join("ca.pem"), servers.pem()).expect("written");
    std::fs::write(folder.path().join("token"), READ).expect("written");
    let answer = Command::new(&*BINARY)
        .args(["status", "-o", "json", "--endpoint", &daemon.url("query").replace("http://", "https://")])
        .arg("--ca-file")
        .arg(folder.path().join("ca.pem"))
        .arg("--token-file")
        .arg(folder.path().join("token"))
        .output()
        .expect("it runs");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn other_addresses_than_loopback_need_tls_and_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = write_tokens(folder.path());
    for settings in [vec![], vec![tokens.as_str()]] {
        let mut command = Command::new(&*BINARY);
        command.args(["serve", "--set", "listen.http=\"0.0.0.0:0\"", "--set"]);
        command.arg(format!("data_dir={:?}", folder.path().join("data").display().to_string()));
        for setting in &settings {
            command.args(["--set", setting]);
        }
        let output = command.output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{told}");
        assert!(told.contains("listen.http: 0.0.0.0:0 is no loopback address"), "{told}");
    }
}
