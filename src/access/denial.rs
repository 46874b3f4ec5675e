//! Why a call is not let through.

/// Why a call is not let through: a closed set, so that each is a label of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedReason {
    /// It carries no credentials.
    Missing,
    /// It carries credentials that nobody holds.
    Unknown,
    /// Its token or session has ended.
    Expired,
    /// Its caller does not hold the role.
    Role,
    /// It comes from a page of somebody else, or lacks the token that shows that it does not.
    Origin,
}

impl DeniedReason {
    pub const ALL: [Self; 5] = [Self::Missing, Self::Unknown, Self::Expired, Self::Role, Self::Origin];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Role => "role",
            Self::Origin => "origin",
        }
    }
}

/// A call that is not let through, and what its caller is told. Never holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial(pub DeniedReason);

impl Denial {
    /// Whether better credentials would do (401, UNAUTHENTICATED); else 403, PERMISSION_DENIED.
    #[must_use]
    pub const fn is_unauthenticated(self) -> bool {
        matches!(self.0, DeniedReason::Missing | DeniedReason::Unknown | DeniedReason::Expired)
    }

    #[must_use]
    pub const fn message(self) -> &'static str {
        match self.0 {
            DeniedReason::Missing => "credentials are needed: send authorization: Bearer TOKEN",
            DeniedReason::Unknown => "the credentials are not known here",
            DeniedReason::Expired => "the credentials have expired",
            DeniedReason::Role => "the credentials do not allow this call",
            DeniedReason::Origin => "the request comes from a page of another origin, or has no CSRF token",
        }
    }

    #[must_use]
    pub const fn http_status(self) -> http::StatusCode {
        if self.is_unauthenticated() { http::StatusCode::UNAUTHORIZED } else { http::StatusCode::FORBIDDEN }
    }
}
