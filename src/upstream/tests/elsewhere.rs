//! Other addresses and other places: second tries beside the first, fallbacks, and what both leave behind.

#![allow(
    clippy::disallowed_methods,
    reason = "an origin that is slow sleeps on its own thread"
)]

use std::net::Ipv4Addr;

use super::origin::{Origin, Peer, dead_port};
use super::*;
use crate::upstream::{
    BreakerConfig, Health, Origin as Places, Outages, Patience, Query, is_outage,
};

const ONE: [u8; 4] = [127, 0, 0, 1];
const TWO: [u8; 4] = [127, 0, 0, 2];

fn nervous() -> UpstreamConfig {
    UpstreamConfig {
        failures_to_rest: 1,
        retries: 0,
        outages: Outages::new(BreakerConfig {
            fall: 1,
            ..BreakerConfig::default()
        }),
        ..config()
    }
}

fn listen_at(
    ip: [u8; 4],
    port: u16,
    serve: impl Fn(usize, &mut Peer) + Send + Sync + 'static,
) -> Origin {
    Origin::start_at(SocketAddr::from((ip, port)), None, serve)
}

impl Shard {
    async fn ask(
        &self,
        first: &Arc<Endpoint>,
        fallbacks: &[&Arc<Endpoint>],
        hedge_after_ms: u64,
    ) -> Result<Response, UpstreamError> {
        let origin = Places {
            first: Arc::clone(first),
            fallbacks: fallbacks.iter().copied().map(Arc::clone).collect(),
        };
        let query = Query {
            origin: &origin,
            request: GET,
            method: Method::Get,
            patience: Patience::Full,
            hedge_after_ms,
            takes: &|response| response.status() == 200,
            interim: None,
        };
        self.upstream.ask_origin(&query).await
    }

    async fn text(&self, asked: Result<Response, UpstreamError>) -> String {
        let mut response = asked.expect("an answer");
        let body = read_all(&mut response, 100).await.expect("a body");
        String::from_utf8(body).expect("text")
    }

    fn hedges(&self) -> Vec<HedgeResult> {
        self.counts.hedged.borrow().clone()
    }
}

/// Reference 2G.119.
#[test]
fn a_second_try_goes_to_another_address_and_the_slow_one_is_not_blamed() {
    on_shard(nervous(), no_tls(), async |shard| {
        // Whichever is dialled first is the slow one.
        let slow = Arc::new(AtomicUsize::new(0));
        let serve = |name: &'static str| {
            let slow = Arc::clone(&slow);
            move |_: usize, peer: &mut Peer| {
                while peer.request().is_some() {
                    match slow.fetch_add(1, Ordering::SeqCst) % 2 {
                        0 => return peer.wait_closed(),
                        _ => peer.ok(name.as_bytes()),
                    }
                }
            }
        };
        let one = listen_at(ONE, 0, serve("one"));
        let two = listen_at(TWO, one.port(), serve("two"));
        let endpoint = shard.named(one.port(), &[ONE, TWO]).await;
        for round in 1..=6 {
            shard.upstream.close_idle();
            let (before_one, before_two) = (one.accepted(), two.accepted());
            let asked = shard.ask(&endpoint, &[], 30).await;
            let text = shard.text(asked).await;
            assert!(text == "one" || text == "two");
            let dialled = (one.accepted() - before_one, two.accepted() - before_two);
            assert_eq!(dialled, (1, 1), "both tries at one address, {round}");
        }
        assert_eq!(shard.hedges(), [HedgeResult::Won; 6]);
        until(|| one.open() + two.open() <= 1).await;
        assert!(shard.counts.failed.borrow().is_empty());
        assert_eq!(shard.upstream.addresses_resting(), 0);
        assert_eq!(shard.upstream.health(&endpoint), Health::Well);
    });
}

#[test]
fn a_second_try_that_fails_leaves_the_first_alone_and_the_other_way_round() {
    for first_fails in [false, true] {
        let patient = UpstreamConfig {
            retries: 0,
            ..config()
        };
        on_shard(patient, no_tls(), async |shard| {
            let origin = Origin::start(move |number, peer| {
                if peer.request().is_none() {
                    return;
                }
                let fails = (number == 0) == first_fails;
                std::thread::sleep(std::time::Duration::from_millis(match fails {
                    true => 80,
                    false => 160,
                }));
                if fails {
                    return peer.cut();
                }
                peer.ok(b"here");
                peer.wait_closed();
            });
            let asked = shard.ask(&at(origin.address), &[], 40).await;
            assert_eq!(shard.text(asked).await, "here");
            let result = match first_fails {
                true => HedgeResult::Won,
                false => HedgeResult::Failed,
            };
            assert_eq!(shard.hedges(), [result]);
            assert_eq!(shard.counts.failed.borrow().len(), 1);
        });
    }
}

#[test]
fn who_is_dropped_with_two_tries_under_way_leaves_no_connection() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| peer.wait_closed());
        let endpoint = at(origin.address);
        let asked = shard.ask(&endpoint, &[], 10);
        assert!(crate::io::timeout_ms(80, asked).await.is_none());
        assert_eq!(origin.accepted(), 2);
        until(|| origin.open() == 0).await;
    });
}

#[test]
fn a_fallback_is_asked_for_what_the_first_place_does_not_answer() {
    on_shard(nervous(), no_tls(), async |shard| {
        let dead = at(SocketAddr::from((Ipv4Addr::LOCALHOST, dead_port())));
        let lacks = Origin::start(|_, peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let has = Origin::start(|_, peer| peer.serve(b"here"));
        let (lacks, has) = (at(lacks.address), at(has.address));
        for _ in 0..3 {
            let response = shard.ask(&dead, &[&lacks, &has], 0).await;
            assert!(response.as_ref().is_ok_and(Response::is_by_fallback));
            assert_eq!(shard.text(response).await, "here");
        }
        // Nobody has it: the first place's own word.
        let refused = shard.ask(&dead, &[&lacks], 0).await;
        assert!(matches!(refused, Err(UpstreamError::Out { .. })));
        assert_eq!(shard.upstream.health(&lacks), Health::Well);
        let own = shard.ask(&lacks, &[&has], 0).await.expect("an answer");
        assert_eq!((own.status(), own.is_by_fallback()), (404, false));
        assert!(!is_outage(own.status()));
    });
}
