//! How much a shard may hold.

crate::settings! {
    /// Bounds on what is kept.
    pub struct Config in "limits" {
        /// Live series over all services, signals and shards. One service has at most a fifth of them, half of those
        /// of one shard, and eight times as many as are still free, so that who has few always finds some; what goes
        /// beyond is counted exactly, but in one series `_other` of its service, for a fifth as many of which there is
        /// room beside. One caller (the holder of a token, or
        /// an address) brings at most sixteen times as many series, services and streams as are still free; further
        /// services of its are counted as one that is named `_other`.
        series: u64 = 100_000, "1000 to 10000000", |n| (1_000..=10_000_000).contains(n);
        /// Whether ids in span names are replaced: `GET /user/123` is counted as `GET /user/{id}`.
        template_names: bool = true, "true or false";
        /// Resource attributes by which exemptions can be scoped beside those that are always known (`service.version`,
        /// `service.instance.id`, `host.name`, `k8s.cluster.name`, `k8s.namespace.name`, `k8s.pod.name`, `cloud.region`,
        /// `cloud.availability_zone`, image tags). Up to 500 values of each are told apart for a service.
        resource_attributes: Vec<String> = Vec::new(), "up to 16 different names",
            |names| names.len() <= 16 && names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
    }
}

/// So many times as much as is free one service may have at most. However many want more than there is, room is left
/// for those that have little: five that take what they can leave one slot in 41, each of them eight.
const TIMES_FREE: usize = 8;

/// Whether a service that has `own` of `taken` may have one more, of `all`.
pub(super) const fn is_fair(own: usize, taken: usize, all: usize) -> bool {
    own < all.saturating_sub(taken).saturating_mul(TIMES_FREE)
}

/// The same of a caller. It may bring the services of many, as a collector does, so it may have more of what there
/// is: one that takes what it can leaves one slot in 17, five leave one in 81.
const TIMES_FREE_OF_A_CALLER: usize = 16;

/// Whether a caller whose items have `own` of `taken` may have one more, of `all`.
pub(super) const fn is_fair_of_a_caller(own: usize, taken: usize, all: usize) -> bool {
    own < all.saturating_sub(taken).saturating_mul(TIMES_FREE_OF_A_CALLER)
}

/// Halves of edges a second, over all shards.
pub(super) const HALVES_A_SECOND: usize = 20_000;
/// Values of one facet of one service that are told apart.
pub(super) const FACET_VALUES: usize = 500;
/// Addresses that one service calls and that are told apart.
pub(super) const PEERS: usize = 500;
/// What stands for everything beyond a bound.
pub const OTHER: &str = "_other";
/// Bytes of a text in a key; longer ones are cut.
pub(super) const TEXT_BYTES: usize = 512;

/// A text no longer than is kept in keys.
pub(super) fn bounded(text: &str) -> &str {
    if text.len() <= TEXT_BYTES {
        return text;
    }
    text.get(..text.floor_char_boundary(TEXT_BYTES)).unwrap_or_default()
}

/// The bounds of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub series: usize,
    pub series_of_a_service: usize,
    /// Beside `series`: those that stand for what of their service finds no room.
    pub overflow_series: usize,
    pub services: usize,
    pub resources: usize,
    /// Values of facets, of all services.
    pub facets: usize,
    pub streams: usize,
    pub streams_of_a_service: usize,
    /// Counts and bounds of buckets that streams hold.
    pub stream_buckets: usize,
    pub halves: usize,
}

impl Config {
    pub(super) fn bounds(&self, shards: u16) -> Bounds {
        let all = usize::try_from(self.series).unwrap_or(usize::MAX);
        let series = (all / usize::from(shards.max(1))).max(1);
        let services = (series / 10).max(10);
        Bounds {
            series,
            // A service whose resources all fall to one shard leaves the others there half of it.
            series_of_a_service: (all / 5).min(series / 2).max(1),
            // A service has one of each kind of span and shape of metric; few have many.
            overflow_series: services.saturating_mul(2),
            services,
            resources: series.saturating_mul(2).max(1_000),
            facets: series.saturating_mul(4).max(10_000),
            streams: series.saturating_mul(4),
            streams_of_a_service: series.saturating_mul(2),
            // Twice as many as a histogram of an SDK has, if all streams were such.
            stream_buckets: series.saturating_mul(4 * 64),
            halves: (HALVES_A_SECOND / usize::from(shards.max(1))).max(100),
        }
    }
}
