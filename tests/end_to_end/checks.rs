//! Synthetic checks against small backends of every kind.

use super::access::Authority;
use crate::support::daemon::Daemon;
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use crate::support::receiver::Request;
use crate::support::{Receiver, eventually, free_port, http};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(90);

/// A shop that answers with a status, and tells which traces it was asked in.
async fn shop(status: Arc<AtomicU16>) -> (u16, mpsc::UnboundedReceiver<(String, bool)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (asked, traces) = mpsc::unbounded_channel();
    let answer = async move |State(status): State<Arc<AtomicU16>>, headers: HeaderMap| {
        let status = status.load(Ordering::SeqCst);
        if let Some(parent) = headers.get("traceparent").and_then(|value| value.to_str().ok()) {
            let _ = asked.send((parent.to_owned(), status >= 500));
        }
        (StatusCode::from_u16(status).expect("a status"), "the shop is open")
    };
    let app = axum::Router::new().fallback(answer).with_state(status);
    tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
    (port, traces)
}

/// A name server that knows every name under `shop.example`.
async fn name_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let port = socket.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            let mut answer = question[..length].to_vec();
            let is_known = answer.windows(13).any(|part| part == b"\x04shop\x07example");
            answer[2] |= 0x80;
            answer[3] = if is_known { 0x80 } else { 0x83 };
            answer[7] = u8::from(is_known);
            if is_known {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    port
}

fn check<'a>(checks: &'a Value, name: &str) -> &'a Value {
    let found = checks.as_array().expect("rows").iter().find(|check| check["check"] == name);
    found.unwrap_or_else(|| panic!("{name} in {checks:#}"))
}

/// Services and statuses of the spans of one trace in a bundle.
fn spans_of(bundle: &Path, trace: &str) -> Vec<(String, String)> {
    let file = std::fs::File::open(bundle.join("spans.parquet")).expect("a file of spans");
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let mut found = Vec::new();
    for row in reader.get_row_iter(None).expect("rows") {
        let row = row.expect("a row");
        let column = |name: &str| {
            let value = row.get_column_iter().find(|(column, _)| *column == name).expect("a column").1;
            value.to_string().trim_matches('"').to_owned()
        };
        if column("trace_id") == trace {
            found.push((column("service"), column("status")));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_check_opens_an_incident_that_holds_its_backend_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let status = Arc::new(AtomicU16::new(200));
    let (port, mut traces) = shop(status.clone()).await;
    let names = name_server().await;
    let (health, service) = tonic_health::server::health_reporter();
    health.set_service_status("shop.Cart", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let grpc = listener.local_addr().expect("an address").port();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let nobody = free_port();
    let checks: String = [
        ("shop-page", format!("http://127.0.0.1:{port}/health"), r#", service = "shop", contains = "open""#),
        ("cart-health", format!("grpc://127.0.0.1:{grpc}/shop.Cart"), ""),
        ("shop-port", format!("tcp://127.0.0.1:{port}"), ""),
        ("nobody", format!("tcp://127.0.0.1:{nobody}"), r#", failures = 100"#),
        ("shop-name", format!("dns://127.0.0.1:{names}/www.shop.example"), ""),
        ("wrong-name", format!("dns://127.0.0.1:{names}/www.other.example"), ", failures = 100"),
    ]
    .map(|(name, url, more)| format!("{{ name = {name:?}, url = {url:?}, every = \"1s\"{more} }},"))
    .concat();
    let mut receiver = Receiver::start().await;
    let webhook = format!("alert.webhooks=[{:?}]", receiver.url());
    let daemon = Daemon::start(folder.path(), &[&format!("probe.checks=[{checks}]"), &webhook]);

    // The shop exports a span for each request, within the trace that it was asked in.
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let (failed, mut failed_traces) = mpsc::unbounded_channel();
    let exporting = tokio::spawn(async move {
        while let Some((parent, fails)) = traces.recv().await {
            let parts: Vec<&str> = parent.split('-').collect();
            let id = |text: &str| u128::from_str_radix(text, 16).expect("hexadecimal digits").to_be_bytes();
            let mut own = span("GET /health", now_ns(), 2_000_000, fails);
            own.trace_id = id(parts[1]).to_vec();
            own.parent_span_id = id(parts[2])[8..].to_vec();
            client.export(&Export::Traces(spans("shop", vec![own]))).await.expect("acknowledged");
            if fails {
                let _ = failed.send(parts[1].to_owned());
            }
        }
    });

    let all = eventually("every check ran", PATIENCE, async || {
        let all = daemon.ask(&["checks"]);
        let ran = all.as_array().expect("rows").iter().all(|check| check["runs"].as_u64() > Some(1));
        (ran && all.as_array().map(Vec::len) == Some(6)).then_some(all)
    })
    .await;
    for (name, state, error) in [
        ("shop-page", "ok", ""),
        ("cart-health", "ok", ""),
        ("shop-port", "ok", ""),
        ("nobody", "failing", "refused"),
        ("shop-name", "ok", ""),
        ("wrong-name", "failing", "NXDOMAIN"),
    ] {
        let check = check(&all, name);
        assert_eq!(check["state"], state, "{check:#}");
        assert!(check["error"].as_str().unwrap_or_default().contains(error), "{check:#}");
    }
    // Its runs are the requests of a service, and have an objective.
    eventually("the objective counts", PATIENCE, async || {
        let rows = daemon.ask(&["slo"]);
        let row = rows.as_array()?.iter().find(|row| row["slo"] == "shop-page-check")?.clone();
        (row["total"].as_u64() > Some(3)
            && row["good"] == row["total"]
            && row["namespace"] == "synthetic-checks")
            .then_some(())
    })
    .await;

    status.store(503, Ordering::SeqCst);
    let is_about_check = |anomaly: &Value| {
        anomaly["signals"].as_array().into_iter().flatten().any(|signal| signal["service"] == "shop-page")
            || anomaly["service"] == "shop-page"
    };
    let anomaly = eventually("an alert with evidence", PATIENCE, async || {
        let all = daemon.ask(&["anomalies"]);
        let firing = |anomaly: &&Value| anomaly["state"] == "firing" && !anomaly["evidence"].is_null();
        all.as_array()?.iter().filter(firing).find(|anomaly| is_about_check(anomaly)).cloned()
    })
    .await;
    let page = check(&daemon.ask(&["checks"]), "shop-page").clone();
    assert_eq!((&page["state"], &page["error"]), (&"failing".into(), &"HTTP status 503".into()));

    // The alert says what was asked and what came of it.
    let asked = format!("http://127.0.0.1:{port}/health: HTTP status 503");
    let says = |request: &Request| {
        let annotations = &request.body["data"]["annotations"];
        annotations["check"] == *asked
            && annotations["description"]
                .as_str()
                .is_some_and(|text| text.contains(&format!("Synthetic check: {asked}")))
    };
    receiver.wait("why the check fails", PATIENCE, |requests| requests.iter().any(says)).await;

    let id = anomaly["id"].as_str().expect("an id");
    let out = folder.path().join("bundle");
    let found = eventually("the backend's span of a failed check", PATIENCE, async || {
        let _ = std::fs::remove_dir_all(&out);
        daemon.ask(&["evidence", id, "--out", &out.display().to_string()]);
        let mut asked = Vec::new();
        while let Ok(trace) = failed_traces.try_recv() {
            asked.push(trace);
        }
        asked.iter().map(|trace| spans_of(&out, trace)).find(|spans| spans.len() == 2)
    })
    .await;
    for service in ["shop-page", "shop"] {
        assert!(found.contains(&(service.to_owned(), "error".to_owned())), "{found:?}");
    }
    let incidents = daemon.ask(&["incidents"]);
    let holds =
        |incident: &Value| incident["anomalies"].as_array().is_some_and(|all| all.contains(&id.into()));
    assert!(incidents.as_array().expect("rows").iter().any(holds), "{incidents:#}");

    // What it cost is told with it.
    let spent = eventually("the budget spent", PATIENCE, async || {
        let rows = daemon.ask(&["incident", id]);
        let spent = rows.as_array()?.first()?["budget_spent"].clone();
        spent.as_array()?.iter().find(|spent| spent["slo"] == "shop-page-check").cloned()
    })
    .await;
    assert_eq!(spent["service"], "shop-page", "{spent}");
    assert!(spent["bad"].as_u64() > Some(2) && spent["ratio"].as_f64() > Some(0.0), "{spent}");
    let page = http::get(&format!("{}/incidents/{id}", daemon.url("http"))).await.expect("a page").1;
    assert!(String::from_utf8_lossy(&page).contains("Error budget spent"));

    status.store(200, Ordering::SeqCst);
    eventually("the check is good again", PATIENCE, async || {
        (check(&daemon.ask(&["checks"]), "shop-page")["state"] == "ok").then_some(())
    })
    .await;
    exporting.abort();
    assert_eq!(daemon.stop(), Some(0));
}

/// TLS in front of a port, with a certificate of an authority; gives the port that it listens on.
async fn tls_before(port: u16, authority: &Authority, protocol: &[u8]) -> u16 {
    let (certificate, key) = authority.sign();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("certificate and key belong together");
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let own = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever does not trust us ends it here.
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(("127.0.0.1", port)).await.expect("the plain one listens");
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_over_tls_trust_the_authority_that_they_are_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let trusted = folder.path().join("authority.pem");
    std::fs::write(&trusted, authority.pem()).expect("written");
    let (plain, _traces) = shop(Arc::new(AtomicU16::new(200))).await;
    let (health, service) = tonic_health::server::health_reporter();
    health.set_service_status("shop.Cart", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let plain_grpc = listener.local_addr().expect("an address").port();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let https = tls_before(plain, &authority, b"http/1.1").await;
    let grpcs = tls_before(plain_grpc, &authority, b"h2").await;
    let strange_https = tls_before(plain, &stranger, b"http/1.1").await;
    let strange_grpcs = tls_before(plain_grpc, &stranger, b"h2").await;
    let checks: String = [
        ("page", format!("https://127.0.0.1:{https}/health")),
        ("cart", format!("grpcs://127.0.0.1:{grpcs}/shop.Cart")),
        ("strange-page", format!("https://127.0.0.1:{strange_https}/health")),
        ("strange-cart", format!("grpcs://127.0.0.1:{strange_grpcs}/shop.Cart")),
    ]
    .map(|(name, url)| {
        format!(
            "{{ name = {name:?}, url = {url:?}, every = \"1s\", failures = 100, ca_file = {trusted:?} }},"
        )
    })
    .concat();
    let daemon = Daemon::start(folder.path(), &[&format!("probe.checks=[{checks}]")]);
    let all = eventually("every check ran", PATIENCE, async || {
        let all = daemon.ask(&["checks"]);
        all.as_array().expect("rows").iter().all(|check| check["runs"].as_u64() > Some(1)).then_some(all)
    })
    .await;
    for (name, state, error) in [
        ("page", "ok", ""),
        ("cart", "ok", ""),
        ("strange-page", "failing", "certificate"),
        ("strange-cart", "failing", "certificate"),
    ] {
        let check = check(&all, name);
        assert_eq!(check["state"], state, "{check:#}");
        assert!(check["error"].as_str().unwrap_or_default().contains(error), "{check:#}");
    }
    assert_eq!(daemon.stop(), Some(0));
}
