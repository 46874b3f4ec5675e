//! Which page answers which address, and the HTTP server.

use super::dashboard::{Curves, Dashboard, NUMBERS, Seen};
use super::detail::{AnomalyPage, IncidentPage, MessagePage};
use super::head::Head;
use super::journal::{Asked, LogsPage, TracePage, TracesPage};
use super::slos::SlosPage;
use crate::access::{Listener, Peer, Port};
use crate::api::v1;
use crate::serve::{Api, Error, Range, within_bundle};
use crate::settings::Seconds;
use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

const DAY: Duration = Duration::from_secs(86_400);
/// Seconds between two looks at the overview.
const REFRESH_S: u32 = 10;
/// Our pages hold nothing but text, styles and drawings.
pub(super) const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// A bundle's page is self-contained, and may not reach beyond itself.
const BUNDLE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: 'self'; base-uri 'none'; form-action 'none'";

/// Everything on the HTTP address: pages, evidence, metrics, health, changes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(dashboard))
        .route("/anomalies/{id}", get(anomaly))
        .route("/incidents/{id}", get(incident))
        .route("/slos", get(slos))
        .route("/traces", get(traces))
        .route("/traces/{id}", get(trace))
        .route("/logs", get(logs))
        .route("/evidence/{id}", get(|Path(id): Path<String>| async move { slash(&id) }))
        .route("/evidence/{id}/", get(bundle_page))
        .route("/evidence/{id}/{*file}", get(bundle_file))
        .fallback(|State(api): State<Api>| async move {
            failure(&api, &Error::NotFound("there is no such page".to_owned()))
        })
        .with_state(api.clone())
        .merge(super::sign_in::routes(api.clone()))
        .merge(crate::serve::routes(api.clone()))
        .layer(axum::middleware::from_fn_with_state(api, super::guard::guard))
        .layer(axum::middleware::from_fn(super::guard::keep_seat))
}

/// Serves pages until told to stop, then lets answers under way end.
///
/// # Errors
/// When the server cannot run on this listener.
pub async fn serve_http(
    listener: TcpListener,
    api: Api,
    mut stopping: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let (access, connections) = api.door();
    let listener = Listener::new(listener, Port::Page, access, connections);
    axum::serve(listener, router(api).into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        })
        .await
}

fn slash(id: &str) -> Redirect {
    // Ids are hexadecimal digits; anything else leads nowhere.
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    Redirect::permanent(&format!("/evidence/{id}/"))
}

pub(super) fn with_headers(mut response: Response, kind: &'static str, policy: &'static str) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    response
}

pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => with_headers((status, html).into_response(), "text/html; charset=utf-8", PAGE_POLICY),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot draw the page: {error}\n")).into_response()
        }
    }
}

fn failure(api: &Api, error: &Error) -> Response {
    let status = error.http_status();
    let heading = match status {
        StatusCode::NOT_FOUND => "Not found",
        _ => "This page cannot be shown now",
    };
    let head = Head::new(heading, &api.status(), api.now(), 0);
    page(status, &MessagePage { head, heading: heading.to_owned(), text: error.to_string() })
}

async fn dashboard(State(api): State<Api>) -> Response {
    let seen = api
        .ask(|api, meter| {
            let now = api.now();
            let oldest = api.status().journal.and_then(|journal| journal.oldest);
            let curves = Curves::of_age(now.since(oldest.as_ref().map_or(now, crate::serve::from_proto)));
            Ok(Seen {
                now,
                curves,
                services: api.services(Range::last(NUMBERS, now), meter)?,
                beats: api.beats(
                    Range::last(curves.length().saturating_add(curves.step), now),
                    curves.step,
                    meter,
                )?,
                slos: api.slos(),
                checks: api.checks(),
                anomalies: api.board().anomalies(Some(Range::last(DAY, now)), None, &[], 0)?,
                changes: api.board().changes(Range::last(DAY, now), None, 100)?,
                crowded: api.status().series.unwrap_or_default().crowded,
                exemptions: api.board().exemptions(false)?,
            })
        })
        .await;
    match seen {
        Ok(seen) => {
            let head = Head::new("Overview", &api.status(), seen.now, REFRESH_S);
            page(StatusCode::OK, &Dashboard::new(head, &seen))
        }
        Err(error) => failure(&api, &error),
    }
}

async fn anomaly(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let asked = id.clone();
    let found = api
        .ask(move |api, meter| {
            let Some(of) = api.board().anomaly(&asked)?.message() else { return Ok(None) };
            // Without curves rather than not at all.
            Ok(Some((of, api.curves(&asked, meter).unwrap_or_default())))
        })
        .await;
    match found {
        Ok(Some((of, curves))) => {
            let head = Head::new(&of.title, &api.status(), api.now(), REFRESH_S);
            page(StatusCode::OK, &AnomalyPage::new(head, &of, &curves, api.now()))
        }
        Ok(None) => failure(&api, &Error::NotFound(format!("no anomaly {id:?}"))),
        Err(error) => failure(&api, &error),
    }
}

async fn incident(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let found = api
        .ask(move |api, meter| {
            let of = api.incident(&id)?;
            let first = of.anomalies.first().and_then(|first| {
                let anomaly = api.board().anomaly(first).ok()?.message()?;
                Some((anomaly, api.curves(first, meter).unwrap_or_default()))
            });
            Ok((of, first))
        })
        .await;
    match found {
        Ok((of, first)) => {
            let head = Head::new(&of.title, &api.status(), api.now(), REFRESH_S);
            let first = first.as_ref().map(|(anomaly, curves)| (anomaly, curves.as_slice()));
            page(StatusCode::OK, &IncidentPage::new(head, &of, first))
        }
        Err(error) => failure(&api, &error),
    }
}

async fn slos(State(api): State<Api>) -> Response {
    let now = api.now();
    let head = Head::new("Objectives", &api.status(), now, REFRESH_S);
    page(StatusCode::OK, &SlosPage::new(head, &api.slos(), &api.refused_files(), now))
}

/// The range of a form: an age, or nothing for the last hour.
fn since(asked: &Asked) -> Result<Option<v1::TimeRange>, Error> {
    let text = asked.since.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let ago = Seconds::parse(text).and_then(|ago| i64::try_from(ago.0.as_nanos()).ok());
    let ago = ago.ok_or_else(|| Error::Invalid(format!("{text:?} is not an age such as 15m")))?;
    Ok(Some(v1::TimeRange { from: Some(v1::time_range::From::SinceAgoNs(ago)), to: None }))
}

async fn traces(State(api): State<Api>, Query(asked): Query<Asked>) -> Response {
    let form = asked.clone();
    let found = api
        .ask(move |api, meter| {
            let (service, conditions) = (asked.service.trim().to_owned(), asked.r#where.clone());
            let range = since(&asked)?;
            api.search_traces(
                &v1::SearchTracesRequest { range, service, r#where: conditions, limit: 0 },
                meter,
            )
        })
        .await;
    match found {
        Ok(found) => {
            let head = Head::new("Traces", &api.status(), api.now(), 0);
            page(StatusCode::OK, &TracesPage::new(head, form, &found))
        }
        Err(error) => failure(&api, &error),
    }
}

async fn logs(State(api): State<Api>, Query(asked): Query<Asked>) -> Response {
    let form = asked.clone();
    let found = api
        .ask(move |api, meter| {
            let (service, conditions) = (asked.service.trim().to_owned(), asked.r#where.clone());
            let range = since(&asked)?;
            api.search_logs(&v1::SearchLogsRequest { range, service, r#where: conditions, limit: 0 }, meter)
        })
        .await;
    match found {
        Ok(found) => {
            let head = Head::new("Logs", &api.status(), api.now(), 0);
            page(StatusCode::OK, &LogsPage::new(head, form, &found))
        }
        Err(error) => failure(&api, &error),
    }
}

async fn trace(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let asked = id.clone();
    match api.ask(move |api, meter| api.trace(&asked, meter)).await {
        Ok(found) => {
            let head = Head::new("Trace", &api.status(), api.now(), 0);
            page(StatusCode::OK, &TracePage::new(head, &id, &found))
        }
        Err(error) => failure(&api, &error),
    }
}

async fn bundle_page(state: State<Api>, Path(id): Path<String>) -> Response {
    bundle_file(state, Path((id, "index.html".to_owned()))).await
}

async fn bundle_file(State(api): State<Api>, Path((id, file)): Path<(String, String)>) -> Response {
    let name = file.clone();
    let found = api
        .ask(move |api, meter| {
            let (bundle, _) = api.bundle(&id)?;
            let none = || Error::NotFound(format!("the evidence has no file {file:?}"));
            let path = within_bundle(&bundle, &file).filter(|path| path.is_file()).ok_or_else(none)?;
            let unreadable = |error| Error::Storage(format!("{file:?}: {error}"));
            meter.take(std::fs::metadata(&path).map_err(unreadable)?.len())?;
            std::fs::read(&path).map_err(unreadable)
        })
        .await;
    match found {
        Ok(bytes) => with_headers(bytes.into_response(), content_type(&name), BUNDLE_POLICY),
        Err(error) => failure(&api, &error),
    }
}

/// By the name's end; what is not known is downloaded rather than shown.
fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("txt" | "md" | "csv" | "jsonl") => "text/plain; charset=utf-8",
        Some("parquet") => "application/vnd.apache.parquet",
        _ => "application/octet-stream",
    }
}
