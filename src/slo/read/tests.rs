//! What is read, and what is refused with which line and key.

use super::{Refused, Taken, read, read_all};
use crate::aggregate::{Comparison, Meaning, Part, Source};
use crate::slo::{Definition, Method, Period, Rule, Unit};
use std::path::Path;
use std::time::Duration;

const DAY: u64 = 86_400;

const GOOD: &str = "\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: charge-fast
spec:
  service: payment
  indicator:
    metadata:
      name: fast
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: barograph
            spec:
              operation: POST /charge
              good: latency
              threshold: 300ms
  timeWindow:
    - duration: 30d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - displayName: fast
      target: 0.99
";

fn load(text: &str) -> Vec<Definition> {
    read(Path::new("slo.yaml"), text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// `LINE: KEY` of what is wrong.
fn refused(text: &str) -> String {
    let error = read(Path::new("slo.yaml"), text).expect_err(text).to_string();
    let said = error.strip_prefix("slo.yaml:").expect("the file is named").to_owned();
    said.split(": ").take(2).collect::<Vec<_>>().join(": ")
}

fn metric(definition: &Definition, part: usize) -> (&str, Meaning) {
    match &definition.parts[part].source {
        Source::Metric { name, counted } => (name, *counted),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_files_of_the_documentation_are_read() {
    let documented = include_str!("../../../docs/slo.md");
    let files = documented.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let names: Vec<String> = files
        .filter(|text| text.starts_with("apiVersion"))
        .flat_map(load)
        .map(|definition| definition.name)
        .collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in ["charge-fast", "checkout-minutes", "cache-hits", "purchase"] {
        assert!(names.iter().any(|known| known.contains(name)), "{name} of {names:?}");
    }
}

#[test]
fn a_file_is_read() {
    let read = load(GOOD);
    let [one] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((one.name.as_str(), one.service.as_str(), one.target), ("charge-fast", "payment", 0.99));
    assert_eq!(one.period, Period::Rolling(Duration::from_secs(30 * DAY)));
    assert_eq!((one.method, one.rules.as_ref(), one.origin.line), (Method::Occurrences, None, 4));
    let Source::Spans { operation, good } = &one.parts[0].source else { panic!("{one:?}") };
    assert_eq!(operation.as_deref(), Some("POST /charge"));
    assert_eq!((good.threshold_ns, good.errors_are_bad), (Some(300_000_000), false));
}

#[test]
fn mistakes_are_named_with_file_line_and_key() {
    for (from, to, line, key) in [
        ("target: 0.99", "target: 99", 26, "target"),
        ("good: latency", "good: fast", 18, "good"),
        ("threshold: 300ms", "threshold: soon", 19, "threshold"),
        ("type: barograph", "type: datadog", 15, "metricSource.type"),
        ("duration: 30d", "duration: ever", 21, "duration"),
        ("budgetingMethod: Occurrences", "budgetingMethod: Timeslices", 25, "timeSliceTarget"),
        ("budgetingMethod: Occurrences", "budgetingMethod: Sometimes", 23, "budgetingMethod"),
        ("openslo/v1", "openslo/v2", 1, "apiVersion"),
        ("kind: SLO", "kind: SLx", 2, "kind"),
        ("operation: POST /charge", "operatoin: POST /charge", 17, "operatoin"),
        ("operation: POST /charge", "operation: \"~POST .*\"", 17, "operation"),
        ("operation: POST /charge", "operation: \"!POST /charge\"", 17, "operation"),
        ("isRolling: true", "isRolling: false", 21, "calendar"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = refused(&GOOD.replace(from, to));
        assert!(error.ends_with(&format!("{line}: {key}")), "{from} → {to}: {error}, not {line}: {key}");
        // In a second document lines are those of the file.
        let error = refused(&format!("{GOOD}---\n{}", GOOD.replace("charge-fast", "b").replace(from, to)));
        let line = line + GOOD.lines().count() + 1;
        assert!(error.ends_with(&format!("{line}: {key}")), "{from} → {to}: {error}, not {line}: {key}");
    }
    assert!(read(Path::new("slo.yaml"), "a: [").is_err());
    assert_eq!(refused(&format!("{GOOD}---\n{GOOD}")), "31: name");
}

/// Reads a directory with these files, of which each name is followed by its text.
fn directory(files: &[(&str, &str)]) -> Result<Taken, Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    read_all(&[folder.path().to_owned()]).map_err(|Refused(errors)| {
        let own = format!("{}/", folder.path().display());
        errors.iter().map(|error| error.to_string().replace(&own, "")).collect()
    })
}

#[cfg(unix)]
#[test]
fn directories_in_a_directory_are_read_but_hidden_ones_and_links_to_them_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = |name: &str| GOOD.replace("charge-fast", name);
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    // As Kubernetes mounts a file.
    write("..2026_12_01/a.yaml", &named("a"));
    std::os::unix::fs::symlink("..2026_12_01", folder.path().join("..data")).expect("linked");
    std::os::unix::fs::symlink("..data/a.yaml", folder.path().join("a.yaml")).expect("linked");
    write("team/b.yaml", &named("b"));
    write("team/shop/c.yml", &named("c"));
    std::os::unix::fs::symlink("..", folder.path().join("team/shop/round")).expect("linked");
    let paths = [folder.path().to_owned()];
    let names = || -> Result<Vec<String>, Refused> {
        Ok(read_all(&paths)?.definitions.into_iter().map(|of| of.name).collect())
    };
    assert_eq!(names().expect("good"), ["a", "b", "c"]);
    let mut files = super::Files::new(paths.to_vec());
    assert_eq!(files.changed().expect("good").map(|taken| taken.definitions.len()), Some(3));
    write("team/shop/d.yaml", &named("d"));
    assert_eq!(files.changed().expect("good").map(|taken| taken.definitions.len()), Some(4));
    write("1/2/3/4/5/6/7/8/e.yaml", &named("e"));
    assert!(names().expect("just deep enough").contains(&"e".to_owned()));
    write("1/2/3/4/5/6/7/8/9/f.yaml", &named("f"));
    let error = names().expect_err("too deep").to_string();
    assert!(error.ends_with("/8/9: cannot be read: it lies more than 8 directories deep"), "{error}");
}

#[test]
fn no_file_hides_what_is_wrong_with_another() {
    let (wrong, other) = (GOOD.replace("target: 0.99", "target: 99"), GOOD.replace("charge-fast", "b"));
    let unread = directory(&[
        ("a.yaml", &wrong),
        ("b.yaml", &other),
        ("c.yaml", "kind: SLO\n"),
        ("d.yaml", &other),
        ("e.txt", "no objectives"),
    ])
    .expect_err("three are wrong");
    let places: Vec<String> =
        unread.iter().map(|error| error.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(places, ["a.yaml:26: target", "c.yaml:1: apiVersion", "d.yaml:4: name"], "{unread:#?}");
    assert_eq!(Refused(Vec::new()).to_string(), "");
    // What refers to a file that is refused is not called wrong beside it.
    let indicator =
        "apiVersion: openslo/v1\nkind: SLI\nmetadata: { name: there }\nspec: { ratioMetric: { good: 1 } }\n";
    let begin = GOOD.find("  indicator:").expect("there");
    let end = GOOD.find("  timeWindow:").expect("there");
    let refers = format!("{}  indicatorRef: there\n{}", &GOOD[..begin], &GOOD[end..]);
    let unread = directory(&[("a.yaml", indicator), ("b.yaml", &refers)]).expect_err("one is wrong");
    assert!(unread.len() == 1 && unread[0].starts_with("a.yaml:4: "), "{unread:?}");
    let unread = directory(&[("b.yaml", &refers)]).expect_err("nothing is there");
    assert!(unread.len() == 1 && unread[0].starts_with("b.yaml:7: indicatorRef: "), "{unread:?}");
}

#[test]
fn an_empty_file_hides_no_other_and_is_told() {
    for empty in ["", "\n", "# to be written\n", "---\n---\n"] {
        let Taken { definitions, empty: told } =
            directory(&[("a.yaml", empty), ("b.yaml", GOOD)]).unwrap_or_else(|errors| panic!("{errors:?}"));
        let names: Vec<&str> = definitions.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["charge-fast"], "{empty:?}");
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert!(
            told.len() == 1 && told[0].ends_with("/a.yaml:1: document: is empty: it holds no objective"),
            "{told:?}"
        );
    }
}

/// The examples of the specification, as its documentation words them.
mod openslo {
    use super::*;

    const SLI_SLO: &str = r#"
apiVersion: openslo/v1
kind: DataSource
metadata: { name: thanos }
spec:
  type: Prometheus
  connectionDetails: { url: "http://thanos" }
---
apiVersion: openslo/v1
kind: Service
metadata: { name: my-service }
spec: { description: checkout }
---
apiVersion: openslo/v1
kind: SLI
metadata: { name: annotator-throughput }
spec:
  ratioMetric:
    counter: true
    good:
      metricSource:
        metricSourceRef: thanos
        spec:
          query: sum(rate(http_requests_total{job="web",code=~"2xx|4xx"}[5m]))
    total:
      metricSource:
        metricSourceRef: thanos
        spec:
          query: sum(rate(http_requests_total{job="web"}[5m]))
---
apiVersion: openslo/v1
kind: SLO
metadata: { name: web-ok, displayName: "Web availability" }
spec:
  description: X% of requests are good
  service: my-service
  indicatorRef: annotator-throughput
  timeWindow:
    - duration: 1w
      isRolling: false
      calendar:
        startTime: 2020-01-21 12:30:00
        timeZone: America/New_York
  budgetingMethod: Timeslices
  objectives:
    - displayName: Foo Total Errors
      target: 0.98
      timeSliceTarget: 0.95
      timeSliceWindow: 1m
  alertPolicies:
    - fast
    - alertPolicyRef: low-priority
    - kind: AlertPolicy
      metadata: { name: inline }
      spec:
        alertWhenBreaching: true
        conditions:
          - kind: AlertCondition
            metadata: { name: drop }
            spec:
              severity: ticket
              condition: { kind: budgetdrop, threshold: 0.1, lookbackWindow: 1h }
        notificationTargets: []
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: { name: fast }
spec:
  description: Alert policy for cpu usage breaches
  alertWhenNoData: false
  alertWhenResolved: false
  alertWhenBreaching: true
  conditions:
    - conditionRef: cpu-usage-breach
  notificationTargets:
    - targetRef: OnCallDevopsMailNotification
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: { name: low-priority }
spec:
  conditions:
    - kind: AlertCondition
      metadata: { name: ends }
      spec:
        severity: ticket
        condition: { kind: exhaustion, within: 24h }
---
apiVersion: openslo/v1
kind: AlertCondition
metadata: { name: cpu-usage-breach, displayName: CPU usage breach }
spec:
  description: If the CPU usage is too high for given period then it should alert
  severity: page
  condition: { kind: burnrate, op: gte, threshold: 2, lookbackWindow: 1h, shortLookbackWindow: 5m, alertAfter: 5m }
---
apiVersion: openslo/v1
kind: AlertNotificationTarget
metadata: { name: OnCallDevopsMailNotification }
spec: { description: mail, target: email }
"#;

    #[test]
    fn every_kind_is_read() {
        let read = load(SLI_SLO);
        let [one] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!((one.service.as_str(), one.some_is_bad), ("web", false));
        assert_eq!(one.method, Method::Timeslices { slice_s: 60, share: 0.95 });
        assert_eq!(metric(one, 0), ("http_requests_total", Meaning::Growth(Part::Some)));
        assert_eq!(metric(one, 1), ("http_requests_total", Meaning::Growth(Part::Total)));
        let Period::Calendar(calendar) = &one.period else { panic!("{one:?}") };
        assert_eq!(
            (calendar.time_zone.as_str(), calendar.unit, calendar.count),
            ("America/New_York", Unit::Week, 1)
        );
        let rules = one.rules.as_ref().expect("its own");
        let [
            Rule::Burn(burn),
            Rule::EndsWithin { within, page: false },
            Rule::Dropped { share, over, page: false },
        ] = rules.as_slice()
        else {
            panic!("{rules:?}")
        };
        assert_eq!((burn.factor, burn.page, burn.after), (2.0, true, Duration::from_secs(300)));
        assert_eq!((burn.long.as_secs(), burn.short.as_secs()), (3_600, 300));
        assert_eq!((within.as_secs(), *share, over.as_secs()), (DAY, 0.1, 3_600));
    }

    #[test]
    fn each_mistake_names_its_key() {
        for (from, to, key) in [
            ("timeZone: America/New_York", "timeZone: America/Nowhere", "timeZone"),
            ("startTime: 2020-01-21 12:30:00", "startTime: soon", "startTime"),
            ("timeSliceTarget: 0.95", "timeSliceTarget: 1.5", "timeSliceTarget"),
            ("timeSliceWindow: 1m", "timeSliceWindow: 2d", "timeSliceWindow"),
            ("indicatorRef: annotator-throughput", "indicatorRef: nobody", "indicatorRef"),
            ("    - fast", "    - nobody", "alertPolicies"),
            ("conditionRef: cpu-usage-breach", "conditionRef: nobody", "conditionRef"),
            ("severity: page", "severity: huge", "severity"),
            ("kind: burnrate", "kind: burning", "kind"),
            ("op: gte", "op: lte", "op"),
            ("threshold: 0.1", "threshold: 1.1", "threshold"),
            ("shortLookbackWindow: 5m", "shortLookbackWindow: 2h", "shortLookbackWindow"),
            ("type: Prometheus", "type: Datadog", "metricSource.type"),
            ("metricSourceRef: thanos", "metricSourceRef: nobody", "metricSourceRef"),
            ("query: sum(rate(http", "query: sqrt(rate(http", "query"),
            ("    total:\n", "    totals:\n", "totals"),
            ("budgetingMethod: Timeslices", "budgetingMethods: Timeslices", "budgetingMethods"),
        ] {
            assert!(SLI_SLO.contains(from), "{from}");
            let error = refused(&SLI_SLO.replacen(from, to, 1));
            assert!(error.ends_with(&format!(": {key}")), "{from} → {to}: {error}, not {key}");
        }
    }

    #[test]
    fn thresholds_composites_and_raw_ratios_are_read() {
        let text = r#"
apiVersion: openslo/v1
kind: SLO
metadata: { name: user-experience }
spec:
  service: shop
  timeWindow: [{ duration: 4w, isRolling: true }]
  budgetingMethod: RatioTimeslices
  objectives:
    - displayName: memory
      target: 0.9
      op: lte
      value: 0.8
      timeSliceWindow: 5m
      compositeWeight: 3
      indicator:
        metadata: { name: memory }
        spec:
          thresholdMetric:
            metricSource: { type: barograph, spec: { service: api, metric: process.memory.usage } }
    - displayName: served
      targetPercent: 99.5
      timeSliceWindow: 5m
      indicator:
        metadata: { name: served }
        spec:
          ratioMetric:
            rawType: failure
            raw: { metricSource: { type: prometheus, spec: { query: 'error_ratio{job="web"}' } } }
    - displayName: quiet
      target: 0.5
      timeSliceWindow: 5m
      indicator:
        spec:
          ratioMetric:
            bad: { metricSource: { type: barograph, spec: { service: web, severity: ERROR, attributes: { area: "!~test.*" } } } }
"#;
        let read = load(text);
        let names: Vec<(&str, &str)> = read.iter().map(|d| (d.name.as_str(), d.service.as_str())).collect();
        assert_eq!(
            names,
            [
                ("user-experience/memory", "api"),
                ("user-experience/served", "web"),
                ("user-experience/quiet", "web"),
                ("user-experience", "shop")
            ]
        );
        assert_eq!(metric(&read[0], 0), ("process.memory.usage", Meaning::Compared(Comparison::AtMost, 0.8)));
        assert_eq!(metric(&read[1], 0), ("error_ratio", Meaning::Ratio { of_good: false }));
        assert!(matches!(read[2].parts[0].source, Source::Logs { bad_from: 17 }));
        assert_eq!(read[0].method, Method::RatioTimeslices { slice_s: 300 });
        let whole = &read[3];
        assert_eq!(whole.composed_of[0], ("user-experience/memory".to_owned(), 3.0));
        assert!((whole.target - (0.9 * 3.0 + 0.995 + 0.5) / 5.0).abs() < 1e-12);
        assert!(read[..3].iter().all(|part| part.rules == Some(Vec::new())), "only the whole alerts");
        assert_eq!(refused(&text.replace("op: lte", "op: near")), "12: op");
        assert_eq!(refused(&text.replace("rawType: failure", "rawType: maybe")), "28: rawType");
        assert_eq!(refused(&text.replace("compositeWeight: 3", "compositeWeight: 0")), "15: compositeWeight");
        assert_eq!(refused(&text.replace("      value: 0.8\n", "")), "12: value");
    }
}

/// What browsers send.
mod real_users {
    use super::*;

    const TEXT: &str = r#"apiVersion: openslo/v1
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
"#;

    #[test]
    fn an_event_is_compared_and_its_users_are_counted() {
        let read = load(TEXT);
        let Source::Events { name, value, how, threshold } = &read[0].parts[0].source else {
            panic!("{:?}", read[0])
        };
        assert_eq!((&**name, &**value), ("browser.web_vital", "value"));
        assert_eq!((*how, *threshold), (Comparison::AtMost, 800.0));
        assert_eq!(read[0].parts[0].only.len(), 2);
        assert_eq!(read[0].users.as_deref(), Some("session.id"));
        assert_eq!(refused(&TEXT.replace("event: browser.web_vital", "metric: ttfb")), "11: users");
        assert_eq!(refused(&TEXT.replace(", op: lte, value: 800", "")), "9: thresholdMetric");
    }
}

/// Files as Sloth's documentation describes them.
mod sloth {
    use super::*;

    const PLAIN: &str = r#"version: "prometheus/v1"
service: "myservice"
labels: { owner: "myteam" }
slos:
  - name: "requests-availability"
    objective: 99.9
    description: "Common SLO based on availability for HTTP request responses."
    labels: { category: availability }
    sli:
      events:
        error_query: sum(rate(http_request_duration_seconds_count{job="myservice",code=~"(5..|429)"}[{{.window}}]))
        total_query: sum(rate(http_request_duration_seconds_count{job="myservice"}[{{.window}}]))
    alerting:
      name: "MyServiceHighErrorRate"
      labels: { category: "availability" }
      annotations: { summary: "High error rate on 'myservice' requests responses" }
      page_alert:
        labels: { severity: "pageteam" }
      ticket_alert:
        disable: true
  - name: "slow"
    objective: 95
    sli:
      events:
        error_query: |
          (
            sum(rate(http_request_duration_seconds_count{verb!="WATCH"}[{{.window}}]))
            -
            sum(rate(http_request_duration_seconds_bucket{le="0.4",verb!="WATCH"}[{{.window}}]))
          )
        total_query: sum(rate(http_request_duration_seconds_count{verb!="WATCH"}[{{.window}}]))
  - name: "raw"
    objective: 99.9
    sli:
      raw:
        error_ratio_query: |
          sum(rate(http_request_duration_seconds_count{job="myservice",code=~"(5..|429)"}[{{.window}}]))
          /
          sum(rate(http_request_duration_seconds_count{job="myservice"}[{{.window}}]))
"#;

    #[test]
    fn plain_files_are_read() {
        let read = load(PLAIN);
        assert!(read.iter().all(|one| one.service == "myservice"));
        let counted: Vec<_> = read.iter().map(|one| metric(one, 0).1).collect();
        let some = Meaning::Growth(Part::Some);
        assert_eq!(counted, [some, Meaning::Compared(Comparison::AtMost, 0.4), some]);
        assert_eq!(read.iter().map(|one| one.some_is_bad).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(read[0].rules.as_ref().map(Vec::len), Some(2), "the pages alone");
        assert_eq!(read[1].rules.as_ref().map(Vec::len), Some(0), "no alerting, no alerts");
    }

    #[test]
    fn resources_are_read() {
        let text = r#"apiVersion: sloth.slok.dev/v1
kind: PrometheusServiceLevel
metadata: { name: sloth-slo-home-wifi, namespace: monitoring }
spec:
  service: "home-wifi"
  labels: { cluster: "valhalla" }
  slos:
    - name: "good-wifi-client-satisfaction"
      objective: 95
      sli:
        events:
          errorQuery: sum_over_time((count(unifipoller_client_satisfaction > 0))[{{.window}}:])
          totalQuery: sum(rate(unifipoller_client_satisfaction_count[{{.window}}]))
      alerting: { name: GoodWifiClientSatisfaction, pageAlert: { labels: { severity: home } }, ticketAlert: {} }
"#;
        assert_eq!(refused(text), "12: error_query");
        let good = text.replace(
            "sum_over_time((count(unifipoller_client_satisfaction > 0))[{{.window}}:])",
            "sum(rate(bad_total[5m]))",
        );
        assert_eq!(load(&good)[0].rules.as_ref().map(Vec::len), Some(4));
    }

    #[test]
    fn mistakes_name_their_key() {
        for (from, to, said) in [
            ("objective: 99.9", "objective: 199.9", "6: objective"),
            (
                "sum(rate(http_request_duration_seconds_count{job=\"myservice\"}[",
                "rank(http{job=\"myservice\"}[",
                "12: total_query",
            ),
            ("      events:\n", "      plugin: { id: x }\n      events:\n", "10: plugin"),
            ("          /\n", "          *\n", "37: error_ratio_query"),
        ] {
            assert!(PLAIN.contains(from), "{from}");
            assert_eq!(refused(&PLAIN.replacen(from, to, 1)), said, "{from} → {to}");
        }
    }
}

/// Files as Pyrra's documentation describes them.
mod pyrra {
    use super::*;

    fn file(indicator: &str) -> String {
        format!(
            "apiVersion: pyrra.dev/v1alpha1\nkind: ServiceLevelObjective\nmetadata:\n  name: shop\n  namespace: monitoring\n  labels: {{ role: alert-rules }}\nspec:\n  target: '99'\n  window: 4w\n  description: text\n  indicator:\n{indicator}"
        )
    }

    const RATIO: &str = r#"    ratio:
      errors: { metric: 'http_requests_total{job="shop",code=~"5.."}' }
      total: { metric: 'http_requests_total{job="shop"}' }
"#;

    #[test]
    fn every_indicator_is_read() {
        let ratio = &load(&file(RATIO))[0];
        assert_eq!((ratio.target, ratio.some_is_bad, ratio.service.as_str()), (0.99, true, "shop"));
        let rules = ratio.rules.as_ref().expect("Pyrra's");
        let windows: Vec<(u64, u64, f64, u64)> = rules
            .iter()
            .map(|rule| match rule {
                Rule::Burn(rule) => {
                    (rule.long.as_secs(), rule.short.as_secs(), rule.factor, rule.after.as_secs())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let minutes = [(60, 5, 14.0, 2), (360, 30, 7.0, 15), (1_440, 120, 2.0, 60), (5_760, 360, 1.0, 180)];
        assert_eq!(
            windows,
            minutes.map(|(long, short, factor, after)| (long * 60, short * 60, factor, after * 60))
        );
        let latency = r#"    latency:
      success: { metric: 'http_duration_seconds_bucket{job="shop",le="0.5"}' }
      total: { metric: 'http_duration_seconds_count{job="shop"}' }
"#;
        assert_eq!(metric(&load(&file(latency))[0], 0).1, Meaning::UpTo(Part::Some, 0.5));
        let native = r#"    latencyNative: { latency: 250ms, total: { metric: 'http_duration_seconds{job="shop"}' } }
"#;
        assert_eq!(metric(&load(&file(native))[0], 0).1, Meaning::Compared(Comparison::AtMost, 0.25));
        let up = r#"    bool_gauge: { metric: 'up{job="shop"}' }
"#;
        assert_eq!(metric(&load(&file(up))[0], 0).1, Meaning::Compared(Comparison::AtLeast, 1.0));
    }

    #[test]
    fn mistakes_name_their_key() {
        let good = file(RATIO);
        for (from, to, said) in [
            ("target: '99'", "target: '100'", "8: target"),
            ("window: 4w", "window: x", "9: window"),
            ("      total:", "      grouping: [handler]\n      total:", "14: grouping"),
            ("job=\"shop\"", "pod=\"shop\"", "12: indicator"),
            ("5..", "5(", "13: metric"),
            ("kind: ServiceLevelObjective", "kind: Other", "2: kind"),
        ] {
            assert!(good.contains(from), "{from}");
            assert_eq!(refused(&good.replace(from, to)), said, "{from} → {to}");
        }
    }
}

#[test]
fn events_are_counted_where_no_method_is_named_and_no_slices_are() {
    let without = GOOD.replace("  budgetingMethod: Occurrences\n", "");
    assert_eq!(load(&without)[0].method, Method::Occurrences);
    let slices = without.replace("      target: 0.99", "      target: 0.99\n      timeSliceTarget: 0.9");
    assert!(refused(&slices).ends_with("6: budgetingMethod"), "told where the SLO's `spec` begins");
}

#[test]
fn files_are_read_again_when_they_change_and_a_bad_one_is_told_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.yaml");
    let mut files = super::Files::new(vec![directory.path().to_owned()]);
    std::fs::write(&path, GOOD).expect("written");
    assert_eq!(files.changed().expect("good").map(|taken| taken.definitions.len()), Some(1));
    assert!(files.changed().expect("the same").is_none());
    std::fs::write(&path, GOOD.replace("target: 0.99", "target: 99")).expect("written");
    let error = files.changed().expect_err("refused").to_string();
    assert!(error.contains("a.yaml:26: target: "), "{error}");
    assert!(files.changed().expect("not told again").is_none());
    std::fs::write(directory.path().join("b.yml"), GOOD.replace("charge-fast", "two")).expect("written");
    assert!(files.changed().is_err(), "the first is still bad");
    std::fs::write(&path, GOOD).expect("written");
    assert_eq!(files.changed().expect("good").map(|taken| taken.definitions.len()), Some(2));
    // An editor empties a file before it writes it anew: that lets no objective go.
    std::fs::write(&path, "").expect("written");
    let error = files.changed().expect_err("what was full is empty").to_string();
    assert!(error.contains("a.yaml:1: document: is empty"), "{error}");
    std::fs::write(directory.path().join("c.yml"), "# to come\n").expect("written");
    assert!(files.changed().is_err(), "the first is still empty");
    std::fs::write(&path, GOOD).expect("written");
    let taken = files.changed().expect("good").expect("changed");
    assert_eq!(
        (taken.definitions.len(), taken.empty.len()),
        (2, 1),
        "one that never held anything is told alone"
    );
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(files.changed().expect("good").map(|taken| taken.definitions.len()), Some(1));
}

#[test]
fn a_likely_slip_is_told_with_what_to_write_instead() {
    for (spec, wanted) in [
        ("objectives: [{ target: 99.9% }]", "6: target: is a share, not percent: write 0.999 for 99.9 %"),
        (
            "objectives:\n  - target: \"99.95 %\"",
            "7: target: is a share, not percent: write 0.9995 for 99.95 %",
        ),
        (
            "objectives: [{ target: 0.9, timeSliceTarget: 95% }]",
            "6: timeSliceTarget: is a share, not percent: write 0.95 for 95 %",
        ),
        (
            "indicator: {operation: GET /user/{id}}",
            "; in { } what holds a brace is quoted, such as operation: \"GET /user/{id}\"",
        ),
        (
            "indicator: [GET /user/{id}/x]",
            "; in { } what holds a brace is quoted, such as operation: \"GET /user/{id}\"",
        ),
        // Another slip is told without what does not help.
        ("indicator: { a: b {c: d} }", "at line 6, column 21"),
        ("objectives: [{ target: much }]", "invalid floating point (f64 value) at line 6, column 26"),
    ] {
        let text = format!(
            "apiVersion: openslo/v1\nkind: SLO\nmetadata: {{ name: it }}\nspec:\n  service: x\n  {spec}\n"
        );
        let told = read(Path::new("a.yaml"), &text).expect_err("a slip").to_string();
        assert!(told.ends_with(wanted), "{spec}: {told}");
    }
    for (target, hint) in
        [("99", "; write 0.99 for 99 %"), ("99.9", "; write 0.999 for 99.9 %"), ("1.5", ""), ("-2", "")]
    {
        let text = GOOD.replace("target: 0.99", &format!("target: {target}"));
        let told = read(Path::new("a.yaml"), &text).expect_err("out of range").to_string();
        assert!(told.ends_with(&format!("target: is out of range, allowed: 0 to below 1{hint}")), "{told}");
    }
}
