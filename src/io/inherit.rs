//! Listening sockets that whoever started this process has passed on: systemd, or a millrace that hands over to this one.
//!
//! Called by `server` once, at start. The convention is systemd's (sd_listen_fds(3)): descriptors from 3 on, their number, names and
//! addressee in the environment. A millrace that hands over cannot know this process's number when it writes the environment: it gives its
//! own, and passes a socket to talk over that it has made itself. It may have died before it is looked for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::socket::option;

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

/// Names for `LISTEN_FDS` descriptors, if they are for this process; `maker` knows who made the socket of a number.
fn names(
    variable: impl Fn(&str) -> Option<String>,
    own: u32,
    maker: impl Fn(RawFd) -> Option<u32>,
) -> Option<Vec<String>> {
    let number = |name: &str| variable(name)?.parse::<u32>().ok();
    let count = (number("LISTEN_FDS")? as usize).min(PASSED_MAX);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names: Vec<String> = names.split(':').map(str::to_owned).collect();
    names.resize(count, String::new());
    let addressee = number("LISTEN_PID")?;
    let mut numbered = names.iter().zip(FIRST_FD..);
    let line = numbered.find(|(name, _)| *name == HANDOVER);
    let handed_over = line.is_some_and(|(_, line)| maker(line) == Some(addressee));
    (addressee == own || handed_over).then_some(names)
}

/// The process that has made a pair of sockets, of which this is one; it need not live any more.
fn maker_of(raw: RawFd) -> Option<u32> {
    let nobody = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    // SAFETY: any bytes are three numbers; a number that is no socket is an error.
    let peer = unsafe { option(raw, libc::SO_PEERCRED, nobody) }.ok()?;
    u32::try_from(peer.pid).ok()
}

/// Takes what was passed; nothing when asked again.
///
/// # Errors
/// A descriptor that is said to be there is not.
pub fn take() -> io::Result<Vec<Passed>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name: &str| std::env::var(name).ok();
    let Some(names) = names(variable, std::process::id(), maker_of) else {
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
    use std::os::fd::AsRawFd;

    fn asked(pid: &str, fds: &str, fd_names: Option<&str>) -> Option<Vec<String>> {
        let variable = |name: &str| match name {
            "LISTEN_PID" => Some(pid.to_owned()),
            "LISTEN_FDS" => Some(fds.to_owned()),
            "LISTEN_FDNAMES" => fd_names.map(str::to_owned),
            _ => None,
        };
        names(variable, 7, |raw| (raw == FIRST_FD + 1).then_some(6))
    }

    #[test]
    fn who_made_a_pair_of_sockets_is_known() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(maker_of(one.as_raw_fd()), Some(std::process::id()));
        assert_eq!(maker_of(-1), None);
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
        assert_eq!(asked("5", "2", Some("http:handover")), None);
        assert_eq!(asked("6", "2", Some("handover:http")), None);
        assert_eq!(asked("", "1", None), None);
        assert_eq!(asked("7", "x", None), None);
    }
}
