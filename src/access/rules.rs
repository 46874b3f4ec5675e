//! The table of what each call needs. What is not in it is refused.

use super::Role;
use std::fmt::Write as _;

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it tells nothing about what is watched.
    Nothing,
    Role(Role),
}

use Need::Nothing;
const INGEST: Need = Need::Role(Role::Ingest);
const READ: Need = Need::Role(Role::Read);
const OPERATE: Need = Need::Role(Role::Operate);

/// Every RPC by its path. `tests` hold it to the descriptors: one that is missing here fails there, and is
/// refused to everyone.
const RPCS: &[(&str, Need)] = &[
    ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", INGEST),
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", INGEST),
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", INGEST),
    ("/barograph.v1.AdjustmentService/AddAdjustment", OPERATE),
    ("/barograph.v1.AdjustmentService/ListAdjustments", READ),
    ("/barograph.v1.AdjustmentService/UndoAdjustment", OPERATE),
    ("/barograph.v1.AnomalyService/FollowAnomalies", READ),
    ("/barograph.v1.AnomalyService/GetAnomaly", READ),
    ("/barograph.v1.AnomalyService/GetCurves", READ),
    ("/barograph.v1.AnomalyService/ListAnomalies", READ),
    ("/barograph.v1.ChangeService/ListChanges", READ),
    ("/barograph.v1.ChangeService/TellChange", OPERATE),
    ("/barograph.v1.EvidenceService/DownloadEvidence", READ),
    ("/barograph.v1.EvidenceService/GetEvidence", READ),
    ("/barograph.v1.EvidenceService/ListEvidence", READ),
    ("/barograph.v1.ExemptionService/AddExemption", OPERATE),
    ("/barograph.v1.ExemptionService/EndExemption", OPERATE),
    ("/barograph.v1.ExemptionService/ListExemptions", READ),
    ("/barograph.v1.IncidentService/AcknowledgeIncident", OPERATE),
    ("/barograph.v1.IncidentService/AddNote", OPERATE),
    ("/barograph.v1.IncidentService/GetIncident", READ),
    ("/barograph.v1.IncidentService/ListIncidents", READ),
    ("/barograph.v1.IncidentService/ResolveIncident", OPERATE),
    ("/barograph.v1.JournalService/DownloadExplanation", READ),
    ("/barograph.v1.JournalService/Explain", READ),
    ("/barograph.v1.JournalService/GetTrace", READ),
    ("/barograph.v1.JournalService/SearchLogs", READ),
    ("/barograph.v1.JournalService/SearchTraces", READ),
    ("/barograph.v1.QueryService/GetGraph", READ),
    ("/barograph.v1.QueryService/GetLatency", READ),
    ("/barograph.v1.QueryService/GetTimeSeries", READ),
    ("/barograph.v1.QueryService/ListOperations", READ),
    ("/barograph.v1.QueryService/ListServices", READ),
    ("/barograph.v1.QueryService/ListSlos", READ),
    ("/barograph.v1.QueryService/ListChecks", READ),
    ("/barograph.v1.StatusService/GetStatus", READ),
    ("/grpc.health.v1.Health/Check", Nothing),
    ("/grpc.health.v1.Health/Watch", Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READ),
];

/// Every path on `listen.otlp_http` and `listen.http` by method and route.
const PAGES: &[(&str, &str, Need)] = &[
    ("POST", "/v1/traces", INGEST),
    ("POST", "/v1/logs", INGEST),
    ("POST", "/v1/metrics", INGEST),
    ("GET", "/", READ),
    ("GET", "/anomalies/{id}", READ),
    ("GET", "/incidents/{id}", READ),
    ("GET", "/evidence/{id}", READ),
    ("GET", "/evidence/{id}/", READ),
    ("GET", "/evidence/{id}/{*file}", READ),
    ("GET", "/slos", READ),
    ("GET", "/traces", READ),
    ("GET", "/traces/{id}", READ),
    ("GET", "/logs", READ),
    ("GET", "/metrics", READ),
    ("GET", "/healthz", Nothing),
    ("GET", "/readyz", Nothing),
    ("GET", "/login", Nothing),
    ("POST", "/login", Nothing),
    ("POST", "/logout", Nothing),
    ("GET", "/session", READ),
    ("POST", "/v1/changes", OPERATE),
    ("POST", "/api/v2/alerts", OPERATE),
    ("GET", "/v1/adjustments", READ),
    ("POST", "/v1/adjustments", OPERATE),
    ("POST", "/v1/adjustments/{id}/undo", OPERATE),
];

/// What an RPC needs, by its path; `None`: it is not in the table, so nobody may call it.
#[must_use]
pub fn rpc_need(path: &str) -> Option<Need> {
    RPCS.iter().find(|(known, _)| *known == path).map(|(_, need)| *need)
}

/// What a request needs, by its method and the route that it takes.
#[must_use]
pub fn page_need(method: &str, route: &str) -> Option<Need> {
    let method = if method == "HEAD" { "GET" } else { method };
    PAGES.iter().find(|(known, path, _)| *known == method && *path == route).map(|(_, _, need)| *need)
}

/// The whole table in Markdown: which role may call what.
#[must_use]
pub fn table() -> String {
    let mut out = String::from("| call | ingest | read | operate | admin |\n|---|---|---|---|---|\n");
    let rpcs = RPCS.iter().map(|(path, need)| ((*path).to_owned(), *need));
    let pages = PAGES.iter().map(|(method, path, need)| (format!("{method} {path}"), *need));
    for (call, need) in rpcs.chain(pages) {
        let may = |role: Role| match need {
            Nothing => "anyone",
            Need::Role(needed) if super::Roles::default().with(role).may(needed) => "yes",
            Need::Role(_) => "",
        };
        let [ingest, read, operate, admin] = Role::ALL.map(may);
        let _ = writeln!(out, "| `{call}` | {ingest} | {read} | {operate} | {admin} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use std::collections::BTreeSet;

    /// Every RPC that a set of descriptors defines.
    fn described(descriptors: &[u8]) -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(descriptors).expect("descriptors");
        let mut found = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    found.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        found
    }

    #[test]
    fn the_table_holds_every_rpc_that_is_described_and_no_other() {
        let mut described_rpcs = described(crate::api::DESCRIPTORS);
        assert!(described_rpcs.len() > 15, "the descriptors are read: {described_rpcs:?}");
        described_rpcs.extend(described(tonic_health::pb::FILE_DESCRIPTOR_SET));
        described_rpcs.extend(described(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        for service in ["trace.v1.Trace", "logs.v1.Logs", "metrics.v1.Metrics"] {
            described_rpcs.insert(format!("/opentelemetry.proto.collector.{service}Service/Export"));
        }
        let ruled: BTreeSet<String> = RPCS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(ruled.len(), RPCS.len(), "none stands twice");
        let missing: Vec<_> = described_rpcs.difference(&ruled).collect();
        assert!(missing.is_empty(), "say in RPCS who may call {missing:?}");
        let unknown: Vec<_> = ruled.difference(&described_rpcs).collect();
        assert!(unknown.is_empty(), "no such RPC: {unknown:?}");
    }

    #[test]
    fn what_is_not_in_the_table_has_no_need_that_could_be_met() {
        assert_eq!(rpc_need("/barograph.v1.StatusService/DropEverything"), None);
        assert_eq!(page_need("POST", "/metrics"), None);
        assert_eq!(page_need("HEAD", "/metrics"), Some(READ));
    }

    #[test]
    fn the_documentation_shows_the_table() {
        let page = std::fs::read_to_string("docs/security.md").expect("docs/security.md");
        assert!(page.contains(&table()), "put this table into docs/security.md:\n{}", table());
    }
}
