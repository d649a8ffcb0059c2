//! The settings file, read again while the server runs.

use crate::harness::store::Object;
use crate::harness::{Ask, KIB, Millrace, PATIENCE, Store, wait_until};

fn readyz(server: &Millrace) -> String {
    let answer = crate::harness::client::fetch(server.admin, &Ask::get("/readyz"));
    assert_eq!(answer.status(), 200);
    answer.text()
}

fn reloads(server: &Millrace, result: &str) -> u64 {
    let metrics = server.metrics();
    metrics.sum("millrace_config_reloads_total", &[("result", result)]) as u64
}

#[track_caller]
fn await_reloads(server: &Millrace, result: &str, count: u64) {
    wait_until(&format!("{count} reloads {result}"), PATIENCE, || {
        reloads(server, result) >= count
    });
}

fn write(server: &Millrace, toml: &str) {
    std::fs::write(server.settings_file(), toml).expect("written");
}

#[test]
fn semantics_71_a_changed_file_holds_at_once_and_one_with_errors_changes_nothing() {
    let store = Store::new();
    store.insert("/a/k", Object::tile(1, 10 * KIB));
    let origin = store.serve();
    let server = Millrace::setup()
        .shards(2)
        .settings("[fill]\nattempts = 2\n")
        .start(origin.address);
    let is_hit = || {
        server.get("/a/k");
        server.get("/a/k").cache_word() == "HIT"
    };
    assert!(is_hit());
    // By a change alone, and for what is cached already.
    write(
        &server,
        "[fill]\nattempts = 2\n[[rule]]\nmatch = 'a/**'\nttl = '0s'\n",
    );
    wait_until("the rule", PATIENCE, || {
        server.get("/a/k").cache_word() != "HIT"
    });
    assert!(!is_hit());
    await_reloads(&server, "applied", 1);
    assert_eq!(readyz(&server), "ready\n");
    write(
        &server,
        "[fill]\nattempts = 2\n[[rule]]\nmatch = 'a/**'\nttl = '5'\nttll = '1h'\n",
    );
    await_reloads(&server, "refused", 1);
    let ready = readyz(&server);
    for part in [
        "millrace.toml:5:7: `rule.ttl`: ",
        "unknown key `rule.ttll`; did you mean `rule.ttl`?",
        "config: refused; the settings before are in effect\nready\n",
    ] {
        assert!(ready.contains(part), "{part} in {ready}");
    }
    assert_eq!(server.metrics().sum("millrace_config_refused", &[]), 1.0);
    assert!(
        server.output().contains("did you mean `rule.ttl`?"),
        "{}",
        server.output()
    );
    assert!(!is_hit(), "the last good settings stay");
    // A file that is not there is one that cannot be read.
    std::fs::remove_file(server.settings_file()).expect("removed");
    await_reloads(&server, "refused", 2);
    assert!(readyz(&server).contains("cannot read the file"));
    write(&server, "[fill]\nattempts = 3\n[cache]\nttl = '2h'\n");
    await_reloads(&server, "applied", 2);
    wait_until("the rule's end", PATIENCE, is_hit);
    assert_eq!(
        readyz(&server),
        "config: waits for a restart: fill.attempts\nready\n"
    );
    let metrics = server.metrics();
    assert_eq!(metrics.sum("millrace_config_refused", &[]), 0.0);
    assert_eq!(metrics.sum("millrace_config_waiting_for_restart", &[]), 1.0);
    assert!(server.output().contains("waits for a restart"));
    write(&server, "[fill]\nattempts = 2\n");
    await_reloads(&server, "applied", 3);
    assert_eq!(readyz(&server), "ready\n");
    server.finish();
}

#[test]
fn semantics_72_sighup_reads_the_settings_again_and_opens_the_log_anew() {
    let store = Store::new();
    store.insert("/a/k", Object::tile(1, 10 * KIB));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[log]\naccess = \"@ACCESS_LOG@\"")
        .start(origin.address);
    server.get("/a/k");
    wait_until("a line", PATIENCE, || server.access_log_lines().len() == 1);
    let aside = server.access_log.with_extension("1");
    std::fs::rename(&server.access_log, &aside).expect("renamed");
    server.signal("HUP");
    await_reloads(&server, "applied", 1);
    wait_until("the log anew", PATIENCE, || {
        server.get("/a/k");
        !server.access_log_lines().is_empty()
    });
    assert_eq!(readyz(&server), "ready\n");
    server.finish();
}
