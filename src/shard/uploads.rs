//! Multipart uploads under way, as far as their parts are kept here: by upload id, until the origin makes the object of them.
//!
//! Called by `request` at both ends of a part and at the end of an upload, through messages to the owner of the object's head, who alone has the
//! table. Where a part will lie in the object is known only when the upload is completed. Clients cut objects into parts of one
//! length, the last one shorter, so a part's place is guessed from its number; where the guess was wrong its bytes are let go, and
//! read from the origin.

use std::collections::BTreeMap;
use std::rc::Rc;

use hashbrown::HashMap;

use crate::base::clock;

use super::message::{Answer, Message};
use super::staging::{Staged, WriteNews};
use super::{Shard, routing};

/// Uploads that are known at a time.
const UPLOADS_MAX: usize = 4096;
/// Parts of all of them.
const PARTS_MAX: usize = 1 << 18;
/// Which upload: the object's digest and a digest of the origin's id for it.
pub type UploadName = (u128, u128);

/// One part that the origin has taken.
#[derive(Debug)]
pub struct Part {
    /// Its ETag, without quotes.
    pub etag: Box<[u8]>,
    /// Its length.
    pub bytes: u64,
    /// Its bytes, if they are kept.
    pub staged: Option<Staged>,
}

#[derive(Debug, Default)]
struct Upload {
    parts: BTreeMap<u32, Part>,
    /// The length of all parts but the last, as far as it is known.
    part_bytes: u64,
    touched_ms: u64,
}

/// The uploads whose objects' heads a shard owns.
#[derive(Debug)]
pub(super) struct Uploads {
    uploads: HashMap<UploadName, Upload>,
    parts: usize,
    /// After so long without a part an upload is forgotten.
    idle_ms: u64,
}

impl Uploads {
    /// None yet; each is forgotten after so long without a part.
    #[must_use]
    pub(super) fn new(idle_ms: u64) -> Self {
        Self {
            uploads: HashMap::new(),
            parts: 0,
            idle_ms,
        }
    }

    fn remove(&mut self, name: UploadName) -> Option<Upload> {
        let upload = self.uploads.remove(&name)?;
        self.parts -= upload.parts.len();
        Some(upload)
    }

    /// The one that goes first: who has rested longest; when room is needed, before those one of which the origin has taken no part yet, since
    /// anybody can begin one without being allowed to.
    fn first_to_go(&self, full: bool) -> Option<(UploadName, u64)> {
        let idle = self.uploads.iter();
        let idle = idle.map(|(name, upload)| {
            let is_spared = full && !upload.parts.is_empty();
            (*name, (is_spared, upload.touched_ms))
        });
        let (name, (_, touched_ms)) = idle.min_by_key(|(_, order)| *order)?;
        Some((name, touched_ms))
    }

    /// That one, if it is to go.
    fn expired(&mut self, now_ms: u64, full: bool) -> Option<Upload> {
        let (name, touched_ms) = self.first_to_go(full)?;
        let gone = full || now_ms.saturating_sub(touched_ms) > self.idle_ms;
        gone.then(|| self.remove(name)).flatten()
    }
}

/// A question to the owner of an upload.
#[derive(Debug)]
pub enum UploadAsk {
    /// A part of this number and length begins.
    Place(UploadName, u32, u64),
    /// The origin has taken the part of this number.
    Put(UploadName, u32, Part),
    /// Whether anything is known of it.
    Knows(UploadName),
    /// It has ended.
    Take(UploadName),
}

impl UploadAsk {
    fn name(&self) -> UploadName {
        match self {
            Self::Place(name, ..) | Self::Put(name, ..) | Self::Knows(name) | Self::Take(name) => {
                *name
            }
        }
    }
}

/// The owner's answer.
#[derive(Debug)]
pub enum UploadAnswer {
    /// Where the part will probably lie.
    Place(u64),
    /// Whether anything is known.
    Known(bool),
    /// All parts.
    Parts(BTreeMap<u32, Part>),
}

/// Bytes whose uploads were forgotten, to be given back.
pub type Forgotten = Vec<Staged>;

impl Shard {
    /// Where a part that begins will probably lie in its object.
    pub async fn place_of_part(self: &Rc<Self>, name: UploadName, number: u32, bytes: u64) -> u64 {
        match self
            .ask_of_upload(UploadAsk::Place(name, number, bytes))
            .await
        {
            UploadAnswer::Place(start) => start,
            UploadAnswer::Known(_) | UploadAnswer::Parts(_) => panic!("a part is given a place"),
        }
    }

    /// The origin has taken a part.
    pub async fn put_part(self: &Rc<Self>, name: UploadName, number: u32, part: Part) {
        self.ask_of_upload(UploadAsk::Put(name, number, part)).await;
    }

    /// Whether anything is known of an upload.
    pub async fn knows_upload(self: &Rc<Self>, name: UploadName) -> bool {
        let answer = self.ask_of_upload(UploadAsk::Knows(name)).await;
        matches!(answer, UploadAnswer::Known(true))
    }

    /// An upload has ended: its parts.
    pub async fn take_upload(self: &Rc<Self>, name: UploadName) -> BTreeMap<u32, Part> {
        match self.ask_of_upload(UploadAsk::Take(name)).await {
            UploadAnswer::Parts(parts) => parts,
            UploadAnswer::Place(_) | UploadAnswer::Known(_) => panic!("an upload has parts"),
        }
    }

    async fn ask_of_upload(self: &Rc<Self>, ask: UploadAsk) -> UploadAnswer {
        let owner = routing::head_owner(ask.name().0, self.world.shards.len());
        if owner == self.id {
            return self.hear_of_upload(ask);
        }
        let (ticket, answer) = self.asks.open();
        self.post(
            owner,
            Message::Write(WriteNews::Upload(Box::new(ask), ticket)),
        );
        match answer.await {
            Answer::Upload(answer) => answer,
            Answer::Fetched(_) | Answer::Published(_) | Answer::Leased(_) | Answer::Done => {
                panic!("a question about an upload is answered")
            }
        }
    }

    pub(super) fn hear_of_upload(self: &Rc<Self>, ask: UploadAsk) -> UploadAnswer {
        let now_ms = clock::now_ms();
        let mut uploads = self.uploads.borrow_mut();
        let (answer, forgotten) = match ask {
            UploadAsk::Place(name, number, bytes) => {
                let (start, forgotten) = uploads.place(name, number, bytes, now_ms);
                (UploadAnswer::Place(start), forgotten)
            }
            UploadAsk::Put(name, number, part) => {
                let forgotten = uploads.put(name, number, part, now_ms);
                (UploadAnswer::Known(true), forgotten)
            }
            UploadAsk::Knows(name) => {
                let known = uploads.uploads.contains_key(&name);
                (UploadAnswer::Known(known), Forgotten::new())
            }
            UploadAsk::Take(name) => (UploadAnswer::Parts(uploads.take(name)), Forgotten::new()),
        };
        drop(uploads);
        self.discard_all(forgotten);
        answer
    }

    /// Gives back what is kept of uploads that nobody has gone on with for long.
    pub(super) fn forget_idle_uploads(self: &Rc<Self>) {
        let forgotten = self.uploads.borrow_mut().expire(clock::now_ms());
        self.discard_all(forgotten);
    }

    fn discard_all(self: &Rc<Self>, staged: Forgotten) {
        for staged in staged {
            self.discard(staged);
        }
    }
}

fn staged_of(upload: Upload) -> impl Iterator<Item = Staged> {
    upload.parts.into_values().filter_map(|part| part.staged)
}

impl Uploads {
    /// A part of this length begins: where it will probably lie in the object.
    #[must_use]
    fn place(
        &mut self,
        name: UploadName,
        number: u32,
        bytes: u64,
        now_ms: u64,
    ) -> (u64, Forgotten) {
        let mut forgotten = Forgotten::new();
        let full = self.uploads.len() >= UPLOADS_MAX && !self.uploads.contains_key(&name);
        if let Some(upload) = self.expired(now_ms, full) {
            forgotten.extend(staged_of(upload));
        }
        let upload = self.uploads.entry(name).or_default();
        upload.touched_ms = now_ms;
        upload.part_bytes = upload.part_bytes.max(bytes);
        let start = u64::from(number - 1).saturating_mul(upload.part_bytes);
        (start, forgotten)
    }

    /// The origin has taken a part. Gives back the bytes of one of the same number, or its own if there are too many parts.
    fn put(&mut self, name: UploadName, number: u32, part: Part, now_ms: u64) -> Forgotten {
        let full = self.parts >= PARTS_MAX;
        let Some(upload) = self.uploads.get_mut(&name).filter(|_| !full) else {
            return part.staged.into_iter().collect();
        };
        upload.touched_ms = now_ms;
        let replaced = upload.parts.insert(number, part);
        self.parts += usize::from(replaced.is_none());
        replaced.and_then(|part| part.staged).into_iter().collect()
    }

    /// An upload has ended: its parts.
    fn take(&mut self, name: UploadName) -> BTreeMap<u32, Part> {
        let upload = self.remove(name);
        upload.map(|upload| upload.parts).unwrap_or_default()
    }

    /// Forgets the uploads that have been idle for too long.
    fn expire(&mut self, now_ms: u64) -> Forgotten {
        let expired = std::iter::from_fn(|| self.expired(now_ms, false));
        expired.flat_map(staged_of).collect()
    }
}

/// What an object is made of: its length, the parts whose bytes lie where they were put, and those that are to be given back. `None` instead
/// of the length if a listed part is not known, or is another one.
#[must_use]
pub fn assemble(
    mut parts: BTreeMap<u32, Part>,
    list: &[(u32, Box<[u8]>)],
) -> (Option<u64>, Vec<Staged>, Forgotten) {
    let (mut at, mut fitting, mut others) = (Some(0_u64), Vec::new(), Forgotten::new());
    for (number, etag) in list {
        let part = parts.remove(number);
        let start = at;
        let known = part.as_ref().filter(|part| part.etag == *etag);
        at = known.and_then(|part| start?.checked_add(part.bytes));
        let Some(staged) = part.and_then(|part| part.staged) else {
            continue;
        };
        if at.is_some() && Some(staged.start) == start {
            fitting.push(staged);
        } else {
            others.push(staged);
        }
    }
    others.extend(parts.into_values().filter_map(|part| part.staged));
    if at.is_none() {
        others.append(&mut fitting);
    }
    (at, fitting, others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::staging::Share;

    const NAME: UploadName = (1, 2);
    const IDLE_MS: u64 = 60_000;

    fn part(etag: &str, start: u64, bytes: u64) -> Part {
        let held = Share::new(u64::MAX).take(bytes).expect("there is room");
        Part {
            etag: etag.as_bytes().into(),
            bytes,
            staged: Some(Staged::nothing(1, start, bytes, held)),
        }
    }

    fn starts(staged: &[Staged]) -> Vec<u64> {
        staged.iter().map(|staged| staged.start).collect()
    }

    #[test]
    fn the_place_of_a_part_follows_from_its_number() {
        let mut uploads = Uploads::new(IDLE_MS);
        assert_eq!(uploads.place(NAME, 2, 100, 0).0, 100);
        assert_eq!(uploads.place(NAME, 1, 100, 0).0, 0);
        // The last one is shorter.
        assert_eq!(uploads.place(NAME, 3, 7, 0).0, 200);
        assert_eq!(uploads.place((9, 9), 10_000, u64::MAX, 0).0, u64::MAX);
    }

    /// Reference 2E.87 and 2E.88.
    #[test]
    fn an_object_is_made_of_exactly_the_list() {
        let list = |parts: &[(u32, &str)]| {
            let parts = parts.iter();
            let parts = parts.map(|(number, etag)| (*number, Box::from(etag.as_bytes())));
            parts.collect::<Vec<(u32, Box<[u8]>)>>()
        };
        let parts = || {
            BTreeMap::from([
                (1, part("a", 0, 10)),
                (2, part("b", 10, 10)),
                (3, part("c", 20, 5)),
            ])
        };
        let (total, fitting, others) = assemble(parts(), &list(&[(1, "a"), (2, "b"), (3, "c")]));
        assert_eq!(
            (total, starts(&fitting), others.len()),
            (Some(25), vec![0, 10, 20], 0)
        );
        // One left out: what follows lies elsewhere.
        let (total, fitting, others) = assemble(parts(), &list(&[(1, "a"), (3, "c")]));
        assert_eq!(
            (total, starts(&fitting), starts(&others)),
            (Some(15), vec![0], vec![20, 10])
        );
        // Another part under that number, or one that is not known: nothing is certain.
        for wrong in [&[(1, "a"), (2, "x")][..], &[(1, "a"), (4, "d")]] {
            let (total, fitting, others) = assemble(parts(), &list(wrong));
            assert_eq!((total, fitting.len(), others.len()), (None, 0, 3));
        }
    }

    #[test]
    fn uploads_that_the_origin_has_taken_nothing_of_make_way_first() {
        let mut uploads = Uploads::new(IDLE_MS);
        assert!(uploads.place(NAME, 1, 10, 0).1.is_empty());
        assert!(uploads.put(NAME, 1, part("a", 0, 10), 0).is_empty());
        for number in 0..UPLOADS_MAX as u128 + 64 {
            let (_, forgotten) = uploads.place((7, number), 1, 10, 1 + number as u64);
            assert!(forgotten.is_empty());
        }
        assert_eq!(uploads.uploads.len(), UPLOADS_MAX);
        assert_eq!(uploads.take(NAME).len(), 1);
    }

    #[test]
    fn parts_sent_again_and_uploads_that_idle_are_given_back() {
        let mut uploads = Uploads::new(IDLE_MS);
        assert!(uploads.place(NAME, 1, 10, 0).1.is_empty());
        assert!(uploads.put(NAME, 1, part("a", 0, 10), 0).is_empty());
        let replaced = uploads.put(NAME, 1, part("b", 0, 10), 5);
        assert_eq!(starts(&replaced), [0]);
        assert!(uploads.uploads.contains_key(&NAME));
        assert!(uploads.expire(5 + IDLE_MS).is_empty());
        assert_eq!(uploads.expire(6 + IDLE_MS).len(), 1);
        assert!(!uploads.uploads.contains_key(&NAME) && uploads.take(NAME).is_empty());
        // An upload that nobody began here.
        assert_eq!(uploads.put(NAME, 1, part("a", 0, 10), 0).len(), 1);
    }
}
