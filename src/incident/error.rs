//! Why an operator's write is not taken.

/// An error of this room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no incident {0}")]
    NotFound(String),
    #[error("the {what} has {bytes} bytes, allowed: {allowed}")]
    Length { what: &'static str, bytes: usize, allowed: &'static str },
    #[error(
        "the {what} holds the control character U+{character:04X}, allowed: printable text and new lines"
    )]
    ControlCharacter { what: &'static str, character: u32 },
    #[error("incident {0} already has {1} entries, which is the limit")]
    Full(String, usize),
}
