//! Objectives in files, as the daemon reads and judges them.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::otlp::{Client, Export, logs, now_ns, span, spans};
use crate::support::{eventually, http};
use ::http::Method;
use barograph::model::Timestamp;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

fn objective(name: &str, target: f64) -> String {
    format!(
        "apiVersion: openslo/v1
kind: SLO
metadata: {{ name: {name} }}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good: {{ metricSource: {{ type: barograph, spec: {{ good: not_error }} }} }}
  timeWindow: [{{ duration: 30d, isRolling: true }}]
  budgetingMethod: Occurrences
  objectives: [{{ target: {target} }}]
"
    )
}

/// The row of an objective.
fn row(daemon: &Daemon, name: &str) -> Option<Value> {
    let rows = daemon.ask(&["slo"]);
    rows.as_array().expect("rows").iter().find(|row| row["slo"] == name).cloned()
}

async fn send(client: &mut Client, good: u64, bad: u64) {
    let now = now_ns();
    let all = (0..good + bad).map(|number| span("GET /", now, 1_000_000 + number, number < bad)).collect();
    client.export(&Export::Traces(spans("shop", all))).await.expect("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn objectives_are_read_again_and_a_bad_file_leaves_them_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data) = (folder.path().join("shop.yaml"), folder.path().join("data"));
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write(&objective("shop-ok", 0.9));
    let daemon = Daemon::start(&data, &[&format!("slo.files=[{:?}]", folder_of(&file))]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    // With the first of them the objective is made; from the next seconds on it counts.
    eventually("it counts", PATIENCE, async || {
        send(&mut client, 1, 0).await;
        row(&daemon, "shop-ok").filter(|row| row["total"] != 0)
    })
    .await;
    send(&mut client, 97, 3).await;
    let first = eventually("the bad ones are counted", PATIENCE, async || {
        row(&daemon, "shop-ok").filter(|row| row["total"].as_u64() > row["good"].as_u64())
    })
    .await;
    let total = first["total"].as_u64().expect("a number");
    assert!(total >= 100, "{first}");
    assert_eq!(
        (&first["good"], &first["target"], &first["state"]),
        (&(total - 3).into(), &0.9.into(), &"ok".into())
    );
    let left = first["budget_remaining_ratio"].as_f64().expect("a number");
    assert!((left - (1.0 - 3.0 / (total as f64 * 0.1))).abs() < 1e-9, "{left} of {total}");

    // Another target: what was counted stays.
    write(&objective("shop-ok", 0.95));
    let again = eventually("the target is another", PATIENCE, async || {
        row(&daemon, "shop-ok").filter(|row| row["target"] == 0.95)
    })
    .await;
    assert_eq!((&again["good"], &again["total"]), (&first["good"], &first["total"]));

    // A mistake is named, and all stays.
    write(&objective("shop-ok", 95.0));
    let refused = "\nbarograph_slo_files_refused 1\n";
    let metrics = format!("{}/metrics", daemon.url("http"));
    let is_refused = async || {
        let (_, text) = http::get(&metrics).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Some(text.contains(refused))
    };
    eventually("the file is refused", PATIENCE, async || is_refused().await.filter(|refused| *refused)).await;
    let log = std::fs::read_to_string(data.join("log")).expect("a log");
    let reason = "shop.yaml:12: target: is out of range, allowed: 0 to below 1; write 0.95 for 95 %";
    assert!(log.contains(reason), "{log}");
    // It is told where people look.
    let line = format!(
        "1 file refused: {}/{reason} (until then the objectives stay as they were)",
        folder_of(&file).display()
    );
    let slos = daemon.command(&["slo"]);
    assert!(slos.lines().any(|told| told == line) && slos.contains("shop-ok"), "{slos}");
    // Who asks for one alone hears of it, too, and who asks for one that only the refused file may hold.
    let alone = daemon.command(&["slo", "shop-ok"]);
    assert!(alone.lines().any(|told| told == line), "{alone}");
    let (code, _, error) = daemon.run(&["slo", "brand-new"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains(&format!("no objective \"brand-new\"; {line}")), "{error}");
    let status = daemon.command(&["status"]);
    assert!(status.contains(&line), "{status}");
    let told = &daemon.ask(&["status"])["refused_slo_files"];
    assert_eq!(
        (&told[0]["line"], &told[0]["key"], &told[0]["left_out"]),
        (&12.into(), &"target".into(), &false.into()),
        "{told}"
    );
    let (_, page) = http::get(&format!("{}/slos", daemon.url("http"))).await.expect("a page");
    let page = String::from_utf8_lossy(&page).into_owned();
    assert!(page.contains("1 file refused: ") && page.contains(reason), "{page}");
    assert_eq!(row(&daemon, "shop-ok").expect("still there")["target"], 0.95);

    // One more, in a file of its own.
    write(&objective("shop-ok", 0.95));
    std::fs::write(folder_of(&file).join("two.yaml"), objective("shop-two", 0.99)).expect("written");
    eventually("the second is there", PATIENCE, async || row(&daemon, "shop-two")).await;
    assert_eq!(is_refused().await, Some(false));
    assert_eq!(row(&daemon, "shop-ok").expect("still there")["total"], total);

    // The time that it all happened in is taken out of the budget, and given back.
    let url = format!("{}/v1/adjustments", daemon.url("http"));
    let (from, until) = (Timestamp(now_ns() - 600_000_000_000), Timestamp(now_ns() + 60_000_000_000));
    let told =
        json!({ "slo": "shop-ok", "from": from, "until": until, "author": "ada", "reason": "maintenance" });
    let told = post(&url, &told, 201).await;
    eventually("nothing counts", PATIENCE, async || row(&daemon, "shop-ok").filter(|row| row["total"] == 0))
        .await;
    assert_eq!(row(&daemon, "shop-ok").expect("still there")["budget_remaining_ratio"], 1.0);
    let undo = format!("{url}/{}/undo", told["adjustment"].as_str().expect("an id"));
    post(&undo, &json!({ "author": "bob", "reason": "it was us" }), 201).await;
    eventually("it counts again", PATIENCE, async || {
        row(&daemon, "shop-ok").filter(|row| row["total"] == total)
    })
    .await;
    let taken_out = |row: &Value| row["excluded_ns"].as_u64().expect("a length");
    assert_eq!(taken_out(&row(&daemon, "shop-ok").expect("still there")), 0);
    // From the command line, too.
    let told = daemon.ask(&[
        "slo",
        "adjust",
        "shop-ok",
        "--from",
        "10m",
        "--because",
        "load test",
        "--author",
        "eve",
    ]);
    // What was told is there for who looks next.
    assert!(daemon.command(&["slo", "adjustments", "shop-ok"]).contains("load test"));
    let row_now = eventually("it is taken out", PATIENCE, async || {
        row(&daemon, "shop-ok").filter(|row| taken_out(row) >= 600_000_000_000)
    })
    .await;
    assert!(taken_out(&row_now) < 720_000_000_000, "widened to whole minutes: {row_now}");
    assert!(daemon.command(&["slo"]).contains("TAKEN OUT"));
    let (_, page) = http::get(&format!("{}/slos", daemon.url("http"))).await.expect("a page");
    assert!(String::from_utf8_lossy(&page).contains(" taken out</span>"));
    let list = daemon.command(&["slo", "adjustments", "shop-ok"]);
    assert!(
        list.contains("load test") && list.contains("eve") && list.contains("by bob: it was us"),
        "{list}"
    );
    let id = told["id"].as_str().expect("an id");
    daemon.ask(&["slo", "undo", id, "--because", "nobody ran it", "--author", "eve"]);
    eventually("it counts again", PATIENCE, async || {
        row(&daemon, "shop-ok").filter(|row| taken_out(row) == 0)
    })
    .await;
    let kept = http::get_json(&url).await.expect("a list");
    assert_eq!((&kept[0]["author"], &kept[0]["undone"]["author"]), (&"ada".into(), &"bob".into()));
    post(&url, &json!({ "slo": "shop-ok", "from": until, "until": from, "author": "a", "reason": "b" }), 400)
        .await;
    assert_eq!(daemon.stop(), Some(0));
}

/// What is answered to a JSON body, with this status.
async fn post(url: &str, body: &Value, status: u16) -> Value {
    let headers = [("content-type", "application/json")];
    let sent = http::Sent::Whole(body.to_string().into());
    let answer = http::send(url, (Method::POST, false), &headers, sent).await.expect("an answer");
    assert_eq!(answer.status, status, "{body}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn folder_of(file: &Path) -> &Path {
    file.parent().expect("a folder")
}

/// Web vitals of browsers are an indicator, and say how many users a slow page hit.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_of_a_page_is_an_indicator_and_its_users_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data) = (folder.path().join("web.yaml"), folder.path().join("data"));
    let text = "apiVersion: openslo/v1
kind: SLO
metadata: { name: first-byte-of-checkout }
spec:
  service: shop-web
  indicator:
    spec:
      thresholdMetric:
        metricSource:
          type: barograph
          spec: { event: browser.web_vital, attributes: { name: ttfb, url.path: /checkout }, users: session.id }
  timeWindow: [{ duration: 30d, isRolling: true }]
  budgetingMethod: Occurrences
  objectives: [{ target: 0.95, op: lte, value: 800 }]
  alertPolicies:
    - kind: AlertPolicy
      metadata: { name: slow }
      spec:
        conditions:
          - kind: AlertCondition
            metadata: { name: slow }
            spec:
              severity: page
              condition:
                { kind: burnrate, op: gte, threshold: 0.1, lookbackWindow: 1m, shortLookbackWindow: 30s }
";
    std::fs::write(&file, text).expect("written");
    let daemon = Daemon::start(&data, &[&format!("slo.files=[{file:?}]")]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let mut visits = async |users: std::ops::Range<u32>, page: &str, first_byte_ms: f64| {
        let events = users.map(|user| web_vital(user, page, first_byte_ms)).collect();
        client.export(&Export::Logs(logs("shop-web", events))).await.expect("accepted");
    };
    // With the first of them the objective is made; from the next seconds on it counts.
    eventually("it counts", PATIENCE, async || {
        visits(0..1, "/checkout", 100.0).await;
        row(&daemon, "first-byte-of-checkout").filter(|row| row["total"] != 0)
    })
    .await;
    visits(0..3_000, "/checkout", 120.0).await;
    visits(1_000..1_400, "/checkout", 2_500.0).await;
    visits(1_000..1_400, "/checkout", 2_600.0).await;
    visits(0..3_000, "/cart", 9_000.0).await;
    let told = eventually("the slow ones are counted", PATIENCE, async || {
        let of = row(&daemon, "first-byte-of-checkout")?;
        let bad = of["total"].as_u64()?.checked_sub(of["good"].as_u64()?)?;
        (of["users_affected"] == 400 && bad >= 800).then_some(of)
    })
    .await;
    let (good, total) = (told["good"].as_u64().expect("good"), told["total"].as_u64().expect("total"));
    assert!(good >= 3_000 && total == good + 800, "other pages and vitals are not counted: {told}");
    let users = told["users"].as_f64().expect("users");
    assert!((users / 3_000.0 - 1.0).abs() <= 0.02, "{told}");
    // One that fired between the first and the last of them says all when it is over, a minute later.
    let alert = eventually("an alert says how many", 3 * PATIENCE, async || {
        let all = daemon.ask(&["incidents"]);
        let is_whole = |incident: &&Value| incident["budget_spent"][0]["bad"].as_u64() >= Some(800);
        all.as_array()?.iter().find(is_whole).cloned()
    })
    .await;
    assert_eq!(alert["users_affected"], 400, "{alert:#}");
    assert_eq!(alert["budget_spent"][0]["bad"], 800, "{alert:#}");
    // Nothing else went wrong since it began: what is left is all but what that took.
    let now = row(&daemon, "first-byte-of-checkout").expect("still there");
    let left = now["budget_remaining_ratio"].as_f64().expect("a number");
    let taken = alert["budget_spent"][0]["ratio"].as_f64().expect("a number");
    assert!((left + taken - 1.0).abs() < 1e-9, "{left} left, {taken} taken: {now:#} {alert:#}");
    let (_, page) = http::get(&format!("{}/slos", daemon.url("http"))).await.expect("a page");
    let page = String::from_utf8_lossy(&page).into_owned();
    assert!(page.contains("first-byte-of-checkout") && page.contains("about 400 of "), "{page}");
    println!("real users: 400 of 3000 affected, told {} of {}", told["users_affected"], told["users"]);
    assert_eq!(daemon.stop(), Some(0));
}

fn web_vital(user: u32, page: &str, first_byte_ms: f64) -> LogRecord {
    let pair = |key: &str, value: any_value::Value| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let text = |value: &str| any_value::Value::StringValue(value.into());
    LogRecord {
        time_unix_nano: now_ns(),
        event_name: "browser.web_vital".into(),
        attributes: vec![
            pair("name", text("ttfb")),
            pair("url.path", text(page)),
            pair("session.id", text(&format!("session-{user}"))),
            pair("value", any_value::Value::DoubleValue(first_byte_ms)),
        ],
        ..LogRecord::default()
    }
}

/// What is asked for by a wrong name is refused with the names that were meant; young objectives are told.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_are_refused_with_those_that_were_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data) = (folder.path().join("shop.yaml"), folder.path().join("data"));
    let later = objective("later-ok", 0.9).replace("service: shop", "service: later");
    std::fs::write(&file, format!("{}---\n{later}", objective("shop-ok", 0.9))).expect("written");
    std::fs::write(folder_of(&file).join("empty.yaml"), "# to be written\n").expect("written");
    let daemon = Daemon::start(&data, &[&format!("slo.files=[{:?}]", folder_of(&file))]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    eventually("it counts", PATIENCE, async || {
        send(&mut client, 1, 0).await;
        row(&daemon, "shop-availability").filter(|row| row["total"] != 0)
    })
    .await;
    assert_eq!(daemon.ask(&["slo", "shop-ok"]).as_array().map(Vec::len), Some(1));

    let refused = |arguments: &[&str], code: i32, wanted: &str| {
        let (ended, out, error) = daemon.run(arguments);
        assert_eq!((ended, out.as_str(), error.trim_end()), (Some(code), "", wanted), "{arguments:?}");
    };
    refused(&["slo", "shpo-ok"], 2, "barograph: no objective \"shpo-ok\"; near it: \"shop-ok\"");
    refused(
        &["slo", "shop-ok", "--service", "shopp"],
        2,
        "barograph: no service \"shopp\" has sent anything: `barograph services` lists those that have; near it: \"shop\"",
    );
    refused(
        &["slo", "suggest", "--service", "shopp"],
        2,
        "barograph: no service \"shopp\" has sent anything: `barograph services` lists those that have; near it: \"shop\"",
    );
    refused(
        &["slo", "later-ok"],
        2,
        "barograph: the objective \"later-ok\" is defined, but its service \"later\" has sent nothing yet: `barograph services` lists those that have",
    );

    // Adjustments, too.
    let url = format!("{}/v1/adjustments", daemon.url("http"));
    let (from, until) = (Timestamp(now_ns() - 600_000_000_000), Timestamp(now_ns()));
    for (slo, service, status, error) in [
        ("shop-okay", "", 404, "no objective \"shop-okay\"; near it: \"shop-ok\""),
        ("shop-ok", "shopp", 404, "no service \"shopp\" has an objective; near it: \"shop\""),
        (
            "shop-ok",
            "elsewhere",
            404,
            "no service \"elsewhere\" has an objective; \"shop-ok\" is an objective of \"test/shop\"",
        ),
        ("later-ok", "shop", 404, "no objective \"later-ok\" of \"shop\""),
        ("", "shop", 201, ""),
        ("later-ok", "", 201, ""),
    ] {
        let told = json!({
            "slo": slo, "service": service, "from": from, "until": until, "author": "ada", "reason": "work",
        });
        let answer = post(&url, &told, status).await;
        assert_eq!(answer["error"].as_str().unwrap_or_default(), error, "{told}");
    }

    // The default objective alerts nobody yet, and the table says so; the empty file is told beside the rows.
    let young = daemon.ask(&["slo"]);
    let of = |name: &str| young.as_array().expect("rows").iter().find(|row| row["slo"] == name).cloned();
    let default = of("shop-availability").expect("the default one");
    let moment = |key: &str| {
        let text = default[key].as_str().expect("a time");
        Timestamp::parse_rfc3339(text).expect("a time")
    };
    assert_eq!(moment("silent_until").since(moment("counted_since")), Duration::from_secs(3_600));
    assert_eq!(of("shop-ok").expect("the one from the file")["silent_until"], Value::Null);
    let text = daemon.command(&["slo"]);
    assert!(text.contains("1 default objective is young: until "), "{text}");
    assert!(text.contains("1 file refused: ") && text.contains("empty.yaml:1: document: is empty"), "{text}");
    assert_eq!(daemon.stop(), Some(0));
}

/// Advice in both forms, and files that are refused with their lines.
#[tokio::test(flavor = "multi_thread")]
async fn advice_comes_for_people_and_for_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (good, never) =
        (write("good.yaml", &objective("good", 0.9)), write("never.yaml", &objective("never", 0.0)));
    let wrong = write("wrong.yaml", &objective("wrong", 95.0));
    let other = write("other.yaml", &objective("other", 0.9).replace("Occurrences", "Sometimes"));
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(&*BINARY).args(arguments).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, text, _) = run(&["slo", "lint", "--offline", &good]);
    assert_eq!((code, text.as_str()), (Some(0), "1 objective, nothing to say\n"));
    let (code, text, error) = run(&["slo", "lint", "--offline", &good, &never]);
    assert_eq!(code, Some(1), "{error}");
    let note = "a target of 0 is met whatever happens; ask for a `target` that can be missed, such as 0.99";
    assert_eq!(text, format!("{never}:3: never: cannot-fail: {note}\n"));
    let (code, text, _) = run(&["slo", "lint", "--offline", "-o", "json", &good, &never]);
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &json["objectives"]), (Some(1), &2.into()));
    assert_eq!((&json["notes"][0]["file"], &json["notes"][0]["line"]), (&never.as_str().into(), &3.into()));
    let (code, text, error) = run(&["slo", "lint", "--offline", &wrong, &good, &other]);
    assert_eq!((code, text.as_str()), (Some(64), ""));
    assert_eq!(
        error,
        format!(
            "barograph: {other}:11: budgetingMethod: is not supported, allowed: Occurrences, Timeslices, RatioTimeslices\n\
             {wrong}:12: target: is out of range, allowed: 0 to below 1; write 0.95 for 95 %\n"
        )
    );
    let recording = folder.path().join("none.jsonl").display().to_string();
    let (code, _, error) = run(&["slo", "test", &wrong, "--backtest", &recording]);
    assert_eq!(
        (code, error),
        (
            Some(64),
            format!(
                "barograph: {wrong}:12: target: is out of range, allowed: 0 to below 1; write 0.95 for 95 %\n"
            )
        )
    );
    let empty = write("empty.yaml", "");
    let (code, _, error) = run(&["slo", "test", &empty, "--backtest", &recording]);
    assert_eq!(
        (code, error),
        (Some(64), format!("barograph: {empty}:1: document: is empty: it holds no objective\n"))
    );

    // From what a service did.
    let daemon = Daemon::start(&folder.path().join("data"), &[]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    send(&mut client, 3_000, 0).await;
    eventually("the service is known", PATIENCE, async || {
        let services = daemon.ask(&["services"]);
        services.as_array().filter(|all| all.iter().any(|of| of["service"] == "shop")).map(|_| ())
    })
    .await;
    let proposed = eventually("enough was seen", PATIENCE, async || {
        let proposed = daemon.ask(&["slo", "suggest", "--service", "shop"]);
        proposed.as_array().filter(|all| !all.is_empty()).cloned()
    })
    .await;
    let first = &proposed[0];
    assert_eq!((&first["slo"], &first["service"]), (&"shop-availability".into(), &"shop".into()), "{first}");
    assert_eq!(first["would_have_told"], json!([]), "{first}");
    let text = daemon.command(&["slo", "suggest", "--service", "shop"]);
    assert!(text.contains("# would have paged 0 times and opened 0 tickets\n"), "{text}");
    assert!(text.contains(first["openslo"].as_str().expect("a document")), "{text}");
    // What is proposed can be taken, and lint finds nothing wrong with it.
    let taken = write("taken.yaml", &text);
    let linted = daemon.ask(&["slo", "lint", &taken]);
    assert_eq!(linted["notes"], json!([]), "{linted}");
    let idle = objective("idle", 0.9).replace("good: not_error", "operation: GET /no, good: not_error");
    let (code, text, error) = daemon.run(&["slo", "lint", &write("idle.yaml", &idle)]);
    assert!(code == Some(1) && text.contains(": idle: counts-nothing: "), "{text}{error}");
    assert_eq!(daemon.stop(), Some(0));

    // What it would have told about what that daemon recorded.
    let data = folder.path().join("data").display().to_string();
    let (code, text, error) = run(&["slo", "test", &good, "--backtest", &data, "-o", "json"]);
    assert_eq!((code, text.as_str()), (Some(0), "[]\n"), "{error}");
    let (_, text, _) = run(&["slo", "test", &good, "--backtest", &data]);
    assert!(text.starts_with("no alert on a budget would have fired\ngood of test/shop: "), "{text}");
}
