//! The record of an incident: its timeline, time to detect and to recover.
