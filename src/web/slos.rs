//! The page of all objectives: what is left of each budget, how fast it burns, whom it hit.

use super::dashboard::path_of;
use super::head::Head;
use crate::api::v1;
use crate::model::Timestamp;
use crate::serve::text::{count, plain, time};
use crate::serve::{
    BurnCell, excluded_text, refused_files_text, silent_text, slo_state_name, users_text, window_text,
    young_text,
};
use crate::slo::share_in_words;
use askama::Template;

/// Windows whose burn rates are shown.
const BURNS_SHOWN: [&str; 3] = ["5m", "1h", "6h"];

/// What is left of a budget, as a bar.
#[derive(Clone, Debug)]
pub(super) struct BudgetCell {
    pub title: String,
    pub text: String,
    pub text_class: &'static str,
    /// Percent of the bar.
    pub width: u32,
    pub class: &'static str,
    pub burn: String,
    pub burn_class: &'static str,
}

impl BudgetCell {
    pub fn of(of: &v1::Slo, now: Timestamp) -> Self {
        let left = of.budget_remaining_ratio;
        let (class, text_class) = match left {
            none if none <= 0.0 => ("bad", "bad-t"),
            little if little < 0.25 => ("warn", "warn-t"),
            _ => ("", ""),
        };
        let (burn, burn_class) = burn(of, "1h", now);
        let good = format!("{} of {} good", count(of.good), count(of.total));
        Self {
            title: format!("{}: {good}, {} % asked for", of.slo, target(of)),
            text: share_in_words(left),
            text_class,
            width: (left.clamp(0.0, 1.0) * 100.0).round() as u32,
            class,
            burn,
            burn_class,
        }
    }
}

/// A target's digits matter: 99.95 % is not 100 %.
fn target(of: &v1::Slo) -> f64 {
    (of.target * 1e6).round() / 1e4
}

fn burn(of: &v1::Slo, window: &str, now: Timestamp) -> (String, &'static str) {
    let cell = BurnCell::of(of, window, now);
    let class = match cell.judged {
        // The SRE workbook pages at 14.4 and opens a ticket at 1.
        14.4.. => "bad-t",
        rate if rate > 1.0 => "warn-t",
        _ => "",
    };
    (cell.text.unwrap_or_else(|| "–".to_owned()), class)
}

#[derive(Debug)]
struct Row {
    name: String,
    is_default: bool,
    service: String,
    target: String,
    period: String,
    state: &'static str,
    counted: String,
    excluded: String,
    budget: BudgetCell,
    burns: Vec<(&'static str, String, &'static str)>,
    users: String,
    used_up: String,
}

#[derive(Debug, Template)]
#[template(path = "slos.html", config = "src/web/askama.toml")]
pub(super) struct SlosPage {
    head: Head,
    rows: Vec<Row>,
    /// Whether any of them counts users.
    has_users: bool,
    /// Files that are refused, a line of each kind.
    refused: Vec<String>,
    /// Which of them alert nobody yet; empty if all do.
    silent: String,
    /// What rates of windows mean that were not counted whole; empty if all were.
    young: String,
}

impl SlosPage {
    pub fn new(head: Head, slos: &[v1::Slo], refused: &[v1::RefusedFile], now: Timestamp) -> Self {
        let rows: Vec<Row> = slos
            .iter()
            .map(|of| Row {
                name: of.slo.clone(),
                is_default: of.is_default,
                service: path_of(of.service.as_ref()),
                target: format!("{} %", target(of)),
                period: window_text(of.window_ns),
                state: slo_state_name(of),
                counted: format!("{} of {}", count(of.good), count(of.total)),
                excluded: excluded_text(of.excluded_ns),
                budget: BudgetCell::of(of, now),
                burns: BURNS_SHOWN
                    .map(|window| {
                        let (text, class) = burn(of, window, now);
                        (window, text, class)
                    })
                    .to_vec(),
                users: users_text(of.users_affected, of.users),
                used_up: of.exhausted_at.as_ref().map(|at| time(Some(at))).unwrap_or_default(),
            })
            .collect();
        let has_users = rows.iter().any(|row| !row.users.is_empty());
        let refused = refused_files_text(refused).lines().map(plain).collect();
        Self { head, rows, has_users, refused, silent: silent_text(slos), young: young_text(slos, now) }
    }
}
