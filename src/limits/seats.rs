//! Seats: how many connections may be open, and which one gives way when all are taken.
//!
//! Sockets that are opened and do nothing must not keep honest ones out. So when all seats are taken the
//! connection that idles gives up its own: first those that never asked for anything, oldest first, then those
//! whose last request is longest ago. One with a request under way never does.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long a newcomer waits for the seat that is given up for it.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(1);

/// A bounded number of seats.
#[derive(Debug)]
pub struct Seats {
    free: Arc<Semaphore>,
    limit: usize,
    /// Locked only when a connection comes or goes.
    hall: Mutex<Hall>,
    /// One who waited waits no more.
    moved_on: Notify,
    begun: Instant,
    given_up: AtomicU64,
}

/// Who sits, and who waits.
#[derive(Debug, Default)]
struct Hall {
    /// By number: the order in which the seats were taken.
    sitting: BTreeMap<u64, Arc<Sitting>>,
    next: u64,
    /// Newcomers that wait for a seat.
    waiting: usize,
}

impl Hall {
    /// Seats that will be free soon: who was told to leave and has begun a request nevertheless stays.
    fn leaving(&self) -> usize {
        self.sitting.values().filter(|sitting| sitting.was_told() && !sitting.is_busy()).count()
    }
}

/// A newcomer that waits, until it is dropped.
struct Wait(Arc<Seats>);

impl Drop for Wait {
    fn drop(&mut self) {
        let mut hall = self.0.hall.lock();
        hall.waiting = hall.waiting.saturating_sub(1);
        drop(hall);
        self.0.moved_on.notify_waiters();
    }
}

/// What is known of who sits on a seat.
#[derive(Debug)]
pub struct Sitting {
    /// Requests under way.
    busy: AtomicUsize,
    has_asked: AtomicBool,
    /// When the last request ended, in nanoseconds since the seats were made.
    idle_since_ns: AtomicU64,
    begun: Instant,
    is_to_leave: AtomicBool,
    leave: Notify,
}

/// A taken seat; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    number: u64,
    sitting: Arc<Sitting>,
    _slot: OwnedSemaphorePermit,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Sitting>);

fn elapsed_ns(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Seats {
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free: Arc::new(Semaphore::new(limit)),
            limit,
            hall: Mutex::default(),
            moved_on: Notify::new(),
            begun: Instant::now(),
            given_up: AtomicU64::new(0),
        })
    }

    /// Seats that are taken now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.limit.saturating_sub(self.free.available_permits())
    }

    /// Connections that had to give up their seats for others.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Resolves when a newcomer may come in: while as many wait as there are seats, further ones are better left in
    /// the kernel's queue than turned away. That takes no longer than one of those may wait.
    pub async fn room(&self) {
        loop {
            // Before the look, so that who moves on right after it is not missed.
            let moved_on = self.moved_on.notified();
            if self.hall.lock().waiting < self.limit.max(1) {
                return;
            }
            moved_on.await;
        }
    }

    /// A seat for a newcomer: at once if one is free, else as soon as one who idles has given up its own.
    /// `None`: all are busy. What is returned gives none if nobody leaves in time. Belongs after [`Self::room`],
    /// which bounds how many wait.
    pub fn claim(self: &Arc<Self>) -> Option<impl Future<Output = Option<Seat>> + Send + use<>> {
        let slot = self.free.clone().try_acquire_owned().ok();
        let wait = if slot.is_none() { Some(self.wait()?) } else { None };
        let seats = self.clone();
        Some(async move {
            let slot = match slot {
                Some(slot) => slot,
                None => {
                    let freed = seats.free.clone().acquire_owned();
                    tokio::time::timeout(GIVE_UP_WITHIN, freed).await.ok()?.ok()?
                }
            };
            drop(wait);
            Some(seats.sit(slot))
        })
    }

    fn wait(self: &Arc<Self>) -> Option<Wait> {
        let mut hall = self.hall.lock();
        hall.waiting += 1;
        let told = self.have_enough_leave(&hall);
        if !told && hall.leaving() == 0 && self.handed(&hall) == 0 {
            hall.waiting -= 1;
            return None;
        }
        Some(Wait(self.clone()))
    }

    fn sit(self: Arc<Self>, slot: OwnedSemaphorePermit) -> Seat {
        let sitting = Arc::new(Sitting {
            busy: AtomicUsize::new(0),
            has_asked: AtomicBool::new(false),
            idle_since_ns: AtomicU64::new(elapsed_ns(self.begun)),
            begun: self.begun,
            is_to_leave: AtomicBool::new(false),
            leave: Notify::new(),
        });
        let mut hall = self.hall.lock();
        let number = hall.next;
        hall.next = number.wrapping_add(1);
        hall.sitting.insert(number, sitting.clone());
        self.have_enough_leave(&hall);
        drop(hall);
        Seat { seats: self, number, sitting, _slot: slot }
    }

    /// Seats that are somebody's who has not sat down yet, or has just risen.
    fn handed(&self, hall: &Hall) -> usize {
        self.taken().saturating_sub(hall.sitting.len())
    }

    /// Tells who idles longest to leave, if more wait than will get a seat; whether it did.
    fn have_enough_leave(&self, hall: &Hall) -> bool {
        if hall.waiting <= hall.leaving().saturating_add(self.handed(hall)) {
            return false;
        }
        let idle = hall.sitting.values().filter(|sitting| !sitting.is_busy() && !sitting.was_told());
        let longest = idle.min_by_key(|sitting| {
            (sitting.has_asked.load(Ordering::Acquire), sitting.idle_since_ns.load(Ordering::Acquire))
        });
        let Some(longest) = longest else { return false };
        longest.is_to_leave.store(true, Ordering::Release);
        longest.leave.notify_one();
        self.given_up.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Seat {
    #[must_use]
    pub fn sitting(&self) -> &Arc<Sitting> {
        &self.sitting
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.hall.lock().sitting.remove(&self.number);
    }
}

impl Sitting {
    /// A request has begun; it is under way until what is returned is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.has_asked.store(true, Ordering::Release);
        Busy(self.clone())
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    fn was_told(&self) -> bool {
        self.is_to_leave.load(Ordering::Acquire)
    }

    /// Whether it ever asked for anything.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Acquire)
    }

    /// Resolves when the seat is to be given up.
    pub async fn to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since_ns.store(elapsed_ns(self.0.begun), Ordering::Release);
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::pin::pin;

    async fn sit(seats: &Arc<Seats>) -> Seat {
        seats.claim().expect("not all are busy").await.expect("one has left")
    }

    /// Whoever sits there leaves when told to.
    fn leaves(seat: Seat) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            seat.sitting().to_leave().await;
        })
    }

    #[tokio::test]
    async fn who_begins_to_ask_when_told_to_leave_keeps_nobody_else_from_leaving() {
        let seats = Seats::new(2);
        let (told, silent) = (sit(&seats).await, sit(&seats).await);
        let waiting = seats.claim().expect("one idles");
        let request = told.sitting().begin();
        drop(waiting);
        let silent = leaves(silent);
        let newcomer = sit(&seats).await;
        assert!(silent.is_finished());
        assert_eq!((seats.taken(), seats.given_up()), (2, 2));
        drop((told, request, newcomer));
        assert_eq!(seats.taken(), 0);
    }

    #[tokio::test]
    async fn who_never_asked_gives_way_first_then_who_asked_longest_ago_and_nobody_who_is_busy() {
        let seats = Seats::new(4);
        let (early, silent, late, busy) =
            (sit(&seats).await, sit(&seats).await, sit(&seats).await, sit(&seats).await);
        for seat in [&late, &early] {
            drop(seat.sitting().begin());
        }
        let request = busy.sitting().begin();
        let (early, silent, late, busy) = (leaves(early), leaves(silent), leaves(late), leaves(busy));
        assert_eq!(seats.taken(), 4);
        let mut newcomers = Vec::new();
        for expected in [&silent, &late, &early] {
            let newcomer = sit(&seats).await;
            newcomers.push((newcomer.sitting().begin(), newcomer));
            assert!(expected.is_finished());
        }
        assert_eq!((seats.taken(), seats.given_up()), (4, 3));
        assert!(seats.claim().is_none(), "all are busy");
        drop(request);
        newcomers.push((sit(&seats).await.sitting().begin(), sit(&Seats::new(1)).await));
        assert!(busy.is_finished());
        drop(newcomers);
        assert_eq!(seats.taken(), 0);
        assert!(seats.hall.lock().sitting.is_empty());
    }

    #[tokio::test]
    async fn however_many_come_at_once_each_has_its_turn() {
        let seats = Seats::new(8);
        let mut sat = Vec::new();
        for _ in 0..8 {
            sat.push(leaves(sit(&seats).await));
        }
        let claims: Vec<_> = (0..8).map(|_| seats.claim().expect("it may wait")).collect();
        assert!(seats.room().now_or_never().is_none(), "as many wait as there are seats");
        for seat in futures_util::future::join_all(claims).await {
            sat.push(leaves(seat.expect("its turn")));
        }
        assert_eq!((seats.taken(), seats.given_up()), (8, 8));
        let hall = seats.hall.lock();
        assert_eq!((hall.waiting, hall.leaving()), (0, 0));
    }

    #[tokio::test]
    async fn who_finds_no_place_to_wait_gets_one_when_somebody_moves_on() {
        let seats = Seats::new(2);
        let _sat = [leaves(sit(&seats).await), leaves(sit(&seats).await)];
        let (first, second) = (seats.claim().expect("one idles"), seats.claim().expect("one idles"));
        let mut room = pin!(seats.room());
        assert!(room.as_mut().now_or_never().is_none());
        let first = first.await.expect("its turn");
        room.await;
        assert!(seats.claim().is_some());
        drop((first, second));
    }

    #[tokio::test]
    async fn who_does_not_leave_keeps_its_seat() {
        let seats = Seats::new(1);
        let stays = sit(&seats).await;
        let claim = seats.claim().expect("it is not busy");
        assert!(seats.room().now_or_never().is_none(), "no more wait than there are seats");
        let (seat, ()) = tokio::join!(claim, seats.room());
        assert!(seat.is_none());
        drop(stays);
        assert!(seats.claim().expect("it is free").await.is_some());
    }
}
