//! How a room declares its configuration: each key with its documentation, default and range, in
//! one place, from which reading, checking and the printed reference all follow.
//!
//! ```
//! barograph::settings! {
//!     /// What the section is about.
//!     pub struct Config in "kitchen" {
//!         /// How many ovens. 0 switches baking off.
//!         ovens: u64 = 2, "0 to 16", |n| *n <= 16;
//!     }
//! }
//! let mut config = Config::default();
//! assert!(config.set("ovens", &toml::Value::Integer(17)).is_err());
//! ```

mod declare;
mod value;

pub use declare::Key;
pub use value::{ByteSize, Seconds, Setting};
