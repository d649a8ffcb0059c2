//! Where a host leads: the origin, the id of the store for object keys, and how the bucket is named.
//!
//! Made by `host`, read by `target` (identity), `operation` (what may be cached) and `upstream` (whom to dial).
//!
//! Invariants: two different stores never have one [`OriginId`], and no two ids have the same bytes; the name
//! that is dialled is the signed host or the endpoint right behind its bucket.
//!
//! Left to others: building routes (`host`), DNS and TLS (`upstream`).

use super::aws::{AwsKind, Partition, PassOnly};
use super::error_xml::ErrorCode;
use std::borrow::Cow;
use std::ops::Range;

/// Where a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginSel {
    /// The signed host itself, port 443: see [`HostRoute::dial_name`].
    Aws,
    /// The configured origin of this index in [`super::OriginMapConfig::custom`].
    Custom(usize),
    /// The one origin of single-origin mode.
    Single,
}

/// Which store an object is in: the first part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginId<'a> {
    /// All buckets of one partition of AWS, whatever endpoint named them.
    Aws(Partition),
    /// Access points of one region; their names could equal buckets'.
    AccessPoint {
        /// Their region: names are unique per account and region.
        region: &'a str,
    },
    /// Multi-region access points of a partition.
    MultiRegion(Partition),
    /// A configured origin.
    Custom(&'a str),
    /// The origin of single-origin mode under one of its known names.
    Single,
    /// The origin of single-origin mode under a name that may mean something else to it.
    Host {
        /// Lower-case host.
        name: &'a str,
        /// Port, unless it is that of plain HTTP.
        port: Option<u16>,
    },
}

impl OriginId<'_> {
    /// Appends the id's bytes. No two different ids give the same bytes: a tag with a colon is followed by
    /// a name, one without stands alone.
    pub fn write_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Aws(partition) => out.extend_from_slice(partition.as_str().as_bytes()),
            Self::AccessPoint { region } => {
                out.extend_from_slice(b"aws-ap:");
                out.extend_from_slice(region.as_bytes());
            }
            Self::MultiRegion(partition) => {
                out.extend_from_slice(b"aws-mrap:");
                out.extend_from_slice(partition.as_str().as_bytes());
            }
            Self::Custom(name) => {
                out.extend_from_slice(b"custom:");
                out.extend_from_slice(name.as_bytes());
            }
            Self::Single => out.extend_from_slice(b"origin"),
            Self::Host { name, port } => {
                out.extend_from_slice(b"host:");
                out.extend_from_slice(name.as_bytes());
                if let Some(port) = port {
                    out.push(b':');
                    push_decimal(out, *port);
                }
            }
        }
    }
}

fn push_decimal(out: &mut Vec<u8>, number: u16) {
    let mut divisor = 10_000;
    while divisor > 1 && number < divisor {
        divisor /= 10;
    }
    while divisor > 0 {
        out.push(b'0' + (number / divisor % 10) as u8);
        divisor /= 10;
    }
}

/// How the host names the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostStyle<'a> {
    /// Not at all: it is the first segment of the path.
    Path,
    /// The whole path is the key.
    Virtual {
        /// The bucket, lower-case.
        bucket: &'a str,
    },
    /// The whole path is the key, in the bucket behind an access point.
    AccessPoint {
        /// The access point's name with its account, or a multi-region alias.
        name: &'a str,
    },
}

/// Which rule of the map made the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'h> {
    Aws(AwsKind, Partition),
    Custom { index: usize, name: &'h str },
    Single,
    Host,
}

/// A host that leads to an allowed store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute<'h> {
    pub(super) name: Cow<'h, str>,
    pub(super) port: Option<u16>,
    pub(super) kind: Kind<'h>,
    /// Bytes of the leading bucket or access point in `name`; zero for path style.
    pub(super) bucket_len: usize,
    /// The region's bytes in `name`; empty where it says none.
    pub(super) region: Range<usize>,
}

impl HostRoute<'_> {
    /// Where the request is sent.
    pub fn origin(&self) -> OriginSel {
        match self.kind {
            Kind::Aws(..) => OriginSel::Aws,
            Kind::Custom { index, .. } => OriginSel::Custom(index),
            Kind::Single | Kind::Host => OriginSel::Single,
        }
    }

    /// The store, for the object key.
    pub fn origin_id(&self) -> OriginId<'_> {
        match self.kind {
            Kind::Aws(AwsKind::AccessPoint, _) => OriginId::AccessPoint {
                region: &self.name[self.region.clone()],
            },
            Kind::Aws(AwsKind::MultiRegion, partition) => OriginId::MultiRegion(partition),
            Kind::Aws(_, partition) => OriginId::Aws(partition),
            Kind::Custom { name, .. } => OriginId::Custom(name),
            Kind::Single => OriginId::Single,
            Kind::Host => OriginId::Host {
                name: &self.name,
                port: self.port,
            },
        }
    }

    /// How the bucket is named.
    pub fn style(&self) -> HostStyle<'_> {
        let front = &self.name[..self.bucket_len];
        match self.kind {
            Kind::Aws(AwsKind::AccessPoint | AwsKind::MultiRegion, _) => {
                HostStyle::AccessPoint { name: front }
            }
            _ if front.is_empty() => HostStyle::Path,
            Kind::Aws(..) | Kind::Custom { .. } | Kind::Single | Kind::Host => {
                HostStyle::Virtual { bucket: front }
            }
        }
    }

    /// True if the store is Amazon's.
    pub fn is_aws(&self) -> bool {
        matches!(self.kind, Kind::Aws(..))
    }

    /// Why nothing behind this host is cached, if that is so.
    pub fn pass_only(&self) -> Option<PassOnly> {
        match self.kind {
            Kind::Aws(AwsKind::PassOnly(why), _) => Some(why),
            Kind::Aws(..) | Kind::Custom { .. } | Kind::Single | Kind::Host => None,
        }
    }

    /// The host's name: lower-case, without port and trailing dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's port; `None` for that of plain HTTP.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// For [`OriginSel::Aws`]: the name to resolve, to say in SNI and to verify the certificate against.
    ///
    /// The host itself, or the endpoint behind it if the bucket has dots, which S3's wildcard certificates
    /// do not cover. The `Host` header is sent as the client signed it in either case.
    pub fn dial_name(&self) -> &str {
        let dotted = self.name[..self.bucket_len].contains('.');
        if dotted
            && self
                .pass_only()
                .is_none_or(|why| why == PassOnly::ReservedName)
        {
            return &self.name[self.bucket_len + 1..];
        }
        &self.name
    }

    /// True if both lead to the same store and the same bucket by the same style.
    pub(super) fn same_store(&self, other: &HostRoute<'_>) -> bool {
        self.origin() == other.origin()
            && self.origin_id() == other.origin_id()
            && self.style() == other.style()
            && self.pass_only() == other.pass_only()
    }
}

/// Why a host leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The request has no `Host`, which every S3 signature covers.
    #[error("the request has no Host header")]
    Missing,
    /// The host is not `name[:port]`.
    #[error("malformed host {host:?}")]
    Malformed {
        /// What was sent.
        host: Box<str>,
    },
    /// No rule allows the host.
    #[error("no allowed origin is named {host:?}")]
    NotAllowed {
        /// What was sent.
        host: Box<str>,
    },
    /// The target's authority and the signed `Host` lead to different stores.
    #[error("the target names {authority:?} but the Host header {host:?}")]
    Disagree {
        /// The authority of the absolute-form target.
        authority: Box<str>,
        /// The `Host` header.
        host: Box<str>,
    },
}

impl RouteError {
    /// The answer for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing => ErrorCode::MissingHostHeader,
            Self::Malformed { .. } | Self::Disagree { .. } => ErrorCode::InvalidRequest,
            Self::NotAllowed { .. } => ErrorCode::AccessDenied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(id: OriginId<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        id.write_into(&mut out);
        out
    }

    #[test]
    fn no_two_origin_ids_have_the_same_bytes() {
        let ids = [
            OriginId::Aws(Partition::Commercial),
            OriginId::Aws(Partition::China),
            OriginId::Aws(Partition::GovCloud),
            OriginId::AccessPoint {
                region: "us-east-1",
            },
            OriginId::AccessPoint {
                region: "us-east-2",
            },
            OriginId::MultiRegion(Partition::Commercial),
            OriginId::Custom("aws"),
            OriginId::Custom("origin"),
            OriginId::Single,
            OriginId::Host {
                name: "origin",
                port: None,
            },
            OriginId::Host {
                name: "aws",
                port: None,
            },
            OriginId::Host {
                name: "aws",
                port: Some(9000),
            },
            OriginId::Host {
                name: "[::1]",
                port: Some(9000),
            },
        ];
        for (at, one) in ids.iter().enumerate() {
            for other in &ids[at + 1..] {
                assert_ne!(bytes(*one), bytes(*other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_host_id_spells_its_port_in_decimal() {
        for port in [1u16, 9, 10, 443, 9000, 65_535] {
            let id = OriginId::Host {
                name: "h",
                port: Some(port),
            };
            assert_eq!(bytes(id), format!("host:h:{port}").into_bytes());
        }
    }
}
