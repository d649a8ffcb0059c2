//! Uploads: the caller sends the body itself and reads heads in turn.

use std::io::IoSlice;

use super::origin::{Origin, pki};
use super::*;
use crate::upstream::{Awaiting, Conn, HeadRead, Reuse};

async fn final_head(conn: &mut Conn) -> crate::upstream::FinalHead {
    match conn.read_head(Method::Put).await.expect("a head") {
        HeadRead::Final(head) => head,
        HeadRead::Interim { status, .. } => panic!("interim {status}"),
    }
}

#[test]
fn an_interim_head_is_given_to_the_caller() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| {
            for _ in 0..2 {
                peer.request();
                peer.send("HTTP/1.1 100 Continue\r\nX: y\r\n\r\n");
                assert_eq!(peer.body(5), b"hello");
                peer.ok(b"stored");
            }
        });
        for round in 0..2 {
            let conn = shard
                .upstream
                .checkout(&at(origin.address), Reuse::Recent)
                .await;
            let mut conn = conn.expect("connected");
            assert_eq!(
                (conn.is_reused(), conn.address()),
                (round == 1, origin.address)
            );
            conn.arm(Awaiting::FirstByte);
            conn.send_all(b"PUT /k HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")
                .await
                .expect("sent");
            let interim = conn.read_head(Method::Put).await.expect("a head");
            let HeadRead::Interim { status, head } = interim else {
                panic!("final")
            };
            assert_eq!(
                (status, &head[..]),
                (100, &b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"[..])
            );
            assert!(
                conn.try_read_head(Method::Put)
                    .expect("nothing yet")
                    .is_none()
            );
            let parts = [IoSlice::new(b"he"), IoSlice::new(b"llo")];
            assert_eq!(conn.try_write(&parts).expect("sent"), Some(5));
            let head = final_head(&mut conn).await;
            assert_eq!(head.status(), 200);
            let mut response = shard.upstream.response(conn, head);
            assert_eq!(
                read_all(&mut response, 100).await.expect("a body"),
                b"stored"
            );
            assert_eq!(shard.upstream.connections_idle(), 1);
        }
        assert_eq!(origin.accepted(), 1);
    });
}

#[test]
fn an_early_answer_is_read_although_the_body_cannot_be_sent() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| {
            peer.request();
            peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            peer.body(1);
        });
        let conn = shard
            .upstream
            .checkout(&at(origin.address), Reuse::Any)
            .await;
        let mut conn = conn.expect("connected");
        conn.send_all(b"PUT /k HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n")
            .await
            .expect("sent");
        let head = loop {
            if let Some(HeadRead::Final(head)) = conn.try_read_head(Method::Put).expect("a head") {
                break head;
            }
            let _ = conn.try_write(&[IoSlice::new(&[0; 4096])]);
            sleep_ms(1).await;
        };
        assert_eq!(head.status(), 403);
        conn.poison();
        let mut response = shard.upstream.response(conn, head);
        assert_eq!(read_all(&mut response, 100).await.expect("a body"), b"no");
        assert_eq!(shard.upstream.connections(), 0);
    });
}

#[test]
fn a_large_body_goes_up_intact_over_tls() {
    let pki = pki("upload", &[&rustls::version::TLS13]);
    let tls = TlsConfig::new(&TlsRoots::File(pki.roots.clone())).expect("roots");
    on_shard(config(), tls, async |shard| {
        let body = pattern(8 << 20);
        let expected = body.clone();
        let origin = Origin::start_tls(Arc::clone(&pki.server), move |_, peer| {
            peer.request();
            let same = peer.body(expected.len()) == expected;
            peer.ok(if same { b"same" } else { b"diff" });
            peer.wait_closed();
        });
        let endpoint = Endpoint::new(true, "127.0.0.1", origin.port());
        let mut conn = shard
            .upstream
            .checkout(&endpoint, Reuse::Any)
            .await
            .expect("connected");
        conn.send_all(b"PUT /k HTTP/1.1\r\nContent-Length: 8388608\r\n\r\n")
            .await
            .expect("sent");
        conn.send_all(&body).await.expect("sent");
        assert!(conn.try_flush().expect("flushed"));
        let head = final_head(&mut conn).await;
        let mut response = shard.upstream.response(conn, head);
        assert_eq!(read_all(&mut response, 100).await.expect("a body"), b"same");
        assert_eq!(shard.upstream.connections_idle(), 1);
    });
}

#[test]
fn a_deadline_of_the_callers_own_cuts_the_wait() {
    run(async |shard| {
        let origin = Origin::start(|_, peer| peer.wait_closed());
        let conn = shard
            .upstream
            .checkout(&at(origin.address), Reuse::Any)
            .await;
        let mut conn = conn.expect("connected");
        conn.arm_for(Awaiting::FirstByte, 40);
        let error = conn.read_head(Method::Put).await.err();
        assert!(matches!(
            error,
            Some(UpstreamError::FirstByteTimeout { after_ms: 40, .. })
        ));
    });
}
