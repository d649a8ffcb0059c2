//! A small scanner of Rust text for `tidy.rs`: blanks comments, string contents and
//! test-only items but keeps every line in its place, so that a finding has a line
//! number. It knows tokens, not grammar; what it cannot know, the compiler does.

/// Rust code of one file with everything that is not production code blanked.
pub struct Code {
    text: String,
}

impl Code {
    pub fn of(source: &str) -> Code {
        let mut bytes = blank_comments_and_strings(source);
        blank_test_items(&mut bytes);
        Code {
            text: String::from_utf8(bytes)
                .expect("blanking keeps UTF-8: only whole runs are blanked"),
        }
    }

    /// Lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Each maximal `super::super::…` with its line and its length.
    pub fn super_chains(&self) -> Vec<(usize, usize)> {
        let mut chains = Vec::new();
        for (number, line) in self.lines() {
            let mut rest = line;
            while let Some(at) = rest.find("super::") {
                let mut tail = &rest[at..];
                let mut length = 0;
                while let Some(next) = tail.strip_prefix("super::") {
                    length += 1;
                    tail = next;
                }
                chains.push((number, length));
                rest = tail;
            }
        }
        chains
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `word` stands in `line` on its own, not inside a longer identifier.
pub fn has_word(line: &str, word: &str) -> bool {
    let bytes = line.as_bytes();
    let ends_open = word
        .as_bytes()
        .last()
        .is_some_and(|byte| is_word_byte(*byte));
    let starts_open = word
        .as_bytes()
        .first()
        .is_some_and(|byte| is_word_byte(*byte));
    line.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).map(|index| bytes[index]);
        let after = bytes.get(at + word.len());
        let runs_on = starts_open && before.is_some_and(is_word_byte)
            || ends_open && after.is_some_and(|byte| is_word_byte(*byte));
        !runs_on
    })
}

/// Every path that follows `root::`, groups unfolded: `crate::{a, b::{c, d}}` gives `a`, `b::c`, `b::d`.
pub fn paths_after(code: &Code, root: &str) -> Vec<(usize, String)> {
    let text = &code.text;
    let mut found = Vec::new();
    for (at, _) in text.match_indices(root) {
        let before = at.checked_sub(1).map(|index| text.as_bytes()[index]);
        if before.is_some_and(|byte| is_word_byte(byte) || byte == b'$') {
            continue;
        }
        let Some(rest) = text[at + root.len()..].strip_prefix("::") else {
            continue;
        };
        let line = text[..at].matches('\n').count() + 1;
        let mut paths = Vec::new();
        unfold(rest, "", &mut paths);
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

/// Reads one path or group at the front of `text`; returns how many bytes it took.
fn unfold(text: &str, prefix: &str, out: &mut Vec<String>) -> usize {
    let bytes = text.as_bytes();
    let blank = |at: usize| {
        bytes[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count()
    };
    let start = blank(0);
    let mut at = start;
    while at < bytes.len() && is_word_byte(bytes[at]) {
        at += 1;
    }
    let path = format!("{prefix}{}", &text[start..at]);
    if text[at..].starts_with("::") {
        let inner = at + 2;
        if !text[inner..].trim_start().starts_with('{') {
            return inner + unfold(&text[inner..], &format!("{path}::"), out);
        }
        at = inner + blank(inner);
        return at + unfold_group(&text[at..], &format!("{path}::"), out);
    }
    if at == start && bytes.get(at) == Some(&b'{') {
        return at + unfold_group(&text[at..], prefix, out);
    }
    out.push(path);
    at
}

/// Reads `{a, b::c}` at the front of `text`; returns how many bytes it took.
fn unfold_group(text: &str, prefix: &str, out: &mut Vec<String>) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'}' {
        if bytes[at] == b',' || bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        at += unfold(&text[at..], prefix, out).max(1);
        // `as name`, `*` and the like carry no path of their own.
        while at < bytes.len() && !matches!(bytes[at], b',' | b'}') {
            at += 1;
        }
    }
    (at + 1).min(bytes.len())
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

fn blank_comments_and_strings(source: &str) -> Vec<u8> {
    let mut bytes = source.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(&bytes, at);
        match end {
            Some((end, keep)) => {
                blank(&mut bytes[at + keep..end - keep.min(end - at)]);
                at = end;
            }
            None => at += 1,
        }
    }
    bytes
}

/// The end of a comment, string or character that begins at `at`, and how many bytes of its rim stay.
fn token_end(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let length = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(rest.len());
        return Some((at + length, 0));
    }
    if rest.starts_with(b"/*") {
        return Some((block_comment_end(bytes, at), 0));
    }
    let in_word = at > 0 && is_word_byte(bytes[at - 1]);
    if matches!(rest.first(), Some(b'r' | b'b' | b'c'))
        && !in_word
        && let Some(end) = raw_string_end(bytes, at)
    {
        return Some((end, 0));
    }
    match rest.first()? {
        b'"' => Some((quoted_end(bytes, at, b'"')?, 1)),
        b'\'' => char_end(bytes, at).map(|end| (end, 1)),
        _ => None,
    }
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut index = at;
    while index + 1 < bytes.len() {
        match &bytes[index..index + 2] {
            b"/*" => (depth, index) = (depth + 1, index + 2),
            b"*/" => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut index = at;
    while matches!(bytes.get(index), Some(b'b' | b'c')) {
        index += 1;
    }
    if bytes.get(index) != Some(&b'r') {
        return None;
    }
    index += 1;
    let hashes = bytes[index..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    index += hashes;
    if bytes.get(index) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let length = bytes[index + 1..]
        .windows(close.len())
        .position(|window| window == close)?;
    Some(index + 1 + length + close.len())
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut index = at + 1;
    while index < bytes.len() {
        match bytes[index] {
            b'\\' => index += 2,
            byte if byte == quote => return Some(index + 1),
            _ => index += 1,
        }
    }
    None
}

/// A character literal's end, or nothing for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        return quoted_end(bytes, at, b'\'');
    }
    let close = bytes[at + 2..]
        .iter()
        .take(4)
        .position(|byte| *byte == b'\'')?;
    let one_char =
        std::str::from_utf8(&bytes[at + 1..at + 2 + close]).is_ok_and(|s| s.chars().count() == 1);
    one_char.then_some(at + 2 + close + 1)
}

/// Blanks each item under `#[cfg(test)]`, `#[test]` or a loom cfg, up to its closing brace or semicolon.
fn blank_test_items(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(offset) = find(&bytes[at..], b"#[") {
        let start = at + offset;
        let Some(end) = matching(bytes, start + 1, b'[', b']') else {
            return;
        };
        let attribute = String::from_utf8_lossy(&bytes[start..end]).replace(' ', "");
        let conditional = attribute.starts_with("#[cfg(") && !attribute.contains("not(");
        let for_tests =
            conditional && (has_word(&attribute, "test") || has_word(&attribute, "loom"));
        if for_tests || attribute == "#[test]" {
            let item_end = item_end(bytes, end);
            blank(&mut bytes[start..item_end]);
            at = item_end;
        } else {
            at = end;
        }
    }
}

fn item_end(bytes: &[u8], from: usize) -> usize {
    let mut index = from;
    let mut group = 0;
    // A field, variant or arm ends at its comma; the commas of an item's generics do not end it.
    let text = String::from_utf8_lossy(&bytes[from..]);
    let whole_item = [
        "fn ",
        "mod ",
        "impl",
        "use ",
        "struct ",
        "enum ",
        "trait ",
        "const ",
        "static ",
        "type ",
        "macro_rules",
    ]
    .iter()
    .any(|keyword| {
        text.trim_start()
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ")
            .starts_with(keyword)
    });
    while index < bytes.len() {
        match bytes[index] {
            b'(' | b'[' => group += 1,
            b')' | b']' => group -= 1,
            b';' if group == 0 => return index + 1,
            b',' if group == 0 && !whole_item => return index + 1,
            b'{' if group == 0 => return closing_of_item(bytes, index),
            _ => {}
        }
        index += 1;
    }
    bytes.len()
}

/// The end of a braced item; `use a::{b};` goes on to its semicolon.
fn closing_of_item(bytes: &[u8], brace: usize) -> usize {
    let end = matching(bytes, brace, b'{', b'}').unwrap_or(bytes.len());
    let follows = bytes[end..]
        .iter()
        .position(|byte| !byte.is_ascii_whitespace())
        .map_or(end, |skip| end + skip);
    if bytes.get(follows) == Some(&b';') {
        follows + 1
    } else {
        end
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn matching(bytes: &[u8], open_at: usize, open: u8, close: u8) -> Option<usize> {
    let mut depth = 0usize;
    for (index, byte) in bytes.iter().enumerate().skip(open_at) {
        if *byte == open {
            depth += 1;
        } else if *byte == close {
            depth -= 1;
            if depth == 0 {
                return Some(index + 1);
            }
        }
    }
    None
}

#[test]
fn comments_strings_and_tests_are_blanked_and_lines_stay() {
    let source = "use crate::io; // crate::a\nlet s = \"crate::b\"; let c = 'x'; let l: &'static str = r#\"crate::c\"#;\n#[cfg(test)]\nmod tests {\n    use crate::d;\n}\nuse crate::{e, f::{g, h as i}, j};\n";
    let code = Code::of(source);
    let found = paths_after(&code, "crate");
    let expected: Vec<(usize, String)> = [(1, "io"), (7, "e"), (7, "f::g"), (7, "f::h"), (7, "j")]
        .map(|(n, p)| (n, p.to_owned()))
        .into();
    assert_eq!(found, expected);
}

#[test]
fn words_stand_alone() {
    assert!(has_word("use libc::close;", "libc") && !has_word("mylibc::x", "libc"));
    assert!(has_word("    todo!()", "todo!") && !has_word("a_thread::sleep_ms()", "thread::sleep"));
}
