//! The files that a configuration names: the configuration itself is read, the others are tried.
//!
//! `cli.rs` calls this before anything is bound; all of `config`'s I/O is here. Nothing is created or changed.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::error::{ConfigError, Fault, Place};
use super::file::FILE_BYTES_MAX;
use super::load::Loaded;
use super::value::{AccessLog, Value};

/// Settings that name files are tried before anything is bound, so that a mistyped path is a configuration error.
pub(super) fn check(loaded: Loaded) -> Result<Loaded, Vec<ConfigError>> {
    let mut errors = Vec::new();
    for effective in &loaded.values {
        let tried = match &effective.value {
            Value::Path(Some(path)) => std::fs::File::open(path).map(drop),
            Value::AccessLog(AccessLog::File(path)) => writable_place(path),
            _ => Ok(()),
        };
        if let Err(io) = tried {
            errors.push(ConfigError {
                place: effective.place.clone(),
                fault: Fault::File {
                    key: effective.setting.key,
                    reason: io.to_string(),
                },
            });
        }
    }
    match errors.is_empty() {
        true => Ok(loaded),
        false => Err(errors),
    }
}

/// Whether a file may stand there: its directory exists and the name is not a directory's. Nothing is created, for
/// `check-config` comes through here too.
fn writable_place(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let directory = path.parent().unwrap_or(path);
    match std::fs::metadata(directory)?.is_dir() {
        true => Ok(()),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

/// Reads a configuration file whole.
pub fn read(path: &Path) -> Result<String, Box<ConfigError>> {
    let path: Arc<Path> = Arc::from(path);
    let error = |line, column, fault| {
        let path = Arc::clone(&path);
        let place = Place::File { path, line, column };
        Box::new(ConfigError { place, fault })
    };
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|io| {
            let reason = io.to_string();
            error(0, 0, Fault::Unreadable { reason })
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let max_bytes = FILE_BYTES_MAX;
        return Err(error(0, 0, Fault::TooLarge { max_bytes }));
    }
    String::from_utf8(bytes).map_err(|invalid| {
        let good = &invalid.as_bytes()[..invalid.utf8_error().valid_up_to()];
        let good = String::from_utf8_lossy(good);
        let column = good
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
        error(good.matches('\n').count() + 1, column, Fault::NotUtf8)
    })
}
