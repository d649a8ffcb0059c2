//! Origins behind TLS: verified against the configured authority, sessions resumed,
//! and never reached in plain text or with a certificate that does not hold.

use crate::harness::millrace::{Guarded, Scratch, admin_status};
use crate::harness::s3s::perf_binary;
use crate::harness::tls_client::certificates;
use crate::harness::{Ask, MIB, Millrace, PATIENCE, fetch, free_address, sha256_hex, wait_until};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// `perf origin`, with TLS when a folder of certificates is given.
fn origin(certificates: Option<&Scratch>) -> (SocketAddr, Guarded) {
    let (address, stats) = (free_address(), free_address());
    let mut command = Command::new(perf_binary());
    command.args([
        "origin",
        "--listen",
        &address.to_string(),
        "--stats",
        &stats.to_string(),
        "--with-stdin",
    ]);
    if let Some(folder) = certificates {
        command.arg("--tls-cert").arg(folder.path.join("cert.pem"));
        command.arg("--tls-key").arg(folder.path.join("key.pem"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let guarded = Guarded(command.spawn().expect("perf origin starts"));
    wait_until("the origin answers", PATIENCE, || {
        admin_status(stats, "/stats") == Some(200)
    });
    (address, guarded)
}

fn server(address: SocketAddr, authority: &Scratch, more: &str) -> Millrace {
    let file = authority.path.join("ca.pem");
    Millrace::setup()
        .origin(&format!("https://{address}"))
        .settings(&format!(
            "[upstream]\nca_file = {:?}\n{more}",
            file.to_string_lossy()
        ))
        .start(address)
}

#[test]
fn semantics_54_an_origin_behind_tls_is_verified_and_its_sessions_resumed() {
    let ip = free_address().ip().to_string();
    let folder = certificates(&ip);
    let (address, _tls) = origin(Some(&folder));
    let (plain, _plain) = origin(None);
    let server = server(address, &folder, "keepalive = \"0s\"");
    for (number, size) in [1, 4_096, 8 * MIB, 20 * MIB + 1].into_iter().enumerate() {
        let path = format!("/gen/{size}/{number}/object");
        let wanted = sha256_hex(&fetch(plain, &Ask::get(&path)).body);
        let (cold, warm) = (server.get(&path), server.get(&path));
        assert_eq!(
            (cold.status(), cold.cache_word()),
            (200, "MISS"),
            "{}",
            cold.text()
        );
        assert_eq!(sha256_hex(&cold.body), wanted);
        assert_eq!((warm.cache_word(), sha256_hex(&warm.body)), ("HIT", wanted));
    }
    let handshakes = |session| {
        server.metrics().sum(
            "millrace_upstream_tls_handshakes_total",
            &[("session", session)],
        )
    };
    assert!(
        handshakes("resumed") >= 1.0,
        "no session was resumed in {} full handshakes",
        handshakes("full")
    );
    server.finish();
}

#[test]
fn semantics_55_an_origin_whose_certificate_does_not_hold_is_502() {
    let ip = free_address().ip().to_string();
    let (own, foreign) = (certificates(&ip), certificates(&ip));
    let (address, _tls) = origin(Some(&own));
    let misnamed = certificates("elsewhere.example");
    let (other, _other) = origin(Some(&misnamed));
    let (plain, _plain) = origin(None);
    for (what, address, authority) in [
        ("an authority that nobody configured", address, &foreign),
        ("a certificate for another name", other, &misnamed),
        ("plain text where TLS is due", plain, &own),
    ] {
        let server = server(address, authority, "connect_timeout = \"1s\"");
        for ask in [Ask::get("/gen/10/1/x"), Ask::put("/bucket/k", "x")] {
            let response = server.fetch(&ask);
            assert!(
                matches!(response.status(), 502..=504),
                "{what}: {:?}",
                response.head
            );
            assert!(
                response.text().contains("<Code>"),
                "{what}: {}",
                response.text()
            );
        }
        server.finish();
    }
}
