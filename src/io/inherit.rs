//! Listening sockets that whoever started this process has passed on: systemd, or a millrace that hands over to this one.
//!
//! Called by `server` once, at start. The convention is systemd's (sd_listen_fds(3)): descriptors from 3 on, their number, names and
//! addressee in the environment. A millrace that hands over cannot know this process's number when it writes the environment: it gives its
//! own, and passes a socket of this name to talk over.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The name of the socket between two millraces.
pub const HANDOVER: &str = "handover";
/// The first descriptor that is passed.
pub const FIRST_FD: RawFd = 3;
/// More are not looked at.
const PASSED_MAX: usize = 256;

/// One descriptor.
#[derive(Debug)]
pub struct Passed {
    /// What it is called; empty if it has no name.
    pub name: String,
    /// Close-on-exec.
    pub fd: OwnedFd,
}

/// Names for `LISTEN_FDS` descriptors, if they are for this process.
fn names(variable: impl Fn(&str) -> Option<String>, own: u32, parent: u32) -> Option<Vec<String>> {
    let number = |name: &str| variable(name)?.parse::<u32>().ok();
    let count = (number("LISTEN_FDS")? as usize).min(PASSED_MAX);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names: Vec<String> = names.split(':').map(str::to_owned).collect();
    names.resize(count, String::new());
    let addressee = number("LISTEN_PID")?;
    let handed_over = addressee == parent && names.iter().any(|name| name == HANDOVER);
    (addressee == own || handed_over).then_some(names)
}

/// Takes what was passed; nothing when asked again.
///
/// # Errors
/// A descriptor that is said to be there is not.
pub fn take() -> io::Result<Vec<Passed>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name: &str| std::env::var(name).ok();
    let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
    let Some(names) = names(variable, own, parent) else {
        return Ok(Vec::new());
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let numbered = names.into_iter().zip(FIRST_FD..);
    numbered
        .map(|(name, raw)| {
            // SAFETY: plain system call; a number that is no descriptor is an error.
            if unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: it is open, passed to us to own, and taken only once.
            let fd = unsafe { OwnedFd::from_raw_fd(raw) };
            Ok(Passed { name, fd })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pid: &str, fds: &str, fd_names: Option<&str>) -> Option<Vec<String>> {
        let variable = |name: &str| match name {
            "LISTEN_PID" => Some(pid.to_owned()),
            "LISTEN_FDS" => Some(fds.to_owned()),
            "LISTEN_FDNAMES" => fd_names.map(str::to_owned),
            _ => None,
        };
        names(variable, 7, 6)
    }

    #[test]
    fn only_what_is_for_this_process_is_taken() {
        let named = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(asked("7", "2", Some("http:tls")), named(&["http", "tls"]));
        assert_eq!(asked("7", "2", None), named(&["", ""]));
        assert_eq!(asked("7", "1", Some("http:tls")), named(&["http"]));
        assert_eq!(asked("8", "1", Some("http")), None);
        assert_eq!(asked("6", "1", Some("http")), None);
        assert_eq!(
            asked("6", "2", Some("http:handover")),
            named(&["http", "handover"])
        );
        assert_eq!(asked("", "1", None), None);
        assert_eq!(asked("7", "x", None), None);
    }
}
