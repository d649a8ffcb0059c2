//! Varnish with memory storage: the peer that, like millrace, serves from memory of its own.
//!
//! One pool of threads, enough of them for every connection (a thread each). It speaks no TLS to origins, so that it
//! has no part in such scenarios.

use std::fs;
use std::process::Command;

use super::{CACHE_GIB, PeerError, Plan, Setup, failed, free_addr, program, version};

const NAME: &str = "varnish";

pub(super) fn plan(setup: &Setup<'_>) -> Result<Plan, PeerError> {
    let binary = program("varnishd")?;
    if setup.origin.ca.is_some() {
        return Err(PeerError::Unable {
            name: NAME.to_string(),
            reason: "speaks no TLS to origins",
        });
    }
    let dir = setup.folder(NAME).map_err(failed(NAME))?;
    let addr = free_addr(NAME)?;
    let upstream = setup.origin.addr;
    let config = format!(
        "vcl 4.1;\n\
         backend origin {{ .host = \"{host}\"; .port = \"{port}\"; .max_connections = 1000;\n  \
         .first_byte_timeout = 600s; .between_bytes_timeout = 600s; }}\n\
         sub vcl_recv {{\n  if (req.method != \"GET\" && req.method != \"HEAD\") {{ return (pass); }}\n  \
         return (hash);\n}}\n\
         sub vcl_hash {{ hash_data(req.url); return (lookup); }}\n\
         sub vcl_backend_fetch {{ set bereq.http.Host = \"{upstream}\"; }}\n\
         sub vcl_backend_response {{ set beresp.ttl = 1d; set beresp.grace = 0s; set beresp.do_gzip = false; }}\n",
        host = upstream.ip(),
        port = upstream.port()
    );
    let path = dir.join("default.vcl");
    fs::write(&path, &config).map_err(failed(NAME))?;
    let mut command = Command::new(&binary);
    command.args(["-F", "-j", "none", "-T", "none"]);
    command.arg("-s").arg(format!("malloc,{CACHE_GIB}g"));
    command.arg("-n").arg(dir.join("work"));
    command.arg("-a").arg(addr.to_string());
    command.arg("-f").arg(&path);
    for parameter in [
        "thread_pools=1",
        "thread_pool_min=200",
        "thread_pool_max=2000",
        "idle_send_timeout=120",
        "send_timeout=1200",
        "timeout_idle=3600",
        "fetch_chunksize=256k",
    ] {
        command.args(["-p", parameter]);
    }
    Ok(Plan {
        command,
        version: version(&binary, "-V"),
        config,
        addr,
    })
}
