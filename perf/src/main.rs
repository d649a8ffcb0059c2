//! `perf`: the harness as a command.
//!
//! Each subcommand is one call into the library. A server prints one line of JSON with its addresses once it
//! serves, and ends on SIGTERM, Ctrl-C, or (with `--with-stdin`) when its standard input ends.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test tool takes the clock and the locks of std"
)]

mod command;
mod report_command;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use perf::demo;
use perf::origin::{fault, s3s, tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

#[derive(Debug, Parser)]
#[command(
    name = "perf",
    version,
    about = "Origins, client and demo to judge a millrace deployment with"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// An S3 server on a folder, signatures verified (s3s-fs)
    S3s(S3sArgs),
    /// A small S3 that fails on demand; anonymous
    Origin(OriginArgs),
    /// Starts an origin and millrace, reads real files through it and prints a table
    Demo(DemoArgs),
    /// Measures millrace and its peers under scenarios, keeps the results
    Bench(command::BenchArgs),
    /// Writes docs/PERFORMANCE.md and its pictures from the results that are kept
    Report(report_command::ReportArgs),
    /// The least that a server can do: answers made before, one receive and one send
    #[command(hide = true)]
    Bare(command::BareArgs),
    /// Reads the same objects from a store and through a proxy: is the proxy faster, here?
    Compare(command::CompareArgs),
    /// Writes ca.pem, cert.pem and key.pem for a test origin with TLS
    Certs(CertsArgs),
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the side port: counters, log, faults
    #[arg(long)]
    stats: Option<SocketAddr>,
    /// Suffix of virtual-hosted names (bucket.DOMAIN); may be given several times
    #[arg(long)]
    domain: Vec<String>,
    /// PEM certificate chain: serve TLS
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM private key
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// End when standard input ends, so that the server never outlives who started it
    #[arg(long)]
    with_stdin: bool,
}

#[derive(Debug, Args)]
struct S3sArgs {
    /// Folder of the buckets; a temporary one that goes with the process if not given
    #[arg(long)]
    root: Option<PathBuf>,
    /// The access key it knows
    #[arg(long, default_value = "test")]
    access_key: String,
    /// Its secret
    #[arg(long, default_value = "testsecret")]
    secret_key: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct OriginArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct CertsArgs {
    /// Folder to write to
    #[arg(long)]
    dir: PathBuf,
    /// DNS name or IP address; may be given several times
    #[arg(long, default_values = ["localhost", "127.0.0.1"])]
    name: Vec<String>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// End after the table; the exit code says whether every byte was right and every warm read a hit
    #[arg(long)]
    once: bool,
    /// Address of the proxy; a free loopback port if not given
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The millrace binary; the one beside this program, or a fresh build, if not given
    #[arg(long)]
    millrace: Option<PathBuf>,
    /// RAM of the proxy
    #[arg(long, default_value = "1GiB")]
    ram: String,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        // It starts threads of its own, and must be alone before that.
        Command::Bench(args) => command::bench(args),
        Command::Report(args) => report_command::report(args),
        Command::Compare(args) => command::compare(args),
        Command::Bare(args) => command::bare(args),
        command => serve(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With `2>&1 | head` this reader may have gone too; the exit code says it as well.
            let _ = writeln!(std::io::stderr(), "perf: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn serve(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::S3s(args) => run_s3s(args).await,
        Command::Origin(args) => run_origin(args).await,
        Command::Demo(args) => run_demo(args).await,
        Command::Certs(args) => tls::write_certificates(&args.dir, &args.name).map_err(Into::into),
        Command::Bench(_) | Command::Report(_) | Command::Compare(_) | Command::Bare(_) => {
            unreachable!("run without a runtime")
        }
    }
}

async fn run_s3s(args: S3sArgs) -> Result<(), Box<dyn Error>> {
    let (root, _temporary) = match args.root {
        Some(root) => {
            std::fs::create_dir_all(&root)?;
            (root, None)
        }
        None => {
            let dir = tempfile::tempdir()?;
            (dir.path().to_path_buf(), Some(dir))
        }
    };
    let origin = s3s::S3sOrigin::start(s3s::Config {
        root,
        listen: args.server.listen,
        stats: args.server.stats,
        access_key: args.access_key,
        secret_key: args.secret_key,
        domains: args.server.domain,
        tls: args.server.tls_cert.zip(args.server.tls_key),
    })?;
    announce(origin.addr, origin.stats_addr);
    until_told_to_end(args.server.with_stdin).await?;
    Ok(())
}

async fn run_origin(args: OriginArgs) -> Result<(), Box<dyn Error>> {
    let origin = fault::FaultOrigin::start(fault::Config {
        listen: args.server.listen,
        stats: args.server.stats,
        tls: args.server.tls_cert.zip(args.server.tls_key),
        domains: args.server.domain,
    })?;
    announce(origin.addr, origin.stats_addr);
    until_told_to_end(args.server.with_stdin).await?;
    Ok(())
}

async fn run_demo(args: DemoArgs) -> Result<(), Box<dyn Error>> {
    let config = demo::Config {
        listen: args.listen,
        millrace: args.millrace,
        ram: args.ram,
    };
    // Dropped half way, the start takes its child with it.
    let mut demo = tokio::select! {
        demo = demo::Demo::start(&config) => demo?,
        ended = until_told_to_end(false) => return Ok(ended?),
    };
    let shown = tokio::select! {
        shown = show_demo(&mut demo, args.once) => shown,
        ended = until_told_to_end(false) => ended.map_err(Into::into),
    };
    demo.stop().await;
    shown
}

async fn show_demo(demo: &mut demo::Demo, once: bool) -> Result<(), Box<dyn Error>> {
    let (origin, proxy, admin) = demo.addresses();
    let mut heard = say(&format!(
        "origin http://{origin} (s3s-fs), millrace http://{proxy}, its admin http://{admin}\n\n"
    ));
    let outcome = demo.run().await?;
    heard &= say(&demo::table::render(&outcome.rows));
    for failure in &outcome.failures {
        heard &= say(&format!("FAILED: {failure}\n"));
    }
    if !once {
        heard &= say(&format!(
            "\nBoth stay up until Ctrl-C. Read through the proxy with:\n\n{}\n\nIt prints {}\n\n",
            demo.paste_line(),
            outcome.paste_sha256
        ));
        if !heard {
            // Nobody knows of what would stay up.
            return Ok(());
        }
        return Err(format!("millrace ended: {}", demo.proxy_ended().await).into());
    }
    match outcome.failures.len() {
        0 => Ok(()),
        count => Err(format!("{count} promise(s) not kept").into()),
    }
}

fn announce(listen: SocketAddr, stats: Option<SocketAddr>) {
    let line = serde_json::json!({ "listen": listen, "stats": stats });
    // Whoever started a server may know its addresses already.
    let _heard = say(&format!("{line}\n"));
}

/// Writes to standard output; false if nobody reads it any more (`perf demo | head`), which is no failure of ours.
fn say(text: &str) -> bool {
    let mut stdout = std::io::stdout();
    let said = stdout.write_all(text.as_bytes());
    said.and_then(|()| stdout.flush()).is_ok()
}

async fn until_told_to_end(with_stdin: bool) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (ended, stdin_ends) = oneshot::channel();
    if with_stdin {
        // A plain thread: tokio's own would keep the process alive until the read returns.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        });
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = stdin_ends, if with_stdin => {}
    }
    Ok(())
}
