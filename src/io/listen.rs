//! Listening sockets and the blocking accept of the acceptor threads.
//!
//! Called by `server` (bind, before anything else runs) and `listener::acceptor` (one thread per door). Accepting is a plain
//! `accept4` on a thread of its own: a dropped accept operation of the runtime leaks descriptors (monoio 0.2.4). A socket may be shared with
//! another process, which takes from the same queue: so it never blocks, and the thread waits for it and for its own end at once.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::eventfd::EventFd;
use super::socket::{option, raw_address, set_congestion, set_option};

/// A bound, listening socket.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: SocketAddr,
    /// Whoever passed it keeps it open for those who come after us.
    kept: bool,
    stop: EventFd,
    stopped: AtomicBool,
}

/// Why an accept gave no connection.
#[derive(Debug)]
pub enum AcceptError {
    /// The listener was shut down: the thread ends.
    Closed,
    /// Descriptors or memory have run out: back off.
    Exhausted(io::Error),
    /// That one connection failed before it was taken; go on.
    Lost(io::Error),
}

impl Listener {
    /// Binds and listens, with `SO_REUSEADDR` (an address stays bound some milliseconds after a ring's exit).
    ///
    /// # Errors
    /// The kernel's: in use, not permitted, no such congestion control.
    pub fn bind(address: SocketAddr, backlog: u32, congestion: &str) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        // SAFETY: plain system call without pointers.
        let raw = unsafe {
            libc::socket(
                family,
                libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let one: libc::c_int = 1;
        // Without it an address may be taken for a while, which `bind` says.
        let _ = set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, &one);
        if !congestion.is_empty() {
            set_congestion(raw, congestion)?;
        }
        let (storage, length) = raw_address(&address);
        // SAFETY: `storage` is readable for `length` bytes during the call.
        if unsafe { libc::bind(raw, (&raw const storage).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain system call on our open descriptor.
        if unsafe { libc::listen(raw, backlog as libc::c_int) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Self::of(fd, false)
    }

    fn of(fd: OwnedFd, kept: bool) -> io::Result<Self> {
        let address = local_address(&fd)?;
        Ok(Self {
            fd,
            address,
            kept,
            stop: EventFd::new()?,
            stopped: AtomicBool::new(false),
        })
    }

    /// Takes over a socket that listens already. `kept`: somebody else goes on with it after us.
    ///
    /// # Errors
    /// It is no listening TCP socket; the kernel's.
    pub fn adopt(fd: OwnedFd, kept: bool, congestion: &str) -> io::Result<Self> {
        std::net::TcpListener::from(fd.try_clone()?).set_nonblocking(true)?;
        if !congestion.is_empty() {
            set_congestion(fd.as_raw_fd(), congestion)?;
        }
        Self::of(fd, kept)
    }

    /// Another handle on the socket, to pass it on.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Whether somebody else goes on with it after us.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// The address that is bound (the port, if it was asked for as 0).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a connection: its descriptor (`CLOEXEC|NONBLOCK`) and the peer's address.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub fn accept(&self) -> Result<(OwnedFd, SocketAddr), AcceptError> {
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return Err(AcceptError::Closed);
            }
            if let Some(accepted) = self.try_accept()? {
                return Ok(accepted);
            }
            self.wait();
        }
    }

    fn wait(&self) {
        let wanted = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut both = [wanted(self.fd.as_raw_fd()), wanted(self.stop.raw())];
        // Whatever ends it is looked at by trying again.
        // SAFETY: two initialised entries that outlive the call.
        unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
    }

    /// `None`: nobody waits, or another process was faster.
    fn try_accept(&self) -> Result<Option<(OwnedFd, SocketAddr)>, AcceptError> {
        let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `storage` and `length` are valid for the call.
        let raw = unsafe {
            libc::accept4(
                self.fd.as_raw_fd(),
                storage.as_mut_ptr().cast(),
                &raw mut length,
                flags,
            )
        };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                Some(libc::EINVAL | libc::EBADF) => Err(AcceptError::Closed),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    Err(AcceptError::Exhausted(error))
                }
                _ => Err(AcceptError::Lost(error)),
            };
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: zeroed above and then filled by the kernel: every bit pattern is a valid sockaddr_storage.
        let storage = unsafe { storage.assume_init() };
        Ok(Some((fd, peer_address(&storage))))
    }

    /// Ends [`Listener::accept`] with [`AcceptError::Closed`]. Who connects now waits for another process that has the socket too.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify();
    }

    /// The same, and new connections are refused, unless somebody else goes on with the socket.
    pub fn shutdown(&self) {
        self.stop();
        if self.kept {
            return;
        }
        // SAFETY: plain system call on our open descriptor.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// The address of a TCP socket that listens.
///
/// # Errors
/// It is none.
pub fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let listens = number(fd, libc::SO_ACCEPTCONN)? == 1;
    if !listens || number(fd, libc::SO_TYPE)? != libc::SOCK_STREAM {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no listening TCP socket",
        ));
    }
    std::net::TcpListener::from(fd.try_clone()?).local_addr()
}

/// A numeric option of a socket.
fn number(fd: &OwnedFd, name: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: any bytes are a number.
    unsafe { option(fd.as_raw_fd(), name, 0) }
}

fn peer_address(storage: &libc::sockaddr_storage) -> SocketAddr {
    if i32::from(storage.ss_family) == libc::AF_INET {
        // SAFETY: the family says that the kernel wrote a sockaddr_in, which the storage is large and aligned enough for.
        let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
        return SocketAddr::new(IpAddr::V4(ip), u16::from_be(raw.sin_port));
    }
    // SAFETY: our listeners are IPv4 or IPv6 only, so this is a sockaddr_in6; see above for size and alignment.
    let raw = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
    let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
    SocketAddr::new(IpAddr::V6(ip), u16::from_be(raw.sin6_port))
}

/// A descriptor kept in reserve: given up when they run out, so that a waiting client can be taken and told so.
#[derive(Debug)]
pub struct ReserveFd(Option<File>);

impl ReserveFd {
    /// Takes the reserve.
    #[must_use]
    pub fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Gives the descriptor back to the process.
    pub fn release(&mut self) {
        self.0 = None;
    }

    /// Takes it again, if it was released.
    pub fn retake(&mut self) {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
    }
}

impl Default for ReserveFd {
    fn default() -> Self {
        Self::new()
    }
}
