//! Diagnoses that wait for a thread: of the alerts of an hour in which much breaks, each gets its first evidence
//! before any gets all of it.

use super::judging::Job;
use crate::diagnose::Pass;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// So many of a pass wait; those beyond stay due, and are taken when there is room.
const MOST: usize = 64;

/// Which passes a thread makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    /// First ones alone: a complete one takes up to half a minute, which an alert must not wait.
    First,
    /// Any, first ones before complete ones.
    Any,
}

#[derive(Debug, Default)]
struct State {
    first: VecDeque<Job>,
    complete: VecDeque<Job>,
    is_closed: bool,
}

impl State {
    fn of(&mut self, pass: Pass) -> &mut VecDeque<Job> {
        match pass {
            Pass::First => &mut self.first,
            Pass::Complete => &mut self.complete,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    state: Mutex<State>,
    changed: Condvar,
}

impl Waiting {
    /// How many more of this pass may wait.
    pub fn room(&self, pass: Pass) -> usize {
        MOST.saturating_sub(self.state.lock().of(pass).len())
    }

    /// How many of this pass wait.
    pub fn len(&self, pass: Pass) -> usize {
        self.state.lock().of(pass).len()
    }

    /// Leaves one for whoever serves its pass; after [`Self::close`] it is dropped.
    pub fn put(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.of(job.pass).push_back(job);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the next one; `None` once closed.
    pub fn next(&self, serves: Serves) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return None;
            }
            let next = match serves {
                Serves::First => state.first.pop_front(),
                Serves::Any => state.first.pop_front().or_else(|| state.complete.pop_front()),
            };
            if next.is_some() {
                return next;
            }
            self.changed.wait(&mut state);
        }
    }

    /// What waits is dropped, and nobody waits for more: the next start plans it again.
    pub fn close(&self) {
        let mut state = self.state.lock();
        *state = State { is_closed: true, ..State::default() };
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture;
    use crate::model::Timestamp;
    use std::sync::Arc;

    fn job(id: &str, pass: Pass) -> Job {
        let (due, at) = (Timestamp::from_secs(1), Timestamp::from_secs(1));
        let anomaly = fixture::anomaly(id, due);
        Job { anomaly, pass, suspects: Vec::new(), topology: Arc::default(), due, at }
    }

    #[test]
    fn first_passes_go_before_complete_ones_and_one_thread_makes_nothing_else() {
        let waiting = Arc::new(Waiting::default());
        for (id, pass) in
            [("a", Pass::Complete), ("b", Pass::Complete), ("c", Pass::First), ("d", Pass::First)]
        {
            waiting.put(job(id, pass));
        }
        assert_eq!((waiting.len(Pass::First), waiting.len(Pass::Complete)), (2, 2));
        let next = |serves| waiting.next(serves).map(|job| job.anomaly.id.0.to_string());
        assert_eq!(next(Serves::Any).as_deref(), Some("c"));
        assert_eq!(next(Serves::First).as_deref(), Some("d"));
        assert_eq!(next(Serves::Any).as_deref(), Some("a"));
        // Complete ones alone are left: who serves first ones waits for one, and gets it.
        let other = waiting.clone();
        let served = std::thread::spawn(move || other.next(Serves::First).map(|job| job.pass));
        waiting.put(job("e", Pass::First));
        assert_eq!(served.join().expect("a thread that ends"), Some(Pass::First));
        waiting.close();
        assert_eq!(next(Serves::Any), None);
        waiting.put(job("f", Pass::First));
        assert_eq!(next(Serves::First), None);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_each_pass_has_its_own() {
        let waiting = Waiting::default();
        for number in 0..MOST {
            waiting.put(job(&number.to_string(), Pass::Complete));
        }
        assert_eq!((waiting.room(Pass::Complete), waiting.room(Pass::First)), (0, MOST));
    }
}
