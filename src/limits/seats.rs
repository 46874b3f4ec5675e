//! Seats: how many connections may be open, and which one gives way when all are taken.
//!
//! Sockets that are opened and do nothing must not keep honest ones out. So when all seats are taken the
//! connection that idles gives up its own: first those that never asked for anything, oldest first, then those
//! whose last request is longest ago. One with a request under way does not, with one exception: a body takes the
//! time that its sender likes, so one sender could take all seats with bodies that trickle. When nobody idles and
//! somebody waits who has less than a fair share of the seats, whoever has most, and more than a fair share, gives up
//! the one whose body has been arriving longest.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
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
    /// Those of them that had asked for nothing when they were looked at last, and were not told to leave: whoever
    /// opens one connection after the other is met with them, and not with a look at all.
    silent: BTreeMap<u64, Arc<Sitting>>,
    /// Those of them that were told to leave.
    told: BTreeMap<u64, Arc<Sitting>>,
    next: u64,
    /// Newcomers that wait for a seat.
    waiting: usize,
    /// How many of them are whose.
    waiting_of: BTreeMap<IpAddr, usize>,
}

impl Hall {
    /// Seats that will be free soon: who was told to leave and has begun a request nevertheless stays.
    fn leaving(&self) -> usize {
        self.told.values().filter(|sitting| sitting.is_leaving()).count()
    }

    fn begin_to_wait(&mut self, caller: IpAddr) {
        self.waiting = self.waiting.saturating_add(1);
        let of_caller = self.waiting_of.entry(caller).or_default();
        *of_caller = of_caller.saturating_add(1);
    }

    fn end_to_wait(&mut self, caller: IpAddr) {
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(of_caller) = self.waiting_of.get_mut(&caller) {
            *of_caller = of_caller.saturating_sub(1);
            if *of_caller == 0 {
                self.waiting_of.remove(&caller);
            }
        }
    }

    fn sit(&mut self, sitting: Arc<Sitting>) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.silent.insert(number, sitting.clone());
        self.sitting.insert(number, sitting);
        number
    }

    fn rise(&mut self, number: u64) {
        self.sitting.remove(&number);
        self.silent.remove(&number);
        self.told.remove(&number);
    }

    /// Who idles longest, those first that never asked for anything.
    fn idlest(&mut self) -> Option<u64> {
        while let Some((number, sitting)) = self.silent.first_key_value() {
            if !sitting.is_busy() && !sitting.has_asked() {
                return Some(*number);
            }
            self.silent.pop_first();
        }
        let idle = self.sitting.iter().filter(|(_, sitting)| !sitting.is_busy() && !sitting.was_told());
        let idlest = idle.min_by_key(|(_, sitting)| sitting.idle_since_ns.load(Ordering::Acquire));
        idlest.map(|(number, _)| *number)
    }

    /// Has this one give up its seat, also in the middle of a request if it must.
    fn tell_to_leave(&mut self, number: u64, must: bool) {
        self.silent.remove(&number);
        let Some(sitting) = self.sitting.get(&number) else { return };
        self.told.insert(number, sitting.clone());
        sitting.must_leave.store(must, Ordering::Release);
        sitting.is_to_leave.store(true, Ordering::Release);
        sitting.leave.notify_one();
    }

    /// Who has to leave in the middle of a request, so that each caller finds its fair share of so many seats.
    fn unfairest(&self, seats: usize) -> Option<u64> {
        let mut held: BTreeMap<IpAddr, usize> = self.waiting_of.keys().map(|caller| (*caller, 0)).collect();
        for sitting in self.sitting.values().filter(|sitting| !sitting.is_leaving()) {
            let of_caller = held.entry(sitting.caller).or_default();
            *of_caller = of_caller.saturating_add(1);
        }
        let share = seats.checked_div(held.len())?.max(1);
        // Whoever waits and has its share already is not worth the request of another.
        let of = |caller: &IpAddr| held.get(caller).copied().unwrap_or(0);
        let below_share = self.waiting_of.iter().filter(|(caller, _)| of(caller) < share);
        let below_share = below_share.fold(0usize, |sum, (_, waiting)| sum.saturating_add(*waiting));
        let forced = self.sitting.values().filter(|sitting| sitting.must_leave()).count();
        if below_share <= forced {
            return None;
        }
        let above_share: BTreeSet<(usize, IpAddr)> =
            held.iter().filter(|(_, held)| **held > share).map(|(caller, held)| (*held, *caller)).collect();
        // Of whoever has most no body may be arriving: then it is the turn of the next.
        above_share.iter().rev().find_map(|(_, caller)| {
            let theirs = self.sitting.iter().filter(|(_, sitting)| sitting.caller == *caller);
            let arriving = theirs.filter(|(_, sitting)| !sitting.is_leaving());
            let arriving = arriving.filter_map(|(number, of)| Some((of.arriving_since_ns()?, *number)));
            arriving.min().map(|(_, number)| number)
        })
    }
}

/// A newcomer that waits, until it is dropped.
struct Wait {
    seats: Arc<Seats>,
    caller: IpAddr,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.seats.hall.lock().end_to_wait(self.caller);
        self.seats.moved_on.notify_waiters();
    }
}

/// What is known of who sits on a seat.
#[derive(Debug)]
pub struct Sitting {
    /// The address it comes from.
    caller: IpAddr,
    /// Requests under way.
    busy: AtomicUsize,
    /// Since when the bodies that are still arriving are, in nanoseconds since the seats were made.
    arriving_since_ns: Mutex<Vec<u64>>,
    has_asked: AtomicBool,
    /// When the last request ended, in nanoseconds since the seats were made.
    idle_since_ns: AtomicU64,
    begun: Instant,
    is_to_leave: AtomicBool,
    /// Also if a request is under way.
    must_leave: AtomicBool,
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

/// A body that arrives, until it is dropped.
#[derive(Debug)]
pub struct Arriving {
    sitting: Arc<Sitting>,
    since_ns: u64,
}

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

    /// A seat for a newcomer from this address: at once if one is free, else as soon as one who idles, or has more
    /// than its share, has given up its own. `None`: nobody does. What is returned gives none if nobody leaves in
    /// time. Belongs after [`Self::room`], which bounds how many wait.
    pub fn claim(
        self: &Arc<Self>,
        caller: IpAddr,
    ) -> Option<impl Future<Output = Option<Seat>> + Send + use<>> {
        let slot = self.free.clone().try_acquire_owned().ok();
        let wait = if slot.is_none() { Some(self.wait(caller)?) } else { None };
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
            Some(seats.sit(slot, caller))
        })
    }

    fn wait(self: &Arc<Self>, caller: IpAddr) -> Option<Wait> {
        let mut hall = self.hall.lock();
        hall.begin_to_wait(caller);
        if !self.have_enough_leave(&mut hall) && hall.leaving() == 0 && self.handed(&hall) == 0 {
            hall.end_to_wait(caller);
            return None;
        }
        Some(Wait { seats: self.clone(), caller })
    }

    fn sit(self: Arc<Self>, slot: OwnedSemaphorePermit, caller: IpAddr) -> Seat {
        let sitting = Arc::new(Sitting {
            caller,
            busy: AtomicUsize::new(0),
            arriving_since_ns: Mutex::default(),
            has_asked: AtomicBool::new(false),
            idle_since_ns: AtomicU64::new(elapsed_ns(self.begun)),
            begun: self.begun,
            is_to_leave: AtomicBool::new(false),
            must_leave: AtomicBool::new(false),
            leave: Notify::new(),
        });
        let mut hall = self.hall.lock();
        let number = hall.sit(sitting.clone());
        self.have_enough_leave(&mut hall);
        drop(hall);
        Seat { seats: self, number, sitting, _slot: slot }
    }

    /// Seats that are somebody's who has not sat down yet, or has just risen.
    fn handed(&self, hall: &Hall) -> usize {
        self.taken().saturating_sub(hall.sitting.len())
    }

    /// Tells one to leave, if more wait than will get a seat: who idles longest, or if nobody does, who takes more
    /// than its share. Whether it did.
    fn have_enough_leave(&self, hall: &mut Hall) -> bool {
        if hall.waiting <= hall.leaving().saturating_add(self.handed(hall)) {
            return false;
        }
        let (leaves, must) = match hall.idlest() {
            Some(idlest) => (idlest, false),
            None => match hall.unfairest(self.limit) {
                Some(unfairest) => (unfairest, true),
                None => return false,
            },
        };
        hall.tell_to_leave(leaves, must);
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
        self.seats.hall.lock().rise(self.number);
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

    /// The body of a request begins to arrive; it does until what is returned is dropped.
    #[must_use]
    pub fn arrive(self: &Arc<Self>) -> Arriving {
        self.arrive_since(elapsed_ns(self.begun))
    }

    fn arrive_since(self: &Arc<Self>, since_ns: u64) -> Arriving {
        self.arriving_since_ns.lock().push(since_ns);
        Arriving { sitting: self.clone(), since_ns }
    }

    /// Since when the one has been arriving that has longest.
    fn arriving_since_ns(&self) -> Option<u64> {
        self.arriving_since_ns.lock().iter().min().copied()
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// Whether it was told to leave, whatever is under way.
    #[must_use]
    pub fn must_leave(&self) -> bool {
        self.must_leave.load(Ordering::Acquire)
    }

    fn is_leaving(&self) -> bool {
        self.was_told() && (self.must_leave() || !self.is_busy())
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

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut all = self.sitting.arriving_since_ns.lock();
        if let Some(place) = all.iter().position(|since_ns| *since_ns == self.since_ns) {
            all.swap_remove(place);
        }
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
    use std::net::Ipv4Addr;
    use std::pin::pin;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const THREE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));

    async fn sit(seats: &Arc<Seats>) -> Seat {
        sit_of(seats, ONE).await
    }

    async fn sit_of(seats: &Arc<Seats>, caller: IpAddr) -> Seat {
        seats.claim(caller).expect("somebody leaves").await.expect("one has left")
    }

    /// Takes a seat with a body that has been arriving since then, and leaves it when told to.
    async fn trickles(seats: &Arc<Seats>, caller: IpAddr, since_ns: u64) -> tokio::task::JoinHandle<()> {
        let seat = sit_of(seats, caller).await;
        let held = (seat.sitting().begin(), seat.sitting().arrive_since(since_ns));
        tokio::spawn(async move {
            seat.sitting().to_leave().await;
            drop((held, seat));
        })
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
        let waiting = seats.claim(ONE).expect("one idles");
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
        assert!(seats.claim(ONE).is_none(), "all are busy");
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
        let claims: Vec<_> = (0..8).map(|_| seats.claim(ONE).expect("it may wait")).collect();
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
        let (first, second) = (seats.claim(ONE).expect("one idles"), seats.claim(ONE).expect("one idles"));
        let mut room = pin!(seats.room());
        assert!(room.as_mut().now_or_never().is_none());
        let first = first.await.expect("its turn");
        room.await;
        assert!(seats.claim(ONE).is_some());
        drop((first, second));
    }

    #[tokio::test]
    async fn who_does_not_leave_keeps_its_seat() {
        let seats = Seats::new(1);
        let stays = sit(&seats).await;
        let claim = seats.claim(ONE).expect("it is not busy");
        assert!(seats.room().now_or_never().is_none(), "no more wait than there are seats");
        let (seat, ()) = tokio::join!(claim, seats.room());
        assert!(seat.is_none());
        drop(stays);
        assert!(seats.claim(ONE).expect("it is free").await.is_some());
    }

    #[tokio::test]
    async fn who_takes_all_seats_with_bodies_that_trickle_gives_up_the_oldest_down_to_its_share() {
        let seats = Seats::new(4);
        let mut of_one = Vec::new();
        for since_ns in [30, 10, 20, 40] {
            of_one.push(trickles(&seats, ONE, since_ns).await);
        }
        assert!(seats.claim(ONE).is_none(), "its own newcomers gain nothing");
        let first = trickles(&seats, TWO, 50).await;
        let finished = |of_one: &[tokio::task::JoinHandle<()>]| {
            of_one.iter().map(tokio::task::JoinHandle::is_finished).collect::<Vec<_>>()
        };
        assert_eq!(finished(&of_one), [false, true, false, false]);
        let second = trickles(&seats, TWO, 5).await;
        assert_eq!(finished(&of_one), [false, true, true, false]);
        // Both have two of four: nobody loses a request under way.
        assert!(seats.claim(ONE).is_none() && seats.claim(TWO).is_none());
        // One of four is the share of each of three: both have more than that, and one of them loses one.
        let third = trickles(&seats, THREE, 60).await;
        assert!(seats.claim(THREE).is_none(), "it has its share");
        assert_eq!((seats.taken(), seats.given_up()), (4, 3));
        let held = of_one.iter().chain([&first, &second]).filter(|of| !of.is_finished()).count();
        assert_eq!((held, third.is_finished()), (3, false));
    }

    #[tokio::test]
    async fn a_request_that_arrived_whole_is_never_cut_and_who_idles_leaves_before_one_that_arrives() {
        let seats = Seats::new(3);
        let (counted, other, idle) = (sit(&seats).await, sit(&seats).await, sit(&seats).await);
        let requests = (counted.sitting().begin(), other.sitting().begin());
        drop(counted.sitting().arrive());
        let arriving = (idle.sitting().begin(), idle.sitting().arrive());
        drop(arriving);
        let (counted, idle) = (leaves(counted), leaves(idle));
        let newcomer = sit_of(&seats, TWO).await;
        assert!(idle.is_finished() && !counted.is_finished());
        let answered = newcomer.sitting().begin();
        assert!(seats.claim(THREE).is_none(), "no body is arriving");
        drop((requests, answered));
    }

    #[tokio::test]
    async fn for_each_newcomer_one_gives_way_and_no_more() {
        let seats = Seats::new(8);
        let mut of_one = Vec::new();
        for since_ns in 0..8 {
            of_one.push(trickles(&seats, ONE, since_ns).await);
        }
        let claims: Vec<_> = (0..3).map(|_| seats.claim(TWO).expect("one gives way")).collect();
        assert_eq!(seats.given_up(), 3);
        let sat = futures_util::future::join_all(claims).await;
        assert!(sat.iter().all(Option::is_some));
        assert_eq!((seats.given_up(), of_one.iter().filter(|of| of.is_finished()).count()), (3, 3));
        let hall = seats.hall.lock();
        assert!(hall.waiting == 0 && hall.waiting_of.is_empty());
    }
}
