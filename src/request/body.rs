//! A request body on its way from the client to the origin: raw bytes as they came, with its framing watched.
//!
//! Called by `upload`. Its buffer is lent to it for a step, and filled and emptied in place; knows where the body ends, so that what follows stays
//! for the next request; can keep a bounded copy of the decoded bytes beside it (a multi-delete names its objects in the body).

use std::ops::Range;

use crate::http::{ChunkError, ChunkStep, ChunkedDecoder, RequestBody};

enum Framing {
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
}

/// The body of one request.
pub struct BodyPump {
    framing: Framing,
    /// `[sent, checked)` may go on to the origin, `[checked, end)` is not understood yet, the rest is room.
    buffer: Vec<u8>,
    sent: usize,
    checked: usize,
    end: usize,
    done: bool,
    received: u64,
    /// Where the decoded bytes of the last [`BodyPump::take`] lie in the buffer.
    content: Vec<Range<usize>>,
    copy: Option<Vec<u8>>,
    copy_bytes_max: usize,
}

impl BodyPump {
    /// A body whose first bytes came along with the head. `copy_bytes_max` of 0 keeps no copy.
    #[must_use]
    pub fn new(body: RequestBody, copy_bytes_max: usize) -> Self {
        let framing = match body {
            RequestBody::None => Framing::Length(0),
            RequestBody::Length(bytes) => Framing::Length(bytes),
            RequestBody::Chunked => Framing::Chunked(Box::default()),
        };
        let done = matches!(framing, Framing::Length(0));
        let copy = (copy_bytes_max > 0).then(Vec::new);
        Self {
            framing,
            buffer: Vec::new(),
            sent: 0,
            checked: 0,
            end: 0,
            done,
            received: 0,
            content: Vec::new(),
            copy,
            copy_bytes_max,
        }
    }

    /// Takes bytes in; returns how many belong to this body. The others are of the next request.
    ///
    /// # Errors
    /// The chunked framing is broken: the connection cannot go on.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(bytes);
        self.filled(bytes.len())
    }

    /// Takes over a buffer to be filled. Nothing may be pending.
    pub fn load(&mut self, mut buffer: Vec<u8>) {
        assert_eq!(self.sent, self.checked, "it would be lost");
        let odd = &self.buffer[self.checked..self.end];
        buffer[..odd.len()].copy_from_slice(odd);
        (self.sent, self.checked, self.end) = (0, 0, odd.len());
        self.buffer = buffer;
    }

    /// Where the next bytes of the body are to be put, and no others.
    pub fn room(&mut self) -> &mut [u8] {
        let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
        let end = self.buffer.len().min(self.end.saturating_add(left));
        &mut self.buffer[self.end..end]
    }

    /// The room holds so many more bytes; returns how many of them belong to this body.
    ///
    /// # Errors
    /// As [`BodyPump::take`].
    pub fn filled(&mut self, bytes: usize) -> Result<usize, ChunkError> {
        let before = self.end;
        self.content.clear();
        self.end += bytes;
        self.check()?;
        let ours = match self.done {
            true => self.checked.saturating_sub(before),
            false => bytes,
        };
        self.received += ours as u64;
        Ok(ours)
    }

    /// What came behind the end of the body; it is forgotten here.
    pub fn surplus(&mut self) -> &[u8] {
        let surplus = match self.done {
            true => self.checked..self.end,
            false => self.end..self.end,
        };
        self.end = surplus.start;
        &self.buffer[surplus]
    }

    /// Gives the buffer back, unless more than `most` bytes of it are still needed.
    pub fn unload(&mut self, most: usize) -> Option<Vec<u8>> {
        let needed = self.sent..self.end;
        if needed.len() > most {
            return None;
        }
        let rest = self.buffer[needed].to_vec();
        self.checked -= self.sent;
        self.end -= self.sent;
        self.sent = 0;
        self.content.clear();
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    fn check(&mut self) -> Result<(), ChunkError> {
        while !self.done && self.checked < self.end {
            let input = &self.buffer[self.checked..self.end];
            let bytes = match &mut self.framing {
                Framing::Length(left) => {
                    let bytes = input
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= bytes as u64;
                    self.done = *left == 0;
                    self.keep(self.checked..self.checked + bytes);
                    bytes
                }
                Framing::Chunked(decoder) => match decoder.step(input)? {
                    ChunkStep::NeedMore => return Ok(()),
                    ChunkStep::Skip(bytes) | ChunkStep::Trailer { bytes } => bytes,
                    ChunkStep::Data { bytes } => {
                        self.keep(self.checked..self.checked + bytes);
                        bytes
                    }
                    ChunkStep::End { bytes } => {
                        self.done = true;
                        bytes
                    }
                },
            };
            self.checked += bytes;
        }
        Ok(())
    }

    /// The decoded bytes of the last [`BodyPump::take`]; to be asked for before any of it goes.
    pub fn content(&self) -> impl Iterator<Item = &[u8]> {
        self.content.iter().map(|range| &self.buffer[range.clone()])
    }

    fn keep(&mut self, range: Range<usize>) {
        self.content.push(range.clone());
        let Some(copy) = &mut self.copy else { return };
        if copy.len() + range.len() > self.copy_bytes_max {
            self.copy = None;
            return;
        }
        copy.extend_from_slice(&self.buffer[range]);
    }

    /// What may go to the origin now.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.sent..self.checked]
    }

    /// So many bytes of [`BodyPump::pending`] have gone.
    pub fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        assert!(
            self.sent <= self.checked,
            "only what was pending can have gone"
        );
    }

    /// Whether more must come from the client.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        !self.done
    }

    /// Bytes that are still to come; as many as can be, where nobody has said.
    #[must_use]
    pub fn left(&self) -> u64 {
        match &self.framing {
            Framing::Length(left) => *left,
            Framing::Chunked(_) => u64::MAX,
        }
    }

    /// Whether all of it has gone to the origin.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.done && self.pending().is_empty()
    }

    /// Raw bytes received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The decoded body, if it was to be copied and was not too large.
    #[must_use]
    pub fn into_copy(self) -> Option<Vec<u8>> {
        self.copy.filter(|_| self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_body_ends_where_it_says_and_leaves_the_rest() {
        let mut pump = BodyPump::new(RequestBody::Length(5), 100);
        assert_eq!(pump.take(b"abc").unwrap(), 3);
        assert_eq!(pump.pending(), b"abc");
        pump.advance(2);
        assert_eq!(pump.take(b"deGET /").unwrap(), 2);
        assert_eq!(pump.pending(), b"cde");
        pump.advance(3);
        assert!(pump.is_sent());
        assert_eq!(pump.into_copy().unwrap(), b"abcde");
    }

    #[test]
    fn a_buffer_is_kept_only_for_what_is_needed_of_it() {
        let mut pump = BodyPump::new(RequestBody::Chunked, 0);
        pump.load(vec![0; 32]);
        let wire = b"4\r\nabcd\r\n0\r\nx: 1\r";
        pump.room()[..wire.len()].copy_from_slice(wire);
        assert_eq!(pump.filled(wire.len()).unwrap(), wire.len());
        assert!(pump.unload(5).is_none(), "nothing of it has gone");
        pump.advance(7);
        let buffer = pump.unload(16).expect("little of it is needed");
        assert_eq!((buffer.len(), pump.pending()), (32, &b"\r\n0\r\n"[..]));
        pump.advance(5);
        pump.load(buffer);
        pump.room()[..8].copy_from_slice(b"\n\r\nGET /");
        assert_eq!(pump.filled(8).unwrap(), 3);
        assert_eq!(pump.surplus(), b"GET /");
        assert_eq!(pump.pending(), b"x: 1\r\n\r\n");
        pump.advance(8);
        assert!(pump.is_sent());
        assert_eq!(pump.unload(0).map(|buffer| buffer.len()), Some(32));
    }

    #[test]
    fn a_copy_that_grows_too_large_is_given_up() {
        let mut pump = BodyPump::new(RequestBody::Length(5), 4);
        pump.take(b"abcde").unwrap();
        assert!(pump.into_copy().is_none());
    }

    proptest! {
        #[test]
        fn a_chunked_body_passes_unchanged_however_it_is_cut(cuts in proptest::collection::vec(1usize..7, 1..60)) {
            let raw = b"3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nx-t: 1\r\n\r\nNEXT";
            let mut pump = BodyPump::new(RequestBody::Chunked, 1000);
            let (mut at, mut out, mut cuts) = (0, Vec::new(), cuts.into_iter().cycle());
            while pump.wants_more() {
                let end = (at + cuts.next().unwrap()).min(raw.len());
                let ours = pump.take(&raw[at..end]).unwrap();
                at += ours;
                out.extend_from_slice(pump.pending());
                let pending = pump.pending().len();
                pump.advance(pending);
            }
            prop_assert_eq!(&raw[at..], b"NEXT");
            prop_assert_eq!(&out[..], &raw[..raw.len() - 4]);
            prop_assert_eq!(pump.into_copy().unwrap(), b"abc0123456789abcdef");
        }
    }
}
