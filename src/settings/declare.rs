//! The macro that declares a section of the configuration.

/// A key as the printed reference shows it.
#[derive(Clone, Debug)]
pub struct Key {
    /// The dotted path, section included.
    pub path: String,
    pub documentation: String,
    pub default: String,
    /// The allowed values, in words.
    pub allowed: &'static str,
}

/// Declares a section: a struct with `Default`, `set`, `keys` and `get`. See the module for an example.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $section_doc:literal])*
        pub struct $name:ident in $section:literal {
            $( $(#[doc = $doc:literal])* $key:ident: $kind:ty = $default:expr, $allowed:literal $(, $check:expr)?; )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug)]
        pub struct $name { $( $(#[doc = $doc])* pub $key: $kind, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl $name {
            /// First part of the dotted path of every key.
            #[allow(dead_code, reason = "a section declared in a test may not need it")]
            pub const SECTION: &'static str = $section;

            /// The section's keys in the order of their declaration.
            #[must_use]
            pub fn keys() -> Vec<$crate::settings::Key> {
                let default = Self::default();
                vec![ $( $crate::settings::Key {
                    path: if $section.is_empty() { stringify!($key).to_owned() } else { concat!($section, ".", stringify!($key)).to_owned() },
                    documentation: [$($doc,)*].map(str::trim).join(" "),
                    default: $crate::settings::Setting::show(&default.$key),
                    allowed: $allowed,
                }, )* ]
            }

            /// Sets one key, named without its section.
            ///
            /// # Errors
            /// What is wrong and what is allowed, in words; nothing is changed then.
            pub fn set(&mut self, key: &str, value: &toml::Value) -> Result<(), String> {
                match key {
                    $( stringify!($key) => {
                        let read = <$kind as $crate::settings::Setting>::read(value)
                            .map_err(|wrong| format!("{wrong}, allowed: {}", $allowed))?;
                        $(
                            let check: fn(&$kind) -> bool = $check;
                            if !check(&read) {
                                return Err(format!("{} is out of range, allowed: {}", $crate::settings::Setting::show(&read), $allowed));
                            }
                        )?
                        self.$key = read;
                        Ok(())
                    } )*
                    _ => Err(format!("unknown key, allowed here: {}", [$(stringify!($key),)*].join(", "))),
                }
            }
        }
    };
}
