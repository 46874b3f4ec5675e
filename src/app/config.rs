//! The whole configuration: every room's section, read from one TOML file and from `--set`.

use crate::settings::Key;
use crate::{
    access, aggregate, alert, confirm, detect, diagnose, journal, probe, receive, serve, slo, store, window,
};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Value;
use toml::de::{DeTable, DeValue};

crate::settings! {
    /// Where the daemon keeps its data.
    pub struct General in "" {
        /// Directory of journal, store and evidence. `$STATE_DIRECTORY` if that is set (systemd sets it),
        /// else `./barograph-data`. One daemon at a time.
        data_dir: PathBuf = default_data_dir(), "a directory that exists or can be made";
    }
}

crate::settings! {
    /// The addresses the daemon listens on. Port 0 takes a free one and prints it.
    pub struct Listen in "listen" {
        /// OTLP/gRPC: traces, logs and metrics.
        otlp_grpc: SocketAddr = loopback(4317), "IP:PORT";
        /// OTLP/HTTP: the same, protobuf and JSON, under /v1/traces, /v1/logs and /v1/metrics.
        otlp_http: SocketAddr = loopback(4318), "IP:PORT";
        /// Queries over gRPC, with reflection and health.
        query: SocketAddr = loopback(4319), "IP:PORT";
        /// The page, /metrics, /healthz, /readyz, and /v1/changes.
        http: SocketAddr = loopback(4320), "IP:PORT";
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn default_data_dir() -> PathBuf {
    std::env::var_os("STATE_DIRECTORY").map_or_else(|| PathBuf::from("barograph-data"), PathBuf::from)
}

macro_rules! sections {
    ($($(#[doc = $doc:literal])* $field:ident: $kind:ty,)*) => {
        /// The whole configuration.
        #[derive(Clone, Debug, Default)]
        pub struct Config { $($(#[doc = $doc])* pub $field: $kind,)* }

        impl Config {
            /// Every key there is, section by section.
            #[must_use]
            pub fn keys() -> Vec<Key> {
                let mut keys = Vec::new();
                $(keys.extend(<$kind>::keys());)*
                keys
            }

            /// Sets a key by its dotted path.
            ///
            /// # Errors
            /// What is wrong and what is allowed, in words; nothing is changed then.
            pub fn set(&mut self, path: &str, value: &Value) -> Result<(), String> {
                $(
                    let name = match <$kind>::SECTION {
                        "" => Some(path),
                        section => path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
                    };
                    if let Some(name) = name && <$kind>::keys().iter().any(|key| key.path == path) {
                        return self.$field.set(name, value);
                    }
                )*
                Err(unknown(path))
            }
        }
    };
}

sections! {
    general: General,
    listen: Listen,
    access: access::Config,
    tls: access::TlsConfig,
    receive: receive::Config,
    aggregate: aggregate::Config,
    journal: journal::Config,
    window: window::Config,
    store: store::Config,
    probe: probe::Config,
    slo: slo::Config,
    detect: detect::Config,
    confirm: confirm::Config,
    alert: alert::Config,
    diagnose: diagnose::Config,
    serve: serve::Config,
}

/// Says that there is no such key, and which there are nearby.
fn unknown(path: &str) -> String {
    let keys = Config::keys();
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let siblings: Vec<&str> = keys
        .iter()
        .filter(|key| key.path.rsplit_once('.').map_or("", |(theirs, _)| theirs) == section)
        .map(|key| key.path.as_str())
        .collect();
    if !siblings.is_empty() && !section.is_empty() {
        return format!("unknown key, allowed: {}", siblings.join(", "));
    }
    let mut sections: Vec<&str> =
        keys.iter().map(|key| key.path.split('.').next().unwrap_or_default()).collect();
    sections.dedup();
    sections.sort_unstable();
    sections.dedup();
    format!("unknown key, allowed at the top: {}", sections.join(", "))
}

/// What is wrong with a configuration: `FILE:LINE: KEY: what is wrong, what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    /// `FILE:LINE`, or `--set`.
    pub place: String,
    pub what: String,
}

impl Config {
    /// The defaults, overridden by the file if there is one, then by each `KEY=VALUE`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(file) = file {
            let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
                place: format!("{}:1", file.display()),
                what: format!("cannot be read: {error}"),
            })?;
            config.read(&file.display().to_string(), &text)?;
        }
        for pair in overrides {
            let error = |what: String| ConfigError { place: "--set".to_owned(), what };
            let (path, text) = pair.split_once('=').ok_or_else(|| {
                error(format!(
                    "{pair}: no '=' in it, write --set KEY=VALUE, for example --set listen.http=127.0.0.1:0"
                ))
            })?;
            let (path, text) = (path.trim(), text.trim());
            // What is no TOML value is text, so that quotes may be left out on the command line.
            let value = text.parse::<Value>().unwrap_or_else(|_| Value::String(text.to_owned()));
            let set = config.set(path, &value).or_else(|wrong| match value {
                Value::String(_) => Err(wrong),
                _ => config.set(path, &Value::String(text.to_owned())).map_err(|_| wrong),
            });
            set.map_err(|wrong| error(format!("{path}: {wrong}")))?;
        }
        Ok(config)
    }

    /// The defaults, overridden by what stands in a text; `file` is what mistakes are said to be in.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.read(file, text)?;
        Ok(config)
    }

    fn read(&mut self, file: &str, text: &str) -> Result<(), ConfigError> {
        let line =
            |span: &Range<usize>| 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count();
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().unwrap_or(0..0);
            let message = error.message().replace('\n', ", ");
            ConfigError {
                place: format!("{file}:{}", line(&at)),
                what: format!("not TOML: {message}, allowed: KEY = VALUE and [SECTION]"),
            }
        })?;
        let mut leaves = Vec::new();
        collect("", table.get_ref(), &mut leaves);
        // In the order of the file, so that the first mistake is the one reported.
        leaves.sort_by_key(|(_, span, _)| span.start);
        for (path, span, value) in leaves {
            let wrong = |what: String| ConfigError {
                place: format!("{file}:{}", line(&span)),
                what: format!("{path}: {what}"),
            };
            match value {
                Some(value) => self.set(&path, &value).map_err(wrong)?,
                None => return Err(wrong(unknown(&path))),
            }
        }
        Ok(())
    }
}

type Leaf = (String, Range<usize>, Option<Value>);

/// Every leaf of a table with its dotted path and place; a section that no key lies in is a leaf
/// without a value.
fn collect(prefix: &str, table: &DeTable<'_>, leaves: &mut Vec<Leaf>) {
    for (name, value) in table {
        let path = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let inner = format!("{path}.");
        match value.get_ref() {
            DeValue::Table(table) if Config::keys().iter().any(|key| key.path.starts_with(&inner)) => {
                collect(&path, table, leaves);
            }
            DeValue::Table(_) => leaves.push((path, name.span(), None)),
            other => leaves.push((path, name.span(), Some(plain(other)))),
        }
    }
}

/// The value without its places in the file.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Float)
        }
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(at) => Value::Datetime(*at),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table.iter().map(|(name, value)| (name.get_ref().to_string(), plain(value.get_ref()))).collect(),
        ),
    }
}

/// Every key with its documentation, as a configuration file of the defaults.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from("# Every key of Barograph's configuration with its default.\n");
    let mut section = String::new();
    for key in Config::keys() {
        let (theirs, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if theirs != section {
            out.push_str(&format!("\n[{theirs}]\n"));
            theirs.clone_into(&mut section);
        }
        out.push('\n');
        for line in wrapped(&key.documentation, 96) {
            out.push_str(&format!("# {line}\n"));
        }
        out.push_str(&format!("# Allowed: {}.\n", key.allowed));
        let commented = if key.default == "none" { "# " } else { "" };
        out.push_str(&format!("{commented}{name} = {}\n", key.default));
    }
    out
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        Config::parse("barograph.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_and_overrides_are_read() {
        let config = read("data_dir = \"/data\"\n[listen]\nhttp = \"127.0.0.1:0\"\n").unwrap();
        assert_eq!((config.general.data_dir.to_str(), config.listen.http.port()), (Some("/data"), 0));
        let config = Config::load(None, &["listen.query=127.0.0.1:9".into(), "data_dir = 7".into()]).unwrap();
        assert_eq!((config.listen.query.port(), config.general.data_dir.to_str()), (9, Some("7")));
    }

    #[test]
    fn mistakes_name_line_key_and_what_is_allowed() {
        let wrong = |text: &str| read(text).unwrap_err();
        assert_eq!(
            wrong("\n[listen]\nhtp = 1\n"),
            "barograph.toml:3: listen.htp: unknown key, allowed: listen.otlp_grpc, listen.otlp_http, listen.query, listen.http"
        );
        assert!(
            wrong("[kitchen]\nsink = 1")
                .starts_with("barograph.toml:1: kitchen: unknown key, allowed at the top: ")
        );
        assert!(
            wrong("data_dir = true")
                .starts_with("barograph.toml:1: data_dir: true is a boolean, not text, allowed: ")
        );
        assert!(
            wrong("[listen]\n\nhttp = \"here\"")
                .starts_with("barograph.toml:3: listen.http: \"here\" is not an address")
        );
        assert!(wrong("data_dir = \n").starts_with("barograph.toml:1: not TOML: "));
        let error = Config::load(None, &["nonsense".into()]).unwrap_err();
        assert!(error.to_string().starts_with("--set: nonsense: no '='"));
    }

    #[test]
    fn the_reference_reads_back_as_the_defaults() {
        let text = reference();
        let config = read(&text).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
}
