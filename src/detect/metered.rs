//! What a service's metrics say of its requests, window by window: whether fewer come, when spans say so.

use crate::model::WindowId;

/// Windows that take data at once: three, and one more for what is a little ahead.
const OPEN: usize = 4;
/// Windows after which the usual is known, and the weight of a new one in it.
const LEARN: u32 = 2;
const FADES: f64 = 0.05;
/// Less than this part of the usual is a drop.
const DROP: f64 = 0.5;
/// The points of a window are all in when there are so many of those of the one before.
const ALL_IN: f64 = 0.8;

/// Requests that a service's metrics counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestsMetered {
    open: [Counted; OPEN],
    usual: f64,
    windows: u32,
}

/// What points counted whose time lies in a window: mostly what was before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    window: WindowId,
    requests: u64,
    points: u64,
}

impl RequestsMetered {
    /// Points that came. Where there is no room, older windows make way.
    pub fn count(&mut self, window: WindowId, requests: u64, points: u64) {
        let Some(open) = self.open.get_mut((window.0 % OPEN as u64) as usize) else { return };
        // Behind a clock that jumped back by more nothing would be counted.
        if window > open.window || window.0.saturating_add(1_000) < open.window.0 {
            *open = Counted { window, ..Counted::default() };
        }
        if window == open.window {
            open.requests = open.requests.saturating_add(requests);
            open.points = open.points.saturating_add(points);
        }
    }

    /// Learns what a window usually has.
    pub fn learn(&mut self, requests: u64) {
        self.windows = self.windows.saturating_add(1);
        let weight = (1.0 / f64::from(self.windows)).max(FADES);
        self.usual += weight * (requests as f64 - self.usual);
    }

    /// Whether fewer requests come than usual, by what the metrics say after a window. A point tells of the interval
    /// before it, so those of the window itself are mostly about what was before. False while not all that the next
    /// window has is in.
    #[must_use]
    pub fn is_low_after(&self, window: WindowId) -> bool {
        let of = |window| self.open.iter().find(|open| open.window == window && open.points > 0);
        of(window).zip(of(window.next())).is_some_and(|(this, next)| {
            self.windows >= LEARN
                && next.points as f64 >= ALL_IN * this.points as f64
                && (next.requests as f64) < DROP * self.usual
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned() -> RequestsMetered {
        let mut metered = RequestsMetered::default();
        for _ in 0..5 {
            metered.learn(100);
        }
        metered
    }

    #[test]
    fn requests_are_low_when_all_points_of_the_next_window_say_so() {
        for (requests, points, low) in [
            (4, 20, true),
            (49, 20, true),
            // One more pod, or one less of many.
            (4, 22, true),
            (4, 16, true),
            // As many as ever, so spans are lost.
            (100, 20, false),
            (51, 20, false),
            // Points of three pods in ten are in, or none.
            (30, 6, false),
            (4, 15, false),
            (0, 0, false),
        ] {
            let mut metered = learned();
            metered.count(WindowId(7), 80, 20);
            metered.count(WindowId(8), requests, points);
            assert_eq!(metered.is_low_after(WindowId(7)), low, "{requests} in {points} points");
            assert!(!metered.is_low_after(WindowId(8)), "nothing is known of the one after it");
        }
        let mut young = RequestsMetered::default();
        young.learn(100);
        young.count(WindowId(7), 80, 20);
        young.count(WindowId(8), 4, 20);
        assert!(!young.is_low_after(WindowId(7)));
    }

    #[test]
    fn a_window_that_is_ahead_hides_none_for_ever() {
        let mut metered = learned();
        metered.count(WindowId(80_008), 100, 20);
        metered.count(WindowId(7), 80, 20);
        metered.count(WindowId(8), 2, 10);
        metered.count(WindowId(8), 2, 10);
        assert!(metered.is_low_after(WindowId(7)));
        metered.count(WindowId(4), 100, 20);
        assert!(metered.is_low_after(WindowId(7)), "what is older takes no place");
        metered.count(WindowId(12), 100, 20);
        assert!(!metered.is_low_after(WindowId(7)));
    }
}
