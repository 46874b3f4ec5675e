//! Numbers in half a word.

use serde::{Deserialize, Serialize};

/// The upper half of an `f32`: good to less than a hundredth, or no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half(u16);

impl Half {
    pub const UNKNOWN: Self = Self(u16::MAX);

    #[must_use]
    pub fn of(value: f64) -> Self {
        Self(((value as f32).to_bits() >> 16) as u16)
    }

    /// `None` for what is no number.
    #[must_use]
    pub fn get(self) -> Option<f64> {
        let value = f32::from_bits(u32::from(self.0) << 16);
        (!value.is_nan()).then(|| f64::from(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_to_a_hundredth() {
        for value in [0.0, 1.0, 0.3, -2.5e9, 1e-12, 12_345.678] {
            let kept = Half::of(value).get().expect("a number");
            assert!((kept - value).abs() <= 0.01 * value.abs(), "{value}: {kept}");
        }
        assert_eq!(Half::UNKNOWN.get(), None);
    }
}
