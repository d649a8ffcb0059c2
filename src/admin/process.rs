//! What the system says about this process, as gauges.
//!
//! Called when the metrics are asked for. What `/proc` does not say is left as it was.

use std::fs;

use crate::metrics::{Gauge, GlobalMetrics};

/// Sets the gauges of the process.
pub(super) fn observe(metrics: &GlobalMetrics) {
    if let Some(bytes) = fs::read_to_string("/proc/self/status")
        .ok()
        .as_deref()
        .and_then(resident_bytes)
    {
        metrics.gauge_set(Gauge::ProcessResidentBytes, bytes);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is read.
        let open = entries.count().saturating_sub(1);
        metrics.gauge_set(Gauge::ProcessOpenDescriptors, open as u64);
    }
}

/// The `VmRSS` line of `/proc/<pid>/status`, which is in KiB (proc_pid_status(5)).
fn resident_bytes(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"),
            Some(2_097_152)
        );
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_has_memory_and_descriptors() {
        let registry = Registry::new(0);
        observe(registry.global());
        assert!(registry.level(Gauge::ProcessResidentBytes) > 0);
        assert!(registry.level(Gauge::ProcessOpenDescriptors) > 0);
    }
}
