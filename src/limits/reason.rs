//! Why something was turned away: closed sets, so that every reason is a label of a counter.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// A request turned away whole, which its sender should send again later.
    RefusedReason {
        /// The budget of ingest memory is taken.
        Memory = "memory",
        /// The caller has its share of the memory in use, or sends faster than it may.
        Caller = "caller",
        /// The journal cannot take more: it is full up to the checkpoint, or its disk is.
        Journal = "journal",
        /// The daemon is starting or stopping.
        NotReady = "not_ready",
        /// Too many connections or streams.
        Connections = "connections",
        /// Its body did not come in time.
        Slow = "slow",
    }
}

reasons! {
    /// Items refused for good: sending them again cannot help.
    RejectedReason {
        /// Not a message of this type, or not the declared encoding.
        Malformed = "malformed",
        /// Over a limit of size, depth or count.
        TooLarge = "too_large",
        /// Older than an hour when it arrived.
        TooOld = "too_old",
        /// A content type or encoding that is not spoken here.
        Unsupported = "unsupported",
        /// Its caller may not send telemetry.
        Denied = "denied",
    }
}

reasons! {
    /// Items that were counted, but not where their time would have put them.
    LateReason {
        /// After its window was sealed: counted in an amendment.
        Amended = "amended",
        /// More than 10 s ahead of the journal's clock: counted at arrival time.
        Future = "future",
        /// So late that it is counted in an amendment, and one of too many or too large for that: counted at arrival
        /// time.
        Crowded = "crowded",
    }
}

reasons! {
    /// Items whose time was not followed as it stands, by their services: of [`RejectedReason`] and [`LateReason`] those
    /// that a sender's clock or a backlog is behind.
    UntimelyReason {
        /// Older than an hour when it arrived: refused.
        TooOld = "too_old",
        /// More than 10 s ahead of the journal's clock: counted at arrival time.
        Future = "future",
        /// One of too many that came late: counted at arrival time.
        Crowded = "crowded",
        /// After its window was sealed: counted in an amendment.
        Amended = "amended",
    }
}

reasons! {
    /// Why a trace, or a part of the journal, gave no keepsake.
    ShedReason {
        /// Requests held half of their memory, or were refused for want of room.
        Pressure = "pressure",
        /// The part was recycled before its turn came.
        Overtaken = "overtaken",
        /// To copy it whole, more would have had to be read than may be.
        Budget = "budget",
        /// The trace is larger than a keepsake may be.
        TooLarge = "too_large",
        /// It could not be written.
        Disk = "disk",
    }
}
