//! Tests against real parts: other people's programs, and our own binary from outside. One binary, so
//! that it is linked once.

#[path = "../support/mod.rs"]
mod support;

mod alerting;
mod clients;
mod durability;
mod house;
mod webhooks;
