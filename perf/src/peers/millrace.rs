//! millrace itself: everything by flags and variables, nothing on disk.

use std::process::Command;

use super::{PeerError, Plan, Setup, free_addr, version};
use crate::machine::CONGESTION;
use crate::scenario::Variant;

pub(super) fn plan(variant: &Variant, setup: &Setup<'_>, cores: &[u32]) -> Result<Plan, PeerError> {
    let addr = free_addr(&variant.name)?;
    let admin = free_addr(&variant.name)?;
    let cores: Vec<String> = cores.iter().map(u32::to_string).collect();
    let scheme = if setup.origin.ca.is_some() {
        "https"
    } else {
        "http"
    };
    let mut command = Command::new(setup.millrace);
    command.arg("serve");
    for (flag, value) in [
        ("--listen", addr.to_string()),
        ("--admin", admin.to_string()),
        ("--origin", format!("{scheme}://{}", setup.origin.addr)),
        ("--ram", variant.ram.clone()),
        ("--shards", variant.shards.to_string()),
        ("--cores", cores.join(",")),
        ("--cache-dir", "none".to_string()),
    ] {
        command.args([flag, &value]);
    }
    // What is measured is what is written here.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"MILLRACE_") {
            command.env_remove(name);
        }
    }
    let settings = [
        ("MILLRACE_TCP_CONGESTION", CONGESTION),
        ("MILLRACE_SERVER_DRAIN", "1s"),
        // Else the first cold rounds measure how the kernel, or the host of a virtual machine, gives memory.
        ("MILLRACE_RAM_PREFAULT", "true"),
    ];
    command.envs(settings);
    if let Some(ca) = &setup.origin.ca {
        command.env("MILLRACE_UPSTREAM_CA_FILE", ca);
    }
    Ok(Plan {
        command,
        version: version(setup.millrace, "--version"),
        config: settings
            .map(|(name, value)| format!("{name}={value}\n"))
            .concat(),
        addr,
    })
}
