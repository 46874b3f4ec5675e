//! What a diagnosis knew beside traces and lines: changes, who calls whom, and what metrics said. A bundle holds it, so
//! that what is diagnosed again from it names a deploy, and walks the same way.

use super::blame::Edges;
use super::clue::Clue;
use crate::context::Change;
use crate::model::ServiceKey;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Most calls and clues that a bundle holds: of clues the strongest.
const CALLS: usize = 10_000;
const CLUES: usize = 1_000;

/// `context.json` of a bundle. What a program of another version wrote and this one does not know is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Around the onset, latest first.
    #[serde(default, deserialize_with = "known")]
    pub changes: Vec<Change>,
    #[serde(default, deserialize_with = "known")]
    pub calls: Vec<Call>,
    /// What metrics say against services, if there were any; their points are not in a bundle.
    #[serde(default, deserialize_with = "known_if_any")]
    pub metrics: Option<Vec<Clue>>,
}

/// That a service calls another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub client: ServiceKey,
    pub server: ServiceKey,
}

impl Context {
    /// Of what was seen in a diagnosis, as far as there is room.
    #[must_use]
    pub fn of(changes: &[Change], calls: &Edges, metrics: Option<&[Clue]>) -> Self {
        let call = |(client, server): &(ServiceKey, ServiceKey)| Call {
            client: client.clone(),
            server: server.clone(),
        };
        let strongest = |metrics: &[Clue]| {
            let mut metrics = metrics.to_vec();
            metrics.sort_by(|a, b| {
                b.weight.total_cmp(&a.weight).then_with(|| (&a.service, &a.text).cmp(&(&b.service, &b.text)))
            });
            metrics.truncate(CLUES);
            metrics
        };
        Self {
            changes: changes.to_vec(),
            calls: calls.iter().take(CALLS).map(call).collect(),
            metrics: metrics.map(strongest),
        }
    }

    #[must_use]
    pub fn edges(&self) -> Edges {
        self.calls.iter().map(|call| (call.client.clone(), call.server.clone())).collect()
    }
}

fn known<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<Value>::deserialize(from)?;
    Ok(all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect())
}

fn known_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Clue>>, D::Error> {
    let all = Option::<Vec<Value>>::deserialize(from)?;
    Ok(all.map(|all| all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_wrote_and_this_one_does_not_know_is_left_out() {
        let text = r#"{
            "changes": [{ "id": "a", "kind": "eclipse" }],
            "calls": [{ "client": { "environment": "", "namespace": "", "name": "a" },
                        "server": { "environment": "", "namespace": "", "name": "b" }, "since": 1 }],
            "moods": []
        }"#;
        let read: Context = serde_json::from_str(text).unwrap();
        assert_eq!((read.changes.len(), read.metrics.as_ref()), (0, None));
        assert_eq!(read.edges(), [(ServiceKey::named("a"), ServiceKey::named("b"))].into());
        assert_eq!(serde_json::from_str::<Context>("{}").unwrap(), Context::default());
    }
}
