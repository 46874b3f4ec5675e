//! The hand-off from the window stage to the judge, which may be late: what waits is merged, so a
//! slow judge gets fewer, larger messages, and nobody upstream waits for it.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// Something of which two successive ones can become one.
pub trait Merge: Sized {
    /// Adds a later one.
    ///
    /// # Errors
    /// Gives the later one back where the two must stay apart.
    fn merge(&mut self, later: Self) -> Result<(), Self>;

    /// Adds a later one, also where they should stay apart: too many wait.
    fn absorb(&mut self, later: Self);
}

/// Beyond so many the oldest two become one, whatever is between them: only few wait when the reader hangs.
const WAITING: usize = 3;

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), closed: false }), changed: Condvar::new() }
    }
}

impl<T: Merge> Mailbox<T> {
    /// Leaves one. Never waits for the reader.
    pub fn post(&self, one: T) {
        let mut state = self.state.lock();
        let left = match state.waiting.back_mut() {
            Some(last) => last.merge(one).err(),
            None => Some(one),
        };
        if let Some(one) = left {
            state.waiting.push_back(one);
        }
        if state.waiting.len() > WAITING
            && let Some(mut first) = state.waiting.pop_front()
            && let Some(second) = state.waiting.pop_front()
        {
            first.absorb(second);
            state.waiting.push_front(first);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// No more will come: readers get what is left, then `None`.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for the next one; `None` once closed and empty.
    pub fn take(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(one) = state.waiting.pop_front() {
                return Some(one);
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// How many wait.
    #[cfg(test)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Debug, PartialEq)]
    struct Sum(u32);

    impl Merge for Sum {
        fn merge(&mut self, later: Self) -> Result<(), Self> {
            // Tens stand for checkpoints, beyond which nothing may be merged.
            if self.0.is_multiple_of(10) {
                return Err(later);
            }
            self.absorb(later);
            Ok(())
        }

        fn absorb(&mut self, later: Self) {
            self.0 += later.0;
        }
    }

    #[test]
    fn a_reader_that_hangs_finds_all_of_it_in_few() {
        let mailbox = Mailbox::default();
        (0..1_000).for_each(|_| [10, 5, 5].map(Sum).into_iter().for_each(|one| mailbox.post(one)));
        assert_eq!(mailbox.len(), WAITING);
        mailbox.close();
        let taken: Vec<u32> = std::iter::from_fn(|| mailbox.take()).map(|Sum(n)| n).collect();
        assert_eq!((taken.len(), taken.iter().sum::<u32>()), (WAITING, 20_000));
    }

    #[test]
    fn what_waits_is_merged_but_not_past_a_boundary() {
        let mailbox = Mailbox::default();
        [1, 2, 7, 3].map(Sum).into_iter().for_each(|one| mailbox.post(one));
        assert_eq!(mailbox.len(), 2);
        mailbox.close();
        assert_eq!(mailbox.take(), Some(Sum(10)));
        assert_eq!(mailbox.take(), Some(Sum(3)));
        assert_eq!(mailbox.take(), None);
    }

    #[test]
    fn a_waiting_reader_is_woken() {
        let mailbox = Arc::new(Mailbox::default());
        let reader = std::thread::spawn({
            let mailbox = mailbox.clone();
            move || std::iter::from_fn(|| mailbox.take()).map(|Sum(n)| n).sum::<u32>()
        });
        (0..1000).for_each(|_| mailbox.post(Sum(1)));
        mailbox.close();
        assert_eq!(reader.join().unwrap(), 1000);
    }
}
