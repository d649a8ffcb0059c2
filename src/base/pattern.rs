//! Patterns of names that are made of parts, each with its length in front (16 bits, big-endian): what `s3::NamePattern` makes of an operator's words.
//!
//! Compared by the index, the disk and the tools. What a name begins with is a pattern too. Pure and total.

/// In place of a part's length: any part; no bytes follow.
pub const ANY: u16 = u16::MAX;
/// In place of a part's length: what begins with all the bytes that follow.
pub const BEGINS: u16 = u16::MAX - 1;

/// Whether an encoded identity is one of those that `pattern` means.
#[must_use]
pub fn covers(pattern: &[u8], encoded: &[u8]) -> bool {
    let (mut pattern, mut encoded) = (pattern, encoded);
    while let Some((length, rest)) = pattern.split_first_chunk::<2>() {
        let part = |from| take(from).map(|(part, _)| part);
        match u16::from_be_bytes(*length) {
            BEGINS => return part(encoded).is_some_and(|part| part.starts_with(rest)),
            ANY => {
                let Some((_, behind)) = take(encoded) else {
                    return false;
                };
                (pattern, encoded) = (rest, behind);
            }
            _ => {
                let Some((wanted, behind)) = take(pattern) else {
                    return encoded.starts_with(pattern);
                };
                let Some((_, left)) = take(encoded).filter(|(found, _)| *found == wanted) else {
                    return false;
                };
                (pattern, encoded) = (behind, left);
            }
        }
    }
    encoded.starts_with(pattern)
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
