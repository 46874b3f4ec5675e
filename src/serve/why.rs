//! Why an anomaly was told, in words for pages and terminals.

use super::text::{percent, three_digits};
use crate::api::v1;

/// What an anomaly says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    /// What it took of the false-alarm budget.
    pub budget: String,
    /// Why it was not suppressed.
    pub exemptions: String,
}

impl Why {
    pub fn of(anomaly: &v1::Anomaly) -> Self {
        let budget = match &anomaly.budget_draw {
            Some(draw) => format!(
                "{} of a false page; the pages of this week come to {} of {} that are accepted",
                percent(draw.share),
                three_digits(draw.in_week),
                three_digits(draw.per_week)
            ),
            None if anomaly.severity() == v1::Severity::Page => {
                "nothing: a deadline or a limit decided it, or it began as a ticket".to_owned()
            }
            None => "nothing: only pages draw on it".to_owned(),
        };
        let exemptions = match (&anomaly.suppressed_by, anomaly.exemptions_examined) {
            (Some(because), _) => format!("it was: {because}"),
            (None, _) if anomaly.fired_at.is_none() => "it was not told yet".to_owned(),
            (None, 0) => "no known issue, silence or maintenance window is known".to_owned(),
            (None, 1) => "one exemption was looked at, and does not cover it".to_owned(),
            (None, many) => format!("{many} exemptions were looked at, and none covers it"),
        };
        Self { budget, exemptions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_it_took_and_a_ticket_that_it_took_nothing() {
        let draw = v1::BudgetDraw { share: 0.25, in_week: 0.5, per_week: 1.0 };
        let page = v1::Anomaly {
            severity: v1::Severity::Page.into(),
            budget_draw: Some(draw),
            fired_at: Some(prost_types::Timestamp::default()),
            exemptions_examined: 3,
            ..v1::Anomaly::default()
        };
        let why = Why::of(&page);
        let budget = "25.0 % of a false page; the pages of this week come to 0.50 of 1.00 that are accepted";
        assert_eq!(why.budget, budget);
        assert_eq!(why.exemptions, "3 exemptions were looked at, and none covers it");
        let ticket = v1::Anomaly { severity: v1::Severity::Ticket.into(), budget_draw: None, ..page };
        assert_eq!(Why::of(&ticket).budget, "nothing: only pages draw on it");
    }
}
