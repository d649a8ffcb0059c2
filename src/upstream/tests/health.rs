//! Addresses that fail, rest, are probed and come back.

use std::net::TcpListener;

use super::origin::{Origin, dead_port};
use super::*;
use crate::upstream::Reuse;

const ONE: [u8; 4] = [127, 0, 0, 1];
const TWO: [u8; 4] = [127, 0, 0, 2];
const THREE: [u8; 4] = [127, 0, 0, 3];

fn listen_at(ip: [u8; 4], port: u16) -> Origin {
    Origin::start_at(SocketAddr::from((ip, port)), None, |_, peer| {
        peer.serve(b"hello")
    })
}

async fn get_fresh(shard: &Shard, endpoint: &Arc<Endpoint>) -> Result<(), UpstreamError> {
    shard.upstream.close_idle();
    let mut response = shard.fetch(endpoint).await?;
    read_all(&mut response, 100).await.map(|_| ())
}

#[test]
fn connections_go_to_all_addresses_of_a_name() {
    run(async |shard| {
        let first = listen_at(ONE, 0);
        let others = [listen_at(TWO, first.port()), listen_at(THREE, first.port())];
        let endpoint = shard.named(first.port(), &[ONE, TWO, THREE]).await;
        let mut held = Vec::new();
        for _ in 0..9 {
            held.push(
                shard
                    .upstream
                    .checkout(&endpoint, Reuse::Any)
                    .await
                    .expect("connected"),
            );
        }
        let accepted = || [first.accepted(), others[0].accepted(), others[1].accepted()];
        until(|| accepted() == [3, 3, 3]).await;
    });
}

#[test]
fn a_failing_address_rests_and_one_probe_brings_it_back() {
    let quick = UpstreamConfig {
        rest_ms: 200,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let good = listen_at(ONE, 0);
        let endpoint = shard.named(good.port(), &[ONE, TWO]).await;
        // Nobody listens on the second address: each request still succeeds, on the first.
        until_resting(shard, &endpoint, 1).await;
        assert_eq!(shard.counts.rested.get(), 1);
        let tries = shard.counts.retried.get();
        for _ in 0..10 {
            get_fresh(shard, &endpoint)
                .await
                .expect("from the good address");
        }
        assert_eq!(shard.counts.retried.get(), tries, "it is left alone");

        let back = listen_at(TWO, good.port());
        while shard.counts.recovered.get() == 0 {
            get_fresh(shard, &endpoint)
                .await
                .expect("from the good address");
            sleep_ms(20).await;
        }
        assert_eq!(back.accepted(), 1, "one probe decides");
        assert_eq!(shard.upstream.addresses_resting(), 0);
        assert_eq!(
            shard.counts.retried.get(),
            tries,
            "no request waited for it"
        );
    });
}

async fn until_resting(shard: &Shard, endpoint: &Arc<Endpoint>, resting: usize) {
    for _ in 0..100 {
        if shard.upstream.addresses_resting() == resting {
            return;
        }
        get_fresh(shard, endpoint)
            .await
            .expect("from the good address");
    }
    panic!("it does not rest");
}

#[test]
fn a_failed_probe_is_no_requests_failure_and_doubles_the_rest() {
    let quick = UpstreamConfig {
        rest_ms: 100,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let good = listen_at(ONE, 0);
        let endpoint = shard.named(good.port(), &[ONE, TWO]).await;
        until_resting(shard, &endpoint, 1).await;
        let failures = shard.counts.failed.borrow().len();
        let tries = shard.counts.retried.get();
        while shard.counts.failed.borrow().len() < failures + 2 {
            get_fresh(shard, &endpoint)
                .await
                .expect("from the good address");
            sleep_ms(10).await;
        }
        assert_eq!(shard.counts.retried.get(), tries);
        assert_eq!(shard.upstream.addresses_resting(), 1);
    });
}

#[test]
fn when_all_addresses_rest_the_least_bad_is_used() {
    let slow = UpstreamConfig {
        rest_ms: 60_000,
        ..config()
    };
    on_shard(slow, no_tls(), async |shard| {
        let port = dead_port();
        let endpoint = shard.named(port, &[ONE, TWO]).await;
        for _ in 0..3 {
            assert!(get_fresh(shard, &endpoint).await.is_err());
        }
        assert_eq!(shard.upstream.addresses_resting(), 2);
        let back = listen_at(ONE, port);
        get_fresh(shard, &endpoint)
            .await
            .expect("although it rests");
        assert_eq!((back.accepted(), shard.counts.recovered.get()), (1, 1));
    });
}

#[test]
fn a_single_dead_address_is_dialled_again_by_each_request() {
    run(async |shard| {
        let port = dead_port();
        let address = SocketAddr::from((ONE, port));
        for _ in 0..3 {
            assert!(shard.get(address).await.is_err());
        }
        let back = listen_at(ONE, port);
        shard
            .get(address)
            .await
            .expect("no outage of our own making");
        assert_eq!(back.accepted(), 1);
    });
}

#[test]
fn a_resting_addresss_idle_connections_are_closed() {
    let quick = UpstreamConfig {
        first_byte_timeout_ms: 50,
        failures_to_rest: 1,
        retries: 0,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let origin = Origin::start(|number, peer| {
            if number > 0 {
                peer.request();
                return peer.wait_closed();
            }
            peer.serve(b"hello");
        });
        let endpoint = at(origin.address);
        let mut kept = shard.fetch(&endpoint).await.expect("an answer");
        let hanging = shard
            .upstream
            .checkout(&endpoint, Reuse::Never)
            .await
            .expect("connected");
        read_all(&mut kept, 100).await.expect("a body");
        drop(hanging);
        assert_eq!(shard.upstream.connections_idle(), 1);
        let request = b"POST / HTTP/1.1\r\n\r\n";
        let conn = shard.upstream.checkout(&endpoint, Reuse::Never).await;
        let mut conn = conn.expect("connected");
        conn.arm(crate::upstream::Awaiting::FirstByte);
        conn.send_all(request).await.expect("sent");
        let error = conn.read_head(Method::Post).await.expect_err("no answer");
        drop(conn);
        shard.upstream.note_failure(&endpoint, &error);
        assert_eq!(shard.upstream.connections(), 0);
        assert_eq!(shard.upstream.addresses_resting(), 1);
    });
}

#[test]
fn a_connection_that_is_not_taken_is_a_timeout_and_the_next_address_is_tried() {
    let quick = UpstreamConfig {
        connect_timeout_ms: 150,
        retries: 1,
        ..config()
    };
    on_shard(quick, no_tls(), async |shard| {
        let good = listen_at(ONE, 0);
        // A TLS handshake that nobody answers: the time covers it too.
        let silent = TcpListener::bind(SocketAddr::from((TWO, 0))).expect("bound");
        let address = silent.local_addr().expect("bound");
        let endpoint = Endpoint::new(true, "127.0.0.2", address.port());
        let begun = now_ms();
        let error = shard.fetch(&endpoint).await.err();
        assert!(matches!(
            error,
            Some(UpstreamError::ConnectTimeout { after_ms: 150, .. })
        ));
        assert!(now_ms() - begun >= 300, "both tries");
        get_fresh(shard, &at(good.address))
            .await
            .expect("others are not concerned");
    });
}

#[test]
fn an_address_without_a_way_to_it_costs_no_try() {
    let none = UpstreamConfig {
        retries: 0,
        ..config()
    };
    on_shard(none, no_tls(), async |shard| {
        let good = listen_at(ONE, 0);
        let endpoint = shard.named(good.port(), &[ONE]).await;
        // A documentation prefix that no test machine has a route to, or at least no host in.
        let lost: IpAddr = "2001:db8::1".parse().expect("an address");
        let probe = std::net::TcpStream::connect_timeout(
            &SocketAddr::new(lost, good.port()),
            std::time::Duration::from_millis(50),
        );
        let kind = probe.err().map(|error| error.kind());
        if kind != Some(std::io::ErrorKind::NetworkUnreachable) {
            return;
        }
        shard
            .upstream
            .on_resolved("origin.test", Ok(&[lost, IpAddr::from(ONE)]));
        for _ in 0..10 {
            get_fresh(shard, &endpoint)
                .await
                .expect("by the other family");
        }
        assert_eq!(shard.upstream.addresses_resting(), 1);
    });
}

#[test]
fn a_name_that_does_not_resolve_is_an_error() {
    run(async |shard| {
        let endpoint = Endpoint::new(false, "nowhere.test", 80);
        let upstream = Rc::clone(&shard.upstream);
        spawn(async move { upstream.on_resolved("nowhere.test", Err(())) });
        let error = shard.fetch(&endpoint).await.err();
        assert!(
            matches!(error, Some(UpstreamError::Resolve { .. })),
            "{error:?}"
        );
        assert_eq!(shard.upstream.connections(), 0);
    });
}

#[test]
fn a_connection_to_an_address_that_the_name_lost_is_not_kept_for_ever() {
    let short = UpstreamConfig {
        keepalive_ms: 100,
        ..config()
    };
    on_shard(short, no_tls(), async |shard| {
        let origin = listen_at(ONE, 0);
        let endpoint = shard.named(origin.port(), &[ONE]).await;
        for lost in [false, true] {
            let mut response = shard.fetch(&endpoint).await.expect("an answer");
            sleep_ms(150).await;
            if lost {
                shard
                    .upstream
                    .on_resolved("origin.test", Ok(&[IpAddr::from(TWO)]));
            }
            read_all(&mut response, 100).await.expect("a body");
            assert_eq!(shard.upstream.connections_idle(), usize::from(!lost));
        }
    });
}
