//! `Cache-Control` (RFC 9111, section 5.2, and RFC 5861): what a response allows a shared cache, and what a request asks of one. Pure; nothing
//! is allocated.
//!
//! Called by `cache` when a head is stored, by `fill` before one is, by `s3` for each request that has the header.
//!
//! Invariant: what cannot be read counts as what is safe. A time that is no number, or one that is told twice and differently, is no time at
//! all (section 4.2.1); a directive that restricts is obeyed with whatever argument it has. Unknown directives are nothing.

/// The longest time there is (RFC 9111, section 1.2.2).
const SECONDS_MAX: u32 = 1 << 31;

/// One directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Directive<'h> {
    name: &'h [u8],
    /// Without its quotes.
    argument: Option<&'h [u8]>,
}

impl Directive<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// `None`: no number of seconds. Larger ones than can be told are the largest.
    fn seconds(&self) -> Option<u32> {
        let digits = self.argument.filter(|digits| !digits.is_empty())?;
        digits.iter().try_fold(0u32, |seconds, byte| {
            let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
            Some(
                seconds
                    .saturating_mul(10)
                    .saturating_add(digit)
                    .min(SECONDS_MAX),
            )
        })
    }
}

/// Where a quoted string that begins at `start` ends, behind its last quote; `None` if it has none.
fn quoted_end(value: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match value.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The directives of one header line.
fn directives(value: &[u8]) -> impl Iterator<Item = Directive<'_>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let comma = |from: usize| {
            let found = memchr::memchr(b',', &rest[from..]);
            found.map_or(rest.len(), |at| from + at)
        };
        let equals = memchr::memchr(b'=', &rest[..comma(0)]);
        // A quote that nothing closes is a byte like others: it does not hide what follows.
        let quoted = equals
            .filter(|at| rest.get(at + 1) == Some(&b'"'))
            .and_then(|at| Some((at + 2, quoted_end(rest, at + 1)?)));
        let end = comma(quoted.map_or(0, |(_, end)| end));
        let directive = Directive {
            name: rest[..equals.unwrap_or(end)].trim_ascii(),
            argument: match (quoted, equals) {
                // With something behind its quote it is no argument that could be read.
                (Some((from, to)), _) if rest[to..end].trim_ascii().is_empty() => {
                    Some(&rest[from..to - 1])
                }
                (_, Some(at)) => Some(rest[at + 1..end].trim_ascii_end()),
                (_, None) => None,
            },
        };
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(directive)
    })
}

/// What a response says of its reuse by a shared cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// `no-store`.
    pub no_store: bool,
    /// `must-understand`: where the status is understood, `no-store` is for others.
    pub must_understand: bool,
    /// `private`, also for some fields only.
    pub private: bool,
    /// `no-cache`, also for some fields only.
    pub no_cache: bool,
    /// `must-revalidate` or `proxy-revalidate`.
    pub must_revalidate: bool,
    /// `s-maxage`; 0 if it cannot be read.
    pub shared_max_age_s: Option<u32>,
    /// `max-age`; 0 if it cannot be read.
    pub max_age_s: Option<u32>,
    /// `stale-while-revalidate`; 0 if it cannot be read.
    pub stale_while_revalidate_s: Option<u32>,
    /// `stale-if-error`; 0 if it cannot be read.
    pub stale_if_error_s: Option<u32>,
}

/// A time that may be told again only if it is the same.
fn note(time: &mut Option<u32>, directive: &Directive<'_>) {
    let told = directive.seconds().unwrap_or(0);
    *time = Some(match *time {
        Some(before) if before != told => 0,
        _ => told,
    });
}

impl ResponseControl {
    /// All lines together.
    pub fn of<'h>(lines: impl Iterator<Item = &'h [u8]>) -> Self {
        let mut control = Self::default();
        for directive in lines.flat_map(directives) {
            control.take(&directive);
        }
        control
    }

    fn take(&mut self, directive: &Directive<'_>) {
        let is = |name: &str| directive.is(name);
        match directive.name.first().map(u8::to_ascii_lowercase) {
            Some(b'm') if is("max-age") => note(&mut self.max_age_s, directive),
            Some(b'm') if is("must-revalidate") => self.must_revalidate = true,
            Some(b'm') if is("must-understand") => self.must_understand = true,
            Some(b'n') if is("no-cache") => self.no_cache = true,
            Some(b'n') if is("no-store") => self.no_store = true,
            Some(b'p') if is("private") => self.private = true,
            Some(b'p') if is("proxy-revalidate") => self.must_revalidate = true,
            Some(b's') if is("s-maxage") => note(&mut self.shared_max_age_s, directive),
            Some(b's') if is("stale-if-error") => note(&mut self.stale_if_error_s, directive),
            Some(b's') if is("stale-while-revalidate") => {
                note(&mut self.stale_while_revalidate_s, directive);
            }
            _ => {}
        }
    }

    /// Whether a shared cache may keep a 200 or 206 that says so (RFC 9111, sections 3 and 5.2.2.3).
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        let stored = !self.no_store || self.must_understand;
        stored && !self.private
    }
}

/// What a request asks of a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `no-cache`: only what the origin has confirmed.
    pub no_cache: bool,
    /// `no-store`: the answer is not to be kept.
    pub no_store: bool,
    /// `only-if-cached`: the origin is not to be asked.
    pub only_if_cached: bool,
    /// `max-age`: nothing older; 0 if it cannot be read.
    pub max_age_s: Option<u32>,
    /// `max-stale`: so long past its time; with no argument for ever. What cannot be read is not said.
    pub max_stale_s: Option<u32>,
    /// `min-fresh`: fresh for so long yet; for ever if it cannot be read.
    pub min_fresh_s: Option<u32>,
}

impl RequestControl {
    /// Takes one more line.
    pub fn take(&mut self, value: &[u8]) {
        for directive in directives(value) {
            let is = |name: &str| directive.is(name);
            self.no_cache |= is("no-cache");
            self.no_store |= is("no-store");
            self.only_if_cached |= is("only-if-cached");
            if is("max-age") {
                note(&mut self.max_age_s, &directive);
            } else if is("min-fresh") {
                let told = directive.seconds().unwrap_or(u32::MAX);
                self.min_fresh_s = self.min_fresh_s.max(Some(told));
            } else if is("max-stale") {
                let told = match directive.argument {
                    None => Some(u32::MAX),
                    Some(_) => directive.seconds(),
                };
                let least = |before: u32| told.map_or(before, |told| told.min(before));
                self.max_stale_s = self.max_stale_s.map(least).or(told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(lines: &[&str]) -> ResponseControl {
        ResponseControl::of(lines.iter().map(|line| line.as_bytes()))
    }

    fn request(lines: &[&str]) -> RequestControl {
        let mut control = RequestControl::default();
        lines.iter().for_each(|line| control.take(line.as_bytes()));
        control
    }

    #[test]
    fn a_time_is_read_by_table() {
        for (line, want) in [
            ("max-age=60", Some(60)),
            ("Max-AGE=60", Some(60)),
            ("public, max-age=60", Some(60)),
            (" ,, max-age=60 ,", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=060", Some(60)),
            ("max-age=60, max-age=60", Some(60)),
            ("max-age=2147483648", Some(SECONDS_MAX)),
            ("max-age=99999999999999999999999", Some(SECONDS_MAX)),
            // What cannot be read is no time at all.
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age= 60", Some(0)),
            ("max-age=60s", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=6.5", Some(0)),
            ("max-age='60'", Some(0)),
            ("max-age=\"60\"0", Some(0)),
            ("max-age=\"60", Some(0)),
            ("max-age=1, max-age=60", Some(0)),
            ("max-age=60, max-age=1", Some(0)),
            ("max-age=60=60", Some(0)),
            // Other words.
            ("x-max-age=60", None),
            ("max-age-x=60", None),
            ("a=\"max-age=60\"", None),
            ("a=\"x, max-age=60, y\"", None),
            ("a=\"\\\", max-age=60\"", None),
            ("s-maxage=60", None),
            ("", None),
        ] {
            assert_eq!(response(&[line]).max_age_s, want, "{line}");
        }
        let several = response(&["max-age=5", "s-maxage=7"]);
        assert_eq!(
            (several.max_age_s, several.shared_max_age_s),
            (Some(5), Some(7))
        );
    }

    #[test]
    fn what_restricts_is_obeyed_in_any_spelling() {
        for line in [
            "no-store",
            "NO-STORE",
            "no-store=1",
            "no-store=\"x\"",
            "a, no-store ,b",
            "a=\"x\", no-store",
            "a=\"never closed, no-store",
            "no-store=\"never closed",
            "max-age=60,no-store",
        ] {
            assert!(response(&[line]).no_store, "{line}");
            assert!(!response(&[line]).may_be_kept(), "{line}");
        }
        assert!(response(&["private=\"set-cookie\""]).private);
        assert!(response(&["no-cache=\"a, b\", max-age=5"]).no_cache);
        assert_eq!(
            response(&["no-cache=\"a, b\", max-age=5"]).max_age_s,
            Some(5)
        );
        assert!(response(&["must-revalidate"]).must_revalidate);
        assert!(response(&["proxy-revalidate"]).must_revalidate);
        assert!(!response(&["a=\"no-store\""]).no_store);
        assert!(!response(&["x-no-store, no-storex"]).no_store);
    }

    #[test]
    fn what_may_be_kept_by_table() {
        for (line, want) in [
            ("", true),
            ("public", true),
            ("no-cache", true),
            ("max-age=0, must-revalidate", true),
            ("no-store", false),
            ("private", false),
            ("private, s-maxage=60", false),
            ("public, no-store", false),
            ("must-understand, no-store", true),
            ("must-understand, no-store, private", false),
        ] {
            assert_eq!(response(&[line]).may_be_kept(), want, "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_hides_what_restricts(bytes in "[ -~]{0,40}", quoted in "[a-z,=\"\\\\ ]{0,20}") {
            for other in [&bytes, &quoted] {
                let before = format!("no-store,{other}");
                let behind = format!("{other},no-store");
                prop_assert!(response(&[&before]).no_store, "{before}");
                prop_assert!(response(&[&behind]).no_store, "{behind}");
                prop_assert!(request(&[&behind]).no_store, "{behind}");
            }
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = ResponseControl::of([&bytes[..]].into_iter());
            RequestControl::default().take(&bytes);
        }
    }

    /// `no_cache`, `no_store`, `only_if_cached` as letters, and the three times.
    type Told = (&'static str, Option<u32>, Option<u32>, Option<u32>);

    fn told(control: &RequestControl) -> Told {
        let flags = match (control.no_cache, control.no_store, control.only_if_cached) {
            (false, false, false) => "",
            (true, false, false) => "c",
            (true, true, false) => "cs",
            (false, false, true) => "o",
            other => panic!("{other:?}"),
        };
        let times = (control.max_age_s, control.max_stale_s, control.min_fresh_s);
        (flags, times.0, times.1, times.2)
    }

    #[test]
    fn a_request_is_read_by_table() {
        let table: [(&str, Told); 13] = [
            ("", ("", None, None, None)),
            ("max-stale=x, no-transform", ("", None, None, None)),
            ("no-cache", ("c", None, None, None)),
            ("no-cache=1, No-Store", ("cs", None, None, None)),
            ("only-if-cached", ("o", None, None, None)),
            ("max-age=0", ("", Some(0), None, None)),
            ("max-age=x", ("", Some(0), None, None)),
            ("max-age=\"7\"", ("", Some(7), None, None)),
            ("max-stale", ("", None, Some(u32::MAX), None)),
            ("max-stale=9, max-stale", ("", None, Some(9), None)),
            ("max-stale, max-stale=9", ("", None, Some(9), None)),
            ("min-fresh=9, min-fresh=3", ("", None, None, Some(9))),
            ("min-fresh=", ("", None, None, Some(u32::MAX))),
        ];
        for (line, want) in table {
            assert_eq!(told(&request(&[line])), want, "{line}");
        }
        let several = request(&["max-age=5", "only-if-cached"]);
        assert_eq!(told(&several), ("o", Some(5), None, None));
    }
}
