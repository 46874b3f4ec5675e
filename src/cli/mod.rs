//! The command line: a module a command, each with its `Arguments` and a `run` that returns the
//! exit code: 0 done, 1 failed, 2 not found, 64 wrong usage.

mod dispatch;
mod failure;
mod connection;
mod moment;
mod table;
mod told;
mod traces;
mod output;
mod fetch;

mod anomalies;
mod backtest;
mod changes;
mod checks;
mod serve;
mod completions;
mod demo;
mod config;
mod drill;
mod evidence;
mod exempt;
mod explain;
mod graph;
mod incident;
mod incidents;
mod latency;
mod logs;
mod journal;
mod load;
mod operations;
mod series;
mod services;
mod slo;
mod status;

pub use dispatch::main;
