//! Patterns of host names: a name, an address, or `*.suffix`.
//!
//! Called by `s3::destinations` and `upstream`. Both sides are lower-case and without brackets.

/// Whether `name` is meant by `pattern`. `*.a.b` means every name that ends with `.a.b`, not `a.b` itself.
#[must_use]
pub fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

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
}
