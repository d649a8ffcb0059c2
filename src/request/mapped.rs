//! A request to a host that stands for a bucket: served as the store's own request of the same object, or refused.
//!
//! Called by `mod` if there are such hosts, before anything else is made of a request.

use std::rc::Rc;

use crate::http::{RequestHead, parse_request};
use crate::s3::MapRefusal;
use crate::shard::Shard;

use super::failure::Failure;
use super::{Connection, End, refuse_request, serve_head};

/// Serves the request of `head`, which `rest` follows; how much of both was used up, and what came behind it.
pub(super) async fn serve(
    shard: &Rc<Shard>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
    rest: &[u8],
) -> (End, usize, Vec<u8>) {
    let hosts = &shard.world.routes.hosts;
    let host = head.host.and_then(|host| Some((host, hosts.find(host)?)));
    // A target that names another host than `Host` is refused where all are.
    let host = host.filter(|(name, _)| {
        let authority = head.authority.unwrap_or(name);
        authority.eq_ignore_ascii_case(name)
    });
    let Some((_, host)) = host else {
        return serve_head(shard, connection, head, rest).await;
    };
    let mut rewritten = Vec::new();
    if let Err(refusal) = host.rewrite(head, &mut rewritten) {
        return refuse(shard, connection, head, refusal).await;
    }
    match parse_request(&rewritten, &shard.policy().head_limits) {
        Ok(Some(mapped)) => {
            let (end, used, overread) = serve_head(shard, connection, &mapped, rest).await;
            (end, used - mapped.bytes + head.bytes, overread)
        }
        // Longer than a head may be, with what was added.
        Ok(None) | Err(_) => refuse(shard, connection, head, MapRefusal::BadPath).await,
    }
}

async fn refuse(
    shard: &Rc<Shard>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
    refusal: MapRefusal,
) -> (End, usize, Vec<u8>) {
    let (code, words) = refusal.answer();
    let failure = Failure::new(code, words);
    let end = refuse_request(shard, connection, head, &failure).await;
    (end, head.bytes, Vec::new())
}
