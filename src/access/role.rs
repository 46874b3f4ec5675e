//! Roles: what a caller may do.

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Send telemetry, and nothing else.
    Ingest,
    /// Ask: queries, pages, metrics.
    Read,
    /// Tell changes, acknowledge, note, resolve; and ask.
    Operate,
    /// Everything.
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Read, Self::Operate, Self::Admin];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Every role.
    pub const ALL: Self = Self(1 << Role::Admin as u8);

    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }

    /// Whether the set holds the role or one that includes it.
    #[must_use]
    pub const fn may(self, role: Role) -> bool {
        let including = match role {
            Role::Read => 1 << Role::Read as u8 | 1 << Role::Operate as u8,
            other => 1 << other as u8,
        } | 1 << Role::Admin as u8;
        self.0 & including != 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<T: IntoIterator<Item = Role>>(roles: T) -> Self {
        roles.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_includes_what_it_says_and_no_more() {
        let of = |role| Role::ALL.map(|asked| Roles::default().with(role).may(asked));
        assert_eq!(of(Role::Ingest), [true, false, false, false]);
        assert_eq!(of(Role::Read), [false, true, false, false]);
        assert_eq!(of(Role::Operate), [false, true, true, false]);
        assert_eq!(of(Role::Admin), [true; 4]);
        assert_eq!(Role::ALL.map(|asked| Roles::default().may(asked)), [false; 4]);
    }
}
