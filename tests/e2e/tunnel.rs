//! Tunnels: by the name in a TLS hello and by CONNECT, both ways, ended as their sides end.

use crate::harness::far::{Far, NAME, connect, hello, read, read_all, tunnelling};
use crate::harness::{PATIENCE, wait_until};
use std::io::Write;
use std::net::Shutdown;

#[test]
fn semantics_180_a_tls_connection_goes_unaltered_to_the_host_that_its_hello_names() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "");
    let hello = hello(NAME);
    // At once, byte by byte, and with early bytes behind it.
    for (piece, early) in [(hello.len(), 0), (1, 0), (77, 10_000)] {
        let sent = [hello.clone(), vec![0xee; early]].concat();
        let mut client = connect(door);
        for bytes in sent.chunks(piece) {
            client.write_all(bytes).expect("the hello");
        }
        let mut origin = far.accept();
        assert_eq!(read(&mut origin, sent.len()), sent);
        origin.write_all(b"from the origin").expect("a send");
        assert_eq!(read(&mut client, 15), b"from the origin");
        client.write_all(b"more").expect("a send");
        assert_eq!(read(&mut origin, 4), b"more");
        client.shutdown(Shutdown::Write).expect("a half-close");
        assert_eq!(read_all(&mut origin), b"");
        origin.write_all(b"the rest").expect("a send");
        drop(origin);
        assert_eq!(read_all(&mut client), b"the rest");
    }
    wait_until("three ends", PATIENCE, || {
        let closed = [("end", "closed")];
        server.metrics().sum("millrace_tunnels_closed_total", &closed) == 3.0
    });
    let bytes = |way| server.metrics().sum("millrace_tunnel_bytes_total", &[("way", way)]);
    assert_eq!(bytes("to_client"), 3.0 * 23.0);
    assert_eq!(bytes("to_origin"), (3 * hello.len() + 10_000 + 12) as f64);
    server.finish();
}
