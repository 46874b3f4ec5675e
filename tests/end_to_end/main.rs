//! Tests against real parts: other people's programs, and our own binary from outside. One binary, so
//! that it is linked once.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod alerting;
mod bombs;
mod bundles;
mod capture;
mod cardinality;
mod chaos;
mod checks;
mod clients;
mod clocks;
mod crashes;
mod damage;
mod disk;
mod durability;
mod exemptions;
mod floods;
mod foreign_rules;
mod formats;
mod heartbeat;
mod hostile;
mod house;
mod keepsakes;
mod objectives;
mod outages;
mod overload;
mod page;
mod poison;
mod quantiles;
mod queries;
mod replay;
mod search;
mod stopping;
mod unrest;
mod webhooks;
