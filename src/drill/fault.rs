//! What can break in the shop.

use std::fmt;
use std::str::FromStr;

/// A fault. Which service it hits, how hard and when is drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// A service's database calls get slow, and some fail.
    SlowDatabase,
    /// A service that others need fails part of its requests.
    FailingDependency,
    /// A new version of a service errs and is slow.
    BadDeploy,
    /// Most visitors stay away.
    TrafficDrop,
    /// A service's connection pool is full: its requests wait for a connection, some in vain.
    SaturatedPool,
    /// The nightly job does not run.
    MissedJob,
    /// A service is gone: whoever calls it is refused, and it sends nothing.
    ServiceDown,
    /// Half of a service's instances are gone, and calls still go to them.
    HalfDown,
    /// The database that most services share is gone.
    DatabaseDown,
    None,
}

impl Fault {
    /// What the demo shows and recordings hold. The others are tried at virtual time only.
    pub const ALL: [Self; 7] = [
        Self::SlowDatabase,
        Self::FailingDependency,
        Self::BadDeploy,
        Self::TrafficDrop,
        Self::SaturatedPool,
        Self::MissedJob,
        Self::None,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlowDatabase => "slow-database",
            Self::FailingDependency => "failing-dependency",
            Self::BadDeploy => "bad-deploy",
            Self::TrafficDrop => "traffic-drop",
            Self::SaturatedPool => "saturated-pool",
            Self::MissedJob => "missed-job",
            Self::ServiceDown => "service-down",
            Self::HalfDown => "half-down",
            Self::DatabaseDown => "database-down",
            Self::None => "none",
        }
    }

    /// The services it can hit.
    #[must_use]
    pub const fn candidates(self) -> &'static [&'static str] {
        match self {
            Self::SlowDatabase | Self::SaturatedPool => &["payment", "inventory", "cart"],
            Self::FailingDependency => &["payment", "inventory", "shipping", "cart"],
            Self::BadDeploy => {
                &["frontend", "cart", "checkout", "payment", "shipping", "inventory", "recommendation"]
            }
            Self::TrafficDrop => &["frontend"],
            Self::MissedJob => &["nightly-job"],
            Self::ServiceDown | Self::HalfDown => {
                &["payment", "inventory", "shipping", "cart", "recommendation"]
            }
            Self::DatabaseDown => &["postgres"],
            Self::None => &[],
        }
    }

    /// The kinds of cause that name it rightly, the most precise first: in a service that fails by
    /// itself the fault is in its code, and to everybody else it is a failing dependency.
    #[must_use]
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::SlowDatabase => &["database"],
            Self::FailingDependency => &["code", "dependency"],
            Self::BadDeploy => &["deploy"],
            Self::TrafficDrop => &["traffic"],
            Self::SaturatedPool => &["saturation"],
            Self::MissedJob => &["job"],
            Self::ServiceDown | Self::HalfDown => &["dependency", "code", "data"],
            Self::DatabaseDown => &["database"],
            Self::None => &[],
        }
    }

    /// Whether it shows by what is missing, which is judged on sealed windows.
    #[must_use]
    pub const fn is_absence(self) -> bool {
        matches!(self, Self::TrafficDrop | Self::MissedJob)
    }

    /// In words, of a service.
    #[must_use]
    pub fn describe(self, service: &str) -> String {
        match self {
            Self::SlowDatabase => format!("{service}'s database calls get slow, and some fail"),
            Self::FailingDependency => format!("{service} fails part of its requests"),
            Self::BadDeploy => format!("a bad version of {service} is rolled out"),
            Self::TrafficDrop => format!("most requests to {service} stay away"),
            Self::SaturatedPool => format!("{service}'s connection pool is full"),
            Self::MissedJob => format!("{service} does not run"),
            Self::ServiceDown => format!("{service} is gone"),
            Self::HalfDown => format!("half the instances of {service} are gone"),
            Self::DatabaseDown => format!("{service} is gone, which most services share"),
            Self::None => "nothing breaks".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no fault, known: {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}
