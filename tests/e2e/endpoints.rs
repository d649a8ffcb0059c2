//! What the operator says of single endpoints: their addresses, and how TLS with them is.

use crate::harness::far::{connect, name_server, read};
use crate::harness::millrace::{Guarded, Scratch, admin_status};
use crate::harness::s3s::perf_binary;
use crate::harness::{Ask, Millrace, PATIENCE, free_address, sha256_hex, wait_until};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

/// A new authority and a certificate of it for `name`.
fn certificates(name: &str) -> Scratch {
    let folder = Scratch::new();
    let mut command = Command::new(perf_binary());
    command.arg("certs").arg("--dir").arg(&folder.path);
    let done = command.args(["--name", name]).status();
    assert!(done.is_ok_and(|status| status.success()), "perf certs");
    folder
}

/// An origin with this certificate.
fn origin(certificates: &Scratch) -> (SocketAddr, Guarded) {
    let (address, stats) = (free_address(), free_address());
    let mut command = Command::new(perf_binary());
    command.args(["origin", "--listen", &address.to_string()]);
    command.args(["--stats", &stats.to_string(), "--with-stdin"]);
    for (flag, file) in [("--tls-cert", "cert.pem"), ("--tls-key", "key.pem")] {
        command.arg(flag).arg(certificates.path.join(file));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let guarded = Guarded(command.spawn().expect("perf origin starts"));
    wait_until("the origin answers", PATIENCE, || {
        admin_status(stats, "/stats") == Some(200)
    });
    (address, guarded)
}

fn authority(certificates: &Scratch) -> String {
    certificates
        .path
        .join("ca.pem")
        .to_string_lossy()
        .into_owned()
}

fn server(settings: &str) -> Millrace {
    let nowhere = free_address();
    Millrace::setup()
        .origin("")
        .settings(settings)
        .start(nowhere)
}

const PATH: &str = "/gen/100000/1/object";

/// Reference 2J.166.
#[test]
fn semantics_191_the_settings_of_one_origin_hold_for_its_tls() {
    let (own, foreign) = (certificates("store.test"), certificates("store.test"));
    let (address, _origin) = origin(&own);
    let table = [
        (authority(&own), "verify_name = \"store.test\"", 200),
        (
            authority(&own),
            "verify_name = \"STORE.test\"\ntls_min = \"1.3\"",
            200,
        ),
        (
            authority(&own),
            "verify_name = \"store.test\"\ntls_max = \"1.2\"",
            200,
        ),
        (authority(&own), "", 502),
        (authority(&own), "verify_name = \"other.test\"", 502),
        (authority(&foreign), "verify_name = \"store.test\"", 502),
    ];
    for (ca, more, status) in table {
        let server = server(&format!(
            "[upstream]\nretries = 0\n[[origin]]\nname = \"store\"\nurl = \"https://{address}\"\nhosts = [\"store.test\"]\nca_file = {ca:?}\n{more}"
        ));
        let ask = Ask::get(PATH).header("Host", "store.test");
        let answer = server.fetch(&ask);
        assert_eq!(answer.status(), status, "{more}: {}", answer.text());
        server.finish();
    }
}

/// An origin that speaks no older and no newer version than its own.
fn only(version: &'static rustls::SupportedProtocolVersion, own: &Scratch) -> SocketAddr {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use std::sync::Arc;
    let file = |name: &str| own.path.join(name);
    let chain = CertificateDer::pem_file_iter(file("cert.pem")).expect("a chain");
    let chain: Vec<_> = chain.map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind(free_address()).expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let Ok(session) = rustls::ServerConnection::new(Arc::clone(&config)) else {
                continue;
            };
            let mut stream = rustls::StreamOwned::new(session, socket);
            let mut asked = [0; 4096];
            if std::io::Read::read(&mut stream, &mut asked).is_ok_and(|bytes| bytes > 0) {
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: \"e\"\r\nConnection: close\r\n\r\nok";
                let _ = stream.write_all(answer);
            }
        }
    });
    address
}

#[test]
fn the_oldest_and_the_newest_version_of_tls_are_kept_to() {
    let own = certificates("store.test");
    let old = only(&rustls::version::TLS12, &own);
    let new = only(&rustls::version::TLS13, &own);
    for (address, more, status) in [
        (old, "", 200),
        (new, "", 200),
        (old, "tls_min = \"1.3\"", 502),
        (new, "tls_min = \"1.3\"", 200),
        (old, "tls_max = \"1.2\"", 200),
        (new, "tls_max = \"1.2\"", 502),
    ] {
        // For one origin, for an endpoint, and for all.
        let ca = authority(&own);
        let url = format!("url = \"https://store.test:{}\"", address.port());
        let host = "hosts = [\"store.test\"]";
        let ip = address.ip();
        let origin = format!("[[origin]]\nname = \"store\"\n{url}\n{host}\n");
        let endpoint = format!("[[endpoint]]\nhost = \"store.test\"\naddresses = [\"{ip}\"]\n");
        for settings in [
            format!("{origin}ca_file = {ca:?}\n{more}\n{endpoint}"),
            format!("{origin}{endpoint}ca_file = {ca:?}\n{more}"),
            format!("[upstream]\nca_file = {ca:?}\n{more}\n{origin}{endpoint}"),
        ] {
            let server = server(&settings);
            let answer = server.fetch(&Ask::get("/bucket/k").header("Host", "store.test"));
            assert_eq!(answer.status(), status, "{settings}");
            server.finish();
        }
    }
}

/// Requests and tunnels are led to the addresses of an `[[endpoint]]`, dead ones rest, and no name server is asked.
/// Reference 2J.167.
#[test]
fn semantics_193_the_addresses_of_an_endpoint_are_the_operators() {
    let own = certificates("s3.store.test");
    let (address, _origin) = origin(&own);
    let dead = IpAddr::from([127, 0, 0, 9]);
    let elsewhere = name_server(|_| panic!("a name server was asked"));
    let door = free_address();
    let (ip, port, ca) = (address.ip(), address.port(), authority(&own));
    let server = server(&format!(
        "[listener]\ntunnel = [\"{door}\"]\n[upstream]\ndns_servers = [\"{elsewhere}\"]\n[[origin]]\nname = \"store\"\nurl = \"https://s3.store.test:{port}\"\nhosts = [\"s3.store.test\"]\n[[endpoint]]\nhost = \"*.store.test\"\naddresses = [\"{dead}\", \"{ip}\"]\nca_file = {ca:?}"
    ));
    for round in 0..8 {
        let path = format!("/gen/5000/{round}/object");
        let answer = server.fetch(&Ask::get(&path).header("Host", "s3.store.test"));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(sha256_hex(&answer.body).len(), 64);
        let target = format!("s3.store.test:{port}");
        let mut client = connect(server.door);
        let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        client.write_all(ask.as_bytes()).expect("a request");
        assert_eq!(read(&mut client, 12), b"HTTP/1.1 200");
    }
    server.finish();
}
