//! The token: from programs in a header, from people as a signed mark of time in a cookie. All comparisons take the same
//! time whatever is compared.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The name of the cookie.
pub(crate) const COOKIE: &str = "hatchet_session";
/// How long people stay signed in.
const SESSION: Duration = Duration::from_secs(12 * 3600);

/// The token of the options.
pub(crate) struct Token<'a>(&'a str);

impl<'a> Token<'a> {
    pub(crate) fn new(token: &'a str) -> Self {
        Self(token)
    }

    /// Whether this is the token. Hashes are compared, so that the time says nothing of its length either.
    pub(crate) fn is(&self, given: &str) -> bool {
        Sha256::digest(self.0).ct_eq(&Sha256::digest(given)).into()
    }

    pub(super) fn is_in_authorization(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        given.is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && self.is(token.trim()))
    }

    pub(super) fn is_in_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        cookies.any(|(name, value)| name == COOKIE && self.is_session(value, now()))
    }

    /// The value of the cookie of somebody who has just signed in.
    pub(crate) fn session(&self) -> String {
        self.session_until(now() + SESSION.as_secs())
    }

    fn session_until(&self, until: u64) -> String {
        let signature = self.signature(until).finalize().into_bytes();
        signature.iter().fold(format!("{until}."), |text, byte| text + &format!("{byte:02x}"))
    }

    fn is_session(&self, value: &str, now: u64) -> bool {
        let Some(until) = value.split_once('.').and_then(|(until, _)| until.parse::<u64>().ok()) else { return false };
        let is_signed: bool = self.session_until(until).as_bytes().ct_eq(value.as_bytes()).into();
        is_signed && now < until
    }

    fn signature(&self, until: u64) -> Hmac<Sha256> {
        let mut key = [0; 64];
        key[..32].copy_from_slice(&Sha256::digest(self.0));
        let mut signature = Hmac::<Sha256>::new(&key.into());
        signature.update(format!("session until {until}").as_bytes());
        signature
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_holds_for_its_time_and_token() {
        let token = Token::new("a secret");
        let session = token.session_until(1_000);
        assert!(token.is_session(&session, 999));
        assert!(!token.is_session(&session, 1_000));
        assert!(!Token::new("another").is_session(&session, 999));
        assert!(!token.is_session(&session.replace("1000.", "2000."), 999));
        assert!(!token.is_session("", 0) && !token.is_session("1000.", 0) && !token.is_session("x", 0));
        assert!(!session.contains("secret"));
    }
}
