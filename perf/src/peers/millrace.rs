//! millrace itself: everything by flags and variables, on disk only what a variant asks for.

use std::process::Command;

use super::{PeerError, Plan, Setup, failed, free_addr, version};
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
    let cache = match variant.disk {
        Some(_) => {
            let folder = setup.folder(&variant.name).map_err(failed(&variant.name))?;
            folder.display().to_string()
        }
        None => "none".to_string(),
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
        ("--cache-dir", cache),
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
    if let Some(size) = variant.disk {
        command.env("MILLRACE_DISK_SIZE", size.0.to_string());
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
