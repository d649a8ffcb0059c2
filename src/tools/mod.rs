//! Row 7: `millrace cache`, what an operator asks of a cache directory: what is in it, of what, and whether it is whole; and that something
//! go out of it.
//!
//! Called by `main`. All but `purge` read only, so they may run beside a server; what the server does meanwhile may or may not be seen. Blocks: it is a
//! process of its own.

mod bars;
mod picture;
mod purge;
mod verify;

use std::fmt::Write as _;
use std::path::Path;

use hashbrown::HashMap;

use crate::config::cli::Tool;
use crate::disk::keeper::DirectoryError;
use crate::s3::{NameError, ObjectKeyRef};

use bars::Bars;
use picture::{Object, Picture};

/// What came of it: text for standard output, and whether all is well.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// False: something was not found, or is damaged.
    pub good: bool,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The directory cannot be read, or written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// What is to be purged is not understood.
    #[error("the name: {0}")]
    Name(#[from] NameError),
    /// Neither a directory nor a server to purge.
    #[error("give the cache directory, or the server's admin address with --admin")]
    Nowhere,
    /// A server is there, and nothing is known of what it holds.
    #[error(
        "{who} cannot be asked ({source}), and nothing was purged; --admin tells where it listens"
    )]
    Unreachable {
        /// Which.
        who: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The server's answer.
    #[error("{who} says {status}: {said}")]
    Refused {
        /// Which.
        who: String,
        /// Of HTTP.
        status: String,
        /// Its words.
        said: String,
    },
}

/// Does what is asked.
///
/// # Errors
/// The directory cannot be read, or the server does not do it.
pub fn run(tool: &Tool) -> Result<Answer, ToolError> {
    Ok(match tool {
        Tool::List { dir, prefix } => list(dir, prefix)?,
        Tool::Show { dir, name } => show(dir, name)?,
        Tool::Usage { dir } => usage(dir)?,
        Tool::Verify { dir } => verify::run(dir)?,
        Tool::Purge(order) => purge::run(order)?,
    })
}

/// `bucket/key`, as text where it is some; with what a terminal must not get, or what is no text, escaped.
fn name_of(encoded: &[u8]) -> Option<String> {
    let object = ObjectKeyRef::from_encoded(encoded)?;
    let (bucket, key) = (object.bucket(), object.key());
    let name = [bucket, b"/", key].concat();
    let text = std::str::from_utf8(&name).ok();
    let text = text.filter(|text| !text.contains(char::is_control));
    Some(text.map_or_else(|| name.escape_ascii().to_string(), str::to_owned))
}

fn origin_of(encoded: &[u8]) -> String {
    let object = ObjectKeyRef::from_encoded(encoded);
    object.map_or_else(String::new, |object| {
        object.origin_id().escape_ascii().to_string()
    })
}

/// Objects with their names, sorted.
fn named(picture: &Picture, bars: &Bars) -> Vec<(String, Object)> {
    let objects = picture.objects(bars);
    let mut named: Vec<_> = objects
        .filter_map(|object| Some((name_of(&object.key)?, object)))
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

fn list(dir: &Path, prefix: &str) -> Result<Answer, DirectoryError> {
    let bars = Bars::new();
    let picture = Picture::read(dir, &bars)?;
    let mut text = String::new();
    for (name, object) in named(&picture, &bars) {
        if name.starts_with(prefix) {
            let cached: u64 = object.extents.iter().map(|extent| extent.bytes()).sum();
            let _ = writeln!(text, "{:>15} {cached:>15}  {name}", object.total);
        }
    }
    Ok(Answer { text, good: true })
}

fn show(dir: &Path, wanted: &str) -> Result<Answer, DirectoryError> {
    let bars = Bars::new();
    let picture = Picture::read(dir, &bars)?;
    let mut text = String::new();
    for (name, object) in named(&picture, &bars) {
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
    let bars = Bars::new();
    let picture = Picture::read(dir, &bars)?;
    let mut buckets: HashMap<String, (u64, u64, u64)> = HashMap::new();
    let (mut useful, mut text) = (0, String::new());
    for (name, object) in named(&picture, &bars) {
        let bucket = name.split('/').next().unwrap_or_default().to_owned();
        let bytes: u64 = object
            .extents
            .iter()
            .map(|extent| extent.record_bytes())
            .sum();
        let extents = object.extents.iter();
        let saved: u64 = extents.map(|extent| extent.saved_bytes()).sum();
        useful += bytes + object.head_bytes;
        let (objects, on_disk, saved_before) = buckets.entry(bucket).or_default();
        *objects += 1;
        *on_disk += bytes + object.head_bytes;
        *saved_before += saved;
    }
    let mut buckets: Vec<_> = buckets.into_iter().collect();
    buckets.sort_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| a.0.cmp(&b.0)));
    let _ = writeln!(
        text,
        "{:>15} {:>15} {:>10}  bucket",
        "bytes", "saved", "objects"
    );
    for (bucket, (objects, bytes, saved)) in &buckets {
        let _ = writeln!(text, "{bytes:>15} {saved:>15} {objects:>10}  {bucket}");
    }
    let saved: u64 = buckets.iter().map(|(_, (_, _, saved))| saved).sum();
    let taken = picture.segment_bytes;
    let garbage = taken.saturating_sub(useful);
    let _ = writeln!(
        text,
        "{taken:>15} bytes in {} segments, {garbage} of them of no use, {saved} saved by compression",
        picture.segments
    );
    Ok(Answer { text, good: true })
}
