//! Who may read a copy: `access` of the object's policy, and what is known of the origin's word about this very request.
//!
//! Called by `read`. Where the right is not known the read is treated as if its copy had no time to live: the origin is asked with the client's
//! own signature, and nobody shares the answer. What is remembered is in `cache::grants`; an access key id alone is forgeable and never a key.

use crate::base::clock::Moment;
use crate::cache::grants::{Remembered, Token};
use crate::config::{Access, ObjectPolicy};
use crate::http::HeaderLine;
use crate::metrics::{AccessEvent, Counter};
use crate::s3::Auth;
use crate::shard::Shard;

use super::Exchange;

/// What is known of the right to read an object, before the origin is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Right {
    /// Whoever reaches the port has it.
    Everybody,
    /// The origin has accepted the same request, and its signature is still valid.
    Known(Token),
    /// Only the origin can say; if it may be remembered, by which token and until when.
    Unknown(Option<(Token, i64)>),
}

/// Headers that do not say who asks for what, where they are not signed: one grant holds whatever they are.
const NOT_OF_RIGHT: [&str; 19] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "cache-control",
    "cdn-loop",
    "connection",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "pragma",
    "range",
    "traceparent",
    "tracestate",
    "x-amzn-trace-id",
];

fn counts(line: &HeaderLine<'_>, auth: &Auth<'_>) -> bool {
    let listed = NOT_OF_RIGHT
        .iter()
        .any(|name| line.name.eq_ignore_ascii_case(name));
    !listed || auth.signs(line.name)
}

fn now_unix(shard: &Shard) -> i64 {
    shard.wall().unix_seconds(Moment::now())
}

impl Right {
    /// What is known of this request for `object` now.
    pub(super) fn of(exchange: &Exchange<'_>, object: u128, access: Access) -> Self {
        let shard = exchange.shard;
        let right = match access {
            Access::Open => return Self::Everybody,
            Access::Revalidate => Self::Unknown(None),
            Access::Exact => Self::remembered(exchange, object),
        };
        let event = match right {
            Self::Everybody | Self::Known(_) => AccessEvent::Known,
            Self::Unknown(_) => AccessEvent::Asked,
        };
        shard.metrics().count(Counter::Access(event));
        right
    }

    fn remembered(exchange: &Exchange<'_>, object: u128) -> Self {
        let (head, auth) = (exchange.head, &exchange.request.auth);
        let mut dates = head.headers.find_all("x-amz-date");
        let date = dates.next().filter(|_| dates.next().is_none());
        let Some(until_unix) = auth.valid_until_unix(date) else {
            return Self::Unknown(None);
        };
        let object = object.to_le_bytes();
        let line: [&[u8]; 5] = [
            &object,
            head.method_raw.as_bytes(),
            b" ",
            head.target.as_bytes(),
            b"\r\n",
        ];
        let headers = head.headers.lines().filter(|line| counts(line, auth));
        let parts = line.into_iter().chain(headers.map(|line| line.raw));
        let grants = &exchange.shard.world.grants;
        let token = grants.token(parts);
        match grants.remembers(token, now_unix(exchange.shard)) {
            true => Self::Known(token),
            false => Self::Unknown(Some((token, until_unix))),
        }
    }

    /// Whether a copy may be read without the origin's word.
    pub(super) fn is_known(self) -> bool {
        match self {
            Self::Everybody | Self::Known(_) => true,
            Self::Unknown(_) => false,
        }
    }

    /// A policy as it holds for who has this right: a copy is of no age for whom the origin has to be asked about.
    pub(super) fn limit(self, policy: ObjectPolicy) -> ObjectPolicy {
        if self.is_known() {
            return policy;
        }
        policy.asked()
    }

    /// The origin has answered this very request with `status`: what is known now.
    pub(super) fn heard(self, shard: &Shard, status: u16) -> Self {
        let grants = &shard.world.grants;
        let count = |event| shard.metrics().count(Counter::Access(event));
        match (self, status) {
            (Self::Unknown(Some((token, until_unix))), 200 | 206 | 304) => {
                let Some(remembered) = grants.remember(token, until_unix, now_unix(shard)) else {
                    return self;
                };
                count(AccessEvent::Remembered);
                if remembered == Remembered::InPlaceOfAnother {
                    count(AccessEvent::Displaced);
                }
                Self::Known(token)
            }
            // Also if it was not known: another shard may have heard a yes meanwhile.
            (Self::Unknown(Some((token, _))) | Self::Known(token), 401 | 403) => {
                grants.forget(token);
                count(AccessEvent::Refused);
                Self::Unknown(None)
            }
            (Self::Unknown(None), 401 | 403) => {
                count(AccessEvent::Refused);
                self
            }
            _ => self,
        }
    }
}
