//! Which blocks of the journal a capture need not read.
//!
//! Shards fill it while they walk, one part a block and cut; it lives in memory. What it does not
//! know (blocks from before a restart) is read.

use super::Position;
use crate::model::{ServiceKey, Timestamp, TraceId};
use crossbeam::queue::SegQueue;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::Range;

/// Bytes of the journal that are known together.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Blocks that are known at most, 9 KiB each: the newest. Older ones are read.
const BLOCKS: usize = 8_192;
/// Trace ids kept one by one before a Bloom filter takes over.
const FEW_TRACES: usize = 64;
/// 64-bit words of a Bloom filter that is being filled: 65,536 bits.
const FILTER_WORDS: usize = 1_024;
/// A filter is halved until one in so many of its bits is set.
const FILTER_SHARE: u32 = 4;
/// Services kept one by one; a block with more counts as having all.
const SERVICES: usize = 256;

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only requests that may hold items of one of these services.
    pub services: Option<BTreeSet<ServiceKey>>,
    /// Only requests that may hold spans or log records of one of these traces.
    pub traces: Option<BTreeSet<TraceId>>,
}

/// What a shard saw of one block.
#[derive(Clone, Debug)]
pub struct BlockPart {
    first: u64,
    times: (u64, u64),
    services: Services,
    traces: Traces,
}

#[derive(Clone, Debug)]
enum Services {
    Some(Vec<u64>),
    All,
}

#[derive(Clone, Debug)]
enum Traces {
    Few(Vec<u64>),
    /// A power of two of words; the place of a bit is taken modulo their number.
    Many(Box<[u64]>),
}

fn mixed(trace: u64) -> u64 {
    // Ids need not be random in every bit (some carry a time): spread them (SplitMix64's finaliser).
    let x = (trace ^ (trace >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn folded(trace: TraceId) -> u64 {
    let number = u128::from_le_bytes(trace.0);
    (number as u64) ^ ((number >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Four bits of the filter.
fn bits(trace: u64) -> [usize; 4] {
    let x = mixed(trace);
    [x, x >> 16, x >> 32, x >> 48].map(|x| (x & 0xffff) as usize)
}

fn service_hash(service: &ServiceKey) -> u64 {
    foldhash::fast::FixedState::default().hash_one(service)
}

impl Traces {
    #[inline]
    fn insert(&mut self, trace: u64) {
        match self {
            Self::Many(filter) => set(filter, trace),
            Self::Few(few) if few.len() < FEW_TRACES => few.push(trace),
            Self::Few(few) => {
                let mut filter = vec![0u64; FILTER_WORDS].into_boxed_slice();
                few.iter().chain([&trace]).for_each(|&trace| set(&mut filter, trace));
                *self = Self::Many(filter);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Few(few)) => few.iter().for_each(|&trace| self.insert(trace)),
            (Self::Many(ours), Self::Many(theirs)) => {
                // Repeating a small filter holds all that it held.
                if ours.len() < theirs.len() {
                    *ours = ours.iter().copied().cycle().take(theirs.len()).collect();
                }
                ours.iter_mut().zip(theirs.iter().cycle()).for_each(|(ours, theirs)| *ours |= theirs);
            }
            (Self::Few(few), Self::Many(theirs)) => {
                let mut filter = theirs.clone();
                few.iter().for_each(|&trace| set(&mut filter, trace));
                *self = Self::Many(filter);
            }
        }
    }

    fn may_hold(&self, trace: u64) -> bool {
        match self {
            Self::Few(few) => few.contains(&trace),
            Self::Many(filter) => bits(trace).iter().all(|&bit| {
                let word = (bit / 64) & filter.len().wrapping_sub(1);
                filter.get(word).is_some_and(|word| word & (1 << (bit % 64)) != 0)
            }),
        }
    }
}

#[inline]
fn set(filter: &mut [u64], trace: u64) {
    let mask = filter.len().wrapping_sub(1);
    for bit in bits(trace) {
        if let Some(word) = filter.get_mut((bit / 64) & mask) {
            *word |= 1 << (bit % 64);
        }
    }
}

/// A part that is being filled, in memory that is used for one block after another.
#[derive(Debug)]
pub struct BlockWriter {
    first: u64,
    times: (u64, u64),
    services: Vec<u64>,
    has_all_services: bool,
    few: Vec<u64>,
    filter: Box<[u64]>,
    is_filter_used: bool,
    /// The trace of the item before; 0, which stands for none, is not kept.
    last_trace: u64,
}

impl BlockWriter {
    /// Begins with a part whose first record is at this position.
    #[must_use]
    pub fn new(first: Position) -> Self {
        Self {
            first: first.0,
            times: (u64::MAX, 0),
            services: Vec::with_capacity(SERVICES),
            has_all_services: false,
            few: Vec::with_capacity(FEW_TRACES),
            filter: vec![0; FILTER_WORDS].into_boxed_slice(),
            is_filter_used: false,
            last_trace: 0,
        }
    }

    pub fn add_service(&mut self, service: &ServiceKey) {
        let hash = service_hash(service);
        if !self.services.contains(&hash) {
            if self.services.len() < SERVICES {
                self.services.push(hash);
            } else {
                self.has_all_services = true;
            }
        }
    }

    /// Notes an item: its time, and its trace if it has one.
    #[inline]
    pub fn add_item(&mut self, time: Timestamp, trace: TraceId) {
        self.times = (self.times.0.min(time.0), self.times.1.max(time.0));
        let trace = folded(trace);
        if trace != self.last_trace {
            self.last_trace = trace;
            if self.is_filter_used {
                set(&mut self.filter, trace);
            } else {
                self.add_to_few(trace);
            }
        }
    }

    fn add_to_few(&mut self, trace: u64) {
        if self.few.len() < FEW_TRACES {
            self.few.push(trace);
        } else {
            self.is_filter_used = true;
            self.few.iter().chain([&trace]).for_each(|&trace| set(&mut self.filter, trace));
        }
    }

    /// Says at which position the first record of the next part is.
    pub fn begin(&mut self, first: Position) {
        self.first = first.0;
    }

    /// The part, in no more memory than it needs. The next one is empty.
    pub fn finish(&mut self) -> BlockPart {
        let part = BlockPart {
            first: self.first,
            times: self.times,
            services: if self.has_all_services {
                Services::All
            } else {
                Services::Some(self.services.as_slice().into())
            },
            traces: if self.is_filter_used {
                Traces::Many(shrunk(&mut self.filter).into())
            } else {
                Traces::Few(self.few.as_slice().into())
            },
        };
        if self.is_filter_used {
            self.filter.fill(0);
        }
        self.services.clear();
        self.few.clear();
        (self.has_all_services, self.is_filter_used, self.last_trace) = (false, false, 0);
        self.times = (u64::MAX, 0);
        part
    }
}

/// Halves a filter while few of its bits are set: a block that holds few traces needs little memory.
fn shrunk(filter: &mut [u64]) -> &[u64] {
    let mut set: u32 = filter.iter().map(|word| word.count_ones()).sum();
    let mut words = filter.len();
    while words > 1 && set.saturating_mul(FILTER_SHARE * 2) <= words as u32 * u64::BITS {
        words /= 2;
        let Some((low, high)) = filter.get_mut(..words * 2).map(|filter| filter.split_at_mut(words)) else {
            break;
        };
        low.iter_mut().zip(high.iter()).for_each(|(low, high)| *low |= high);
        set = low.iter().map(|word| word.count_ones()).sum();
    }
    filter.get(..words).unwrap_or_default()
}

impl BlockPart {
    /// Number of the block in which a position lies.
    #[must_use]
    pub fn block(at: Position) -> u64 {
        at.0 / BLOCK_BYTES
    }

    fn add_service_hash(&mut self, hash: u64) {
        if let Services::Some(some) = &mut self.services
            && !some.contains(&hash)
        {
            if some.len() < SERVICES {
                some.push(hash);
            } else {
                self.services = Services::All;
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.times = (self.times.0.min(other.times.0), self.times.1.max(other.times.1));
        match &other.services {
            Services::All => self.services = Services::All,
            Services::Some(some) => some.iter().for_each(|&hash| self.add_service_hash(hash)),
        }
        self.traces.merge(&other.traces);
    }

    fn may_match(&self, times: &Range<Timestamp>, services: Option<&[u64]>, traces: Option<&[u64]>) -> bool {
        self.times.0 < times.end.0
            && self.times.1 >= times.start.0
            && services.is_none_or(|wanted| match &self.services {
                Services::All => true,
                Services::Some(some) => wanted.iter().any(|hash| some.contains(hash)),
            })
            && traces
                .is_none_or(|wanted| wanted.iter().any(|&trace| trace == 0 || self.traces.may_hold(trace)))
    }
}

#[derive(Debug)]
struct Published {
    shard: u16,
    of: u16,
    through: u64,
    parts: Vec<(u64, BlockPart)>,
}

#[derive(Debug, Default)]
struct Known {
    /// Nothing is known of what lies before.
    since: u64,
    blocks: BTreeMap<u64, BlockPart>,
    /// Up to where each shard has told all.
    shards: BTreeMap<u16, u64>,
    of: u16,
}

/// The index. Shards publish without waiting; readers sort it out.
#[derive(Debug, Default)]
pub struct Index {
    incoming: SegQueue<Published>,
    known: Mutex<Known>,
}

impl Index {
    /// Nothing before this position was or will be told.
    pub(super) fn begin(&self, since: Position) {
        self.known.lock().since = since.0;
    }

    /// Takes what shard number `shard` of `of` learned of blocks, after which it has told all before
    /// `through`. Never waits.
    pub fn publish(&self, shard: u16, of: u16, through: Position, parts: Vec<(u64, BlockPart)>) {
        self.incoming.push(Published { shard, of, through: through.0, parts });
        if let Some(mut known) = self.known.try_lock() {
            self.settle(&mut known);
        }
    }

    fn settle(&self, known: &mut Known) {
        while let Some(news) = self.incoming.pop() {
            known.of = news.of;
            let through = known.shards.entry(news.shard).or_default();
            *through = news.through.max(*through);
            for (block, part) in news.parts {
                match known.blocks.get_mut(&block) {
                    Some(known) => known.merge(&part),
                    None => {
                        known.blocks.insert(block, part);
                    }
                }
            }
        }
        while known.blocks.len() > BLOCKS {
            if let Some((block, _)) = known.blocks.pop_first() {
                known.since = known.since.max((block + 1).saturating_mul(BLOCK_BYTES));
            }
        }
    }

    /// Which blocks need not be read for items of these times.
    pub(super) fn plan(&self, times: &Range<Timestamp>, filter: &Filter) -> Plan {
        let mut known = self.known.lock();
        self.settle(&mut known);
        let services: Option<Vec<u64>> =
            filter.services.as_ref().map(|services| services.iter().map(service_hash).collect());
        let traces: Option<Vec<u64>> =
            filter.traces.as_ref().map(|traces| traces.iter().map(|&trace| folded(trace)).collect());
        let told = usize::from(known.of) == known.shards.len();
        let through = if told { known.shards.values().copied().min().unwrap_or(0) } else { 0 };
        let mut plan = Plan::default();
        for (&block, part) in &known.blocks {
            let is_whole = block.saturating_mul(BLOCK_BYTES) >= known.since
                && (block + 1).saturating_mul(BLOCK_BYTES) <= through;
            if !is_whole {
                continue;
            }
            plan.firsts.insert(block, part.first);
            if !part.may_match(times, services.as_deref(), traces.as_deref()) {
                plan.skipped.insert(block);
            }
        }
        plan
    }
}

/// What a read may leave out.
#[derive(Debug, Default)]
pub(super) struct Plan {
    skipped: BTreeSet<u64>,
    /// Where the first record with items begins, of each block that is wholly known.
    firsts: BTreeMap<u64, u64>,
}

impl Plan {
    pub fn skips(&self, at: Position) -> bool {
        self.skipped.contains(&BlockPart::block(at))
    }

    /// The position at which to go on from one in a block that is skipped, if it is known.
    pub fn onward(&self, at: Position) -> Option<Position> {
        let later = self.firsts.range(BlockPart::block(at).saturating_add(1)..);
        let (_, &first) =
            later.clone().find(|(block, _)| !self.skipped.contains(block)).or_else(|| later.last())?;
        (first > at.0).then_some(Position(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_in_is_found(traces in prop::collection::vec(any::<[u8; 16]>(), 1..5_000), split in any::<prop::sample::Index>()) {
            let split = split.index(traces.len());
            let mut writer = BlockWriter::new(Position(7));
            let add = |writer: &mut BlockWriter, range: Range<usize>| {
                for (number, trace) in traces[range.clone()].iter().enumerate() {
                    writer.add_item(Timestamp((range.start + number) as u64), TraceId(*trace));
                }
            };
            add(&mut writer, 0..split);
            let mut whole = writer.finish();
            writer.begin(Position(3));
            add(&mut writer, split..traces.len());
            let other = writer.finish();
            let nothing = writer.finish();
            prop_assert!(matches!(&nothing.traces, Traces::Few(few) if few.is_empty()), "the next begins anew");
            whole.merge(&other);
            prop_assert_eq!(whole.first, 3);
            for trace in &traces {
                prop_assert!(*trace == [0; 16] || whole.traces.may_hold(folded(TraceId(*trace))));
            }
        }
    }

    #[test]
    fn a_full_block_still_tells_most_strangers_apart() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut id = || TraceId(std::array::from_fn(|_| random.u8(..)));
        let mut strangers = |items: usize| {
            let mut writer = BlockWriter::new(Position(0));
            (0..items).for_each(|_| writer.add_item(Timestamp(1), id()));
            let part = writer.finish();
            let words = match &part.traces {
                Traces::Few(few) => few.len(),
                Traces::Many(filter) => filter.len(),
            };
            ((0..10_000).filter(|_| part.traces.may_hold(folded(id()))).count(), words)
        };
        let (full, words) = strangers(7_000);
        assert!(full < 400, "{full} of 10,000 in {words} words");
        let (few, words) = strangers(500);
        assert!(few < 100 && words <= 256, "{few} of 10,000 in {words} words");
    }

    #[test]
    fn only_blocks_of_which_every_shard_told_all_are_skipped() {
        let index = Index::default();
        index.begin(Position(BLOCK_BYTES / 2));
        let times = Timestamp(0)..Timestamp(100);
        let filter = Filter { services: Some([ServiceKey::named("a")].into()), traces: None };
        let part = |name: &str, block: u64| {
            let mut writer = BlockWriter::new(Position(block * BLOCK_BYTES + 5));
            writer.add_service(&ServiceKey::named(name));
            writer.add_item(Timestamp(5), TraceId([1; 16]));
            (block, writer.finish())
        };
        let through = |blocks: u64| Position(blocks * BLOCK_BYTES);
        index.publish(0, 2, through(4), vec![part("b", 0), part("b", 1), part("b", 2), part("b", 3)]);
        assert!(index.plan(&times, &filter).skipped.is_empty(), "shard 1 has said nothing");
        index.publish(1, 2, through(3), vec![part("a", 2)]);
        let plan = index.plan(&times, &filter);
        assert_eq!(plan.skipped, [1].into(), "0 began before, 2 has it, 3 is not whole");
        assert_eq!(plan.onward(Position(BLOCK_BYTES + 9)), Some(Position(2 * BLOCK_BYTES + 5)));
    }
}
