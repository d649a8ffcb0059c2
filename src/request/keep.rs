//! What of an upload is kept beside its stream, where a rule says so: decoded, staged, and given its version when the origin has answered.
//!
//! Called by `pass` and `upload`. Nothing here delays the upload but the copy of its bytes into the cache, and nothing here fails it: what cannot
//! be kept is let go. What was kept is found only after the origin has answered 200 to the whole body, under the ETag of that answer.

use std::rc::Rc;

use crate::cache::head::HeadParts;
use crate::fill::validate::strong_etag;
use crate::http::{ChunkStep, ChunkedDecoder, ResponseHead};
use crate::metrics::{Counter, Written};
use crate::s3::{
    Body, LateAnswer, Operation, digest, is_checksum, parse_part_list, part_of, unquoted,
    upload_body, upload_of,
};
use crate::shard::Shard;
use crate::shard::staging::{Staged, Staging};
use crate::shard::uploads::{Part, UploadName, assemble};

use super::Exchange;

/// What of the framing of an `aws-chunked` body is kept until the rest of it comes.
const CARRY_BYTES_MAX: usize = 16 * 1024;

/// Takes the `aws-chunked` framing off: chunk sizes, signatures, trailers.
#[derive(Default)]
struct Unframe {
    decoder: ChunkedDecoder,
    /// Bytes that are not understood yet.
    carry: Vec<u8>,
    /// Bytes of data so far.
    data_bytes: u64,
    ended: bool,
    broken: bool,
}

/// The body of one upload on its way into the cache.
pub(super) struct Keeping {
    staging: Option<Staging>,
    unframe: Option<Unframe>,
    /// The part that it is, of which upload.
    part: Option<(UploadName, u32)>,
    bytes: u64,
}

fn name_of(exchange: &Exchange<'_>, upload: &str) -> Option<UploadName> {
    let (_, object) = exchange.request.object()?;
    Some((object, digest(upload.as_bytes())))
}

/// Begins to keep the body of a request, if a rule wants it and it can be understood.
pub(super) async fn begin(exchange: &Exchange<'_>) -> Option<Keeping> {
    let (request, shard) = (exchange.request, exchange.shard);
    if request.body == Body::Other {
        return None;
    }
    let (object, object_digest) = request.object()?;
    let policy = shard.policy_at(object);
    if !policy.kept || !policy.write_through {
        return None;
    }
    let body = upload_body(exchange.head)?;
    if body.bytes == 0 || body.bytes > policy.object_bytes_max {
        return None;
    }
    let (part, start) = match request.body {
        Body::Object => (None, 0),
        Body::Part | Body::Other => {
            let (upload, number) = part_of(exchange.head.query)?;
            let name = name_of(exchange, upload)?;
            let start = shard.place_of_part(name, number, body.bytes).await;
            (Some((name, number)), start)
        }
    };
    let end = start.checked_add(body.bytes);
    let fits = end.is_some_and(|end| end <= policy.object_bytes_max);
    let staging = fits.then(|| shard.stage(object_digest, start, body.bytes));
    Some(Keeping {
        staging: staging.flatten(),
        unframe: body.aws_chunked.then(Unframe::default),
        part,
        bytes: body.bytes,
    })
}

fn give_back(shard: &Rc<Shard>, staged: Vec<Staged>) {
    for staged in staged {
        shard.discard(staged);
    }
}

impl Keeping {
    /// Takes the next bytes of the body, without the framing of the transfer.
    pub(super) async fn take(&mut self, bytes: &[u8]) {
        match &mut self.unframe {
            Some(unframe) => unframe.take(bytes, &mut self.staging).await,
            None => write(&mut self.staging, bytes).await,
        }
    }

    /// Whether the body had the length that was told of it.
    fn is_whole(&self) -> bool {
        let told = |unframe: &Unframe| unframe.ended && unframe.data_bytes == self.bytes;
        self.unframe.as_ref().is_none_or(told)
    }

    fn finish(&mut self) -> Option<Staged> {
        let whole = self.is_whole();
        self.staging.take().filter(|_| whole)?.finish()
    }

    /// The origin has answered, or `None` if it did so before it had the whole body, or not at all. To be called when what the write touches has been dropped.
    pub(super) async fn settle(
        mut self,
        exchange: &Exchange<'_>,
        answer: Option<&ResponseHead<'_>>,
    ) {
        let shard = exchange.shard;
        let kept = self.staging.is_some();
        let staged = self.finish();
        let refused = |staged: Option<Staged>| {
            if kept {
                shard.metrics().count(Counter::Written(Written::Refused));
            }
            give_back(shard, staged.into_iter().collect());
        };
        let done = answer.filter(|answer| answer.status == 200);
        let Some((answer, etag)) = done.and_then(|answer| Some((answer, strong_etag(answer)?)))
        else {
            return refused(staged);
        };
        if let Some((name, number)) = self.part {
            // Where the others lie depends on its length.
            if !self.is_whole() {
                return refused(staged);
            }
            let part = Part {
                etag: unquoted(etag).into(),
                bytes: self.bytes,
                staged,
            };
            return shard.put_part(name, number, part).await;
        }
        let Some(staged) = staged else { return };
        let Some(object) = exchange.request.target.object_key() else {
            return refused(Some(staged));
        };
        let lines = answer.headers.lines();
        let checksums = lines.filter(|line| is_checksum(line.name));
        let checksum_lines: Vec<u8> = checksums.flat_map(|line| line.raw).copied().collect();
        let parts = HeadParts {
            key: object.encoded().into(),
            etag: etag.into(),
            total: self.bytes,
            checksums_known: !checksum_lines.is_empty(),
            checksum_lines: checksum_lines.into(),
            ..HeadParts::default()
        };
        shard.adopt(vec![staged], parts).await;
    }
}

/// Keeps bytes as long as there is room for them.
async fn write(staging: &mut Option<Staging>, bytes: &[u8]) {
    if let Some(open) = staging
        && !open.write(bytes).await
    {
        *staging = None;
    }
}

impl Unframe {
    /// Counts the data, and keeps it as far as there is room. Of a framing that is not what it should be nothing is kept, and it never ends.
    async fn take(&mut self, bytes: &[u8], staging: &mut Option<Staging>) {
        if !self.broken && !self.decode(bytes, staging).await {
            (self.broken, self.ended) = (true, false);
            self.carry = Vec::new();
            *staging = None;
        }
    }

    /// False: the framing is not what it should be.
    async fn decode(&mut self, bytes: &[u8], staging: &mut Option<Staging>) -> bool {
        self.carry.extend_from_slice(bytes);
        let mut at = 0;
        while at < self.carry.len() && !self.ended {
            let input = &self.carry[at..];
            let used = match self.decoder.step(input) {
                Err(_) => return false,
                Ok(ChunkStep::NeedMore) => break,
                Ok(ChunkStep::Skip(used) | ChunkStep::Trailer { bytes: used }) => used,
                Ok(ChunkStep::Data { bytes: used }) => {
                    write(staging, &input[..used]).await;
                    self.data_bytes += used as u64;
                    used
                }
                Ok(ChunkStep::End { bytes: used }) => {
                    self.ended = true;
                    used
                }
            };
            at += used;
        }
        self.carry.drain(..at);
        // Behind its end nothing may follow.
        self.carry.len() <= CARRY_BYTES_MAX && (!self.ended || self.carry.is_empty())
    }
}

/// A multipart upload that is being completed, or was given up.
pub(super) struct Completing {
    name: UploadName,
    list: Vec<(u32, Box<[u8]>)>,
}

/// Whether the list in the body of this request will be wanted.
pub(super) async fn wants_list(exchange: &Exchange<'_>) -> bool {
    let completes = exchange.request.operation == Operation::MultipartComplete;
    let upload = upload_of(exchange.head.query).filter(|_| completes);
    match upload.and_then(|upload| name_of(exchange, upload)) {
        Some(name) => exchange.shard.knows_upload(name).await,
        None => false,
    }
}

/// An upload that was given up keeps no bytes.
pub(super) async fn give_up(exchange: &Exchange<'_>) {
    let aborts = exchange.request.operation == Operation::MultipartAbort;
    let upload = upload_of(exchange.head.query).filter(|_| aborts);
    if let Some(name) = upload.and_then(|upload| name_of(exchange, upload)) {
        let parts = exchange.shard.take_upload(name).await;
        let staged = parts.into_values().filter_map(|part| part.staged);
        give_back(exchange.shard, staged.collect());
    }
}

impl Completing {
    /// With the body of the request.
    pub(super) fn begin(exchange: &Exchange<'_>, body: &[u8]) -> Option<Self> {
        let name = name_of(exchange, upload_of(exchange.head.query)?)?;
        let list = parse_part_list(body)?;
        Some(Self { name, list })
    }

    /// The origin has said what became of it, and what was known of the object has been dropped.
    pub(super) async fn settle(&self, exchange: &Exchange<'_>, answer: LateAnswer) {
        let shard = exchange.shard;
        let LateAnswer::Done(Some(etag)) = answer else {
            return;
        };
        let parts = shard.take_upload(self.name).await;
        let (total, fitting, others) = assemble(parts, &self.list);
        give_back(shard, others);
        let object = exchange.request.target.object_key();
        let (Some(total), Some(object)) = (total, object) else {
            return give_back(shard, fitting);
        };
        let parts = HeadParts {
            key: object.encoded().into(),
            etag,
            total,
            ..HeadParts::default()
        };
        shard.adopt(fitting, parts).await;
    }
}
