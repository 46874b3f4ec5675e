//! The forms in which pipelines tell of changes: CloudEvents 1.0 (structured and binary), GitHub's
//! `deployment_status`, Argo CD's application, Grafana's annotation, and plain JSON.

use crate::context::ChangeKind;
use crate::model::Timestamp;
use serde_json::Value;

/// A change as it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct HeardChange {
    pub at: Option<Timestamp>,
    /// `[ENVIRONMENT/][NAMESPACE/]NAME`; "" for any.
    pub service: String,
    pub kind: ChangeKind,
    pub title: String,
    pub version: Option<String>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Change(HeardChange),
    /// It is understood, and nothing changed: why.
    Nothing(String),
}

/// Reads a message; `header` gives a header by its lower-case name.
///
/// # Errors
/// What is wrong and what is allowed, in words.
pub fn read_change(header: &dyn Fn(&str) -> Option<String>, body: &[u8]) -> Result<Heard, String> {
    let message: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    if !message.is_object() {
        return Err("the body is not a JSON object".to_owned());
    }
    if header("x-github-event").is_some_and(|event| event != "deployment_status") {
        return Ok(Heard::Nothing(
            "of GitHub's events only `deployment_status` tells of a change".to_owned(),
        ));
    }
    if message.get("deployment_status").is_some() {
        return github(&message);
    }
    if message.get("specversion").is_some() {
        let data = message.get("data").cloned().unwrap_or_default();
        return plain(&data, text(&message, "time"), text(&message, "subject"), text(&message, "type"));
    }
    if header("ce-specversion").is_some() {
        return plain(&message, header("ce-time"), header("ce-subject"), header("ce-type"));
    }
    if let Some(application) = message.get("app").filter(|app| app.get("metadata").is_some()) {
        return argo_cd(application);
    }
    if message.get("text").is_some() && message.get("title").is_none() {
        return grafana(&message);
    }
    plain(&message, None, None, None)
}

fn text(of: &Value, key: &str) -> Option<String> {
    of.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn time(of: Option<String>) -> Result<Option<Timestamp>, String> {
    of.map(|text| Timestamp::parse_rfc3339(&text)).transpose()
}

fn kind(text: &str) -> Option<ChangeKind> {
    match text {
        "deploy" | "deployment" => Some(ChangeKind::Deploy),
        "flag" => Some(ChangeKind::Flag),
        "configuration" | "config" => Some(ChangeKind::Configuration),
        "other" => Some(ChangeKind::Other),
        _ => None,
    }
}

/// `{title, service, environment, namespace, kind, version, at}`, all but title or version optional. What
/// the message itself does not say is taken from its envelope.
fn plain(
    of: &Value,
    at: Option<String>,
    subject: Option<String>,
    event: Option<String>,
) -> Result<Heard, String> {
    let named = text(of, "service");
    let service = match (named, text(of, "environment"), text(of, "namespace")) {
        (Some(name), None, None) => name,
        (Some(name), environment, namespace) => {
            format!("{}/{}/{name}", environment.unwrap_or_default(), namespace.unwrap_or_default())
        }
        (None, ..) => subject.unwrap_or_default(),
    };
    let kind = match text(of, "kind") {
        Some(name) => kind(&name)
            .ok_or_else(|| format!("kind {name:?} is none of deploy, flag, configuration, other"))?,
        // CDEvents name theirs `dev.cdevents.service.deployed.…`.
        None => event
            .and_then(|event| event.split('.').find_map(|part| kind(part.trim_end_matches("ed"))))
            .unwrap_or(ChangeKind::Deploy),
    };
    let version = text(of, "version");
    let title = match (text(of, "title"), &version) {
        (Some(title), _) => title,
        (None, Some(version)) if !service.is_empty() => format!("{service} {version}"),
        _ => return Err("a change needs a `title`, or a `service` and a `version`".to_owned()),
    };
    let at = time(text(of, "at").or_else(|| text(of, "time")).or(at))?;
    Ok(Heard::Change(HeardChange { at, service, kind, title, version }))
}

/// A deployment's status; only success changes what runs.
fn github(of: &Value) -> Result<Heard, String> {
    let status = of.get("deployment_status").cloned().unwrap_or_default();
    let state = text(&status, "state").unwrap_or_default();
    if state != "success" {
        return Ok(Heard::Nothing(format!(
            "the deployment's state is {state:?}, only \"success\" changes what runs"
        )));
    }
    let deployment = of.get("deployment").cloned().unwrap_or_default();
    let repository = of.get("repository").and_then(|repository| text(repository, "name"));
    let service = repository.ok_or("`repository.name` is missing")?;
    let version = text(&deployment, "ref").or_else(|| text(&deployment, "sha"));
    let place = text(&deployment, "environment").map(|place| format!(" to {place}")).unwrap_or_default();
    let what = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    Ok(Heard::Change(HeardChange {
        at: time(text(&status, "created_at").or_else(|| text(&status, "updated_at")))?,
        title: format!("{service}{what} deployed{place}"),
        service,
        kind: ChangeKind::Deploy,
        version,
    }))
}

/// An application as notification templates send it: `{"app": {{toJson .app}}}`.
fn argo_cd(of: &Value) -> Result<Heard, String> {
    let at = |path: &str| of.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let service = at("/metadata/name").ok_or("`app.metadata.name` is missing")?;
    let phase = at("/status/operationState/phase").unwrap_or_else(|| "Succeeded".to_owned());
    if phase != "Succeeded" {
        return Ok(Heard::Nothing(format!(
            "the sync's phase is {phase:?}, only \"Succeeded\" changes what runs"
        )));
    }
    let version = at("/status/sync/revision");
    let what = version.as_ref().map(|version| format!(" to {version}")).unwrap_or_default();
    Ok(Heard::Change(HeardChange {
        at: time(at("/status/operationState/finishedAt"))?,
        title: format!("{service} synced{what}"),
        service,
        kind: ChangeKind::Deploy,
        version,
    }))
}

/// An annotation: `{time: ms, text, tags}`; a tag `service:NAME` names the service.
fn grafana(of: &Value) -> Result<Heard, String> {
    let title = text(of, "text").ok_or("`text` is empty")?;
    let tags: Vec<&str> =
        of.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let tagged =
        |name: &str| tags.iter().find_map(|tag| tag.strip_prefix(name)).unwrap_or_default().to_owned();
    let at = of.get("time").and_then(Value::as_u64).map(|ms| Timestamp(ms.saturating_mul(1_000_000)));
    let version = Some(tagged("version:")).filter(|version| !version.is_empty());
    Ok(Heard::Change(HeardChange {
        at,
        service: tagged("service:"),
        kind: tags.iter().find_map(|tag| kind(tag)).unwrap_or(ChangeKind::Other),
        title: title.lines().next().unwrap_or_default().to_owned(),
        version,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(headers: &[(&str, &str)], body: &str) -> Result<Heard, String> {
        let header =
            |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        read_change(&header, body.as_bytes())
    }

    fn change(
        service: &str,
        kind: ChangeKind,
        title: &str,
        version: Option<&str>,
        at: Option<&str>,
    ) -> Heard {
        Heard::Change(HeardChange {
            at: at.map(|at| Timestamp::parse_rfc3339(at).unwrap()),
            service: service.to_owned(),
            kind,
            title: title.to_owned(),
            version: version.map(str::to_owned),
        })
    }

    #[test]
    fn every_form_is_understood() {
        let deploy = ChangeKind::Deploy;
        assert_eq!(
            heard(
                &[],
                r#"{"service":"cart","environment":"prod","version":"1.5.0","at":"2024-05-01T12:00:00Z"}"#
            ),
            Ok(change("prod//cart", deploy, "prod//cart 1.5.0", Some("1.5.0"), Some("2024-05-01T12:00:00Z")))
        );
        assert_eq!(
            heard(
                &[],
                r#"{"specversion":"1.0","type":"dev.cdevents.service.deployed.0.1","subject":"cart","time":"2024-05-01T12:00:00Z","data":{"version":"2"}}"#
            ),
            Ok(change("cart", deploy, "cart 2", Some("2"), Some("2024-05-01T12:00:00Z")))
        );
        assert_eq!(
            heard(
                &[("ce-specversion", "1.0"), ("ce-subject", "cart"), ("ce-type", "x.flag")],
                r#"{"title":"new checkout on"}"#
            ),
            Ok(change("cart", ChangeKind::Flag, "new checkout on", None, None))
        );
        assert_eq!(
            heard(
                &[("x-github-event", "deployment_status")],
                r#"{"deployment_status":{"state":"success","created_at":"2024-05-01T12:00:00Z"},"deployment":{"ref":"v7","environment":"production"},"repository":{"name":"cart"}}"#
            ),
            Ok(change(
                "cart",
                deploy,
                "cart v7 deployed to production",
                Some("v7"),
                Some("2024-05-01T12:00:00Z")
            ))
        );
        assert_eq!(
            heard(
                &[],
                r#"{"app":{"metadata":{"name":"cart"},"status":{"sync":{"revision":"abc"},"operationState":{"phase":"Succeeded","finishedAt":"2024-05-01T12:00:00Z"}}}}"#
            ),
            Ok(change("cart", deploy, "cart synced to abc", Some("abc"), Some("2024-05-01T12:00:00Z")))
        );
        assert_eq!(
            heard(
                &[],
                r#"{"time":1714564800000,"text":"Deployed cart\nmore","tags":["deploy","service:cart"]}"#
            ),
            Ok(change("cart", deploy, "Deployed cart", None, Some("2024-05-01T12:00:00Z")))
        );
    }

    #[test]
    fn what_changes_nothing_and_what_is_wrong_are_told_apart() {
        let pending = r#"{"deployment_status":{"state":"pending"},"repository":{"name":"cart"}}"#;
        assert!(matches!(heard(&[], pending), Ok(Heard::Nothing(_))));
        assert!(matches!(heard(&[("x-github-event", "push")], "{}"), Ok(Heard::Nothing(_))));
        assert!(heard(&[], "nonsense").unwrap_err().contains("no JSON"));
        assert!(heard(&[], "[]").unwrap_err().contains("object"));
        assert!(heard(&[], "{}").unwrap_err().contains("title"));
        assert!(heard(&[], r#"{"title":"x","kind":"party"}"#).unwrap_err().contains("party"));
        assert!(heard(&[], r#"{"title":"x","at":"yesterday"}"#).unwrap_err().contains("RFC 3339"));
    }
}
