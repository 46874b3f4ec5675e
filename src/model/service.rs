//! Which service something belongs to.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A service: `deployment.environment.name`, `service.namespace`, `service.name`; `""` where unset
/// (`service.name` defaults to `unknown_service`, as the resource conventions say).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    pub environment: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ServiceKey {
    #[must_use]
    pub fn new(environment: &str, namespace: &str, name: &str) -> Self {
        Self { environment: environment.into(), namespace: namespace.into(), name: name.into() }
    }

    /// A service of which only the name is known.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::new("", "", name)
    }

    /// Whether `[ENVIRONMENT/][NAMESPACE/]NAME`, as the command line takes it, means this service.
    /// With two parts, the first may be the environment or the namespace.
    #[must_use]
    pub fn is_meant_by(&self, text: &str) -> bool {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [name] => *self.name == **name,
            [outer, name] => {
                *self.name == **name && (*self.environment == **outer || *self.namespace == **outer)
            }
            [environment, namespace, name] => {
                *self.name == **name && *self.environment == **environment && *self.namespace == **namespace
            }
            _ => false,
        }
    }
}

/// `ENVIRONMENT/NAMESPACE/NAME` without the parts that are unset.
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.environment, &self.namespace] {
            if !part.is_empty() {
                write!(f, "{part}/")?;
            }
        }
        f.write_str(&self.name)
    }
}
