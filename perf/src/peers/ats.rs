//! Apache Traffic Server with its RAM cache in front of a disk cache in the scratch folder.
//!
//! One event thread. Objects of any size are kept in RAM, readers share a fetch while it runs (read while write), and
//! what the origin says about freshness does not matter. It will not run as root, so that under root its folder goes
//! to the user of its package.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{CACHE_GIB, PeerError, Plan, Setup, failed, free_addr, program, version};

const NAME: &str = "ats";
const USER: &str = "trafficserver";

/// `records.config` besides what depends on the run.
const RECORDS: &[&str] = &[
    "proxy.config.exec_thread.autoconfig INT 0",
    "proxy.config.exec_thread.autoconfig.enabled INT 0",
    "proxy.config.exec_thread.limit INT 1",
    "proxy.config.exec_thread.affinity INT 0",
    "proxy.config.accept_threads INT 0",
    "proxy.config.task_threads INT 1",
    "proxy.config.cache.threads_per_disk INT 4",
    "proxy.config.http.cache.http INT 1",
    "proxy.config.http.cache.required_headers INT 0",
    "proxy.config.http.cache.heuristic_min_lifetime INT 86400",
    "proxy.config.http.cache.ignore_client_cc_max_age INT 1",
    "proxy.config.cache.enable_read_while_writer INT 1",
    "proxy.config.http.background_fill_active_timeout INT 0",
    "proxy.config.http.background_fill_completed_threshold FLOAT 0.0",
    "proxy.config.http.cache.max_open_read_retries INT 20",
    "proxy.config.http.cache.open_read_retry_time INT 50",
    "proxy.config.http.cache.open_write_fail_action INT 5",
    "proxy.config.cache.read_while_writer.max_retries INT 100",
    "proxy.config.cache.read_while_writer_retry.delay INT 50",
    "proxy.config.cache.ram_cache_cutoff INT 4294967296",
    "proxy.config.cache.ram_cache.algorithm INT 1",
    "proxy.config.cache.max_doc_size INT 0",
    "proxy.config.cache.min_average_object_size INT 8000",
    "proxy.config.http.keep_alive_no_activity_timeout_in INT 3600",
    "proxy.config.http.transaction_no_activity_timeout_in INT 600",
    "proxy.config.http.transaction_no_activity_timeout_out INT 600",
    "proxy.config.net.default_inactivity_timeout INT 3600",
    "proxy.config.net.connections_throttle INT 8000",
    "proxy.config.http.insert_response_via_str INT 0",
    "proxy.config.http.insert_request_via_str INT 0",
    "proxy.config.url_remap.remap_required INT 1",
    "proxy.config.url_remap.pristine_host_hdr INT 0",
    "proxy.config.reverse_proxy.enabled INT 1",
    "proxy.config.log.logging_enabled INT 0",
    "proxy.config.diags.debug.enabled INT 0",
    "proxy.config.crash_log_helper STRING NULL",
    "proxy.config.output.logfile STRING traffic.out",
];

pub(super) fn plan(setup: &Setup<'_>) -> Result<Plan, PeerError> {
    let binary = program("traffic_server")?;
    let dir = setup.folder(NAME).map_err(failed(NAME))?;
    let addr = free_addr(NAME)?;
    let config = write(&dir, &records(setup, addr), &remap(setup)).map_err(failed(NAME))?;
    give_away(setup.dir, &dir).map_err(failed(NAME))?;
    let mut command = Command::new(&binary);
    command.arg(format!("--run-root={}", dir.join("runroot.yaml").display()));
    Ok(Plan {
        command,
        version: version(&binary, "--version"),
        config,
        addr,
    })
}

fn records(setup: &Setup<'_>, addr: std::net::SocketAddr) -> String {
    let mut own = vec![
        format!(
            "proxy.config.http.server_ports STRING {}:ip-in={}",
            addr.port(),
            addr.ip()
        ),
        format!("proxy.config.admin.user_id STRING {USER}"),
        format!("proxy.config.cache.ram_cache.size INT {}", CACHE_GIB << 30),
    ];
    if let Some(ca) = &setup.origin.ca {
        let folder = ca.parent().unwrap_or(Path::new("/"));
        own.extend([
            "proxy.config.ssl.client.verify.server.policy STRING ENFORCED".to_string(),
            "proxy.config.ssl.client.verify.server.properties STRING SIGNATURE".to_string(),
            "proxy.config.ssl.client.CA.cert.filename STRING ca.pem".to_string(),
            format!(
                "proxy.config.ssl.client.CA.cert.path STRING {}",
                folder.display()
            ),
        ]);
    }
    let fixed = RECORDS.iter().map(|line| (*line).to_string());
    fixed
        .chain(own)
        .map(|line| format!("CONFIG {line}\n"))
        .collect()
}

fn remap(setup: &Setup<'_>) -> String {
    let scheme = if setup.origin.ca.is_some() {
        "https"
    } else {
        "http"
    };
    format!("map / {scheme}://{}/\n", setup.origin.addr)
}

/// Lays out a root of its own and returns the configuration that says something.
fn write(dir: &Path, records: &str, remap: &str) -> io::Result<String> {
    let at = |name: &str| dir.join(name);
    for folder in ["etc", "share", "run", "log", "cache"] {
        fs::create_dir_all(at(folder))?;
    }
    let libraries = ["/usr/lib/trafficserver", "/usr/local/lib/trafficserver"];
    let libraries = libraries
        .into_iter()
        .find(|path| Path::new(path).is_dir())
        .unwrap_or("/usr/lib");
    let layout: Vec<(&str, PathBuf)> = vec![
        ("prefix", dir.to_path_buf()),
        ("exec_prefix", dir.to_path_buf()),
        ("bindir", "/usr/bin".into()),
        ("sbindir", "/usr/sbin".into()),
        ("sysconfdir", at("etc")),
        ("datadir", at("share")),
        ("includedir", dir.to_path_buf()),
        ("libdir", libraries.into()),
        ("libexecdir", Path::new(libraries).join("modules")),
        ("localstatedir", dir.to_path_buf()),
        ("runtimedir", at("run")),
        ("logdir", at("log")),
        ("cachedir", at("cache")),
    ];
    let lines = layout
        .iter()
        .map(|(name, path)| format!("{name}: {}\n", path.display()));
    fs::write(at("runroot.yaml"), lines.collect::<String>())?;
    let storage = format!("{} {}G\n", at("cache").display(), CACHE_GIB + 1);
    let access =
        "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n";
    let files = [
        ("records.config", records),
        ("remap.config", remap),
        ("storage.config", &storage),
        ("cache.config", "dest_domain=. ttl-in-cache=7d\n"),
        ("ip_allow.yaml", access),
        ("logging.yaml", ""),
        ("plugin.config", ""),
    ];
    for (name, text) in files {
        fs::write(at("etc").join(name), text)?;
    }
    copy_folder(
        Path::new("/etc/trafficserver/body_factory"),
        &at("etc/body_factory"),
    )?;
    Ok(format!(
        "{records}\n# remap.config\n{remap}\n# storage.config\n{storage}"
    ))
}

/// The pages it answers errors with; it does not start without them.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let Ok(entries) = fs::read_dir(from) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Under root, its folder becomes its user's, and the folders above it passable.
fn give_away(above: &Path, dir: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(USER));
    let number = |at: usize| line?.split(':').nth(at)?.parse::<u32>().ok();
    let (Some(user), Some(group)) = (number(2), number(3)) else {
        return Err(io::Error::other(format!("no user {USER}")));
    };
    fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
    own(dir, user, group)
}

fn own(path: &Path, user: u32, group: u32) -> io::Result<()> {
    chown(path, Some(user), Some(group))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)?.flatten() {
            own(&entry.path(), user, group)?;
        }
    }
    Ok(())
}
