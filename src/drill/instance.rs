//! A running instance of a service, and attributes in the form that SDKs send.

use super::random::Random;
use super::shop::{SERVICES, Service};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// An instance: what its resource says.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its service's place in `SERVICES`.
    pub service: usize,
    /// Its place among its service's instances.
    pub slot: usize,
    pub version: String,
    pub id: String,
}

impl Instance {
    pub fn new(service: usize, slot: usize, version: &str, random: &mut Random) -> Self {
        let mut id = random.bytes::<16>();
        // RFC 9562, version 4.
        id[6] = (id[6] & 0x0f) | 0x40;
        id[8] = (id[8] & 0x3f) | 0x80;
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
        let id = parts.map(|(from, to)| hex.get(from..to).unwrap_or_default()).join("-");
        Self { service, slot, version: version.to_owned(), id }
    }

    #[must_use]
    pub fn description(&self) -> Service {
        SERVICES.get(self.service).copied().unwrap_or(SERVICES[0])
    }

    #[must_use]
    pub fn resource(&self) -> Resource {
        let service = self.description();
        let mut attributes = vec![
            text("service.name", service.name),
            text("service.namespace", "shop"),
            text("service.version", &self.version),
            text("service.instance.id", &self.id),
            text("deployment.environment.name", "demo"),
            text("host.name", &format!("{}-{}", service.host, self.slot)),
        ];
        if !service.language.is_empty() {
            attributes.extend([
                text("telemetry.sdk.name", "opentelemetry"),
                text("telemetry.sdk.language", service.language),
                text("telemetry.sdk.version", "1.38.0"),
            ]);
        }
        Resource { attributes, ..Resource::default() }
    }

    /// The instrumentation that its telemetry names.
    #[must_use]
    pub fn scope(&self) -> InstrumentationScope {
        InstrumentationScope {
            name: format!("shop.{}", self.description().name),
            version: "1.0.0".into(),
            ..InstrumentationScope::default()
        }
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A text attribute.
#[must_use]
pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// An integer attribute.
#[must_use]
pub fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}
