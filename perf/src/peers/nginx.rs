//! nginx with `proxy_cache`: the peer whose large hits go by `sendfile` from files in the page cache.
//!
//! One worker, as every party has one core. Tuned as nginx's own guide does: `sendfile` with `tcp_nopush`, open files
//! kept, connections to the origin kept, large buffers for the miss path, no temporary copy, no log. The lock makes
//! one fetch of many misses.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{CACHE_GIB, PeerError, Plan, Setup, failed, free_addr, program, version};

pub(super) const NAME: &str = "nginx";

/// The blocks that an nginx needs besides its `http` content, all paths below `dir`.
pub(super) fn wrap(dir: &Path, http: &str) -> String {
    let dir = dir.display();
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    format!(
        "worker_processes 1;\ndaemon off;\n{user}pid {dir}/nginx.pid;\nerror_log {dir}/error.log error;\n\
         worker_rlimit_nofile 65536;\nevents {{ worker_connections 16384; }}\nhttp {{\n\
         default_type application/octet-stream;\ntypes {{ }}\n\
         sendfile on;\ntcp_nopush on;\ntcp_nodelay on;\n\
         keepalive_requests 1000000000;\nkeepalive_timeout 1h;\n\
         open_file_cache max=20000 inactive=1h;\nopen_file_cache_valid 1h;\nopen_file_cache_min_uses 1;\n\
         client_max_body_size 0;\nclient_body_temp_path {dir}/body;\nproxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi;\nuwsgi_temp_path {dir}/uwsgi;\nscgi_temp_path {dir}/scgi;\n\
         {http}}}\n"
    )
}

/// The command that runs a configuration.
pub(super) fn command(dir: &Path) -> Result<Command, PeerError> {
    let mut command = Command::new(program(NAME)?);
    command.arg("-p").arg(dir);
    command.arg("-c").arg(dir.join("nginx.conf"));
    command.arg("-e").arg(dir.join("error.log"));
    Ok(command)
}

/// Bytes of a connection, as they are.
fn forwarding(dir: &Path, addr: SocketAddr, upstream: SocketAddr) -> String {
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let load = match module.exists() {
        true => format!("load_module {};\n", module.display()),
        false => String::new(),
    };
    // Its default is 16 KiB, far less than a socket has when it is looked at.
    let stream = format!(
        "stream {{\ntcp_nodelay on;\nproxy_buffer_size 1m;\nserver {{\nlisten {addr} backlog=4096;\n\
         proxy_pass {upstream};\nproxy_timeout 10m;\n}}\n}}\n"
    );
    format!("{load}{}{stream}", wrap(dir, ""))
}

pub(super) fn plan(setup: &Setup<'_>) -> Result<Plan, PeerError> {
    let dir = setup.folder(NAME).map_err(failed(NAME))?;
    let addr = free_addr(NAME)?;
    let upstream = setup.origin.addr;
    if setup.scenario.load.tunnel {
        return finish(&dir, addr, forwarding(&dir, addr, upstream));
    }
    let (scheme, tls) = match &setup.origin.ca {
        None => ("http", String::new()),
        Some(ca) => (
            "https",
            format!(
                "proxy_ssl_verify on;\nproxy_ssl_trusted_certificate {};\nproxy_ssl_name localhost;\n\
                 proxy_ssl_session_reuse on;\nproxy_ssl_protocols TLSv1.2 TLSv1.3;\n",
                ca.display()
            ),
        ),
    };
    let http = format!(
        "access_log off;\n\
         proxy_cache_path {dir}/cache levels=1:2 keys_zone=cache:64m max_size={CACHE_GIB}g inactive=1d use_temp_path=off;\n\
         upstream origin {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{\nlisten {addr} backlog=4096;\nlocation / {{\n\
         proxy_pass {scheme}://origin;\nproxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\nproxy_set_header Host {upstream};\n{tls}\
         proxy_cache cache;\nproxy_cache_key $uri$is_args$args;\nproxy_cache_valid 200 1d;\n\
         proxy_cache_lock on;\nproxy_cache_lock_timeout 10m;\nproxy_cache_lock_age 10m;\n\
         proxy_cache_convert_head on;\nproxy_request_buffering off;\n\
         proxy_max_temp_file_size 0;\nproxy_buffer_size 64k;\nproxy_buffers 64 64k;\n\
         proxy_busy_buffers_size 1m;\nproxy_read_timeout 10m;\n}}\n}}\n",
        dir = dir.display()
    );
    finish(&dir, addr, wrap(&dir, &http))
}

fn finish(dir: &Path, addr: SocketAddr, config: String) -> Result<Plan, PeerError> {
    fs::write(dir.join("nginx.conf"), &config).map_err(failed(NAME))?;
    Ok(Plan {
        command: command(dir)?,
        version: version(&program(NAME)?, "-v"),
        config,
        addr,
    })
}
