//! What the operator says of single endpoints: their addresses, and how TLS with them is.
//!
//! Built by `server` from the settings. Read by `names` (addresses instead of a look-up), by `tls` (whose authority, which name, which
//! versions) and by the rule of addresses. Pure.

use std::net::IpAddr;

use crate::base::hosts::covers;

/// Hosts and what holds for them; the longest pattern that fits counts.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Longest first.
    entries: Vec<(Box<str>, Vec<IpAddr>)>,
}

impl Overrides {
    /// Hosts, or `*.suffix`, and their addresses; where those are none the name servers are asked.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Self {
        let entries = entries.into_iter();
        let mut entries: Vec<_> = entries.map(|(host, all)| (host.into(), all)).collect();
        entries.sort_by_key(|(host, _): &(Box<str>, _)| std::cmp::Reverse(host.len()));
        Self { entries }
    }

    /// The addresses of `host`, if the operator says so.
    #[must_use]
    pub fn addresses(&self, host: &str) -> Option<&[IpAddr]> {
        let fits = |entry: &&(Box<str>, Vec<IpAddr>)| covers(&entry.0, host);
        let (_, addresses) = self.entries.iter().find(fits)?;
        (!addresses.is_empty()).then_some(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pattern_that_fits_counts() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let overrides = Overrides::new([
            ("*.example.com".to_owned(), vec![ip(1)]),
            ("*.s3.example.com".to_owned(), vec![ip(2), ip(3)]),
            ("bucket.s3.example.com".to_owned(), Vec::new()),
        ]);
        assert_eq!(overrides.addresses("a.example.com"), Some(&[ip(1)][..]));
        assert_eq!(
            overrides.addresses("a.s3.example.com"),
            Some(&[ip(2), ip(3)][..])
        );
        assert_eq!(overrides.addresses("bucket.s3.example.com"), None);
        assert_eq!(overrides.addresses("example.com"), None);
    }
}
