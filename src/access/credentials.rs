//! What a call shows of its caller.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

/// What a call shows of its caller. `Debug` is left out, so that it reaches no log.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// `Some` as soon as there is an `authorization` header; the token within it, if it is a bearer's.
    pub bearer: Option<Option<&'a [u8]>>,
    /// The session cookie of the page.
    pub session: Option<&'a str>,
    /// Whether the connection showed a client certificate that is trusted.
    pub certificate: bool,
}

/// Name of the session cookie.
pub(super) const SESSION: &str = "barograph_session";

impl<'a> Credentials<'a> {
    /// The credentials within a request's headers.
    #[must_use]
    pub fn of(headers: &'a HeaderMap, certificate: bool) -> Self {
        let bearer = headers.get(AUTHORIZATION).map(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        Self { bearer, session: None, certificate }
    }

    /// The same, and the session of the page.
    #[must_use]
    pub fn with_session(self, headers: &'a HeaderMap) -> Self {
        Self { session: cookie(headers, SESSION), ..self }
    }
}

/// The value of a cookie.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|cookies| cookies.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn bearers_and_cookies_are_found() {
        let mut headers = HeaderMap::new();
        assert!(Credentials::of(&headers, false).bearer.is_none());
        for (value, token) in [
            ("Bearer abc", Some(&b"abc"[..])),
            ("bearer  abc ", Some(b"abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("", None),
        ] {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            assert_eq!(Credentials::of(&headers, false).bearer, Some(token), "{value:?}");
        }
        headers.insert(COOKIE, HeaderValue::from_static("a=b; barograph_session=s1; c=d"));
        assert_eq!(Credentials::of(&headers, false).with_session(&headers).session, Some("s1"));
        assert_eq!(cookie(&headers, "session"), None);
    }
}
