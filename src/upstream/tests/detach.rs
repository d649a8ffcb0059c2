//! Responses that move to another shard.

use std::sync::mpsc;
use std::thread;

use super::origin::{Origin, pki};
use super::*;
use crate::upstream::DetachedResponse;

/// Begins a response on one shard and reads the rest on another, where the connection is then pooled and used again.
fn moves_to_another_shard(
    origin: &Origin,
    endpoint: &Arc<Endpoint>,
    tls: &Arc<TlsConfig>,
    body: &[u8],
) {
    let (sender, receiver) = mpsc::channel::<DetachedResponse>();
    let (endpoint_there, tls_there) = (Arc::clone(endpoint), Arc::clone(tls));
    let expected = body.to_vec();
    let there = thread::spawn(move || {
        let detached = receiver.recv().expect("a response");
        on_shard(config(), tls_there, async |shard| {
            let mut response = shard.upstream.attach(detached).expect("attached");
            let so_far = response.received() as usize;
            assert_eq!((response.status(), shard.upstream.connections()), (200, 1));
            assert_eq!(response.head().status, 200);
            let rest = read_all(&mut response, 50_000).await.expect("the rest");
            assert!(rest == expected[so_far..]);
            assert_eq!(shard.upstream.connections_idle(), 1);
            let mut again = shard.fetch(&endpoint_there).await.expect("an answer");
            assert!(read_all(&mut again, 50_000).await.expect("a body") == expected);
            assert_eq!(shard.counts.opened.get(), 0, "all on the one connection");
        });
    });
    on_shard(config(), Arc::clone(tls), async |shard| {
        let mut response = shard.fetch(endpoint).await.expect("an answer");
        let mut out = vec![0; 30_001];
        let bytes = response.read(&mut out).await.expect("a part");
        assert!(out[..bytes] == body[..bytes]);
        sender
            .send(response.detach().expect("detached"))
            .expect("there");
        assert_eq!(shard.upstream.connections(), 0);
    });
    there.join().expect("the other shard");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_plain_response_moves_with_what_was_received() {
    let body = pattern(1 << 20);
    let sent = body.clone();
    let origin = Origin::start(move |_, peer| peer.serve(&sent));
    moves_to_another_shard(&origin, &at(origin.address), &no_tls(), &body);
}

#[test]
fn a_tls_response_moves_with_its_session() {
    let pki = pki("detach", &[&rustls::version::TLS13]);
    let tls = TlsConfig::new(&TlsRoots::File(pki.roots.clone())).expect("roots");
    let body = pattern(1 << 20);
    let sent = body.clone();
    let origin = Origin::start_tls(Arc::clone(&pki.server), move |_, peer| peer.serve(&sent));
    let endpoint = Endpoint::new(true, "127.0.0.1", origin.port());
    moves_to_another_shard(&origin, &endpoint, &tls, &body);
}

#[test]
fn a_chunked_response_moves_in_the_middle_of_a_chunk() {
    let body = pattern(200_000);
    let sent = body.clone();
    let origin = Origin::start(move |_, peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for chunk in sent.chunks(70_000) {
                peer.send(format!("{:x}\r\n", chunk.len()));
                peer.send(chunk);
                peer.send("\r\n");
            }
            peer.send("0\r\n\r\n");
        }
    });
    moves_to_another_shard(&origin, &at(origin.address), &no_tls(), &body);
}

#[test]
fn a_response_without_connection_moves_too() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| peer.serve(b""));
        let response = shard.get(origin.address).await.expect("an answer");
        let detached = response.detach().expect("detached");
        let mut response = shard.upstream.attach(detached).expect("attached");
        assert_eq!(response.read(&mut [0]).await.expect("no body"), 0);
    });
}

#[test]
fn a_detached_response_that_nobody_takes_closes_its_connection() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| peer.serve(&pattern(1 << 20)));
        let response = shard.get(origin.address).await.expect("an answer");
        drop(response.detach().expect("detached"));
        until(|| origin.open() == 0).await;
    });
}
