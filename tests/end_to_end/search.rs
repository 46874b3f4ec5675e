//! Finding single traces and log records in the journal, on the command line and on the page.

use crate::support::daemon::Daemon;
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use crate::support::{eventually, http};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_log_records_are_found_and_a_trace_opens_by_its_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&folder.path().join("data"), &[]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let now = now_ns();
    let good: Vec<_> = (0..50).map(|n| span("GET /cart", now - n * 1_000_000, 5_000_000, false)).collect();
    let bad = span("GET /cart", now - 7_000_000, 900_000_000, true);
    let id: String = bad.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let all = good.into_iter().chain([bad]).collect();
    client.export(&Export::Traces(spans("cart", all))).await.expect("taken");
    client
        .export(&Export::Traces(spans("stock", vec![span("SELECT", now, 1_000_000, true)])))
        .await
        .expect("taken");
    client.export(&Export::of(1, "cart", 30)).await.expect("taken");

    let of_cart = eventually("the failed trace is found", Duration::from_secs(20), async || {
        let found = daemon.ask(&["traces", "--where", "service=cart,error"]);
        (found["traces"].as_array().is_some_and(|traces| traces.len() == 1)).then_some(found)
    })
    .await;
    assert_eq!(of_cart["traces"][0]["trace"], id);
    assert_eq!(of_cart["traces"][0]["errors"], 1);
    // Nothing is held from before the first request came.
    let since = of_cart["searched"]["since"].as_str().map(barograph::model::Timestamp::parse_rfc3339);
    assert!(since.is_some_and(|since| since.is_ok_and(|since| since.0 >= now)), "{of_cart:#}");
    let slow = daemon.ask(&["traces", "--where", "duration>=500ms"]);
    assert_eq!(slow["traces"][0]["trace"], id);
    assert_eq!(slow["traces"].as_array().map(Vec::len), Some(1));
    let few = daemon.ask(&["traces", "--service", "cart", "--limit", "7"]);
    assert_eq!(few["traces"].as_array().map(Vec::len), Some(7));
    let whole = daemon.ask(&["traces", &id]);
    assert_eq!(whole["spans"][0]["duration_ns"], 900_000_000);
    let logs = daemon.ask(&["logs", "--where", "body~item 7,severity>=INFO"]);
    assert_eq!(logs["log_records"].as_array().map(Vec::len), Some(1), "{logs:#}");
    assert_eq!(daemon.ask(&["logs", "--where", "error"])["log_records"].as_array().map(Vec::len), Some(0));

    // What a summary says of a trace is of all of its spans, however many log records it has.
    let mut checkouts = Vec::new();
    let Export::Logs(mut logs) = Export::of(1, "checkout", 40) else { panic!("log records") };
    let records = &mut logs.resource_logs[0].scope_logs[0].log_records;
    for record in records.iter_mut() {
        let root = span("POST /checkout", now, 5_000_000, false);
        let child = Span {
            parent_span_id: root.span_id.clone(),
            trace_id: root.trace_id.clone(),
            ..span("charge", now, 1_000_000, false)
        };
        record.trace_id.clone_from(&root.trace_id);
        checkouts.extend([root, child]);
    }
    client.export(&Export::Logs(logs)).await.expect("taken");
    client.export(&Export::Traces(spans("checkout", checkouts))).await.expect("taken");
    let found = eventually("all checkouts are found", Duration::from_secs(20), async || {
        let found = daemon.ask(&["traces", "--where", "service=checkout", "--limit", "100"]);
        (found["traces"].as_array().is_some_and(|traces| traces.len() == 40)).then_some(found)
    })
    .await;
    for of in found["traces"].as_array().expect("traces") {
        assert_eq!((&of["spans"], &of["operation"]), (&2.into(), &"POST /checkout".into()), "{of:#}");
    }

    // What broke at this moment, with its evidence: as that of an alarm, checked by its hashes, and kept nowhere.
    for out in ["explained", "explained.tar.zst"] {
        let out = folder.path().join(out);
        let at = barograph::model::Timestamp(now + 1_000_000_000).to_string();
        let (code, text, error) =
            daemon.run(&["explain", "--at", &at, "--service", "cart", "--out", &out.display().to_string()]);
        assert_eq!(code, Some(0), "{error}");
        assert!(text.contains(&out.display().to_string()), "{text}");
        let bundle = barograph::diagnose::Bundle::open(&out).expect("a bundle");
        assert_eq!((&*bundle.anomaly.service.name, bundle.anomaly.fired_at), ("cart", None));
    }
    let page = std::fs::read_to_string(folder.path().join("explained/index.html")).expect("a page");
    assert!(page.contains("looked at without an alarm") && page.contains(", compared with "), "{page}");
    assert!(!page.contains("Anomaly ") && !page.contains(">info<"), "{page}");

    let kept = std::fs::read_dir(folder.path().join("data/evidence")).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "the daemon keeps it nowhere");

    // What to compare with may be chosen, but is not what is looked at.
    let ago = |seconds: u64| barograph::model::Timestamp(now - seconds * 1_000_000_000).to_string();
    let chosen = format!("{}/{}", ago(300), ago(200));
    let at = barograph::model::Timestamp(now + 1_000_000_000).to_string();
    let answer = daemon.ask(&["explain", "--at", &at, "--baseline", &chosen]);
    assert_eq!(answer["healthy_until"], ago(200), "{answer:#}");
    assert_eq!((&answer["healthy_rows"], &answer["causes"]), (&0.into(), &serde_json::json!([])));
    let (code, text, _) = daemon.run(&["explain", "--at", &at, "--baseline", &chosen]);
    assert!(code == Some(0) && text.starts_with("nothing can be said"), "{text}");
    let overlapping = format!("{}/{}", ago(300), ago(60));
    let (code, _, error) = daemon.run(&["explain", "--at", &at, "--baseline", &overlapping]);
    assert!(code != Some(0) && error.contains("let it end there or before"), "{error}");

    let (status, page) = http::get(&format!("{}/traces/{id}", daemon.url("http"))).await.expect("a page");
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&page).contains("1 failed"));
    let (status, page) =
        http::get(&format!("{}/traces?where=error&service=cart", daemon.url("http"))).await.expect("a page");
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&page).contains(&id));
    let (status, _) =
        http::get(&format!("{}/logs?where=nonsense", daemon.url("http"))).await.expect("a page");
    assert_eq!(status, 400);
    assert_eq!(daemon.stop(), Some(0));
}
