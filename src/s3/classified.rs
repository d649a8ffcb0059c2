//! A request understood: what it is, what it names and touches, how it is signed.
//!
//! Made by `operation`, read by `request` at every step of a request's way.
//!
//! Left to others: how it came to be (`operation`), what is done about it (`request`).

use super::auth::Auth;
use super::conditional::Conditions;
use super::error_xml::ErrorCode;
use super::object_key::{ObjectDigest, ObjectKeyRef};
use super::overrides::Overrides;
use super::range::RangeSpec;
use super::reason::PassReason;
use super::target::{Target, TargetError};
use super::wishes::Wishes;

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// GET of a whole object or one range of it: may be answered from the cache.
    GetObject,
    /// HEAD of an object: may be answered from the cache.
    HeadObject,
    /// GET or HEAD of one part of an object.
    PartRead,
    /// A write or removal of an object, or anything else that is no read of it.
    ObjectWrite,
    /// A server-side copy onto the object: its answer may be 200 and still an error.
    Copy,
    /// Removal of the objects that the body names: [`super::parse_multi_delete`].
    MultiDelete,
    /// Begins a multipart upload.
    MultipartCreate,
    /// Uploads or copies one part.
    UploadPart,
    /// Makes the object of the parts: its answer may be 200 and still an error.
    MultipartComplete,
    /// Gives a multipart upload up.
    MultipartAbort,
    /// Passes through untouched.
    Pass(PassReason),
    /// Is answered here, with an error.
    Refused(Refusal),
}

/// What a request may change, and therefore drops from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touches {
    /// Nothing.
    Nothing,
    /// The object of the target, [`Target::object_key`].
    Object,
    /// The objects of the bucket that the body lists; all of them if it cannot be read.
    Listed,
    /// Any object of the bucket, or of the origin if none is named: [`Target::bucket_prefix`].
    Bucket,
}

/// What the body of a request becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The whole object of the target.
    Object,
    /// A part of a multipart upload.
    Part,
    /// Something else, or it is not known.
    Other,
}

/// Why a request is not for an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A tunnel: another door's business.
    Connect,
    /// `*` as target.
    AsteriskForm,
    /// The path cannot be read.
    InvalidUri(TargetError),
}

impl Refusal {
    /// The answer for the client.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Connect | Self::AsteriskForm => ErrorCode::MethodNotAllowed,
            Self::InvalidUri(_) => ErrorCode::InvalidUri,
        }
    }
}

/// A request understood.
#[derive(Debug)]
pub struct Classified<'b, 'k> {
    /// What it is.
    pub operation: Operation,
    /// What it drops from the cache.
    pub touches: Touches,
    /// What its body becomes.
    pub body: Body,
    /// What it names.
    pub target: Target<'k>,
    /// Digest of the object that it names.
    pub digest: Option<ObjectDigest>,
    /// How it is signed.
    pub auth: Auth<'b>,
    /// The range it asks for, if that is a single one that can be read.
    pub range: Option<RangeSpec>,
    /// The part it asks for, if its number can be read.
    pub part: Option<u32>,
    /// Headers of the answer that it wants otherwise.
    pub overrides: Overrides<'b>,
    /// The conditions that can be evaluated here.
    pub conditions: Conditions<'b>,
    /// Whether checksum headers are asked for.
    pub checksum_mode: bool,
    /// What it asks of caches.
    pub wishes: Wishes,
}

impl<'k> Classified<'_, 'k> {
    /// The object that it names, and the digest of that.
    pub fn object(&self) -> Option<(ObjectKeyRef<'k>, u128)> {
        Some((self.target.object_key()?, self.digest?.0))
    }

    /// True if the answer may come from the cache and go there.
    pub fn is_cacheable(&self) -> bool {
        match self.operation {
            Operation::GetObject | Operation::HeadObject => true,
            // Which of a part's bytes `If-Range` would leave is the origin's to say.
            Operation::PartRead => self.part.is_some() && !self.conditions.has_if_range(),
            _ => false,
        }
    }
}
