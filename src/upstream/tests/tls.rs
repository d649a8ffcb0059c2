//! TLS: whom we trust, resumed sessions, large bodies, ends that are no ends.

use super::origin::{Origin, Pki, pki, trickling};
use super::*;
use rustls::version::{TLS12, TLS13};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn trusting(pki: &Pki) -> Arc<TlsConfig> {
    TlsConfig::new(&TlsRoots::File(pki.roots.clone())).expect("roots")
}

fn tls_at(address: SocketAddr) -> Arc<Endpoint> {
    Endpoint::new(true, &address.ip().to_string(), address.port())
}

#[test]
fn a_verified_origin_answers_over_both_versions() {
    for (name, versions) in [("v13", &[&TLS13][..]), ("v12", &[&TLS12][..])] {
        let pki = pki(name, versions);
        on_shard(config(), trusting(&pki), async |shard| {
            let origin = Origin::start_tls(Arc::clone(&pki.server), |_, peer| peer.serve(b"hello"));
            for _ in 0..3 {
                let mut response = shard
                    .fetch(&tls_at(origin.address))
                    .await
                    .expect("an answer");
                assert_eq!(read_all(&mut response, 3).await.expect("a body"), b"hello");
            }
            assert_eq!(
                (origin.accepted(), shard.counts.full_handshakes.get()),
                (1, 1)
            );
            assert_eq!(shard.counts.reused.get(), 2);
        });
    }
}

#[test]
fn sessions_are_resumed() {
    for (name, versions) in [("r13", &[&TLS13][..]), ("r12", &[&TLS12][..])] {
        let pki = pki(name, versions);
        let tls = trusting(&pki);
        let fresh = UpstreamConfig {
            pool_idle_max: 0,
            ..config()
        };
        let origin = Origin::start_tls(Arc::clone(&pki.server), |_, peer| peer.serve(b"hello"));
        // Also on another shard: the sessions are the process's.
        for round in 0..2 {
            on_shard(fresh.clone(), Arc::clone(&tls), async |shard| {
                for _ in 0..4 {
                    let fetched = shard.fetch(&tls_at(origin.address)).await;
                    let mut response = fetched.expect("an answer");
                    read_all(&mut response, 100).await.expect("a body");
                }
                let counts = (
                    shard.counts.full_handshakes.get(),
                    shard.counts.resumed.get(),
                );
                assert_eq!(counts, if round == 0 { (1, 3) } else { (0, 4) }, "{name}");
            });
        }
    }
}

#[test]
fn an_origin_that_is_not_trusted_is_refused_with_a_reason() {
    let pki = pki("untrusted", BOTH);
    let origin = Origin::start_tls(Arc::clone(&pki.server), |_, peer| peer.serve(b"secret"));
    let authority = Origin::start_tls(Arc::clone(&pki.server_with_ca), |_, peer| {
        peer.serve(b"secret")
    });
    let plain = Origin::start(|_, peer| {
        peer.send("220 mail.example.com ESMTP\r\n");
        peer.wait_closed();
    });
    let closing = Origin::start(|_, peer| {
        peer.body(1);
    });
    let no_retries = UpstreamConfig {
        retries: 0,
        ..config()
    };
    on_shard(no_retries.clone(), no_tls(), async |shard| {
        let error = shard
            .fetch(&tls_at(origin.address))
            .await
            .err()
            .expect("refused");
        assert!(error.to_string().contains("ca_file"), "{error}");
        assert!(matches!(error, UpstreamError::Tls { .. }));
    });
    on_shard(no_retries, trusting(&pki), async |shard| {
        let mut other = (*tls_at(origin.address)).clone();
        other.server_name = "other.test".into();
        let refused: [(Arc<Endpoint>, &str); 4] = [
            (Arc::new(other), "not valid for name \"other.test\""),
            (tls_at(authority.address), "basicConstraints=CA:FALSE"),
            (tls_at(plain.address), "does a TLS server answer there?"),
            (
                tls_at(closing.address),
                "closed the connection in the handshake",
            ),
        ];
        for (endpoint, reason) in refused {
            let error = shard.fetch(&endpoint).await.err().expect(reason);
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert_eq!(shard.upstream.connections(), 0);
    });
}

#[test]
fn a_large_body_is_intact() {
    let pki = pki("large", BOTH);
    on_shard(config(), trusting(&pki), async |shard| {
        let body = Arc::new(pattern(64 << 20));
        let sent = Arc::clone(&body);
        let origin = Origin::start_tls(Arc::clone(&pki.server), move |_, peer| peer.serve(&sent));
        for room in [256 * 1024, 1 << 20, 10_007] {
            let mut response = shard
                .fetch(&tls_at(origin.address))
                .await
                .expect("an answer");
            let mut out = vec![0; room];
            let mut at = 0;
            while at < body.len() {
                let bytes = response.read(&mut out).await.expect("a piece");
                assert!(bytes > 0 && out[..bytes] == body[at..at + bytes], "at {at}");
                at += bytes;
            }
            assert!(response.is_done());
        }
        assert_eq!(origin.accepted(), 1);
    });
}

#[test]
fn a_chunked_body_over_tls_is_whole_over_every_split() {
    let pki = pki("splits", BOTH);
    on_shard(config(), trusting(&pki), async |shard| {
        let message =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let received = Arc::clone(&shard.counts.received);
        let origin = Origin::start_tls(Arc::clone(&pki.server), move |_, peer| {
            for split in 0..message.len() {
                peer.request();
                peer.send_split(message.as_bytes(), split, &received);
            }
        });
        for split in 0..message.len() {
            let mut response = shard
                .fetch(&tls_at(origin.address))
                .await
                .expect("an answer");
            let body = read_all(&mut response, 1 + split % 7)
                .await
                .expect("a body");
            assert_eq!(body, b"hello", "{split}");
        }
        assert_eq!(origin.accepted(), 1);
    });
}

#[test]
fn a_body_until_close_without_the_sessions_end_is_cut() {
    let pki = pki("cut", BOTH);
    on_shard(config(), trusting(&pki), async |shard| {
        let origin = Origin::start_tls(Arc::clone(&pki.server), |number, peer| {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\n\r\nhello");
            if number == 0 {
                peer.end_session();
            }
            peer.cut();
        });
        let mut whole = shard
            .fetch(&tls_at(origin.address))
            .await
            .expect("an answer");
        assert_eq!(read_all(&mut whole, 100).await.expect("a body"), b"hello");
        let mut cut = shard
            .fetch(&tls_at(origin.address))
            .await
            .expect("an answer");
        let error = read_all(&mut cut, 100).await.err();
        assert!(
            matches!(
                error,
                Some(UpstreamError::ShortBody {
                    received: 5,
                    expected: None,
                    ..
                })
            ),
            "{error:?}"
        );
    });
}

#[test]
fn a_kept_session_that_the_origin_ended_costs_no_error() {
    let pki = pki("ended", BOTH);
    on_shard(config(), trusting(&pki), async |shard| {
        let origin = Origin::start_tls(Arc::clone(&pki.server), |_, peer| {
            peer.request();
            peer.ok(b"hello");
            peer.end_session();
        });
        for round in 1..=3 {
            let mut response = shard
                .fetch(&tls_at(origin.address))
                .await
                .expect("an answer");
            read_all(&mut response, 100).await.expect("a body");
            assert_eq!(origin.accepted(), round);
            until(|| origin.open() == 0).await;
        }
        assert!(shard.counts.failed.borrow().is_empty());
    });
}

#[test]
fn a_dropped_handshake_leaks_no_connection() {
    let pki = pki("dropped", BOTH);
    on_shard(config(), trusting(&pki), async |shard| {
        let body = pattern(4 << 20);
        let origin = Origin::start_tls(Arc::clone(&pki.server), move |_, peer| peer.serve(&body));
        for round in 0..60 {
            let work = async {
                let mut response = shard.fetch(&tls_at(origin.address)).await?;
                read_all(&mut response, 4096).await
            };
            let _ = crate::io::timeout_ms(round % 20, work).await;
            let upstream = &shard.upstream;
            assert_eq!(upstream.connections(), upstream.connections_idle());
        }
        shard.upstream.close_idle();
        until(|| origin.open() == 0).await;
    });
}

#[test]
fn records_may_come_in_any_pieces() {
    let body = pattern(40_000);
    for (name, versions) in [("p13", &[&TLS13][..]), ("p12", &[&TLS12][..])] {
        let pki = pki(name, versions);
        let servers = [&pki.server, &pki.server_in_fragments];
        for (server, piece) in servers
            .into_iter()
            .flat_map(|s| [1, 7, 1000].map(|p| (s, p)))
        {
            let sent = body.clone();
            let origin = Origin::start_tls(Arc::clone(server), move |_, peer| peer.serve(&sent));
            let endpoint = tls_at(trickling(origin.address, piece));
            on_shard(config(), trusting(&pki), async |shard| {
                comes_whole_twice(shard, &endpoint, &body).await;
            });
        }
    }
}

async fn comes_whole_twice(shard: &Shard, endpoint: &Arc<Endpoint>, body: &[u8]) {
    for room in [777, 1 << 20] {
        let mut response = shard.fetch(endpoint).await.expect("an answer");
        assert!(
            read_all(&mut response, room).await.expect("a body") == body,
            "{room}"
        );
    }
    assert_eq!(shard.counts.opened.get(), 1);
}

#[test]
fn keys_may_change_within_a_body() {
    let pki = pki("keys", &[&TLS13]);
    on_shard(config(), trusting(&pki), async |shard| {
        let body = pattern(1 << 20);
        let sent = body.clone();
        let origin = Origin::start_tls(Arc::clone(&pki.server), move |_, peer| {
            while peer.request().is_some() {
                peer.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    sent.len()
                ));
                for piece in sent.chunks(100_000) {
                    peer.send(piece);
                    peer.change_keys();
                }
            }
        });
        for _ in 0..3 {
            let mut response = shard
                .fetch(&tls_at(origin.address))
                .await
                .expect("an answer");
            assert!(read_all(&mut response, 64 * 1024).await.expect("a body") == body);
        }
        assert_eq!(origin.accepted(), 1);
    });
}
