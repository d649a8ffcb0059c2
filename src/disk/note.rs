//! Facts written while no server runs: an instance of their own, with a journal and nothing else.
//!
//! Called by the tools. Such an instance is younger than all that were there, so its facts are about what these have left. It holds its lease until it is
//! dropped, as a server does.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::base::clock;
use crate::base::prng::mix64;

use super::format::fact::Fact;
use super::format::segment::FileHeader;
use super::keeper::{DirectoryError, at, hold, instances};
use super::names::{self, InstanceName};

/// An instance that says something.
pub struct Note {
    /// Locked.
    _lease: fs::File,
}

impl Note {
    /// Writes the facts; they are on disk when this returns.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn write(dir: &Path, facts: &[Fact<'_>]) -> Result<Self, DirectoryError> {
        let youngest = instances(dir)?.last().map_or(0, |name| name.number);
        let own = InstanceName {
            number: clock::unix_ms().max(youngest + 1),
            random: mix64(clock::now_ns() ^ u64::from(std::process::id()) << 32) as u32,
        };
        let folder = own.folder(dir);
        fs::create_dir(&folder).map_err(at(&folder))?;
        let lease_path = folder.join(names::LEASE);
        let mut lease = fs::File::create(&lease_path).map_err(at(&lease_path))?;
        let _or_by_time = hold(&lease);
        let text = format!("{:013}\n", clock::unix_ms());
        lease.write_all(text.as_bytes()).map_err(at(&lease_path))?;
        let header = FileHeader {
            instance: own.number,
            shard: 0,
            number: 0,
            created_unix_ms: clock::unix_ms(),
        };
        let mut bytes = header.journal().to_vec();
        facts.iter().for_each(|fact| fact.encode(&mut bytes));
        let path = folder.join(names::journal(0, 0));
        let mut file = fs::File::create_new(&path).map_err(at(&path))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(at(&path))?;
        let instances = dir.join(names::INSTANCES);
        for folder in [&folder, &instances] {
            let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(at(folder))?;
        }
        Ok(Self { _lease: lease })
    }
}
