//! Bodies: their framing, their ends good and bad, and the idle deadline.

use std::sync::atomic::AtomicBool;

use super::origin::{Origin, Peer};
use super::*;
use crate::io::timeout_ms;

/// An origin that answers every connection's first request with `head`, then does as `body` says.
fn answering(head: &'static str, body: impl Fn(&mut Peer) + Send + Sync + 'static) -> Origin {
    Origin::start(move |_, peer| {
        peer.request();
        peer.send(head);
        body(peer);
    })
}

#[test]
fn a_body_with_length_is_whole_at_any_room() {
    run(async |shard| {
        let body = pattern(300_000);
        let sent = body.clone();
        let origin = Origin::start(move |_, peer| peer.serve(&sent));
        for room in [1_000, 16 * 1024, 65_537, 1 << 20] {
            let mut response = shard.get(origin.address).await.expect("an answer");
            assert!(
                read_all(&mut response, room).await.expect("a body") == body,
                "{room}"
            );
            assert_eq!(response.received(), 300_000);
        }
        assert_eq!(origin.accepted(), 1);
    });
}

#[test]
fn a_short_body_is_an_error_that_says_how_short() {
    run(async |shard| {
        for sent in [0, 1, 70_000, 99_999] {
            let origin = answering(
                "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
                move |peer| peer.send(vec![7; sent]),
            );
            let mut response = shard.get(origin.address).await.expect("an answer");
            for _ in 0..2 {
                let error = read_all(&mut response, 4096).await.expect_err("short");
                let UpstreamError::ShortBody {
                    received, expected, ..
                } = error
                else {
                    panic!("{error}")
                };
                assert_eq!((received, expected), (sent as u64, Some(100_000)));
            }
            assert!(!response.is_done());
            assert_eq!(shard.upstream.connections(), 0);
        }
        assert_eq!(shard.counts.failed.borrow().len(), 4, "each told once");
    });
}

#[test]
fn a_body_cut_by_a_reset_is_an_error() {
    run(async |shard| {
        let origin = answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", |peer| {
            peer.send("abc");
            peer.cut();
        });
        let mut response = shard.get(origin.address).await.expect("an answer");
        assert!(
            read_all(&mut response, 10)
                .await
                .is_err_and(|error| error.may_retry())
        );
    });
}

#[test]
fn a_body_until_close_ends_with_the_connection() {
    run(async |shard| {
        let origin = answering("HTTP/1.1 200 OK\r\n\r\n", |peer| {
            peer.send(pattern(100_000));
        });
        let mut response = shard.get(origin.address).await.expect("an answer");
        assert_eq!(response.body_length(), None);
        assert!(read_all(&mut response, 9_999).await.expect("a body") == pattern(100_000));
        assert!(response.is_done());
        assert_eq!(shard.upstream.connections(), 0);
    });
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Data `hello, world` in three chunks, with an extension, a leading zero and trailers.
const BODY: &str = "5\r\nhello\r\n1;x=y\r\n,\r\n06\r\n world\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n";

#[test]
fn a_chunked_body_is_whole_over_every_split() {
    run(async |shard| {
        let message = format!("{CHUNKED}{BODY}");
        let splits = message.len();
        let received = Arc::clone(&shard.counts.received);
        let origin = Origin::start(move |_, peer| {
            for split in 0..splits {
                peer.request();
                peer.send_split(message.as_bytes(), split, &received);
            }
        });
        for split in 0..splits {
            let mut response = shard.get(origin.address).await.expect("an answer");
            let body = read_all(&mut response, 1 + split % 13)
                .await
                .expect("a body");
            assert_eq!(body, b"hello, world", "{split}");
            assert_eq!(response.trailers(), b"X-A: 1\r\nX-B: 2\r\n");
            assert_eq!(response.body_length(), None);
        }
        assert_eq!(origin.accepted(), 1, "and the connection is kept");
    });
}

#[test]
fn large_and_small_chunks_are_whole() {
    run(async |shard| {
        let body = pattern(1 << 20);
        let sent = body.clone();
        let origin = Origin::start(move |_, peer| {
            while peer.request().is_some() {
                peer.send(CHUNKED);
                let mut sizes = [1, 100, 20_000, 3, 300_000, 65_536].into_iter().cycle();
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let size = sizes.next().map_or(1, |size| size.min(rest.len()));
                    let (chunk, later) = rest.split_at(size);
                    peer.send(format!("{size:x}\r\n"));
                    peer.send([chunk, b"\r\n"].concat());
                    rest = later;
                }
                peer.send("0\r\n\r\n");
            }
        });
        for room in [777, 30_000, 1 << 20] {
            let mut response = shard.get(origin.address).await.expect("an answer");
            assert!(
                read_all(&mut response, room).await.expect("a body") == body,
                "{room}"
            );
        }
        assert_eq!(origin.accepted(), 1);
    });
}

#[test]
fn a_chunked_body_cut_anywhere_is_an_error() {
    run(async |shard| {
        for cut in 0..BODY.len() {
            let origin = answering(CHUNKED, move |peer| peer.send(&BODY[..cut]));
            let mut response = shard.get(origin.address).await.expect("an answer");
            let error = read_all(&mut response, 100).await.err();
            assert!(
                matches!(error, Some(UpstreamError::ShortBody { expected: None, .. })),
                "{cut}: {error:?}"
            );
        }
    });
}

#[test]
fn a_broken_chunk_is_an_error_and_the_connection_closes() {
    run(async |shard| {
        for broken in [
            "x\r\n",
            "5\r\nhelloX",
            "\r\n",
            "-1\r\n",
            "fffffffffffffffff\r\n",
        ] {
            let origin = answering(CHUNKED, move |peer| {
                peer.send(broken);
                peer.wait_closed();
            });
            let mut response = shard.get(origin.address).await.expect("an answer");
            let error = read_all(&mut response, 100).await.err();
            assert!(
                matches!(error, Some(UpstreamError::BadChunk { .. })),
                "{error:?}"
            );
            assert_eq!(shard.upstream.connections(), 0);
        }
    });
}

#[test]
fn bytes_behind_a_chunked_body_close_the_connection() {
    run(async |shard| {
        let origin = answering(CHUNKED, |peer| {
            peer.send(format!("{BODY}HTTP/1.1 200 OK\r\n"));
            peer.wait_closed();
        });
        let mut response = shard.get(origin.address).await.expect("an answer");
        assert_eq!(
            read_all(&mut response, 100).await.expect("a body"),
            b"hello, world"
        );
        assert_eq!(shard.upstream.connections(), 0);
    });
}

#[test]
fn a_body_that_stands_still_is_an_idle_timeout() {
    let quick = UpstreamConfig {
        idle_timeout_ms: 60,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let origin = answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", |peer| {
            peer.send("abc");
            peer.wait_closed();
        });
        let mut response = shard.get(origin.address).await.expect("an answer");
        let error = read_all(&mut response, 100).await.err();
        assert!(
            matches!(
                error,
                Some(UpstreamError::IdleTimeout {
                    after_ms: 60,
                    received: 3,
                    ..
                })
            ),
            "{error:?}"
        );
        until(|| origin.open() == 0).await;
    });
}

#[test]
fn a_slow_reader_does_not_run_out_the_origins_time() {
    let quick = UpstreamConfig {
        idle_timeout_ms: 60,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let go = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&go);
        let origin = answering(
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
            move |peer| {
                peer.send("abc");
                while !gone.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                peer.send("def");
                peer.wait_closed();
            },
        );
        let mut response = shard.get(origin.address).await.expect("an answer");
        let mut out = [0; 3];
        assert_eq!(response.read(&mut out).await.expect("the first part"), 3);
        // Nobody waits for the origin, once before any wait and once after one that was dropped.
        sleep_ms(200).await;
        assert!(timeout_ms(10, response.read(&mut out)).await.is_none());
        sleep_ms(200).await;
        go.store(true, Ordering::SeqCst);
        assert_eq!(response.read(&mut out).await.expect("the rest"), 3);
        assert!(response.is_done());
    });
}

#[test]
fn an_unread_body_closes_its_connection() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| peer.serve(b"hello"));
        for _ in 0..3 {
            let mut response = shard.get(origin.address).await.expect("an answer");
            assert_eq!(response.read(&mut [0; 4]).await.expect("a part"), 4);
            response.finish();
            assert_eq!(shard.upstream.connections(), 0);
        }
        assert_eq!(origin.accepted(), 3);
    });
}

#[test]
fn a_poisoned_connection_is_not_kept() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| peer.serve(b"hello"));
        let mut response = shard.get(origin.address).await.expect("an answer");
        response.poison();
        read_all(&mut response, 100).await.expect("a body");
        assert_eq!(shard.upstream.connections(), 0);
    });
}
