//! The nearest known word to one that is not known: keys, sections, variables, values.
//!
//! Pure. `file.rs`, `environment.rs` and `value.rs` ask; they give the candidates in the order of the table, and
//! among equals the first wins.

/// The candidate that a typing mistake most likely meant, if one is near enough.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_within(edits_max(word), word, candidates)
}

/// How many mistakes a word of this length may hold and still be meant.
fn edits_max(word: &str) -> usize {
    (word.chars().count() / 3).clamp(1, 4)
}

fn nearest_within<'a>(
    limit: usize,
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = candidate.to_ascii_lowercase();
            let edits = distance(&word, &known);
            match edits <= limit {
                true => Some((edits, candidate)),
                // Half a word, or more than one, after all that is only mistyped.
                false => is_part(&word, &known).then_some((limit + edits, candidate)),
            }
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// The dotted key that was most likely meant by `key`: near as a whole, or the right name in the wrong section.
#[must_use]
pub fn nearest_key<'a>(key: &str, keys: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let name = last(key);
    let mine = keys
        .clone()
        .filter(|candidate| candidate.rsplit_once('.').map(|(s, _)| s) == Some(section));
    let in_section = nearest(name, mine.clone().map(last))
        .and_then(|found| mine.clone().find(|candidate| last(candidate) == found));
    in_section
        .or_else(|| keys.clone().find(|candidate| last(candidate) == name))
        .or_else(|| nearest_within(edits_max(name), key, keys.clone()))
        .or_else(|| {
            let found = nearest(name, keys.clone().map(last))?;
            keys.clone().find(|candidate| last(candidate) == found)
        })
}

/// Whether a name has lost a word (`timeout` for `head_timeout`) or says more than ours (`logging` for `log`).
fn is_part(word: &str, known: &str) -> bool {
    let whole_words = format!("_{known}_").contains(&format!("_{word}_"));
    whole_words || known.len() >= 3 && word.starts_with(known)
}

fn last(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, name)| name)
}

/// Edits between two words: insert, delete, replace, swap of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 8] = [
        "upstream.dns_ttl_min",
        "server.shards",
        "listener.head_timeout",
        "listener.idle_timeout",
        "upstream.idle_timeout",
        "ram.size",
        "disk.size",
        "cache.ttl",
    ];

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "", 3),
            ("size", "siez", 1),
            ("size", "sizes", 1),
            ("shards", "cards", 2),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn a_mistyped_key_finds_its_neighbour() {
        for (typed, meant) in [
            ("ram.siez", Some("ram.size")),
            ("disk.siez", Some("disk.size")),
            ("lisener.head_timeout", Some("listener.head_timeout")),
            ("listener.ttl", Some("cache.ttl")),
            ("ttl", Some("cache.ttl")),
            ("ttls", Some("cache.ttl")),
            ("upstream.idle_timout", Some("upstream.idle_timeout")),
            ("listener.timeout", Some("listener.head_timeout")),
            ("listener.idle", Some("listener.idle_timeout")),
            ("listener.ramsize", None),
            ("server.threads", None),
            ("entirely.different", None),
            ("upstream.foo", None),
        ] {
            assert_eq!(nearest_key(typed, KEYS.iter().copied()), meant, "{typed}");
        }
    }

    #[test]
    fn a_short_word_is_not_matched_to_everything() {
        assert_eq!(nearest("x", ["auto", "off"]), None);
        assert_eq!(nearest("of", ["auto", "off"]), Some("off"));
        assert_eq!(nearest("", ["auto", "off"]), None);
    }

    #[test]
    fn a_longer_word_for_the_same_thing_is_found() {
        assert_eq!(nearest("logging", ["listener", "log"]), Some("log"));
        assert_eq!(nearest("RAM", ["RAM_SIZE", "DISK_SIZE"]), Some("RAM_SIZE"));
    }
}
