//! The kinds of values a key can have, and how each is read and shown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

/// A kind of value.
pub trait Setting: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn read(value: &Value) -> Result<Self, String>;

    /// The value as it would be written in the file.
    fn show(&self) -> String;
}

/// A number of bytes, written as an integer or as text with a unit: `"64 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A length of time, written as text with a unit: `"250ms"`, `"30s"`, `"5m"`, `"2h"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

fn wrong(value: &Value, wanted: &str) -> String {
    format!("{value} is {} {}, not {wanted}", article(value.type_str()), value.type_str())
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

/// Splits `12.5 MiB` into number and unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    Some((number.parse().ok()?, unit.trim()))
}

impl ByteSize {
    /// Reads `64 MiB` and the like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let factor = match unit {
            "" | "B" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            "KB" | "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            _ => return None,
        };
        Some(Self((number * factor) as u64))
    }
}

impl Seconds {
    /// Reads `30s` and the like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let seconds = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(number * seconds).ok().map(Self)
    }
}

impl Setting for ByteSize {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(n) => u64::try_from(*n).map(Self).map_err(|_| format!("{n} is negative")),
            Value::String(text) => {
                Self::parse(text).ok_or_else(|| format!("{text:?} is not a size such as \"64 MiB\""))
            }
            _ => Err(wrong(value, "a size")),
        }
    }

    fn show(&self) -> String {
        for (unit, factor) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return format!("\"{} {unit}\"", self.0 / factor);
            }
        }
        self.0.to_string()
    }
}

impl Setting for Seconds {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => {
                Self::parse(text).ok_or_else(|| format!("{text:?} is not a duration such as \"30s\""))
            }
            _ => Err(wrong(value, "a duration such as \"30s\"")),
        }
    }

    fn show(&self) -> String {
        let ms = self.0.as_millis();
        for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if ms >= factor && ms.is_multiple_of(factor) {
                return format!("\"{}{unit}\"", ms / factor);
            }
        }
        format!("\"{ms}ms\"")
    }
}

impl Setting for u64 {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(n) => Self::try_from(*n).map_err(|_| format!("{n} is negative")),
            _ => Err(wrong(value, "a whole number")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for f64 {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(n) => Ok(*n),
            Value::Integer(n) => Ok(*n as Self),
            _ => Err(wrong(value, "a number")),
        }
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for bool {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| wrong(value, "true or false"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| wrong(value, "text"))
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        String::read(value).map(Self::from)
    }

    fn show(&self) -> String {
        format!("{:?}", self.display().to_string())
    }
}

impl Setting for SocketAddr {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        text.parse().map_err(|_| format!("{text:?} is not an address such as \"127.0.0.1:4317\""))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_array().ok_or_else(|| wrong(value, "a list"))?.iter().map(T::read).collect()
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(value: &Value) -> Result<Self, String> {
        T::read(value).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_what_they_show() {
        for (text, bytes) in [("64 MiB", 64 << 20), ("1.5 KiB", 1536), ("10 GB", 10_000_000_000), ("7", 7)] {
            let read = ByteSize::parse(text).unwrap();
            assert_eq!(read.0, bytes);
            assert_eq!(ByteSize::read(&read.show().parse().unwrap()), Ok(read));
        }
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("1.5h", 5_400_000), ("7d", 604_800_000)] {
            let read = Seconds::parse(text).unwrap();
            assert_eq!(read.0.as_millis(), ms);
            assert_eq!(Seconds::read(&read.show().parse().unwrap()), Ok(read));
        }
        assert_eq!(ByteSize::parse("12 parsecs"), None);
        assert!(ByteSize::read(&Value::Boolean(true)).unwrap_err().contains("a boolean"));
    }

    #[test]
    fn a_section_checks_and_documents_its_keys() {
        crate::settings! {
            /// A section.
            pub struct Config in "kitchen" {
                /// How many
                /// ovens.
                ovens: u64 = 2, "0 to 16", |n| *n <= 16;
                /// The name.
                name: Option<String> = None, "any text";
            }
        }
        let mut config = Config::default();
        assert_eq!(config.set("ovens", &Value::Integer(16)), Ok(()));
        assert_eq!(
            config.set("ovens", &Value::Integer(17)),
            Err("17 is out of range, allowed: 0 to 16".into())
        );
        assert_eq!(config.ovens, 16);
        assert!(config.set("oven", &Value::Integer(1)).unwrap_err().contains("ovens, name"));
        assert!(config.name.is_none());
        let keys = Config::keys();
        assert_eq!(
            (keys[0].path.as_str(), keys[0].documentation.as_str()),
            ("kitchen.ovens", "How many ovens.")
        );
        assert_eq!(keys[1].default, "none");
    }
}
