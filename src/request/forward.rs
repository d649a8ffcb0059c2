//! The request head as it goes to the origin: the client's own bytes, without what belongs to one hop only.
//!
//! Called by `read` (templates of fetches) and `pass`. Raw path, raw query, names, values, order and duplicates stay, so that the client's
//! signature stays valid; a header that was signed is never removed, even a hop-by-hop one.

use std::sync::Arc;

use crate::fill::template::Template;
use crate::http::{RequestBody, RequestHead, TargetForm, is_hop_by_hop};
use crate::s3::{Auth, HostRoute, OriginSel};
use crate::shard::{Routes, Shard};
use crate::upstream::{Endpoint, Origin};

use super::chain;

/// Whom a route leads to. `None`: single-origin mode without an origin, which the configuration excludes.
pub(super) fn origin(routes: &Routes, route: &HostRoute<'_>) -> Option<Arc<Origin>> {
    match route.origin() {
        OriginSel::Aws => Some(Origin::alone(Endpoint::new(true, route.dial_name(), 443))),
        OriginSel::Custom(index) => routes.custom.get(index).cloned(),
        OriginSel::Single => routes.single.clone(),
    }
}

/// Request line and header lines without the empty line, with this process's name at their end; `keep` decides about each end-to-end header.
pub(super) fn lines(
    shard: &Shard,
    head: &RequestHead<'_>,
    auth: &Auth<'_>,
    keep: impl Fn(&str) -> bool,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.bytes + 64);
    out.extend_from_slice(head.method_raw.as_bytes());
    out.push(b' ');
    match head.form {
        TargetForm::Absolute => {
            out.extend_from_slice(head.path.as_bytes());
            if let Some(query) = head.query {
                out.push(b'?');
                out.extend_from_slice(query.as_bytes());
            }
        }
        TargetForm::Origin | TargetForm::Authority | TargetForm::Asterisk => {
            out.extend_from_slice(head.target.as_bytes());
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if head.host.is_none()
        && let Some(authority) = head.authority
    {
        super::answer::line(&mut out, "Host", authority.as_bytes());
    }
    for line in head.headers.lines() {
        // A signature that cannot be read is the origin's to refuse; it keeps no header of one hop alive.
        let signed = auth.signs(line.name) && !auth.malformed;
        // Trailers go on, and with them what announces them.
        let announces =
            head.body == RequestBody::Chunked && line.name.eq_ignore_ascii_case("trailer");
        let one_hop = is_hop_by_hop(line.name, &head.headers) && !signed && !announces;
        let framing = line.name.eq_ignore_ascii_case("transfer-encoding");
        if !one_hop && !framing && keep(line.name) {
            out.extend_from_slice(line.raw);
        }
    }
    if head.body == RequestBody::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    chain::sign(shard, auth, &mut out);
    out
}

fn is_condition(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The template of a read's fetches.
pub(super) fn template(
    shard: &Shard,
    head: &RequestHead<'_>,
    route: &HostRoute<'_>,
    request: &crate::s3::Classified<'_, '_>,
) -> Option<Arc<Template>> {
    let auth = &request.auth;
    let of_range = request.conditions.has_if_range() && auth.signs("if-range");
    let range_signed = request.range.is_some() && (auth.signs("range") || of_range);
    let may_range = auth.may_add("range") && !of_range;
    let keep = |name: &str| {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let ours = is("range") && !range_signed || is_condition(name) && !auth.signs(name);
        !ours && !is("expect")
    };
    let conditions = |signed: bool| {
        let wanted = |name: &str| {
            let of_range = name.eq_ignore_ascii_case("if-range") && !signed;
            is_condition(name) && auth.signs(name) == signed && !of_range
        };
        let lines = head.headers.lines().filter(|line| wanted(line.name));
        lines.fold(Vec::new(), |mut all, line| {
            all.extend_from_slice(line.raw);
            all
        })
    };
    let own_none_match = request.conditions.has_if_none_match() && auth.signs("if-none-match");
    Some(Arc::new(Template {
        lines: lines(shard, head, auth, keep).into_boxed_slice(),
        method: head.method,
        origin: origin(&shard.world.routes, route)?,
        range_signed: range_signed || !may_range || request.part.is_some(),
        has_if_match: !auth.may_add("if-match"),
        may_revalidate: !own_none_match && auth.may_add("if-none-match"),
        conditions: conditions(false).into_boxed_slice(),
        signed_conditions: conditions(true).into_boxed_slice(),
        wants_checksums: request.checksum_mode,
        overridden: request.overrides.mask(),
    }))
}
