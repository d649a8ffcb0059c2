//! The addresses that the operator gives to hosts, in the place of the name servers'.
//!
//! Built by `server` from the `[[endpoint]]`s. Read by `names` (instead of a look-up) and by the rule of addresses (`server::guard`). How TLS with
//! such hosts is, is `tls`'s. Pure.

use std::net::IpAddr;

use crate::base::hosts::ByHost;

/// Hosts and their addresses.
#[derive(Debug, Clone, Default)]
pub struct Overrides(ByHost<Vec<IpAddr>>);

impl Overrides {
    /// Hosts, or `*.suffix`, and their addresses; where those are none the name servers are asked.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Self {
        let entries = entries.into_iter();
        Self(ByHost::new(entries.map(|(host, all)| (host.into(), all))))
    }

    /// The addresses of `host`, if the operator says so.
    #[must_use]
    pub fn addresses(&self, host: &str) -> Option<&[IpAddr]> {
        let addresses = self.0.find(host)?;
        (!addresses.is_empty()).then_some(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_addresses_asks_the_name_servers() {
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
