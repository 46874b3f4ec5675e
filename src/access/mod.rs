//! Who may call what: TLS, tokens, roles, sessions of the page.
//!
//! A call is let through if its caller proves who it is (a bearer token, a session of the page, or a
//! client certificate) and holds the role that the table in `rules` asks for. What is not in the table is
//! refused. Without tokens and client certificates everyone may do everything, and the ports are then
//! bound to loopback addresses only, unless `access.allow_insecure` says otherwise.

mod config;
mod credentials;
mod denial;
mod error;
mod frames;
mod guard;
mod holding;
mod listener;
mod role;
mod rules;
mod sessions;
mod stream;
mod taking;
mod tls;
mod tokens;

pub use config::{Config, TlsConfig};
pub use credentials::{Credentials, cookie};
pub use denial::{Denial, DeniedReason};
pub use error::Error;
pub use guard::{Access, Caller};
pub use holding::Holding;
pub use listener::Listener;
pub use role::{Role, Roles};
pub use rules::{Need, page_need, rpc_need, table};
pub use stream::{Peer, Stream};
pub use taking::{TAKEN_WITHIN, Taking, Takings};
pub use tls::Port;
