//! HAProxy with its cache: made for small objects, here given all the memory that it can take (4 GiB less one MiB: an
//! object may be half of it).
//!
//! One thread. Its cache holds an object only up to a size, and serves no ranges from it: those go to the origin, and
//! the run says so by the origin's counters.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::{CACHE_GIB, PeerError, Plan, Setup, failed, free_addr, program, version};

const NAME: &str = "haproxy";

pub(super) fn plan(setup: &Setup<'_>) -> Result<Plan, PeerError> {
    let binary = program(NAME)?;
    let dir = setup.folder(NAME).map_err(failed(NAME))?;
    let addr = free_addr(NAME)?;
    let upstream = setup.origin.addr;
    let tls = setup.origin.ca.as_ref().map_or(String::new(), |ca| {
        let ca = ca.display();
        format!(" ssl verify required ca-file {ca} verifyhost localhost sni str(localhost)")
    });
    let caching = || {
        format!(
            "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n  timeout connect 5s\n  \
         timeout client 10m\n  timeout server 10m\n  timeout http-keep-alive 1h\n\
         cache objects\n  total-max-size {megabytes}\n  max-object-size 2000000000\n  max-age 86400\n  process-vary off\n\
         frontend clients\n  bind {addr} backlog 4096\n  http-request cache-use objects\n  \
         http-response cache-store objects\n  default_backend origin\n\
         backend origin\n  http-request set-header Host {upstream}\n  \
         server origin {upstream} pool-max-conn -1{tls}\n",
            megabytes = (CACHE_GIB << 11) - 1
        )
    };
    let config = match setup.scenario.load.tunnel {
        true => forwarding(addr, upstream),
        false => caching(),
    };
    let path = dir.join("haproxy.cfg");
    fs::write(&path, &config).map_err(failed(NAME))?;
    let mut command = Command::new(&binary);
    command.arg("-db").arg("-f").arg(&path);
    Ok(Plan {
        command,
        version: version(&binary, "-v"),
        config,
        addr,
    })
}

/// Bytes of a connection, as they are, by `splice` in both directions.
fn forwarding(addr: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4000\n  tune.pipesize 1048576\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n  \
         option splice-request\n  option splice-response\n\
         frontend clients\n  bind {addr} backlog 4096\n  default_backend origin\n\
         backend origin\n  server origin {upstream}\n"
    )
}
