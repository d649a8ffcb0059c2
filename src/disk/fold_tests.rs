//! Journals and snapshots of random facts, beside a plain model that takes the facts in their order: the same picture, whatever was compacted when, and after damage never
//! anything that is not true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::compact::{CompactError, Compacted, Compactor};
use super::fold::{Fold, Listener, Prefix, Tally};
use super::format::fact::{Fact, Place};
use super::format::segment::FileHeader;
use super::keeper::{self, Registry};
use super::names::{self, InstanceName};
use super::sources::Sources;
use super::{Folded, Segment};

const INSTANCES: u64 = 3;
const SHARDS: u16 = 2;
const SEGMENTS: u32 = 3;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let unique = crate::base::clock::now_ns();
        let name = format!("millrace-fold-{name}-{}-{unique}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn name(instance: u64) -> InstanceName {
    InstanceName {
        number: instance,
        random: 7,
    }
}

/// One fact of the test: a few objects, versions and segments, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Extent(u8, u8, u8, u32),
    Head(u8, u8, u16, u32),
    Confirmed(u8, u8, u16),
    Invalidated(u8),
    Prefix(u8, u16),
    /// The shard's next journal.
    Roll(u16),
    /// The next run.
    Restart,
    /// A snapshot, if something is there for it.
    Compact,
    /// A segment goes.
    Unlink(u64, u16, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let (object, version, time) = (0..6u8, 0..2u8, 1..500u16);
    prop_oneof![
        6 => (object.clone(), version.clone(), 0..3u8, 0..SEGMENTS)
            .prop_map(|(o, v, s, segment)| Step::Extent(o, v, s, segment)),
        6 => (object.clone(), version.clone(), time.clone(), 0..SEGMENTS)
            .prop_map(|(o, v, t, segment)| Step::Head(o, v, t, segment)),
        4 => (object.clone(), version, time.clone()).prop_map(|(o, v, t)| Step::Confirmed(o, v, t)),
        2 => object.clone().prop_map(Step::Invalidated),
        1 => (object, time).prop_map(|(o, t)| Step::Prefix(o, t)),
        2 => (0..SHARDS).prop_map(Step::Roll),
        1 => Just(Step::Restart),
        2 => Just(Step::Compact),
        1 => (1..=INSTANCES, 0..SHARDS, 0..SEGMENTS)
            .prop_map(|(i, s, n)| Step::Unlink(i, s, n)),
    ]
}

/// Objects of a shard, as the owner of heads does it.
fn shard_of(object: u8) -> u16 {
    u16::from(object) % SHARDS
}

/// Digests that share their lower half in pairs, as no two will.
fn digest(object: u8) -> u128 {
    u128::from(crate::base::prng::mix64(u64::from(object))) << 64
        | u128::from(crate::base::prng::mix64(1000 + u64::from(object)))
}

fn key(object: u8) -> Vec<u8> {
    format!("key-{}/{object}", object % 3).into_bytes()
}

fn prefix_of(object: u8) -> Vec<u8> {
    format!("key-{}/", object % 3).into_bytes()
}

type Where = (u64, u16, u32, u32);
type HeadOf = (u8, u64, Where);
/// Heads that stand, and extents.
type Meaning = (BTreeMap<u128, HeadOf>, BTreeSet<(u128, u8, u32, Where)>);

/// What is told in the end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Told {
    heads: BTreeMap<u128, HeadOf>,
    extents: BTreeSet<(u128, u8, u32, Where)>,
    prefixes: Vec<Prefix>,
}

impl Told {
    /// Heads that no prefix beats.
    fn standing(&self) -> BTreeMap<u128, HeadOf> {
        let mut heads = self.heads.clone();
        heads.retain(|&object, (_, confirmed, at)| {
            let number = (0..6).find(|&number| digest(number) == object).unwrap();
            let mut prefixes = self.prefixes.iter();
            !prefixes.any(|prefix| prefix.beats(at.0, *confirmed, &key(number)))
        });
        heads
    }
}

impl Listener for &mut Told {
    fn fact(&mut self, fact: Folded, segment: &Arc<Segment>) {
        let at = |place: &Place| {
            assert_eq!(
                (place.shard, place.segment),
                (segment.shard, segment.number)
            );
            (segment.instance, segment.shard, segment.number, place.block)
        };
        match fact {
            Folded::Extent {
                id, place, window, ..
            } => {
                assert_eq!(window, 0..1000);
                self.extents
                    .insert((id.object, id.version as u8, id.index, at(&place)));
            }
            Folded::Head {
                object,
                version,
                confirmed_unix_ms,
                place,
                ..
            } => {
                let head = (version as u8, confirmed_unix_ms, at(&place));
                self.heads.entry(object).or_insert(head);
            }
        }
    }

    fn prefix(&mut self, prefix: &Prefix) {
        prefix.clone().note(&mut self.prefixes);
    }

    fn progress(&mut self, _: &Tally) {}
}

/// A directory that is written as a server would, and what it means.
struct World<'d> {
    dir: &'d Path,
    instance: u64,
    journals: [u32; SHARDS as usize],
    written: [Vec<u8>; SHARDS as usize],
    block: u32,
    model: Told,
    unlinked: BTreeSet<(u64, u16, u32)>,
    compactor: Compactor,
}

impl<'d> World<'d> {
    fn new(dir: &'d Path) -> Self {
        fs::create_dir_all(dir.join(names::INSTANCES)).unwrap();
        let mut world = Self {
            dir,
            instance: 0,
            journals: [0; SHARDS as usize],
            written: Default::default(),
            block: 0,
            model: Told::default(),
            unlinked: BTreeSet::new(),
            compactor: Compactor::new(dir, &name(1)).eager(),
        };
        world.restart();
        world
    }

    fn restart(&mut self) {
        self.instance += 1;
        let folder = name(self.instance).folder(self.dir);
        fs::create_dir_all(folder.join(names::SEGMENTS)).unwrap();
        for shard in 0..SHARDS {
            for number in 0..SEGMENTS {
                let segment = names::segment(shard, number);
                fs::write(folder.join(names::SEGMENTS).join(segment), b"").unwrap();
            }
        }
        self.compactor = Compactor::new(self.dir, &name(self.instance)).eager();
        self.journals = [0; SHARDS as usize];
        (0..SHARDS).for_each(|shard| self.begin(shard));
    }

    fn begin(&mut self, shard: u16) {
        let header = FileHeader {
            instance: self.instance,
            shard,
            number: self.journals[usize::from(shard)],
            created_unix_ms: 0,
        };
        self.written[usize::from(shard)] = header.journal().to_vec();
        self.write(shard);
    }

    fn write(&self, shard: u16) {
        let number = self.journals[usize::from(shard)];
        let path = name(self.instance).folder(self.dir);
        let path = path.join(names::journal(shard, number));
        // As a server does it: room is taken ahead.
        let mut bytes = self.written[usize::from(shard)].clone();
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        fs::write(path, bytes).unwrap();
    }

    fn append(&mut self, shard: u16, fact: &Fact<'_>) {
        fact.encode(&mut self.written[usize::from(shard)]);
        self.write(shard);
    }

    fn place(&mut self, shard: u16, segment: u32) -> (Place, Where) {
        self.block += 1;
        let place = Place {
            shard,
            segment,
            block: self.block,
            record_blocks: 2,
            header_blocks: 1,
        };
        (place, (self.instance, shard, segment, self.block))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Extent(object, version, stripe, segment) => {
                // Any shard owns a stripe.
                let shard = u16::from(stripe) % SHARDS;
                let (place, at) = self.place(shard, segment);
                let (object, stripe) = (digest(object), u32::from(stripe));
                let fact = Fact::Extent {
                    object,
                    version: u128::from(version),
                    stripe,
                    window: 0..1000,
                    place,
                };
                self.append(shard, &fact);
                self.model.extents.insert((object, version, stripe, at));
            }
            Step::Head(object, version, time, segment) => {
                let (shard, time_ms) = (shard_of(object), u64::from(time));
                let mut prefixes = self.model.prefixes.iter();
                // A server stores no head that it knows to be invalid.
                if prefixes.any(|prefix| prefix.beats(self.instance, time_ms, &key(object))) {
                    return;
                }
                let (place, at) = self.place(shard, segment);
                let fact = Fact::Head {
                    object: digest(object),
                    version: u128::from(version),
                    confirmed_unix_ms: u64::from(time),
                    place,
                };
                self.append(shard, &fact);
                let head = (version, u64::from(time), at);
                self.model.heads.insert(digest(object), head);
            }
            Step::Confirmed(object, version, time) => {
                let fact = Fact::Confirmed {
                    object: digest(object),
                    version: u128::from(version),
                    confirmed_unix_ms: u64::from(time),
                };
                self.append(shard_of(object), &fact);
                let object = digest(object);
                match self.model.heads.get_mut(&object) {
                    Some(head) if head.0 == version => head.1 = head.1.max(u64::from(time)),
                    _ => drop(self.model.heads.remove(&object)),
                }
            }
            Step::Invalidated(object) => {
                let digest = digest(object);
                self.append(shard_of(object), &Fact::Invalidated { object: digest });
                self.model.heads.remove(&digest);
            }
            Step::Prefix(object, time) => self.invalidate(prefix_of(object), u64::from(time)),
            Step::Roll(shard) => {
                self.journals[usize::from(shard)] += 1;
                self.begin(shard);
            }
            Step::Restart if self.instance < INSTANCES => self.restart(),
            Step::Restart => {}
            Step::Compact => {
                let before = self.folded();
                self.compact().unwrap();
                assert_eq!(self.folded(), before, "a snapshot changes nothing");
            }
            Step::Unlink(instance, shard, number) => self.unlink((instance, shard, number)),
        }
    }

    fn invalidate(&mut self, prefix: Vec<u8>, unix_ms: u64) {
        for shard in 0..SHARDS {
            let prefix = &prefix;
            self.append(shard, &Fact::InvalidatedPrefix { prefix, unix_ms });
        }
        let noted = Prefix {
            prefix: prefix.into(),
            instance: self.instance,
            unix_ms,
        };
        noted.note(&mut self.model.prefixes);
    }

    fn unlink(&mut self, segment: (u64, u16, u32)) {
        if segment.0 <= self.instance && self.unlinked.insert(segment) {
            let folder = name(segment.0).folder(self.dir).join(names::SEGMENTS);
            fs::remove_file(folder.join(names::segment(segment.1, segment.2))).unwrap();
        }
    }

    fn compact(&mut self) -> Result<Option<Compacted>, CompactError> {
        self.compactor.turn(|_| true)
    }

    fn registry(&self) -> Registry {
        let instances = keeper::instances(self.dir).unwrap();
        let found = keeper::segments(self.dir, &instances).unwrap();
        let found = found.into_iter();
        found
            .map(|found| (found.segment.name(), found.segment))
            .collect()
    }

    fn tell(&self) -> (Told, Tally) {
        let (registry, mut told) = (self.registry(), Told::default());
        let mut fold = Fold::new(&registry, &mut told);
        fold.directory(self.dir, u64::MAX).unwrap();
        let tally = fold.tally();
        drop(fold);
        (told, tally)
    }

    fn folded(&self) -> Meaning {
        let told = self.tell().0;
        (told.standing(), told.extents)
    }

    /// What the model says, without what lay in segments that are gone.
    fn expected(&self) -> Meaning {
        let there = |at: &Where| !self.unlinked.contains(&(at.0, at.1, at.2));
        let (mut heads, mut extents) = (self.model.standing(), self.model.extents.clone());
        heads.retain(|_, head| there(&head.2));
        extents.retain(|extent| there(&extent.3));
        (heads, extents)
    }

    fn paths(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for instance in 1..=self.instance {
            for entry in fs::read_dir(name(instance).folder(self.dir)).unwrap() {
                let path = entry.unwrap().path();
                let file = path.file_name().unwrap().to_string_lossy().into_owned();
                found.extend(file.starts_with(part).then_some(path));
            }
        }
        found.sort();
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn journals_with_and_without_snapshots_mean_the_same(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let folder = Folder::new("property");
        let mut world = World::new(&folder.0);
        for step in &steps {
            world.step(step);
        }
        prop_assert_eq!(world.folded(), world.expected());
        world.compact().unwrap();
        prop_assert_eq!(world.folded(), world.expected());
        // The next run finds it, and so does the one after its snapshot.
        world.restart();
        world.compact().unwrap();
        prop_assert_eq!(world.folded(), world.expected());
        prop_assert!(world.paths("snapshot.").len() <= 1);
    }
}

fn small(dir: &Path) -> World<'_> {
    let mut world = World::new(dir);
    for object in 0..6 {
        for stripe in 0..3 {
            world.step(&Step::Extent(object, 1, stripe, u32::from(stripe)));
        }
        world.step(&Step::Head(object, 1, 100 + u16::from(object), 1));
    }
    world.step(&Step::Confirmed(2, 1, 400));
    world.step(&Step::Invalidated(3));
    world.step(&Step::Prefix(1, 101));
    world.restart();
    world
}

#[test]
fn a_snapshot_takes_the_place_of_journals_and_of_older_snapshots() {
    let folder = Folder::new("place");
    let mut world = small(&folder.0);
    let expected = world.expected();
    assert_eq!(world.paths("journal.").len(), 4);
    let done = world.compact().unwrap().expect("there is something to do");
    assert_eq!((done.journals, done.heads, done.extents), (2, 5, 18));
    assert_eq!(
        world.paths("journal.").len(),
        2,
        "the ones being written stay"
    );
    assert_eq!(world.paths("snapshot.").len(), 1);
    let (told, tally) = world.tell();
    assert_eq!((told.standing(), told.extents), expected);
    assert_eq!((tally.snapshots, tally.torn, tally.facts), (1, 0, 23));
    assert_eq!(tally.bytes, tally.of_bytes);
    // The journals of a run that goes on.
    world.step(&Step::Invalidated(0));
    world.step(&Step::Roll(0));
    world.step(&Step::Head(0, 0, 300, 0));
    let done = world.compact().unwrap().expect("one journal is closed");
    assert_eq!((done.journals, done.heads), (1, 4));
    assert_eq!(world.paths("snapshot.").len(), 1, "the older one is gone");
    assert_eq!(world.folded(), world.expected());
    assert_eq!(world.compact().unwrap(), None, "nothing is left to do");
}

#[test]
fn what_a_crash_leaves_between_a_snapshot_and_its_journals_says_the_same() {
    let folder = Folder::new("crash");
    let mut world = small(&folder.0);
    let expected = world.expected();
    let journals: Vec<(PathBuf, Vec<u8>)> = world
        .paths("journal.0000000000001")
        .into_iter()
        .chain(world.paths("journal."))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    world.compact().unwrap();
    let snapshot = world.paths("snapshot.").pop().unwrap();
    // Nothing was removed, and a snapshot was not finished.
    for (path, bytes) in &journals {
        fs::write(path, bytes).unwrap();
    }
    let unfinished = name(1)
        .folder(&folder.0)
        .join(names::unfinished_snapshot(0));
    fs::write(&unfinished, b"half").unwrap();
    assert_eq!(world.folded(), expected);
    // Without the snapshot the journals say it.
    let bytes = fs::read(&snapshot).unwrap();
    fs::remove_file(&snapshot).unwrap();
    assert_eq!(world.folded(), expected);
    fs::write(&snapshot, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(world.folded(), expected, "one that is cut is none");
    fs::write(&snapshot, &bytes).unwrap();
    world.compactor.clean().unwrap();
    assert!(!unfinished.exists());
    assert_eq!(world.compact().unwrap(), None, "nothing new");
    assert_eq!(
        world.paths("journal.").len(),
        2,
        "what is covered goes all the same"
    );
    assert_eq!(world.folded(), expected);
}

/// Whatever is told is true: a head is the one that the journals name, an extent is one that was stored.
fn assert_true(world: &World<'_>, what: &str) {
    let (told, (heads, extents)) = (world.tell().0, world.expected());
    for (object, head) in told.standing() {
        assert_eq!(heads.get(&object), Some(&head), "{what}");
    }
    assert!(told.extents.is_subset(&extents), "{what}");
}

#[test]
fn a_snapshot_cut_anywhere_is_none() {
    let folder = Folder::new("cut");
    let mut world = small(&folder.0);
    world.compact().unwrap();
    let path = world.paths("snapshot.").pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let lengths = (0..200).step_by(3).chain((200..bytes.len()).step_by(1999));
    for length in lengths {
        fs::write(&path, &bytes[..length]).unwrap();
        assert_eq!(world.tell().0, Told::default(), "{length}");
        let mut zeroed = bytes.clone();
        zeroed[length..].fill(0);
        fs::write(&path, &zeroed).unwrap();
        assert_true(&world, "zeros to its end");
    }
}

#[test]
fn a_flipped_bit_in_a_snapshot_never_tells_what_is_not_true() {
    let folder = Folder::new("flip");
    let mut world = small(&folder.0);
    let whole = world.expected();
    world.compact().unwrap();
    let path = world.paths("snapshot.").pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let bits = (0..160 * 8).chain((160 * 8..bytes.len() * 8).step_by(8191));
    for bit in bits {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        assert_true(&world, "flipped");
        assert_ne!(world.folded(), whole, "bit {bit} is under no checksum");
    }
}

#[test]
fn blocks_of_another_snapshot_are_not_believed() {
    let folder = Folder::new("swap");
    let mut world = small(&folder.0);
    world.compact().unwrap();
    let path = world.paths("snapshot.").pop().unwrap();
    let older = fs::read(&path).unwrap();
    world.step(&Step::Invalidated(0));
    world.step(&Step::Roll(0));
    world.compact().unwrap();
    let path = world.paths("snapshot.").pop().unwrap();
    let newer = fs::read(&path).unwrap();
    for start in (4096..newer.len().min(older.len())).step_by(65_536) {
        let mut mixed = newer.clone();
        mixed[start..start + 65_536].copy_from_slice(&older[start..start + 65_536]);
        fs::write(&path, &mixed).unwrap();
        assert_true(&world, "a block of an older snapshot");
    }
}

#[test]
fn a_living_instance_ends_what_a_snapshot_stands_for() {
    let folder = Folder::new("living");
    let mut world = small(&folder.0);
    let lease = fs::File::create(name(1).folder(&folder.0).join(names::LEASE)).unwrap();
    lease.try_lock().unwrap();
    assert_eq!(world.compact().unwrap(), None);
    drop(lease);
    assert!(world.compact().unwrap().is_some());
}

#[test]
fn without_room_nothing_is_written() {
    let folder = Folder::new("room");
    let mut world = small(&folder.0);
    let result = world.compactor.turn(|_| false);
    assert!(matches!(result, Err(CompactError::NoRoom(_))));
    assert!(world.paths("snapshot").is_empty());
    assert_eq!(world.folded(), world.expected());
}

#[test]
fn what_is_furthest_is_taken_of_two_snapshots() {
    let folder = Folder::new("two");
    let mut world = small(&folder.0);
    world.compact().unwrap();
    let first = world.paths("snapshot.").pop().unwrap();
    let old = fs::read(&first).unwrap();
    world.step(&Step::Invalidated(0));
    world.step(&Step::Roll(0));
    world.compact().unwrap();
    fs::write(&first, old).unwrap();
    let sources = Sources::look(&folder.0).unwrap();
    assert_eq!((sources.snapshots.len(), sources.useless.len()), (2, 1));
    assert_eq!(world.folded(), world.expected());
}
