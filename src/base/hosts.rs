//! Patterns of host names: a name, an address, or `*.suffix`, and what the operator says of the hosts that they mean.
//!
//! Called by `s3::destinations` and `upstream`. Pure. Names and patterns are lower-case and without brackets.

use std::cmp::Reverse;

/// Whether `name` is meant by `pattern`. `*.a.b` means every name that ends with `.a.b`, not `a.b` itself.
#[must_use]
pub fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => name == pattern,
    }
}

/// Something for each of some patterns; of those that mean a host its own name counts, then the longest.
#[derive(Debug, Clone)]
pub struct ByHost<T>(Vec<(Box<str>, T)>);

impl<T> ByHost<T> {
    /// In any order.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (Box<str>, T)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(pattern, _)| (pattern.starts_with('*'), Reverse(pattern.len())));
        Self(entries)
    }

    /// What counts for `name`, if anything does.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&T> {
        let mut entries = self.0.iter();
        let found = entries.find(|(pattern, _)| covers(pattern, name));
        found.map(|(_, what)| what)
    }
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_begins_with_its_dot() {
        for (pattern, name, is_meant) in [
            ("a.b", "a.b", true),
            ("a.b", "x.a.b", false),
            ("*.a.b", "x.a.b", true),
            ("*.a.b", "x.y.a.b", true),
            ("*.a.b", "a.b", false),
            ("*.a.b", ".a.b", false),
            ("*.a.b", "xa.b", false),
            ("10.0.0.1", "10.0.0.1", true),
        ] {
            assert_eq!(covers(pattern, name), is_meant, "{pattern} {name}");
        }
    }

    #[test]
    fn the_name_itself_counts_then_the_longest_suffix() {
        let patterns = ["*.a.b", "*.b", "x.a.b", "*.x.a.b"];
        let entries = patterns.map(|pattern| (pattern.into(), pattern));
        let hosts = ByHost::new(entries);
        for (name, counts) in [
            ("x.a.b", Some("x.a.b")),
            ("y.a.b", Some("*.a.b")),
            ("y.x.a.b", Some("*.x.a.b")),
            ("a.b", Some("*.b")),
            ("b", None),
        ] {
            assert_eq!(hosts.find(name).copied(), counts, "{name}");
        }
    }
}
