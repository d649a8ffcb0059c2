//! Millraces behind one another: each names itself in `CDN-Loop` (RFC 8586) to whom it asks, and refuses what has come by it before.
//!
//! Called where a request is about to leave (`forward`, `read`, `pass`): a hit asks nobody and is not looked at. The name is of this process;
//! `millrace-` and random digits.

use crate::http::RequestHead;
use crate::s3::{Auth, ErrorCode};
use crate::shard::Shard;

use super::answer::line;
use super::failure::Failure;

const HEADER: &str = "cdn-loop";
/// How every millrace's name begins.
pub const NAME_PREFIX: &str = "millrace-";
/// Millraces that a request may have come by: more are a loop of which this process is only a part by chance.
const PARENTS_MAX: usize = 16;

/// Names this process to whoever is asked, where the client did not sign who may be on the way.
pub(super) fn sign(shard: &Shard, auth: &Auth<'_>, out: &mut Vec<u8>) {
    if auth.may_add(HEADER) {
        line(out, "CDN-Loop", shard.world.name.as_bytes());
    }
}

/// Why a request may not leave: it has been here before.
pub(super) fn refusal(shard: &Shard, head: &RequestHead<'_>) -> Option<Failure> {
    let lines = head.headers.find_all(HEADER);
    has_looped(lines, shard.world.name.as_bytes()).then(|| Failure {
        status: 508,
        ..Failure::new(
            ErrorCode::InvalidRequest,
            "the request goes round in a loop",
        )
    })
}

fn has_looped<'h>(lines: impl Iterator<Item = &'h [u8]>, own: &[u8]) -> bool {
    let members = lines.flat_map(|line| line.split(|byte| *byte == b','));
    let names = members.filter_map(|member| member.split(|byte| *byte == b';').next());
    let mut parents = 0;
    for name in names.map(<[u8]>::trim_ascii) {
        parents += usize::from(name.starts_with(NAME_PREFIX.as_bytes()));
        if name == own || parents > PARENTS_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_itself_on_the_way_has_looped() {
        for (lines, looped) in [
            (&[][..], false),
            (&["millrace-1"], true),
            (&["cdn.example, millrace-1; v=2"], true),
            (&["millrace-2", "other,millrace-3"], false),
            (&["millrace-12", ""], false),
            (&["a, millrace-2", " millrace-1 "], true),
        ] {
            let lines = lines.iter().map(|line| line.as_bytes());
            assert_eq!(has_looped(lines, b"millrace-1"), looped);
        }
        let many = vec![&b"millrace-x"[..]; PARENTS_MAX + 1];
        assert!(has_looped(many.iter().copied(), b"millrace-1"));
        assert!(!has_looped(many[1..].iter().copied(), b"millrace-1"));
    }
}
