//! Whether an object's bytes are compressed already, by what is said of it: then trying again on the way to disk is work for nothing.
//!
//! Called by `shard` for what goes to disk where compression is on. Only a hint: what is taken for plain is tried, and what does not get smaller is
//! stored plain.

use super::object_key::ObjectKeyRef;

/// Content types, without parameters, of what is compressed.
const TYPES: &[&str] = &[
    "application/epub+zip",
    "application/gzip",
    "application/java-archive",
    "application/pdf",
    "application/vnd.android.package-archive",
    "application/vnd.apache.orc",
    "application/vnd.apache.parquet",
    "application/vnd.rar",
    "application/x-7z-compressed",
    "application/x-brotli",
    "application/x-bzip2",
    "application/x-compress",
    "application/x-gzip",
    "application/x-lz4",
    "application/x-rar-compressed",
    "application/x-xz",
    "application/x-zip-compressed",
    "application/zip",
    "application/zstd",
    "font/woff",
    "font/woff2",
    "image/avif",
    "image/gif",
    "image/heic",
    "image/heif",
    "image/jp2",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/webp",
];

/// What the types of whole families begin with.
const FAMILIES: &[&str] = &[
    "application/vnd.oasis.opendocument",
    "application/vnd.openxmlformats-officedocument",
    "audio/aac",
    "audio/flac",
    "audio/mp",
    "audio/ogg",
    "audio/opus",
    "video/",
];

/// Endings of keys of what is compressed.
const ENDINGS: &[&str] = &[
    "7z", "aac", "apk", "avi", "avif", "bam", "bgz", "br", "bz2", "cram", "docx", "epub", "flac",
    "gif", "gz", "heic", "jar", "jp2", "jpeg", "jpg", "jxl", "lz4", "m4a", "m4v", "mkv", "mov",
    "mp3", "mp4", "mpeg", "mpg", "nupkg", "odp", "ods", "odt", "ogg", "opus", "orc", "parquet",
    "pdf", "png", "pptx", "rar", "snappy", "svgz", "sz", "tbz2", "tgz", "txz", "tzst", "war",
    "webm", "webp", "whl", "wmv", "woff", "woff2", "xlsx", "xz", "z", "zip", "zst", "zstd",
];

/// `lines`: stored header lines, each with its CRLF; `key`: encoded.
#[must_use]
pub fn is_packed(lines: &[u8], key: &[u8]) -> bool {
    if let Some(coding) = value(lines, b"content-encoding")
        && coding.split(|byte| *byte == b',').any(packs)
    {
        return true;
    }
    let content_type = value(lines, b"content-type").unwrap_or_default();
    let content_type = content_type.split(|byte| *byte == b';').next();
    let content_type = content_type.unwrap_or_default().trim_ascii();
    let family = |begin: &&str| {
        let front = content_type.get(..begin.len());
        front.is_some_and(|front| front.eq_ignore_ascii_case(begin.as_bytes()))
    };
    is_one_of(TYPES, content_type) || FAMILIES.iter().any(family) || ends_so(key)
}

/// Whether a content coding makes bytes smaller.
fn packs(coding: &[u8]) -> bool {
    let coding = coding.trim_ascii();
    !coding.is_empty() && !is_one_of(&["identity", "aws-chunked"], coding)
}

fn ends_so(key: &[u8]) -> bool {
    let Some(object) = ObjectKeyRef::from_encoded(key) else {
        return false;
    };
    let name = object.key();
    let name = &name[memchr::memrchr(b'/', name).map_or(0, |slash| slash + 1)..];
    let ending = memchr::memrchr(b'.', name).map(|dot| &name[dot + 1..]);
    ending.is_some_and(|ending| is_one_of(ENDINGS, ending))
}

fn is_one_of(words: &[&str], word: &[u8]) -> bool {
    let same = |known: &&str| known.as_bytes().eq_ignore_ascii_case(word);
    words.iter().any(same)
}

/// The value of the first line of this name.
fn value<'l>(lines: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let mut lines = lines.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let found = line[..colon].eq_ignore_ascii_case(name);
        found.then(|| line[colon + 1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for part in ["origin", "bucket", name] {
            out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out
    }

    #[test]
    fn names_types_and_codings_tell() {
        for (lines, name, packed) in [
            ("", "logs/a.gz", true),
            ("", "logs/A.GZ", true),
            ("", "logs.gz/a", false),
            ("", "a.csv", false),
            ("", "gz", false),
            ("", "a.parquet", true),
            ("Content-Type: text/csv\r\n", "a", false),
            ("Content-Type: image/JPEG\r\n", "a", true),
            ("content-type: video/mp4; codecs=x\r\n", "a", true),
            ("Content-Type: image/svg+xml\r\n", "a", false),
            ("ETag: \"x\"\r\nContent-Encoding: gzip\r\n", "a.csv", true),
            ("Content-Encoding: aws-chunked\r\n", "a.csv", false),
            ("Content-Encoding: aws-chunked, zstd\r\n", "a.csv", true),
            ("Content-Encoding: identity\r\n", "a", false),
            ("Content-Encoding:\r\n", "a", false),
            ("x-amz-meta-content-type: image/png\r\n", "a", false),
        ] {
            assert_eq!(
                is_packed(lines.as_bytes(), &key(name)),
                packed,
                "{lines:?} {name}"
            );
        }
    }

    #[test]
    fn what_is_no_identity_has_no_ending() {
        assert!(!is_packed(b"", b"a.gz"));
        assert!(!is_packed(b"\n:\r\n::", b""));
    }
}
