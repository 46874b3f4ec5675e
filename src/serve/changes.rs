//! What people and pipelines tell of changes.

use super::Error;
use super::board::Board;
use super::convert::{service, to_proto};
use crate::api::v1;
use crate::context::{Change, ChangeId, ChangeKind};
use crate::model::{ServiceKey, Timestamp, name_of};
use crate::store::Stage;

const TITLE_LIMIT_BYTES: usize = 512;

/// A change as the API says it.
#[must_use]
pub(super) fn change_message(of: &Change) -> v1::Change {
    let kind = match of.kind {
        ChangeKind::Deploy => v1::ChangeKind::Deploy,
        ChangeKind::Flag => v1::ChangeKind::Flag,
        ChangeKind::Configuration => v1::ChangeKind::Configuration,
        ChangeKind::Other => v1::ChangeKind::Other,
    };
    v1::Change {
        id: of.id.0.clone(),
        at: Some(to_proto(of.at)),
        service: of.service.as_ref().map(service),
        kind: kind as i32,
        title: of.title.clone(),
        inferred: of.inferred,
        version: of.version.clone(),
    }
}

/// A change being told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub at: Timestamp,
    pub service: Option<ServiceKey>,
    pub kind: ChangeKind,
    pub title: String,
    pub version: Option<String>,
}

impl Board {
    /// Records a change. Telling the same again changes nothing.
    ///
    /// # Errors
    /// `Invalid` if the title is empty or too long, `Storage` when the ledger cannot be written.
    pub fn tell(&self, told: Told, now: Timestamp) -> Result<v1::Change, Error> {
        let title = told.title.trim();
        if title.is_empty() || title.len() > TITLE_LIMIT_BYTES {
            return Err(Error::Invalid(format!("the title of a change has 1 to {TITLE_LIMIT_BYTES} bytes")));
        }
        let service = told.service.as_ref().map(ToString::to_string).unwrap_or_default();
        let (at, kind) = (told.at.to_string(), format!("{:?}", told.kind));
        let id = name_of([at.as_str(), &service, &kind, title]);
        let change = Change {
            id: ChangeId(id.clone()),
            at: told.at,
            service: told.service,
            kind: told.kind,
            title: title.to_owned(),
            inferred: false,
            version: told.version.filter(|version| !version.is_empty()),
        };
        let payload = serde_json::to_value(&change).map_err(|error| Error::Storage(error.to_string()))?;
        self.records()
            .append(now, Stage::Context, &id, &format!("change/{id}"), payload)
            .map_err(Error::Storage)?;
        Ok(change_message(&change))
    }
}

/// Reads `[ENVIRONMENT/][NAMESPACE/]NAME` of a service that need not be known yet. With two parts, the
/// first is the namespace.
#[must_use]
pub(super) fn service_as_written(text: &str) -> Option<ServiceKey> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => Some(ServiceKey::named(name)),
        [namespace, name] => Some(ServiceKey::new("", namespace, name)),
        [environment, namespace, name] => Some(ServiceKey::new(environment, namespace, name)),
        _ => None,
    }
    .filter(|service| !service.name.is_empty())
}
