//! The plan of one answer: what the faults that apply make of it.
//!
//! Called by the connection, once per request. Invariant: pure; without actions the plan is a plain answer. Faults
//! about the wire (delays, cuts, framing) become fields here; those about content change the answer. Left to others:
//! carrying it out (`write`).

use super::answer::{Answer, Payload, whole_instead};
use super::request::Request;
use super::rules::{Action, Vary};
use crate::Headers;

/// How the end of the body is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Framing {
    /// `Content-Length`, so much off the truth.
    #[default]
    Length,
    /// `Content-Length` that is wrong by this.
    WrongLength(i64),
    /// Chunks of at most so many bytes, then trailers.
    Chunked(usize, Headers),
    /// Nothing: the connection ends.
    Close,
}

/// Where the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Instead of an answer.
    BeforeHead,
    /// With no byte of the body.
    AfterHead,
    /// Once so many body bytes are sent.
    Body(u64),
}

/// What follows the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum After {
    /// The next request.
    #[default]
    KeepOpen,
    /// Announced by `Connection: close`.
    Close,
    /// Closed so many ms later, unannounced.
    CloseIdle(u64),
}

/// What to do about one request.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Never answer.
    pub hang: bool,
    /// Answer the upload with this status before reading it; then read it (true) or close.
    pub early: Option<(u16, bool)>,
    /// Cut once so many bytes of the upload are read, by reset or not.
    pub cut_upload: Option<(u64, bool)>,
    /// Instead of an answer: these bytes, then stay open or not.
    pub raw: Option<(Vec<u8>, bool)>,
    /// Wait before the head.
    pub delay_head_ms: u64,
    /// Head in pieces: bytes, ms between them.
    pub trickle: Option<(usize, u64)>,
    /// Interim answers: status, headers.
    pub interims: Vec<(u16, Headers)>,
    /// Cut, by reset or not.
    pub cut: Option<(Cut, bool)>,
    /// Waits at body positions, sorted.
    pub delays: Vec<(u64, u64)>,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// End of the body.
    pub framing: Framing,
    /// Body byte to flip.
    pub corrupt: Option<u64>,
    /// What follows.
    pub after: After,
    /// Status that replaces the answer, `Retry-After`.
    pub status: Option<(u16, Option<u64>)>,
    /// The object changes before it is looked at.
    pub new_version: bool,
    /// Applied to the answer, in order.
    edits: Vec<Action>,
}

const CHUNK_BYTES: usize = 64 << 10;
/// What a client of another protocol, or a broken one, might say.
const GARBAGE: &[u8] = b"\x00\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\nand never will be\r\n";

impl Plan {
    /// Folds the actions into a plan; of two that set the same field the later counts.
    pub fn of(actions: Vec<Action>) -> Plan {
        let mut plan = Plan::default();
        for action in actions {
            plan.add(action);
        }
        plan.delays.sort_unstable();
        plan
    }

    fn add(&mut self, action: Action) {
        match action {
            Action::DelayHead { ms } => self.delay_head_ms += ms,
            Action::DelayBody { at, ms } => self.delays.push((at, ms)),
            Action::TrickleHead { bytes, ms } => self.trickle = Some((bytes.max(1), ms)),
            Action::Rate { bytes_per_s } => self.rate = Some(bytes_per_s.max(1)),
            Action::CutBeforeHead { rst } => self.cut = Some((Cut::BeforeHead, rst)),
            Action::CutAfterHead { rst } => self.cut = Some((Cut::AfterHead, rst)),
            Action::CutBody { at, rst } => self.cut = Some((Cut::Body(at), rst)),
            Action::CutUpload { at, rst } => self.cut_upload = Some((at, rst)),
            Action::Status {
                code,
                retry_after_s,
            } => self.status = Some((code, retry_after_s)),
            Action::ContentLength { add } => self.framing = Framing::WrongLength(add),
            Action::Chunked {
                chunk_bytes,
                trailers,
            } => {
                self.framing =
                    Framing::Chunked(chunk_bytes.unwrap_or(CHUNK_BYTES).max(1), trailers);
            }
            Action::CloseDelimited => self.framing = Framing::Close,
            Action::CloseIdle { ms } => self.after = After::CloseIdle(ms),
            Action::Close => self.after = After::Close,
            Action::Interim {
                status,
                count,
                headers,
            } => {
                self.interims
                    .extend((0..count).map(|_| (status, headers.clone())));
            }
            Action::EarlyAnswer { status, drain } => self.early = Some((status, drain)),
            Action::Hang => self.hang = true,
            Action::Garbage => self.raw = Some((GARBAGE.to_vec(), false)),
            // One byte a character, so that JSON can say any byte.
            Action::Raw { text, keep_open } => {
                self.raw = Some((
                    text.chars()
                        .map(|c| u8::try_from(c).unwrap_or(b'?'))
                        .collect(),
                    keep_open,
                ));
            }
            Action::Corrupt { at } => self.corrupt = Some(at),
            Action::NewVersion => self.new_version = true,
            edit @ (Action::ContentRange { .. }
            | Action::IgnoreRange
            | Action::MissingEtag
            | Action::Etag { .. }
            | Action::RemoveHeader { .. }
            | Action::SetHeader { .. }) => self.edits.push(edit),
        }
    }

    /// Changes the answer as the content faults say. `serial` is unique to the request.
    pub fn edit(&self, mut answer: Answer, request: &Request, serial: u64) -> Answer {
        for edit in &self.edits {
            answer = apply(edit, answer, request, serial);
        }
        answer
    }
}

fn apply(edit: &Action, mut answer: Answer, request: &Request, serial: u64) -> Answer {
    match edit {
        Action::IgnoreRange => return whole_instead(answer),
        Action::MissingEtag => answer.remove("etag"),
        Action::RemoveHeader { name } => answer.remove(name),
        Action::SetHeader { name, value } => answer.set(name, value.clone()),
        Action::Etag { value, vary } => {
            if let Some(old) = answer
                .header("etag")
                .map(|etag| etag.trim_matches('"').to_string())
            {
                let start = request
                    .header("range")
                    .unwrap_or("whole")
                    .split('-')
                    .next()
                    .unwrap_or_default();
                let new = match (value, vary) {
                    (Some(value), _) => value.clone(),
                    (None, Some(Vary::Range)) => {
                        format!("\"{old}-{}\"", start.trim_start_matches("bytes="))
                    }
                    (None, Some(Vary::Request)) => format!("\"{old}-{serial}\""),
                    (None, None) => format!("\"{old}-other\""),
                };
                answer.set("ETag", new);
            }
        }
        Action::ContentRange {
            value,
            start_add,
            end_add,
            total_add,
        } => {
            if let (Payload::Window(object, start, end), 206) = (&answer.payload, answer.status) {
                let moved = |at: u64, add: i64| at.saturating_add_signed(add);
                let text = format!(
                    "bytes {}-{}/{}",
                    moved(*start, *start_add),
                    moved(end - 1, *end_add),
                    moved(object.data.len(), *total_add)
                );
                answer.set("Content-Range", value.clone().unwrap_or(text));
            }
        }
        _ => unreachable!("only content faults are kept as edits"),
    }
    answer
}
