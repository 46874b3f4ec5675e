//! Code generated from `proto/`; no logic.
