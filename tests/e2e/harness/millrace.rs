//! One `millrace serve` under test: started with flags and a settings file on free
//! ports, awaited by `/readyz`, and at the end asked whether it holds anything still.

use super::client::{Ask, Response, fetch};
use super::metrics::Scrape;
use super::{Connection, PATIENCE, free_address, wait_for, wait_until};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is done to a command before it runs.
type Prepare = Box<dyn FnOnce(&mut Command)>;

/// How a server is to be started. The defaults suit a test: one shard, little RAM, no disk.
pub struct Setup {
    arguments: Vec<String>,
    settings: String,
    shards: u32,
    ram: String,
    doors: usize,
    origin: Option<String>,
    cache_dir: Option<PathBuf>,
    program: Option<PathBuf>,
    admin: Option<SocketAddr>,
    prepare: Option<Prepare>,
}

impl Setup {
    /// Another path to the program.
    pub fn program(mut self, path: &std::path::Path) -> Setup {
        self.program = Some(path.to_owned());
        self
    }

    /// An admin address that the test knows.
    pub fn admin(mut self, address: SocketAddr) -> Setup {
        self.admin = Some(address);
        self
    }

    /// What else is done to the command.
    pub fn prepare(mut self, prepare: impl FnOnce(&mut Command) + 'static) -> Setup {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// The origin as a URL, where `http` and the address alone do not say it.
    pub fn origin(mut self, url: &str) -> Setup {
        self.origin = Some(url.to_owned());
        self
    }

    /// Further arguments of `serve`.
    pub fn arguments(mut self, arguments: &[&str]) -> Setup {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Lines of TOML for a settings file.
    pub fn settings(mut self, toml: &str) -> Setup {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    /// A cache directory; the caller keeps it.
    pub fn cache_dir(mut self, dir: &std::path::Path) -> Setup {
        self.cache_dir = Some(dir.to_owned());
        self
    }

    pub fn shards(mut self, shards: u32) -> Setup {
        self.shards = shards;
        self
    }

    pub fn ram(mut self, size: &str) -> Setup {
        size.clone_into(&mut self.ram);
        self
    }

    pub fn doors(mut self, doors: usize) -> Setup {
        self.doors = doors;
        self
    }

    /// Starts the server in front of `origin` and waits until it is ready.
    #[track_caller]
    pub fn start(self, origin: SocketAddr) -> Millrace {
        let mut server = self.spawn(origin);
        server.await_ready();
        server
    }

    /// The same without waiting.
    #[track_caller]
    pub fn spawn(self, origin: SocketAddr) -> Millrace {
        let doors: Vec<SocketAddr> = (0..self.doors).map(|_| free_address()).collect();
        let admin = self.admin.unwrap_or_else(free_address);
        let folder = Scratch::new();
        let mut command = command_of(self.program.clone().unwrap_or_else(binary));
        command.arg("serve").args([
            "--origin",
            &self
                .origin
                .clone()
                .unwrap_or_else(|| format!("http://{origin}")),
        ]);
        for door in &doors {
            command.args(["--listen", &door.to_string()]);
        }
        command.args(["--admin", &admin.to_string(), "--ram", &self.ram]);
        let dir = self.cache_dir.as_deref();
        command
            .arg("--cache-dir")
            .arg(dir.unwrap_or(std::path::Path::new("none")));
        command.args(["--shards", &self.shards.to_string()]);
        let log = folder.path.join("access.log");
        let settings = self
            .settings
            .replace("@ACCESS_LOG@", &log.to_string_lossy());
        if !settings.is_empty() {
            let file = folder.path.join("millrace.toml");
            std::fs::write(&file, &settings).expect("a settings file");
            command.arg("--config").arg(&file);
        }
        command.args(&self.arguments);
        if let Some(prepare) = self.prepare {
            prepare(&mut command);
        }
        let standard_error = folder.path.join("stderr");
        let output = std::fs::File::create(&standard_error).expect("a file for stderr");
        command
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a second handle"))
            .stdout(output);
        let child = command.spawn().expect("millrace starts");
        Millrace {
            door: doors[0],
            doors,
            admin,
            child,
            folder,
            access_log: log,
            finished: false,
        }
    }
}

/// The program under test: the one that was built with the tests, unless MILLRACE_BIN names another.
pub fn binary() -> PathBuf {
    std::env::var_os("MILLRACE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_millrace").into(), PathBuf::from)
}

/// `millrace` with an environment that no setting of the caller's leaks into.
pub fn command() -> Command {
    command_of(binary())
}

fn command_of(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLRACE_") {
            command.env_remove(name);
        }
    }
    command.env("RUST_BACKTRACE", "1");
    command
}

/// A running server.
pub struct Millrace {
    /// The first door.
    pub door: SocketAddr,
    pub doors: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub child: Child,
    pub access_log: PathBuf,
    folder: Scratch,
    finished: bool,
}

impl Millrace {
    pub fn setup() -> Setup {
        let ram = "256MiB".to_owned();
        Setup {
            arguments: Vec::new(),
            settings: String::new(),
            shards: 1,
            ram,
            doors: 1,
            origin: None,
            cache_dir: None,
            program: None,
            admin: None,
            prepare: None,
        }
    }

    /// A server of the default set-up.
    #[track_caller]
    pub fn start(origin: SocketAddr) -> Millrace {
        Millrace::setup().start(origin)
    }

    #[track_caller]
    fn await_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's state") {
                panic!("millrace ended at once with {status}: {}", self.output());
            }
            if admin_status(self.admin, "/readyz") == Some(200) {
                return;
            }
            assert!(Instant::now() < deadline, "never ready: {}", self.output());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the server wrote to its standard output and error so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path.join("stderr")).unwrap_or_default()
    }

    /// Its settings file, if it was given lines of TOML.
    pub fn settings_file(&self) -> PathBuf {
        self.folder.path.join("millrace.toml")
    }

    pub fn access_log_lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.access_log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.door)
    }

    #[track_caller]
    pub fn fetch(&self, ask: &Ask) -> Response {
        fetch(self.door, ask)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.fetch(&Ask::get(target))
    }

    #[track_caller]
    pub fn metrics(&self) -> Scrape {
        let response = fetch(self.admin, &Ask::get("/metrics"));
        assert_eq!(response.status(), 200);
        Scrape::parse(&response.text())
    }

    /// Requests with this result so far.
    pub fn results(&self, result: &str) -> u64 {
        self.metrics()
            .sum("millrace_requests_total", &[("result", result)]) as u64
    }

    pub fn ready_status(&self) -> Option<u16> {
        admin_status(self.admin, "/readyz")
    }

    /// Waits until nothing is held: no connection, pin, lease, fill or request in flight.
    #[track_caller]
    pub fn assert_nothing_held(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            let held = self.metrics().held();
            if held.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "still held after a second: {held:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        assert!(signal(self.child.id(), name), "kill -{name}");
    }

    /// Ends it at once, as a power cut would.
    #[track_caller]
    pub fn kill(mut self) {
        self.child.kill().expect("kill -9");
        let _ = self.child.wait();
        self.finished = true;
    }

    #[track_caller]
    pub fn await_exit(&mut self) -> ExitStatus {
        let status = wait_for("the server's exit", PATIENCE, || {
            self.child.try_wait().expect("its state")
        });
        self.finished = true;
        status
    }

    /// The end of every test: nothing is held, the drain ends with 0, nothing panicked.
    #[track_caller]
    pub fn finish(mut self) {
        self.assert_nothing_held();
        self.terminate();
        let status = self.await_exit();
        assert!(status.success(), "exit {status}: {}", self.output());
        assert!(!self.output().contains("panicked"), "{}", self.output());
    }

    /// Waits until `count` requests with `result` were counted.
    #[track_caller]
    pub fn await_results(&self, result: &str, count: u64) {
        wait_until(&format!("{count} × {result}"), PATIENCE, || {
            self.results(result) >= count
        });
    }
}

impl Drop for Millrace {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if std::thread::panicking() && matches!(self.child.try_wait(), Ok(None)) {
            // A moment to write its logs: they tell why.
            self.terminate();
            let deadline = Instant::now() + Duration::from_secs(1);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        // One that waits for a file system of the same test ends after that one only.
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if std::thread::panicking() {
            eprintln!("--- millrace said:\n{}", self.output());
        }
    }
}

/// A process that ends with its owner, also when a test fails.
pub struct Guarded(pub Child);

impl Guarded {
    #[track_caller]
    pub fn assert_running(&mut self) {
        let state = self.0.try_wait().expect("its state");
        assert!(state.is_none(), "it ended with {state:?}");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process; false if there is none.
pub fn signal(pid: u32, name: &str) -> bool {
    let kill = format!("kill -{name} {pid}");
    let done = Command::new("sh").args(["-c", &kill]).status();
    done.is_ok_and(|status| status.success())
}

/// Status of an admin page, or nothing where nobody answers.
pub fn admin_status(admin: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text)
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

/// A folder that goes with its owner.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new() -> Scratch {
        let name = free_address().to_string().replace(':', "-");
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a scratch folder");
        Scratch { path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
