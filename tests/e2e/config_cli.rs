//! The command line and the settings file: flags that scripts depend on, and mistakes
//! that are told all at once before anything is bound.

use crate::harness::millrace::{Guarded, Scratch, admin_status, command};
use crate::harness::store::Object;
use crate::harness::{Ask, MIB, Millrace, Store, Tile, fetch, free_address, wait_until};
use std::os::unix::fs::MetadataExt;
use std::process::Output;
use std::time::Duration;

fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("millrace runs")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `check-config` of this text.
fn check(toml: &str) -> (Option<i32>, String) {
    let folder = Scratch::new();
    let file = folder.path.join("bad.toml");
    std::fs::write(&file, toml).expect("a settings file");
    let output = run(&["check-config", "--config", &file.to_string_lossy()]);
    (output.status.code(), said(&output))
}

#[test]
fn semantics_43_every_flag_of_the_contract_is_taken() {
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"x"));
    let origin = store.serve();
    let folder = Scratch::new();
    let file = folder.path.join("millrace.toml");
    std::fs::write(&file, "[cache]\nttl = \"90s\"\n").expect("a settings file");
    let (door, other, admin) = (free_address(), free_address(), free_address());
    let child = command()
        .args(["serve", "--config", &file.to_string_lossy()])
        .args([
            "--listen",
            &door.to_string(),
            "--listen",
            &other.to_string(),
        ])
        .args([
            "--admin",
            &admin.to_string(),
            "--origin",
            &format!("http://{}", origin.address),
        ])
        .args(["--ram", "64MiB", "--cache-dir", "none", "--disk", "1GiB"])
        .args(["--shards", "1", "--cores", "0", "--ttl", "10m"])
        .spawn();
    let mut child = Guarded(child.expect("millrace starts"));
    wait_until("it is ready", Duration::from_secs(10), || {
        child.assert_running();
        admin_status(admin, "/readyz") == Some(200)
    });
    for address in [door, other] {
        assert_eq!(fetch(address, &Ask::get("/bucket/k")).text(), "x");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(fetch(admin, &Ask::get(path)).status(), 200, "{path}");
    }
    assert_eq!(fetch(admin, &Ask::get("/nothing")).status(), 404);
}

#[test]
fn version_and_help_answer_and_exit_0() {
    let version = run(&["--version"]);
    assert!(version.status.success() && said(&version).contains(env!("CARGO_PKG_VERSION")));
    let help = run(&["--help"]);
    assert!(help.status.success());
    for word in ["serve", "check-config"] {
        assert!(said(&help).contains(word), "--help does not name {word}");
    }
    let flags = said(&run(&["serve", "--help"]));
    for flag in [
        "--config",
        "--listen",
        "--admin",
        "--origin",
        "--ram",
        "--cache-dir",
        "--disk",
        "--shards",
        "--cores",
        "--ttl",
    ] {
        assert!(flags.contains(flag), "serve --help does not name {flag}");
    }
}

#[test]
fn semantics_44_mistakes_are_told_all_at_once_with_their_places() {
    // (2K.182, 2K.184)
    let (code, text) = check(
        "[cache]\nttll = \"1h\"\n\n[ram]\nsize = true\n\n[fill]\nattempts = 99\n[upstream]\nretries = \"many\"\n",
    );
    assert_eq!(code, Some(1), "{text}");
    for place in [":2:", ":5:", ":8:", ":10:"] {
        assert!(text.contains(place), "no {place} in {text}");
    }
    assert!(
        text.contains("ttl"),
        "the nearest known key is not named: {text}"
    );
    assert!(!text.contains("panicked"), "{text}");
    for (toml, word) in [
        ("[cache]\nttl = \"1 fortnight\"", "ttl"),
        ("[ram]\nsize = \"64MoB\"", "size"),
        ("[nosuch]\na = 1", "nosuch"),
        ("[cache", ""),
    ] {
        let (code, text) = check(toml);
        assert!(
            code == Some(1) && text.contains(word),
            "{toml}: {code:?} {text}"
        );
    }
}

#[test]
fn a_bad_setting_keeps_serve_from_binding_anything() {
    let door = free_address();
    let door_text = door.to_string();
    for arguments in [
        vec!["serve", "--listen", &door_text, "--ttl", "soon"],
        vec!["serve", "--listen", &door_text, "--ram", "-5"],
        vec!["serve", "--listen", &door_text, "--shards", "many"],
        vec!["serve", "--listen", &door_text, "--origin", "ftp://x"],
        vec![
            "serve",
            "--listen",
            &door_text,
            "--origin",
            "http://127.0.0.1:1",
            "--config",
            "no-such-file.toml",
        ],
        vec!["serve", "--listen", &door_text, "--no-such-flag"],
        vec!["serve", "--listen", "somewhere"],
    ] {
        let output = run(&arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        assert!(
            std::net::TcpListener::bind(door).is_ok(),
            "{arguments:?} holds the door"
        );
    }
}

#[test]
fn a_variable_overrides_the_file_and_a_bad_one_is_an_error() {
    // (2K.185)
    let good = command()
        .args(["check-config", "--print"])
        .env("MILLRACE_CACHE_TTL", "17m")
        .output()
        .expect("it runs");
    assert!(good.status.success(), "{}", said(&good));
    assert!(said(&good).contains("17m"), "{}", said(&good));
    let bad = command()
        .args(["check-config"])
        .env("MILLRACE_CACHE_TTL", "soon")
        .output()
        .expect("it runs");
    assert_eq!(bad.status.code(), Some(1));
    assert!(said(&bad).contains("MILLRACE_CACHE_TTL"), "{}", said(&bad));
    let unknown = command()
        .args(["check-config"])
        .env("MILLRACE_CACHE_TTLL", "1h")
        .output()
        .expect("it runs");
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
}

#[test]
fn what_check_config_prints_is_a_settings_file() {
    let printed = run(&["check-config", "--print"]);
    assert!(printed.status.success(), "{}", said(&printed));
    let (code, text) = check(&String::from_utf8_lossy(&printed.stdout));
    assert_eq!(code, Some(0), "{text}");
    let reference = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml");
    let output = run(&["check-config", "--config", &reference.to_string_lossy()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_door_in_use_is_told_and_ends_the_start() {
    let taken = free_address();
    let _holder = std::net::TcpListener::bind(taken).expect("the port");
    let admin = free_address().to_string();
    let output = run(&[
        "serve",
        "--listen",
        &taken.to_string(),
        "--admin",
        &admin,
        "--origin",
        "http://127.0.0.1:9",
        "--ram",
        "64MiB",
        "--shards",
        "1",
    ]);
    assert!(!output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains(&taken.to_string()),
        "the address is not named: {}",
        said(&output)
    );
}

#[test]
fn semantics_45_a_host_that_leads_nowhere_allowed_is_403() {
    // Without a single origin only the hosts of known stores are let through. (wire rule 33)
    let (door, admin) = (free_address(), free_address());
    let child = command()
        .args([
            "serve",
            "--listen",
            &door.to_string(),
            "--admin",
            &admin.to_string(),
            "--ram",
            "64MiB",
            "--shards",
            "1",
        ])
        .stderr(std::process::Stdio::null())
        .spawn();
    let _child = Guarded(child.expect("millrace starts"));
    wait_until("it is ready", Duration::from_secs(10), || {
        admin_status(admin, "/readyz") == Some(200)
    });
    for host in [
        "localhost",
        "127.0.0.1",
        "169.254.169.254",
        "evil.example",
        "s3.amazonaws.com.evil.example",
        "[::1]:80",
        "s3.evil.com",
    ] {
        let response = fetch(door, &Ask::get("/bucket/k").header("Host", host));
        response.assert_s3_error(403, "AccessDenied");
    }
}

#[test]
fn a_door_for_everybody_warns_in_one_line_that_names_the_setting() {
    // (2K.186)
    let store = Store::new();
    let origin = store.serve();
    let quiet = Millrace::start(origin.address);
    assert!(
        !quiet.output().contains("cache.access"),
        "{}",
        quiet.output()
    );
    quiet.finish();
    // The wildcard address needs a port that is free on every address, so not one of `free_address`.
    let anywhere = format!("0.0.0.0:{}", 2_000 + std::process::id() % 8_000);
    let open = Millrace::setup()
        .arguments(&["--listen", &anywhere])
        .start(origin.address);
    let text = open.output();
    let warnings: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("cache.access"))
        .collect();
    assert_eq!(warnings.len(), 1, "{text}");
    open.finish();
}

#[test]
fn memory_is_taken_at_start_only_if_the_settings_say_so() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(50, 10_000));
    let origin = store.serve();
    for (prefault, least, most) in [(true, 64 * MIB, u64::MAX), (false, 0, 32 * MIB)] {
        let server = Millrace::setup()
            .shards(2)
            .ram("64MiB")
            .settings(&format!("[ram]\nprefault = {prefault}\n"))
            .start(origin.address);
        let taken = backed_bytes(server.child.id());
        assert!((least..most).contains(&taken), "{prefault}: {taken}");
        server
            .get("/bucket/k")
            .assert_body(&Tile::new(50), 0, 10_000);
        server.finish();
    }
}

/// Bytes that pages stand behind, in all memory files of a process.
fn backed_bytes(pid: u32) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let slabs = open
        .map(|entry| entry.expect("a descriptor").path())
        .filter(|path| {
            std::fs::read_link(path)
                .is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:millrace-slab"))
        });
    slabs
        .map(|path| std::fs::metadata(path).expect("a file").blocks() * 512)
        .sum()
}
