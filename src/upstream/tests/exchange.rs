//! Requests and response heads: reuse, retries, timeouts, interim heads, what is refused.

use std::cell::Cell;
use std::rc::Rc;

use super::origin::{Origin, dead_port};
use super::*;
use crate::io::timeout_ms;
use crate::upstream::Fault;

#[test]
fn a_connection_is_kept_and_used_again() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| peer.serve(b"hello"));
        for _ in 0..5 {
            let mut response = shard.get(origin.address).await.expect("an answer");
            assert_eq!(response.status(), 200);
            assert_eq!(response.body_length(), Some(5));
            assert_eq!(
                read_all(&mut response, 100).await.expect("a body"),
                b"hello"
            );
            assert!(response.is_done() && response.waited_ns() > 0);
            assert_eq!(shard.upstream.connections_idle(), 1, "with the last byte");
        }
        assert_eq!(origin.accepted(), 1);
        assert_eq!(
            (shard.counts.opened.get(), shard.counts.reused.get()),
            (1, 4)
        );
        assert_eq!(shard.counts.requested.get(), 5);
    });
}

#[test]
fn the_head_is_given_as_it_came() {
    run(async |shard| {
        let head = "HTTP/1.1 206 Partial Content\r\nETag: \"x\"\r\nx-Amz-Meta-A: 1\r\n\
                    x-amz-meta-a: 2\r\nContent-Length: 2\r\n\r\n";
        let origin = Origin::start(move |_, peer| {
            peer.request();
            peer.send(format!("{head}ab"));
            peer.wait_closed();
        });
        let response = shard.get(origin.address).await.expect("an answer");
        assert_eq!(response.head_bytes(), head.as_bytes());
        let parsed = response.head();
        assert_eq!((parsed.status, parsed.reason), (206, "Partial Content"));
        assert_eq!(parsed.headers.iter().count(), 4);
    });
}

#[test]
fn a_kept_connection_that_the_origin_closed_costs_no_error() {
    run(async |shard| {
        // The origin closes after each answer without saying so.
        let origin = Origin::start(|_, peer| {
            peer.request();
            peer.ok(b"hello");
        });
        for round in 1..=3 {
            let mut response = shard.get(origin.address).await.expect("an answer");
            read_all(&mut response, 100).await.expect("a body");
            assert_eq!(origin.accepted(), round);
            until(|| origin.open() == 0).await;
        }
        assert!(shard.counts.stale.get() >= 2);
        assert_eq!(*shard.counts.failed.borrow(), Vec::<String>::new());
        assert_eq!(shard.counts.retried.get(), 0);
    });
}

#[test]
fn a_kept_connection_closed_at_the_request_is_tried_again_and_not_counted() {
    let no_retries = UpstreamConfig {
        retries: 0,
        ..config()
    };
    on_shard(no_retries, no_tls(), async |shard| {
        // Alive until the second request comes, and closed at its sight.
        let origin = Origin::start(|_, peer| {
            peer.request();
            peer.ok(b"hello");
            peer.request();
        });
        for round in 1..=3 {
            let mut response = shard.get(origin.address).await.expect("an answer");
            read_all(&mut response, 100).await.expect("a body");
            assert_eq!(origin.accepted(), round);
        }
        assert_eq!(
            (shard.counts.stale.get(), shard.counts.retried.get()),
            (2, 0)
        );
        assert!(shard.counts.failed.borrow().is_empty());
    });
}

#[test]
fn unsolicited_bytes_on_an_idle_connection_close_it() {
    run(async |shard| {
        let origin = Origin::start(|number, peer| {
            peer.request();
            peer.ok(b"hello");
            if number == 0 {
                peer.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
            }
            peer.serve(b"world");
        });
        let mut response = shard.get(origin.address).await.expect("an answer");
        read_all(&mut response, 5).await.expect("a body");
        sleep_ms(20).await;
        let mut response = shard.get(origin.address).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(read_all(&mut response, 5).await.expect("a body"), b"hello");
        assert_eq!(origin.accepted(), 2);
    });
}

#[test]
fn connection_close_and_http_1_0_are_not_kept() {
    run(async |shard| {
        let origin = Origin::start(|number, peer| {
            peer.request();
            peer.send(match number {
                0 => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
                1 => "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
                // More than announced: what follows would be taken for the next answer.
                2 => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            });
            peer.wait_closed();
        });
        for round in 1..=3 {
            let mut response = shard.get(origin.address).await.expect("an answer");
            assert_eq!(read_all(&mut response, 10).await.expect("a body"), b"ab");
            assert_eq!(
                (origin.accepted(), shard.upstream.connections()),
                (round, 0)
            );
        }
        let response = shard.get(origin.address).await.expect("an answer");
        assert!(response.is_done());
        assert_eq!(shard.upstream.connections_idle(), 1);
    });
}

#[test]
fn a_head_request_has_no_body_whatever_its_length_says() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            }
        });
        for _ in 0..2 {
            let endpoint = at(origin.address);
            let request = b"HEAD /b/k HTTP/1.1\r\nHost: a\r\n\r\n";
            let fetched = shard.upstream.fetch(&endpoint, request, Method::Head).await;
            let mut response = fetched.expect("an answer");
            assert_eq!(read_all(&mut response, 10).await.expect("no body"), b"");
        }
        assert_eq!(origin.accepted(), 1);
    });
}

#[test]
fn interim_responses_are_skipped() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| {
            peer.request();
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            for _ in 0..3 {
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n");
            }
            peer.ok(b"hello");
            peer.wait_closed();
        });
        let mut response = shard.get(origin.address).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(read_all(&mut response, 3).await.expect("a body"), b"hello");
        assert_eq!(shard.upstream.connections_idle(), 1);
    });
}

#[test]
fn interim_responses_without_end_are_refused() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| {
            peer.request();
            peer.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(100));
            peer.wait_closed();
        });
        let error = shard.get(origin.address).await.err();
        assert!(
            matches!(error, Some(UpstreamError::TooManyInterims { .. })),
            "{error:?}"
        );
        assert_eq!(origin.accepted(), 1, "not again");
    });
}

#[test]
fn what_is_no_http_response_is_refused_and_not_asked_again() {
    run(async |shard| {
        let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(40_000));
        let table: Vec<(String, &str)> = vec![
            (huge, "the response head exceeds 32768 bytes"),
            (
                "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
                "the status line is invalid",
            ),
            (
                "\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(),
                "too many empty lines",
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length: 0\n\n".to_owned(),
                "a bare LF",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
                "2 Content-Length lines",
            ),
            (
                "HTTP/1.1 101 Switching\r\n\r\n".to_owned(),
                "switched to another protocol",
            ),
        ];
        for (answer, complaint) in table {
            let origin = Origin::start(move |_, peer| {
                peer.request();
                peer.send(&answer);
                peer.wait_closed();
            });
            let error = shard.get(origin.address).await.err().expect(complaint);
            assert!(error.to_string().contains(complaint), "{error}");
            assert!(!error.may_retry() && error.fault() == Fault::Origin);
            assert_eq!(origin.accepted(), 1);
        }
    });
}

#[test]
fn no_answer_in_time_is_a_first_byte_timeout_after_the_retries() {
    let quick = UpstreamConfig {
        first_byte_timeout_ms: 60,
        retries: 1,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let origin = Origin::start(|_, peer| {
            peer.request();
            // A head that trickles is no whole head either.
            peer.send("HTTP/1.1 200 OK\r\nContent-Le");
            peer.wait_closed();
        });
        let begun = now_ms();
        let error = shard.get(origin.address).await.err();
        assert!(matches!(
            error,
            Some(UpstreamError::FirstByteTimeout { after_ms: 60, .. })
        ));
        assert!(now_ms() - begun >= 120);
        assert_eq!((origin.accepted(), shard.counts.retried.get()), (2, 1));
        until(|| origin.open() == 0).await;
    });
}

#[test]
fn a_retry_goes_out_on_a_new_connection() {
    let quick = UpstreamConfig {
        first_byte_timeout_ms: 60,
        retries: 1,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let origin = Origin::start(|number, peer| {
            peer.request();
            peer.ok(b"hello");
            if number < 2 {
                return peer.wait_closed();
            }
            peer.serve(b"hello");
        });
        let mut kept = Vec::new();
        for _ in 0..2 {
            kept.push(shard.get(origin.address).await.expect("an answer"));
        }
        for response in &mut kept {
            read_all(response, 100).await.expect("a body");
        }
        assert_eq!(shard.upstream.connections_idle(), 2, "both will hang");
        shard.get(origin.address).await.expect("an answer");
        assert_eq!((origin.accepted(), shard.counts.retried.get()), (3, 1));
    });
}

#[test]
fn a_refused_connection_is_retried_and_then_an_error() {
    run(async |shard| {
        let port = dead_port();
        let error = shard
            .get(SocketAddr::from(([127, 0, 0, 1], port)))
            .await
            .err();
        assert!(
            matches!(error, Some(UpstreamError::Connect { .. })),
            "{error:?}"
        );
        assert_eq!(shard.counts.retried.get(), 2);
        assert_eq!(shard.counts.failed.borrow().len(), 3);
    });
}

#[test]
fn a_safe_request_is_sent_again_until_a_head_has_come() {
    run(async |shard| {
        let origin = Origin::start(|number, peer| {
            peer.request();
            match number {
                0 => {}
                1 => peer.send("HTTP/1.1 200"),
                _ => {
                    peer.ok(b"third");
                    peer.wait_closed();
                }
            }
        });
        let mut response = shard.get(origin.address).await.expect("the third try");
        assert_eq!(read_all(&mut response, 9).await.expect("a body"), b"third");
        assert_eq!((origin.accepted(), shard.counts.retried.get()), (3, 2));
    });
}

#[test]
fn a_request_with_an_effect_is_sent_once() {
    run(async |shard| {
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        let origin = Origin::start(move |_, peer| {
            peer.request();
            seen.fetch_add(1, Ordering::SeqCst);
        });
        let endpoint = at(origin.address);
        let request = b"DELETE /b/k HTTP/1.1\r\nHost: a\r\n\r\n";
        for method in [Method::Delete, Method::Post] {
            let fetched = shard.upstream.fetch(&endpoint, request, method).await;
            assert!(matches!(
                fetched.err(),
                Some(UpstreamError::ClosedBeforeHead { .. })
            ));
        }
        assert_eq!(
            (requests.load(Ordering::SeqCst), shard.counts.retried.get()),
            (2, 0)
        );
    });
}

#[test]
fn an_address_that_may_not_be_dialled_is_not_dialled() {
    let origin = Origin::start(|_, peer| peer.serve(b"secret"));
    let refused = origin.address;
    let guarded = UpstreamConfig {
        allow: Arc::new(move |_, address| address != refused),
        ..config()
    };
    on_shard(guarded, no_tls(), async |shard| {
        let error = shard.get(refused).await.err().expect("refused");
        assert!(matches!(error, UpstreamError::AddressRefused { .. }));
        assert_eq!((error.fault(), error.failure()), (Fault::Settings, None));
        assert_eq!(origin.accepted(), 0);
    });
}

#[test]
fn connections_are_bounded_and_the_bound_has_an_answer() {
    let small = UpstreamConfig {
        connections_max: 2,
        connect_timeout_ms: 100,
        ..config()
    };
    on_shard(small, no_tls(), async |shard| {
        let origin = Origin::start(|_, peer| peer.serve(&pattern(1 << 20)));
        let mut first = shard.get(origin.address).await.expect("an answer");
        let second = shard.get(origin.address).await.expect("an answer");
        let error = shard.get(origin.address).await.err().expect("one too many");
        assert!(matches!(error, UpstreamError::Busy { limit: 2 }));
        assert_eq!(
            (error.fault(), shard.upstream.connections()),
            (Fault::Here, 2)
        );
        // A connection that comes free goes to whoever waits.
        let (upstream, endpoint) = (Rc::clone(&shard.upstream), at(origin.address));
        let third = Rc::new(Cell::new(false));
        let done = Rc::clone(&third);
        spawn(async move {
            done.set(upstream.fetch(&endpoint, GET, Method::Get).await.is_ok());
        });
        sleep_ms(5).await;
        read_all(&mut first, 1 << 16).await.expect("a body");
        until(|| third.get()).await;
        drop(second);
    });
}

#[test]
fn many_requests_share_few_connections() {
    let small = UpstreamConfig {
        connections_max: 3,
        ..config()
    };
    on_shard(small, no_tls(), async |shard| {
        let origins = [0, 1].map(|_| Origin::start(|_, peer| peer.serve(b"hello")));
        let done = Rc::new(Cell::new(0));
        for number in 0..90 {
            let upstream = Rc::clone(&shard.upstream);
            let endpoint = at(origins[number % 2].address);
            let done = Rc::clone(&done);
            spawn(async move {
                // Every third one leaves while it waits, or soon after.
                let fetched = timeout_ms(
                    if number.is_multiple_of(3) {
                        number as u64 % 4
                    } else {
                        1_000
                    },
                    async {
                        let fetched = upstream.fetch(&endpoint, GET, Method::Get).await;
                        let mut response = fetched.expect("an answer");
                        read_all(&mut response, 100).await.expect("a body");
                    },
                );
                let whole = fetched.await.is_some();
                assert!(whole || number.is_multiple_of(3));
                assert!(upstream.connections() <= 3);
                done.set(done.get() + 1);
            });
        }
        until(|| done.get() == 90).await;
        assert!(!shard.upstream.shared.permits.is_wanted());
    });
}

#[test]
fn an_idle_connection_makes_room_for_another_origin() {
    let small = UpstreamConfig {
        connections_max: 1,
        ..config()
    };
    on_shard(small, no_tls(), async |shard| {
        let origins = [0, 1].map(|_| Origin::start(|_, peer| peer.serve(b"hello")));
        for origin in &origins {
            let mut response = shard.get(origin.address).await.expect("an answer");
            read_all(&mut response, 100).await.expect("a body");
        }
        assert_eq!(shard.upstream.connections(), 1);
        until(|| origins[0].open() == 0).await;
    });
}

#[test]
fn idle_connections_are_closed_when_their_time_is_over_or_the_origin_closes_them() {
    let short = UpstreamConfig {
        keepalive_ms: 300,
        ..config()
    };
    on_shard(short, no_tls(), async |shard| {
        let origin = Origin::start(|_, peer| peer.serve(b"hello"));
        let mut response = shard.get(origin.address).await.expect("an answer");
        read_all(&mut response, 100).await.expect("a body");
        assert_eq!(shard.upstream.connections_idle(), 1);
        until(|| shard.upstream.connections() == 0 && origin.open() == 0).await;
    });
}

#[test]
fn a_dropped_future_leaks_no_connection_at_any_point() {
    run(async |shard| {
        // Slow enough that every step takes its time: the head in pieces, then the body.
        let origin = Origin::start(|number, peer| {
            peer.request();
            if number.is_multiple_of(3) {
                return peer.wait_closed();
            }
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" {
                peer.send([*byte]);
            }
            peer.send([b'x'; 200]);
            peer.wait_closed();
        });
        for round in 0..120 {
            let work = async {
                let mut response = shard.get(origin.address).await.expect("an answer");
                read_all(&mut response, 64).await
            };
            assert!(
                timeout_ms(round % 12, work).await.is_none(),
                "it cannot end"
            );
            assert_eq!(shard.upstream.connections(), 0);
        }
        until(|| origin.open() == 0).await;
    });
}
