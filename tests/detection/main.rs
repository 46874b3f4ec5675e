//! What the judge promises of health, on virtual time: how many pages it costs, and that its probabilities
//! are ones. Reduced here; `scripts/detection-budget` runs the full figures.

mod budget;
mod calm;
mod cost;

/// A number from the environment, for the full figure.
pub fn setting(name: &str, reduced: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(reduced)
}
