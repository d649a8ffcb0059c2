//! What the kernel grants: asked once at start, so that a missing right is one clear sentence and not a strange failure later.
//!
//! Called by `server`. Each finding says what is missing and how to grant it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The soft limit of open descriptors after raising it to the hard one.
///
/// # Errors
/// The kernel's.
pub fn raise_nofile() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let wanted = libc::rlimit {
        rlim_cur: limit.rlim_max,
        rlim_max: limit.rlim_max,
    };
    if limit.rlim_cur == limit.rlim_max {
        return Ok(limit.rlim_max);
    }
    // SAFETY: `wanted` is valid for the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) } < 0 {
        return Ok(limit.rlim_cur);
    }
    Ok(limit.rlim_max)
}

/// 32 random bytes of the kernel's, for a key.
///
/// # Errors
/// The kernel's.
pub fn secret() -> io::Result<[u8; 32]> {
    let mut key = [0u8; 32];
    // SAFETY: `key` is valid for its length. So few bytes come whole, or not at all.
    let bytes = unsafe { libc::getrandom(key.as_mut_ptr().cast(), key.len(), 0) };
    match usize::try_from(bytes) {
        Ok(bytes) if bytes == key.len() => Ok(key),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Why there is no ring: what is missing and how to grant it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel is too old, or built without it.
    #[error("this kernel has no io_uring: Linux 5.15 or newer is needed, 6.1 or newer is advised")]
    Missing,
    /// A sysctl or a seccomp profile says no.
    #[error(
        "io_uring is forbidden here: set the sysctl kernel.io_uring_disabled=0, and in a \
         container allow the io_uring system calls in its seccomp profile"
    )]
    Forbidden,
    /// `RLIMIT_MEMLOCK`.
    #[error(
        "locked memory is too small for io_uring: raise it (ulimit -l, LimitMEMLOCK= in the unit) to at \
         least 8 MiB per shard"
    )]
    LockedMemory,
    /// Anything else.
    #[error("io_uring cannot be set up: {0}")]
    Kernel(io::Error),
}

/// Whether a ring of the size that the shards use can be had.
///
/// # Errors
/// See [`RingError`]: for the operator's eyes.
pub fn ring() -> Result<(), RingError> {
    match io_uring::IoUring::new(super::runtime::RING_ENTRIES) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ENOSYS) => RingError::Missing,
            Some(libc::EPERM | libc::EACCES) => RingError::Forbidden,
            Some(libc::ENOMEM) => RingError::LockedMemory,
            _ => RingError::Kernel(error),
        }),
    }
}

/// The TCP congestion control that new sockets get, e.g. `cubic` or `bbr`.
#[must_use]
pub fn system_congestion() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Memory of this machine in bytes, or the control group's limit if that is smaller.
#[must_use]
pub fn memory_bytes() -> u64 {
    // SAFETY: plain library call without pointers.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) }.max(0) as u64;
    let machine = pages * super::memory::PAGE_BYTES as u64;
    group_limits().fold(machine, u64::min)
}

/// The memory limits of this process's control group and of those above it (cgroup v2).
fn group_limits() -> impl Iterator<Item = u64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default()
        .to_owned();
    let depth = path.split('/').filter(|part| !part.is_empty()).count();
    (0..=depth).filter_map(move |above| {
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .take(depth - above)
            .collect();
        let file = format!("/sys/fs/cgroup/{}/memory.max", parts.join("/"));
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    })
}

/// Whether `ip` is an address of this machine. Nothing is sent.
#[must_use]
pub fn is_own_address(ip: IpAddr) -> bool {
    is_reached_from_itself(ip) || is_of_an_interface(ip)
}

/// Most addresses of this machine the kernel would reach from that very address.
fn is_reached_from_itself(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

/// A second address of an interface is reached from the first one.
fn is_of_an_interface(ip: IpAddr) -> bool {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `first` is valid for the call.
    if unsafe { libc::getifaddrs(&raw mut first) } < 0 {
        return false;
    }
    let (mut next, mut found) = (first, false);
    while !next.is_null() && !found {
        // SAFETY: an entry of the kernel's list, which is freed below.
        let entry = unsafe { &*next };
        found = address_of(entry.ifa_addr) == Some(ip);
        next = entry.ifa_next;
    }
    // SAFETY: the list is ours, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// The IP address that a socket address of the C library is; it may be none.
fn address_of(raw: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or a socket address of the list that is being read.
    let family = unsafe { raw.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is.
            let v4 = unsafe { raw.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { raw.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// In a network of its own: a second address of a network that an interface is in already.
    fn second_addresses() {
        // SAFETY: plain system call; it is about this thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            eprintln!("no right to a network of one's own");
            return;
        }
        for address in ["10.7.0.1/24", "10.7.0.2/24", "fd07::1/64", "fd07::2/64"] {
            let words = ["addr", "add", address, "dev", "lo"];
            let added = Command::new("ip").args(words).output();
            if !added.is_ok_and(|added| added.status.success()) {
                eprintln!("{address} cannot be added here");
                return;
            }
        }
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.is_ok_and(|status| status.success()), "lo is up");
        let own = |text: &str| is_own_address(text.parse().expect(text));
        for address in [
            "127.0.0.1",
            "::1",
            "10.7.0.1",
            "10.7.0.2",
            "fd07::1",
            "fd07::2",
        ] {
            assert!(own(address), "{address}");
        }
        for address in ["10.7.0.3", "192.0.2.1", "2001:db8::1"] {
            assert!(!own(address), "{address}");
        }
    }

    #[test]
    fn every_address_of_an_interface_is_this_machines() {
        let thread = std::thread::spawn(second_addresses);
        thread.join().expect("a thread");
    }
}
