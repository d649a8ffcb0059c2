//! The commands that measure, as flags: `perf bench`, `perf compare`.
//!
//! Called by `main` before there is any thread, because a network of one's own is entered thread by thread.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use perf::bench::{self, Endpoint, Options};
use perf::compare;
use perf::demo::child;
use perf::load::requests::{Bodies, SEED};
use perf::load::target::Target;
use perf::peers::origin;
use perf::sign::Signer;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Names of scenarios (or clear starts of them), or paths of scenario files
    #[arg(required = true)]
    scenario: Vec<String>,
    /// Peers: direct, bare, nginx, haproxy, varnish, ats; the scenario's own list if not given
    #[arg(long, value_delimiter = ',')]
    against: Option<Vec<String>>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measure this running server instead of starting any; objects are uploaded through it
    #[arg(long, conflicts_with = "against")]
    endpoint: Option<String>,
    /// Bucket of the endpoint
    #[arg(long, default_value = "bench", requires = "endpoint")]
    bucket: String,
    /// Process id of the endpoint, to count its CPU
    #[arg(long, requires = "endpoint")]
    pid: Option<u32>,
    #[command(flatten)]
    access: AccessArgs,
    /// The millrace binary; the one beside this program, or a fresh build, if not given
    #[arg(long)]
    millrace: Option<PathBuf>,
    /// Folder of the results; perf/results of the source tree if not given, a temporary one with --quick
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where objects and disk caches are kept meanwhile; the folder of temporary files if not given. A file system in
    /// memory makes sendfile dearer than one on a disk: its pages are small
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// The origin is `perf origin` also where nginx is installed
    #[arg(long)]
    own_origin: bool,
    /// Small sizes and short times, to see whether everything works
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Args)]
pub struct AccessArgs {
    /// Access key: sign requests
    #[arg(long, env = "AWS_ACCESS_KEY_ID", requires = "secret_key")]
    access_key: Option<String>,
    /// Its secret
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: Option<String>,
    /// For temporary credentials
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true)]
    session_token: Option<String>,
    /// Region to sign for
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    region: String,
    /// PEM file of certificate authorities to trust instead of the system's
    #[arg(long)]
    ca: Option<PathBuf>,
}

impl AccessArgs {
    fn signer(&self) -> Option<Signer> {
        let (access, secret) = (self.access_key.as_ref()?, self.secret_key.as_ref()?);
        let signer = Signer::s3(access, secret, &self.region);
        Some(Signer {
            session_token: self.session_token.clone(),
            ..signer
        })
    }

    fn target(&self, url: &str) -> Result<Target, Box<dyn Error>> {
        Ok(Target::parse(url, self.ca.as_deref())?)
    }
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The store itself: http(s)://host[:port]
    #[arg(long)]
    direct: String,
    /// The proxy in front of it
    #[arg(long)]
    proxy: String,
    /// `Host` to send to the proxy (and to sign): for a proxy that finds the store by it; its own address if not given
    #[arg(long)]
    proxy_host: Option<String>,
    /// Bucket of the keys; each key begins with its bucket if not given
    #[arg(long)]
    bucket: Option<String>,
    /// An existing object; may be given many times
    #[arg(long)]
    key: Vec<String>,
    /// A file with a key on each line
    #[arg(long)]
    keys: Option<PathBuf>,
    /// Keep-alive connections
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Interleaved rounds
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, Args)]
pub struct BareArgs {
    /// Address to serve on
    #[arg(long)]
    listen: SocketAddr,
    /// How many objects there are
    #[arg(long)]
    objects: u32,
    /// Bytes of each
    #[arg(long)]
    bytes: u64,
}

/// `perf bare`.
pub fn bare(args: BareArgs) -> Result<(), Box<dyn Error>> {
    let bodies = Bodies::generated(args.bytes, SEED);
    Ok(perf::bare::serve(args.listen, &bodies, args.objects)?)
}

/// `perf compare`.
pub fn compare(args: CompareArgs) -> Result<(), Box<dyn Error>> {
    let mut keys = args.key;
    if let Some(path) = args.keys {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        keys.extend(
            text.lines()
                .filter(|line| !line.is_empty())
                .map(str::to_string),
        );
    }
    let direct = args.access.target(&args.direct)?;
    let mut proxy = args.access.target(&args.proxy)?;
    if let Some(host) = args.proxy_host {
        proxy.host = host;
    }
    let told = compare::run(&compare::Options {
        targets: [direct, proxy],
        bucket: args.bucket,
        keys,
        signer: args.access.signer(),
        connections: args.connections,
        rounds: args.rounds,
    })?;
    print!("{told}");
    Ok(())
}

/// `perf bench`.
pub fn bench(args: BenchArgs) -> Result<(), Box<dyn Error>> {
    let endpoint = match &args.endpoint {
        None => None,
        Some(url) => Some(Endpoint {
            target: args.access.target(url)?,
            url: url.clone(),
            bucket: args.bucket.clone(),
            signer: args.access.signer(),
            pid: args.pid,
        }),
    };
    let millrace = match args.millrace {
        Some(path) => path,
        None if endpoint.is_some() => PathBuf::new(),
        None => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(child::find_or_build())?,
    };
    // What was measured in small is nothing to keep.
    let results = || match args.quick {
        true => std::env::temp_dir().join("perf-quick"),
        false => Path::new(env!("CARGO_MANIFEST_DIR")).join("results"),
    };
    let options = Options {
        scenarios: args.scenario,
        against: args.against,
        rounds: args.rounds,
        endpoint,
        millrace,
        out: args.out.unwrap_or_else(results),
        scratch: args.scratch.unwrap_or_else(std::env::temp_dir),
        origin: match args.own_origin {
            true => origin::Kind::Own,
            false => origin::Kind::of_this_machine(),
        },
        quick: args.quick,
    };
    Ok(bench::run(&options)?)
}
