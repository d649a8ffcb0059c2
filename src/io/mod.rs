//! Row 1: the only door to the kernel and to the runtime.
//!
//! Nothing outside this module names monoio, `io_uring` or libc. The traps of monoio 0.2.4 are fenced here by what
//! is *not* offered: no file handle that closes on the spot, no accept future, no blocking name resolution, no yield by waking oneself,
//! no splice operation (`splice` calls the kernel itself). Sockets are non-blocking: data moves by direct system calls and the ring is asked only
//! for readiness, so dropping any future of this module is safe, and loses no byte but for `Socket::recv_append`.

#![allow(
    unsafe_code,
    reason = "the door to the kernel; each block names its reason"
)]

mod background;
pub mod eventfd;
pub mod file;
pub mod inherit;
pub mod lend;
pub mod listen;
pub mod mapped;
pub mod memory;
pub mod prefetch;
pub mod probe;
pub mod runtime;
pub mod signals;
pub mod socket;
pub mod splice;
pub mod watchdog;

pub use runtime::{Either, breathe, race, sleep_ms, spawn, timeout_ms};
pub use socket::Socket;
