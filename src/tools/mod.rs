//! Row 7: `millrace cache`, what an operator asks of a cache directory: what is in it, of what, and whether it is whole.
//!
//! Called by `main`. Reads only, so it may run beside a server; what the server does meanwhile may or may not be seen. Blocks: it is a
//! process of its own.

mod picture;
mod verify;

use std::fmt::Write as _;
use std::path::Path;

use hashbrown::HashMap;

use crate::config::cli::Tool;
use crate::disk::keeper::DirectoryError;
use crate::s3::ObjectKeyRef;

use picture::{Object, Picture};

/// What came of it: text for standard output, and whether all is well.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// False: something was not found, or is damaged.
    pub good: bool,
}

/// Does what is asked.
///
/// # Errors
/// The directory cannot be read.
pub fn run(tool: &Tool) -> Result<Answer, DirectoryError> {
    match tool {
        Tool::List { dir, prefix } => list(dir, prefix),
        Tool::Show { dir, name } => show(dir, name),
        Tool::Usage { dir } => usage(dir),
        Tool::Verify { dir } => verify::run(dir),
    }
}

/// `bucket/key`, with what a terminal must not get escaped.
fn name_of(encoded: &[u8]) -> Option<String> {
    let object = ObjectKeyRef::from_encoded(encoded)?;
    let (bucket, key) = (object.bucket().escape_ascii(), object.key().escape_ascii());
    Some(format!("{bucket}/{key}"))
}

fn origin_of(encoded: &[u8]) -> String {
    let object = ObjectKeyRef::from_encoded(encoded);
    object.map_or_else(String::new, |object| {
        object.origin_id().escape_ascii().to_string()
    })
}

/// Objects with their names, sorted.
fn named(picture: &Picture) -> Vec<(String, Object)> {
    let objects = picture.objects();
    let mut named: Vec<_> = objects
        .filter_map(|object| Some((name_of(&object.key)?, object)))
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

fn list(dir: &Path, prefix: &str) -> Result<Answer, DirectoryError> {
    let picture = Picture::read(dir)?;
    let mut text = String::new();
    for (name, object) in named(&picture) {
        if name.starts_with(prefix) {
            let cached: u64 = object.extents.iter().map(|extent| extent.bytes()).sum();
            let _ = writeln!(text, "{:>15} {cached:>15}  {name}", object.total);
        }
    }
    Ok(Answer { text, good: true })
}

fn show(dir: &Path, wanted: &str) -> Result<Answer, DirectoryError> {
    let picture = Picture::read(dir)?;
    let mut text = String::new();
    for (name, object) in named(&picture) {
        if name != wanted {
            continue;
        }
        let _ = writeln!(text, "name       {name}");
        let _ = writeln!(text, "origin     {}", origin_of(&object.key));
        let _ = writeln!(text, "bytes      {}", object.total);
        let _ = writeln!(text, "etag       {}", object.etag.escape_ascii());
        let seconds = object.confirmed_unix_ms / 1000;
        let date = crate::http::http_date(seconds);
        let _ = writeln!(text, "confirmed  {}", String::from_utf8_lossy(&date));
        for extent in &object.extents {
            let (start, end) = extent.range();
            let file = extent.segment.path.display();
            let _ = writeln!(
                text,
                "bytes {start}-{} in {file} at {}",
                end - 1,
                extent.offset()
            );
        }
    }
    let good = !text.is_empty();
    Ok(Answer { text, good })
}

fn usage(dir: &Path) -> Result<Answer, DirectoryError> {
    let picture = Picture::read(dir)?;
    let mut buckets: HashMap<String, (u64, u64)> = HashMap::new();
    let (mut useful, mut text) = (0, String::new());
    for (name, object) in named(&picture) {
        let bucket = name.split('/').next().unwrap_or_default().to_owned();
        let bytes: u64 = object
            .extents
            .iter()
            .map(|extent| extent.record_bytes())
            .sum();
        useful += bytes + object.head_bytes;
        let sums = buckets.entry(bucket).or_default();
        *sums = (sums.0 + 1, sums.1 + bytes + object.head_bytes);
    }
    let mut buckets: Vec<_> = buckets.into_iter().collect();
    buckets.sort_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| a.0.cmp(&b.0)));
    let _ = writeln!(text, "{:>15} {:>10}  bucket", "bytes", "objects");
    for (bucket, (objects, bytes)) in buckets {
        let _ = writeln!(text, "{bytes:>15} {objects:>10}  {bucket}");
    }
    let taken = picture.segment_bytes;
    let garbage = taken.saturating_sub(useful);
    let _ = writeln!(
        text,
        "{taken:>15} bytes in {} segments, {garbage} of them of no use",
        picture.segments
    );
    Ok(Answer { text, good: true })
}
