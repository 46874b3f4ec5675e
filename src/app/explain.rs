//! What broke at a moment, from recordings alone.

use super::backtest::recordings;
use super::{Config, Error};
use crate::diagnose::{Explanation, Gather, Limits, decode, explain};
use crate::model::Timestamp;
use std::path::{Path, PathBuf};

/// A question to recordings.
#[derive(Clone, Debug)]
pub struct Question {
    pub inputs: Vec<PathBuf>,
    pub at: Timestamp,
    /// The healthy period; chosen if `None`.
    pub baseline: Option<(Timestamp, Timestamp)>,
}

impl Question {
    /// The causes, most likely first, and the lines that changed; no cause when nothing is wrong. Nothing timed after `at` is looked at.
    ///
    /// # Errors
    /// When a recording cannot be read.
    pub fn answer(&self, config: &Config) -> Result<Explanation, Error> {
        let redaction = config.diagnose.redaction();
        let mut gather = Gather::new(Limits::default());
        let ((good_from, _), (bad_from, _)) = crate::diagnose::periods(self.at, self.baseline);
        let from = good_from.min(bad_from);
        for recorded in recordings(&self.inputs)? {
            let recorded = recorded?;
            let wanted = |time: Timestamp| time >= from && time <= self.at;
            if let Err(error) = decode(recorded.signal, &recorded.body, &redaction, &wanted, &mut gather) {
                tracing::warn!(%error, "a request of the recording is left out");
            }
        }
        Ok(explain(&gather.finish(), self.at, self.baseline))
    }

    /// Answers into `out/causes.json`.
    ///
    /// # Errors
    /// As [`Self::answer`], or when it cannot be written.
    pub fn write(&self, config: &Config, out: &Path) -> Result<Explanation, Error> {
        let explanation = self.answer(config)?;
        write_causes(out, self.at, &explanation)?;
        Ok(explanation)
    }
}

/// Writes `out/causes.json`.
///
/// # Errors
/// When it cannot be written.
pub fn write_causes(out: &Path, at: Timestamp, explanation: &Explanation) -> Result<(), Error> {
    std::fs::create_dir_all(out).map_err(Error::io(format!("cannot make {}", out.display())))?;
    let path = out.join("causes.json");
    let text = format!("{:#}\n", explanation.json(at));
    std::fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))
}
