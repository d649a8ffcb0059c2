//! Row 2: the RAM tier's memory. A shard's slab of fixed slots, and extents: runs of bytes of one version in one stripe.
//!
//! Called by `cache` (allocation, eviction), `fill` (writing) and `request` (sending). One writer, many readers: a slot is written by
//! the one [`extent::ExtentWriter`] that holds it and only read after that; readers see bytes below the published watermark only.
//! A slot returns to its owner when the last reference to its extent goes, on whatever thread that happens. Knows digests and
//! bytes, nothing of S3 or HTTP.

#![allow(
    unsafe_code,
    reason = "the slab hands out slices of one mapping; each block names its reason"
)]

pub mod extent;
pub mod lent;
pub mod progress;
pub mod readers;
pub mod selftest;
pub mod slab;

/// Bytes of a stripe: the aligned window of a version that is owned, coalesced and fetched as one.
pub const STRIPE_BYTES: u64 = 8 * 1024 * 1024;

/// Names one stripe of one version of one object. Packed, so that an entry of the index is one cache line.
#[repr(C, packed(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StripeId {
    /// Digest of the object's key.
    pub object: u128,
    /// Digest of the version: ETag and total length.
    pub version: u128,
    /// Which window of [`STRIPE_BYTES`].
    pub index: u32,
}

impl StripeId {
    /// A well-spread hash for tables; equality still compares everything.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let low = self.object as u64 ^ (self.version as u64).rotate_left(32);
        crate::base::prng::mix64(low ^ u64::from(self.index).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// The same of any version's stripe: what a look-up can go by before the version is known.
    #[must_use]
    pub fn chain(&self) -> u64 {
        Self::chain_of(self.object, self.index)
    }

    /// [`StripeId::chain`] of this window of an object.
    #[must_use]
    pub fn chain_of(object: u128, index: u32) -> u64 {
        let low = object as u64;
        crate::base::prng::mix64(low ^ u64::from(index).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Absolute offset of the stripe's first byte in the object.
    #[must_use]
    pub fn base(&self) -> u64 {
        u64::from(self.index) * STRIPE_BYTES
    }
}
