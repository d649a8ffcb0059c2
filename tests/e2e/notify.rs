//! What a service manager sees: readiness and the rest over its socket, a watchdog that is
//! fed, sockets that it passes, and unit files that it accepts.

use crate::handover::{Heir, successor};
use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::{Ask, Connection, Millrace, PATIENCE, Store, Tile, free_address};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    folder: Scratch,
}

impl Manager {
    fn new() -> Manager {
        let folder = Scratch::new();
        let socket = UnixDatagram::bind(folder.path.join("n")).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        Manager { socket, folder }
    }

    fn path(&self) -> String {
        self.folder.path.join("n").to_string_lossy().into_owned()
    }

    /// A server with a watchdog that this manager has heard to be ready.
    fn start(&self, origin: SocketAddr) -> Millrace {
        let path = self.path();
        let server = Millrace::setup()
            .prepare(move |command| {
                command
                    .env("NOTIFY_SOCKET", path)
                    .env("WATCHDOG_USEC", "300000");
            })
            .start(origin);
        self.hear("READY=1");
        server
    }

    /// Waits for a message with this line; the lines of it.
    #[track_caller]
    fn hear(&self, wanted: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let mut bytes = [0u8; 4096];
            let Ok(length) = self.socket.recv(&mut bytes) else {
                break;
            };
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|line| line.starts_with(wanted)) {
                return lines;
            }
            seen.push(lines);
        }
        panic!("no {wanted}, only {seen:?}");
    }
}

#[test]
fn semantics_204_a_service_manager_hears_what_goes_on() {
    let store = Store::new();
    let origin = store.serve();
    let manager = Manager::new();
    let mut server = manager.start(origin.address);
    let begun = Instant::now();
    for _ in 0..5 {
        manager.hear("WATCHDOG=1");
    }
    assert!(begun.elapsed() < Duration::from_millis(3_000));
    server.signal("HUP");
    let lines = manager.hear("RELOADING=1");
    assert!(lines.iter().any(|line| line.starts_with("MONOTONIC_USEC=")));
    manager.hear("READY=1");
    server.terminate();
    manager.hear("STOPPING=1");
    assert!(server.await_exit().success());
}

#[test]
fn a_hand_over_names_the_new_main_process_which_goes_on_saying_that_it_lives() {
    let store = Store::new();
    let origin = store.serve();
    let manager = Manager::new();
    let mut server = manager.start(origin.address);
    server.signal("USR2");
    let lines = manager.hear("MAINPID=");
    let pid = lines[0].trim_start_matches("MAINPID=").parse();
    let heir = Heir(pid.expect("a number"));
    assert!(server.await_exit().success());
    assert_eq!(successor(&server), heir.0);
    for _ in 0..5 {
        manager.hear("WATCHDOG=1");
    }
    drop(heir);
    manager.hear("STOPPING=1");
}

/// A socket at the address that a command has behind `flag`.
pub fn bound_for(command: &Command, flag: &str) -> TcpListener {
    let address = command.get_args().skip_while(|word| *word != flag).nth(1);
    let address = address.expect("a flag and its address").to_string_lossy();
    TcpListener::bind(&*address).expect("bound")
}

/// Runs the program behind a shell that puts the sockets at descriptors 3 and on, as systemd does.
pub fn activated(sockets: &[(&'static str, &TcpListener)]) -> impl FnOnce(&mut Command) + 'static {
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    let names = names.join(":");
    let fds: Vec<OwnedFd> = sockets
        .iter()
        .map(|(_, socket)| socket.try_clone().expect("a handle").into())
        .collect();
    move |command: &mut Command| {
        let count = fds.len();
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg("LISTEN_PID=$$ exec \"$0\" \"$@\"")
            .arg(program)
            .args(arguments)
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", names);
        let mappings = fds.into_iter().zip(3..);
        let mappings = mappings.map(|(parent_fd, child_fd)| command_fds::FdMapping {
            parent_fd,
            child_fd,
        });
        command_fds::CommandFdExt::fd_mappings(&mut shell, mappings.collect()).expect("mapped");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        *command = shell;
    }
}

#[test]
fn semantics_205_sockets_that_are_passed_are_doors_and_stay_open_behind_us() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let http = TcpListener::bind(free_address()).expect("bound");
    let admin = TcpListener::bind(free_address()).expect("bound");
    let address = |socket: &TcpListener| -> SocketAddr { socket.local_addr().expect("an address") };
    let setup = Millrace::setup()
        .prepare(activated(&[("http", &http), ("admin", &admin)]))
        .admin(address(&admin));
    // A client that came before the server waits in the queue.
    let mut early = Connection::open(address(&http));
    early.send_ask(&Ask::get("/bucket/k"));
    let mut server = setup.start(origin.address);
    let response = early.response("GET").expect("an answer");
    response.assert_body(&Tile::new(1), 0, 1000);
    // The settings' own address is not bound beside what was passed.
    assert!(std::net::TcpStream::connect(server.door).is_err());
    drop(early);
    server.terminate();
    assert!(server.await_exit().success(), "{}", server.output());
    // The next instance serves who comes in between.
    let mut between = Connection::open(address(&http));
    between.send_ask(&Ask::get("/bucket/k"));
    let next = Millrace::setup()
        .prepare(activated(&[("http", &http), ("admin", &admin)]))
        .admin(address(&admin))
        .start(origin.address);
    let response = between.response("GET").expect("an answer");
    response.assert_body(&Tile::new(1), 0, 1000);
    drop(between);
    next.finish();
}

/// Whether a client that comes to a socket of ours is taken by the process behind it, and what it is told.
fn told(socket: &TcpListener, words: &[u8]) -> Vec<u8> {
    let address = socket.local_addr().expect("an address");
    let mut client = std::net::TcpStream::connect(address).expect("connected");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(words).expect("sent");
    let mut first = vec![0; 5];
    client.read_exact(&mut first).expect("an answer");
    first
}

#[test]
fn semantics_205_every_door_can_be_passed_by_its_name() {
    let origin = Store::new().serve();
    let bound = || TcpListener::bind(free_address()).expect("bound");
    let (http, tls, tunnel, admin) = (bound(), bound(), bound(), bound());
    let folder = crate::harness::tls_client::certificates("127.0.0.1");
    let file = |name: &str| folder.path.join(name).to_string_lossy().into_owned();
    let settings = format!(
        "[tls]\ncert_file = {:?}\nkey_file = {:?}",
        file("cert.pem"),
        file("key.pem")
    );
    let sockets = [
        ("http", &http),
        ("tls", &tls),
        ("tunnel", &tunnel),
        ("admin", &admin),
    ];
    for _ in 0..2 {
        let mut server = Millrace::setup()
            .settings(&settings)
            .prepare(activated(&sockets))
            .admin(admin.local_addr().expect("an address"))
            .start(origin.address);
        let plain = b"HELP / HTTP/1.1\r\n\r\n";
        assert_eq!(told(&http, plain), b"HTTP/");
        assert_eq!(told(&tls, plain), b"HTTP/");
        // An alert: it is no hello.
        assert_eq!(told(&tunnel, plain)[..2], [21, 3]);
        server.terminate();
        assert!(server.await_exit().success(), "{}", server.output());
        // They stay open behind it, and the next one takes them.
        for (_, socket) in sockets {
            let address = socket.local_addr().expect("an address");
            drop(std::net::TcpStream::connect(address).expect("the queue is there"));
        }
    }
}

#[test]
fn semantics_205_a_socket_of_another_name_is_the_door_of_its_address() {
    let origin = Store::new().serve();
    let (to_test, bound) = std::sync::mpsc::channel();
    let setup = Millrace::setup().prepare(move |command: &mut Command| {
        let (door, admin) = (
            bound_for(command, "--listen"),
            bound_for(command, "--admin"),
        );
        activated(&[("one.socket", &door), ("other.socket", &admin)])(command);
        to_test.send((door, admin)).expect("a test that listens");
    });
    let mut server = setup.start(origin.address);
    let (door, admin) = bound.recv().expect("sockets");
    assert_eq!(told(&door, b"HELP / HTTP/1.1\r\n\r\n"), b"HTTP/");
    assert_eq!(server.ready_status(), Some(200));
    server.terminate();
    assert!(server.await_exit().success(), "{}", server.output());
    for socket in [door, admin] {
        let address = socket.local_addr().expect("an address");
        drop(std::net::TcpStream::connect(address).expect("the queue is there"));
    }
}

#[test]
fn the_unit_files_hold() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("no systemd-analyze here");
        return;
    }
    let folder = Scratch::new();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let program = crate::harness::millrace::binary();
    for name in ["millrace.service", "millrace.socket"] {
        let text = std::fs::read_to_string(config.join(name)).expect("a unit");
        let text = text.replace("/usr/bin/millrace", &program.to_string_lossy());
        std::fs::write(folder.path.join(name), text).expect("a copy");
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(folder.path.join("millrace.service"))
        .arg(folder.path.join("millrace.socket"))
        .output()
        .expect("it runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = words
        .lines()
        .filter(|line| line.contains("millrace."))
        .collect();
    assert!(output.status.success() && ours.is_empty(), "{words}");
}
