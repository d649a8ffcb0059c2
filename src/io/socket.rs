//! A connected TCP socket of one shard: direct non-blocking system calls, the ring only for readiness.
//!
//! Called by `listener` (clients) and `upstream` (origins). Every method that moves bytes returns at once; `Ok(None)` means
//! "would block: await `readable`/`writable`". So futures of this type hold no buffer and may be dropped at any moment, but for
//! [`Socket::recv_append`], which lends its buffer to the ring.
//! Deadlines are armed on the socket's watchdog entry, not by timers.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use monoio::io::AsyncReadRent;
use monoio::net::TcpStream;

use super::watchdog::{OnExpiry, WatchEntry, Watchdog};

/// A connected, non-blocking TCP socket that belongs to one shard.
pub struct Socket {
    stream: TcpStream,
    watch: Rc<WatchEntry>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.watch.forget();
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// A socket that sends whole packets only; dropping it sends the rest.
pub struct Cork<'s>(&'s Socket);

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        self.0.set_cork(false);
    }
}

/// What a non-blocking call said: `Ok(None)` would block.
pub(super) fn outcome(result: isize) -> io::Result<Option<usize>> {
    if result >= 0 {
        return Ok(Some(result as usize));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}

impl Socket {
    /// Takes over a connected descriptor and makes it non-blocking, `TCP_NODELAY` set.
    ///
    /// # Errors
    /// The kernel's, when the descriptor is no socket any more.
    pub fn from_fd(fd: OwnedFd, watchdog: &Watchdog) -> io::Result<Self> {
        let stream = std::net::TcpStream::from(fd);
        stream.set_nonblocking(true)?;
        let _ = stream.set_nodelay(true);
        let watch = watchdog.watch(stream.as_raw_fd());
        match TcpStream::from_std(stream) {
            Ok(stream) => Ok(Self { stream, watch }),
            Err(error) => {
                watch.forget();
                Err(error)
            }
        }
    }

    /// Gives the connection up for another shard: a duplicate of the descriptor, while this handle closes.
    ///
    /// # Errors
    /// The kernel's, when descriptors have run out.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        // SAFETY: plain system call on a descriptor that `self` keeps open.
        let fd = unsafe { libc::fcntl(self.fd(), libc::F_DUPFD_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Connects to `address`, with the TCP congestion control named (empty: the system's).
    ///
    /// # Errors
    /// The kernel's: refused, unreachable, out of descriptors. The caller bounds the time.
    pub async fn connect(
        address: SocketAddr,
        congestion: &str,
        watchdog: &Watchdog,
    ) -> io::Result<Self> {
        let fd = new_stream_socket(&address)?;
        if !congestion.is_empty() {
            set_congestion(fd.as_raw_fd(), congestion)?;
        }
        let under_way = start_connect(&fd, &address)?;
        let socket = Self::from_fd(fd, watchdog)?;
        if under_way {
            socket.writable().await?;
            if let Some(error) = take_error(socket.fd())? {
                return Err(error);
            }
        }
        Ok(socket)
    }

    /// The descriptor's number, for logs only.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// The peer's address.
    ///
    /// # Errors
    /// The kernel's, when the peer has gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Receives what is there; `Ok(Some(0))` is end of stream, `Ok(None)` would block.
    ///
    /// # Errors
    /// The connection's: reset, timed out.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: `buf` is writable for its length and the call returns before the borrow ends.
        outcome(unsafe {
            libc::recv(
                self.fd(),
                buf.as_mut_ptr().cast(),
                buf.len(),
                libc::MSG_DONTWAIT,
            )
        })
    }

    /// Looks whether anything has arrived without taking it: `Ok(None)` nothing, `Ok(Some(0))` end of stream.
    ///
    /// # Errors
    /// The connection's: reset, timed out.
    pub fn peek(&self) -> io::Result<Option<usize>> {
        let mut byte = [0u8; 1];
        let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
        // SAFETY: one writable byte on our stack.
        outcome(unsafe { libc::recv(self.fd(), byte.as_mut_ptr().cast(), 1, flags) })
    }

    /// Whether the peer has ended or reset the connection, though bytes may be left to read.
    #[must_use]
    pub fn is_left(&self) -> bool {
        let mut look = libc::pollfd {
            fd: self.fd(),
            events: libc::POLLRDHUP,
            revents: 0,
        };
        // SAFETY: one initialised entry that outlives the call.
        unsafe { libc::poll(&raw mut look, 1, 0) > 0 }
    }

    /// Copies what has arrived without taking it: `Ok(None)` nothing, `Ok(Some(0))` end of stream.
    ///
    /// # Errors
    /// The connection's: reset, timed out.
    pub fn peek_into(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
        // SAFETY: `buf` is writable for its length and the call returns before the borrow ends.
        outcome(unsafe { libc::recv(self.fd(), buf.as_mut_ptr().cast(), buf.len(), flags) })
    }

    /// Sends the parts in one call; `more` says that more follows at once (`MSG_MORE`).
    ///
    /// # Errors
    /// The connection's: reset, closed by the peer.
    pub fn try_send(&self, parts: &[IoSlice<'_>], more: bool) -> io::Result<Option<usize>> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        if let [part] = parts {
            // One part needs no message header for the kernel to fetch.
            // SAFETY: `part` is readable for its length during the call.
            return outcome(unsafe {
                libc::send(self.fd(), part.as_ptr().cast(), part.len(), flags)
            });
        }
        // SAFETY: all-zero is a valid msghdr (null pointers, zero lengths).
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_ptr().cast::<libc::iovec>().cast_mut();
        message.msg_iovlen = parts.len() as _;
        // SAFETY: `IoSlice` has iovec's layout; the slices outlive the call, which does not write to them.
        outcome(unsafe { libc::sendmsg(self.fd(), &raw const message, flags) })
    }

    /// Holds back what does not fill a packet until the guard goes: a body that leaves by several calls then leaves in whole packets, also
    /// when acknowledgements come between two calls (with `MSG_MORE` alone each of them pushes the rest out).
    #[must_use]
    pub fn cork(&self) -> Cork<'_> {
        self.set_cork(true);
        Cork(self)
    }

    fn set_cork(&self, on: bool) {
        let value = libc::c_int::from(on);
        // A refusal costs packets, not bytes.
        let _ = set_option(self.fd(), libc::IPPROTO_TCP, libc::TCP_CORK, &value);
    }

    /// Waits until bytes (or end of stream, or an error) can be received.
    ///
    /// # Errors
    /// The ring's.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable(false).await
    }

    /// Waits until bytes can be sent (or the connection has failed).
    ///
    /// # Errors
    /// The ring's.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable(false).await
    }

    /// Receives by the ring into the free room of `buf`: one operation instead of try, poll, try. Dropping the future is safe for
    /// memory (the operation keeps the buffer until it completes), but loses the bytes.
    ///
    /// # Errors
    /// The connection's. End of stream is `Ok(0)`.
    pub async fn recv_append(
        &mut self,
        mut buf: Vec<u8>,
        room: usize,
    ) -> (io::Result<usize>, Vec<u8>) {
        buf.reserve(room);
        let (result, tail) = self
            .stream
            .read(Tail {
                start: buf.len(),
                vec: buf,
            })
            .await;
        (result, tail.vec)
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send_all(&self, mut bytes: &[u8], more: bool) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_send(&[IoSlice::new(bytes)], more)? {
                Some(sent) => bytes = &bytes[sent..],
                None => self.writable().await?,
            }
        }
        Ok(())
    }

    /// Ends our side of the stream.
    pub fn shutdown_send(&self) {
        // SAFETY: plain system call on our open descriptor.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_WR) };
    }

    /// Makes the coming close a reset, so that a peer that waits for more bytes sees an error and the kernel drops its queue.
    pub fn reset_on_close(&self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let _ = set_option(self.fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    }

    /// Urgent bytes (`MSG_OOB`) come in their place among the others.
    pub fn take_urgent_inline(&self) {
        let on: libc::c_int = 1;
        let _ = set_option(self.fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, &on);
    }

    /// Arms this socket's deadline at `deadline_ms` of `base::clock::now_ms`; replaces an earlier one.
    pub fn arm(&self, deadline_ms: u64, action: OnExpiry) {
        self.watch.arm(deadline_ms, action);
    }

    /// No deadline until the next [`Socket::arm`].
    pub fn disarm(&self) {
        self.watch.disarm();
    }

    /// Forgets that a deadline has passed: bytes had come in time after all.
    pub fn forgive(&self) {
        self.watch.forgive();
    }

    /// Waits until the deadline has passed that was armed with [`OnExpiry::Tell`].
    pub async fn expiry(&self) {
        std::future::poll_fn(|context| self.watch.poll_expiry(context)).await;
    }

    /// Whether a deadline has passed and shut this socket down.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.watch.expired()
    }
}

/// The free room at the end of a vector, lent to the kernel for one receive; it owns the vector until completion.
struct Tail {
    vec: Vec<u8>,
    start: usize,
}

// SAFETY: the pointer is into the vector's own heap block, which this value owns and does not move or grow
// while the operation is in flight; `bytes_total` never exceeds the reserved room.
unsafe impl monoio::buf::IoBufMut for Tail {
    fn write_ptr(&mut self) -> *mut u8 {
        self.vec.spare_capacity_mut().as_mut_ptr().cast()
    }

    fn bytes_total(&mut self) -> usize {
        self.vec.capacity() - self.start
    }

    unsafe fn set_init(&mut self, received: usize) {
        // SAFETY: the kernel has written `received` bytes from the old end on, within capacity.
        unsafe { self.vec.set_len(self.start + received) };
    }
}

fn new_stream_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: plain system call without pointers.
    let fd = unsafe {
        libc::socket(
            family,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts the handshake; true while it is under way.
fn start_connect(fd: &OwnedFd, address: &SocketAddr) -> io::Result<bool> {
    let (storage, length) = raw_address(address);
    // SAFETY: `storage` is readable for `length` bytes during the call.
    let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const storage).cast(), length) };
    if result == 0 {
        return Ok(false);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        Ok(true)
    } else {
        Err(error)
    }
}

pub(super) fn raw_address(address: &SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than and aligned for every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: sockaddr_storage is larger than and aligned for every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    // SAFETY: any bytes are a number.
    let code: libc::c_int = unsafe { option(fd, libc::SO_ERROR, 0) }?;
    Ok((code != 0).then(|| io::Error::from_raw_os_error(code)))
}

/// Reads an option of a socket (`SOL_SOCKET`) over `value`.
///
/// # Safety
/// Any bytes are a `T`: the kernel writes as many as it has, `size_of::<T>()` at most.
pub(super) unsafe fn option<T: Copy>(fd: RawFd, name: libc::c_int, mut value: T) -> io::Result<T> {
    let mut size = size_of::<T>() as libc::socklen_t;
    let to = (&raw mut value).cast();
    // SAFETY: `value` and `size` are valid for the call; the caller answers for what is written.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, to, &raw mut size) };
    match result {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the TCP congestion control of a socket by name; listening sockets pass it to what they accept.
///
/// # Errors
/// `NotFound` when the kernel has no such algorithm.
pub fn set_congestion(fd: RawFd, name: &str) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes())
}

/// Sets an option of a socket to what the kernel expects there: a plain C value, or the bytes of a name.
pub(super) fn set_option<T: ?Sized>(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let size = size_of_val(value) as libc::socklen_t;
    // SAFETY: `value` is readable for `size` bytes during the call.
    let result =
        unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
