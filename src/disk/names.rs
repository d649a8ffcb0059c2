//! Names of the files of a cache directory, and what they say.
//!
//! Called by the keeper, the fold and the tools. A name that is not one of ours is nobody's business here: it is left alone.

use std::path::{Path, PathBuf};

/// The file that says what the directory is.
pub const FORMAT: &str = "FORMAT";
/// The file that says that somebody serves whose invalidations are in no journal here yet.
pub const UNRECORDED: &str = "unrecorded";
/// The folder of instances.
pub const INSTANCES: &str = "instances";
/// The folder of an instance's segments.
pub const SEGMENTS: &str = "seg";
/// The file that says that an instance lives.
pub const LEASE: &str = "lease";

/// The file that says how to reach an instance: its admin address, and what the run calls itself.
pub const ADMIN: &str = "admin";

/// An instance's folder: its number, which orders instances by their start, and something random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceName {
    /// Milliseconds since 1970 at its start, or one more than the largest before it.
    pub number: u64,
    /// So that no two that start at once have one folder.
    pub random: u32,
}

impl InstanceName {
    /// The folder's name.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:013}-{:08x}", self.number, self.random)
    }

    /// Reads a folder's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, random) = text.split_once('-')?;
        let name = Self {
            number: number.parse().ok()?,
            random: u32::from_str_radix(random, 16).ok()?,
        };
        (name.text() == text).then_some(name)
    }

    /// Its folder in a cache directory.
    #[must_use]
    pub fn folder(&self, dir: &Path) -> PathBuf {
        dir.join(INSTANCES).join(self.text())
    }
}

/// `<shard>.<number>` of a segment.
#[must_use]
pub fn segment(shard: u16, number: u32) -> String {
    format!("{shard}.{number}")
}

/// `journal.<shard>.<number>`.
#[must_use]
pub fn journal(shard: u16, number: u32) -> String {
    format!("journal.{shard}.{number}")
}

/// `snapshot.<number>`.
#[must_use]
pub fn snapshot(number: u32) -> String {
    format!("snapshot.{number}")
}

/// The name of a snapshot that is being written.
#[must_use]
pub fn unfinished_snapshot(number: u32) -> String {
    format!("snapshot.{number}.tmp")
}

/// Number of a snapshot's file name.
#[must_use]
pub fn parse_snapshot(text: &str) -> Option<u32> {
    let number = text.strip_prefix("snapshot.")?.parse().ok()?;
    (snapshot(number) == text).then_some(number)
}

/// Number of the file name of a snapshot that was never finished.
#[must_use]
pub fn parse_unfinished_snapshot(text: &str) -> Option<u32> {
    let number = parse_snapshot(text.strip_suffix(".tmp")?)?;
    Some(number)
}

fn pair(text: &str) -> Option<(u16, u32)> {
    let (shard, number) = text.split_once('.')?;
    Some((shard.parse().ok()?, number.parse().ok()?))
}

/// Shard and number of a segment's file name.
#[must_use]
pub fn parse_segment(text: &str) -> Option<(u16, u32)> {
    pair(text).filter(|&(shard, number)| segment(shard, number) == text)
}

/// Shard and number of a journal's file name.
#[must_use]
pub fn parse_journal(text: &str) -> Option<(u16, u32)> {
    pair(text.strip_prefix("journal.")?).filter(|&(shard, number)| journal(shard, number) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_left_alone() {
        let name = InstanceName {
            number: 1_700_000_000_000,
            random: 0xBEEF,
        };
        assert_eq!(InstanceName::parse(&name.text()), Some(name));
        assert_eq!(parse_segment(&segment(3, 70)), Some((3, 70)));
        assert_eq!(parse_journal(&journal(3, 70)), Some((3, 70)));
        assert_eq!(parse_snapshot(&snapshot(9)), Some(9));
        assert_eq!(parse_snapshot(&unfinished_snapshot(9)), None);
        assert_eq!(parse_unfinished_snapshot(&unfinished_snapshot(9)), Some(9));
        for other in [
            "",
            ".",
            "3.",
            "+3.1",
            "03.1",
            "3.1.tmp",
            ".nfs0001",
            "lost+found",
            "../3.1",
        ] {
            assert_eq!(
                (parse_segment(other), InstanceName::parse(other)),
                (None, None),
                "{other}"
            );
        }
    }

    #[test]
    fn younger_instances_sort_behind_older_ones() {
        let name = |number| InstanceName { number, random: 9 };
        assert!(name(1_699_999_999_999).text() < name(1_700_000_000_000).text());
    }
}
