//! Proves at start, on the running kernel, that a slot sent by reference and punched can be reused while its bytes are still queued.
//!
//! Called by `server` once. If the proof fails, sending by reference stays off and the log says so. For each slot class that may be
//! sent by reference: bytes are queued to a peer that does not read, the slot is punched and overwritten, then the peer reads.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::io::lend::{Lender, Lent};
use crate::io::memory::{HUGE_BYTES, Memory};

use super::slab::{CLASS_BYTES, PAGE_BYTES};

/// Both ways in which [`Lender`] sends.
fn lenders() -> [Lender; 2] {
    [Lender::new(), Lender::without_pipe()]
}

/// Whether queued bytes survive punch and reuse; `Ok(false)` means that they do not.
///
/// # Errors
/// The kernel's, when a loopback connection or the memory cannot be had.
pub fn by_reference_is_safe() -> io::Result<bool> {
    let memory = Memory::new(2 * PAGE_BYTES)?;
    for &bytes in CLASS_BYTES.iter().filter(|&&bytes| bytes >= 16 * 1024) {
        for offset in [0, PAGE_BYTES / bytes * bytes - bytes] {
            for lender in lenders() {
                if !survives(&lender, &memory, offset, bytes)? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Whether queued bytes of a huge page survive its punch and the huge page that takes its place.
///
/// # Errors
/// The kernel's, when there are no huge pages, or no loopback connection or memory can be had.
pub fn huge_is_safe() -> io::Result<bool> {
    let memory = Memory::new(HUGE_BYTES)?;
    for (offset, bytes) in [(0, PAGE_BYTES), (PAGE_BYTES, PAGE_BYTES), (98_304, 16_384)] {
        for lender in lenders() {
            if !huge_survives(&lender, &memory, offset, bytes)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn huge_survives(
    lender: &Lender,
    memory: &Memory,
    offset: usize,
    bytes: usize,
) -> io::Result<bool> {
    let base = memory.huge_base();
    let huge = || -> io::Result<()> {
        memory.punch(0, HUGE_BYTES)?;
        memory.make_huge(0, HUGE_BYTES)
    };
    huge()?;
    let (sender, receiver) = connection()?;
    paint(base, memory, 0, HUGE_BYTES, 0xA5);
    let sent = queue(lender, &sender, lent(memory, base, offset, bytes))?;
    huge()?;
    paint(base, memory, 0, HUGE_BYTES, 0x5A);
    arrives(sender, receiver, sent)
}

fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    Ok((sender, listener.accept()?.0))
}

/// Whether `sent` bytes come, all as they were when they were queued.
fn arrives(sender: TcpStream, mut receiver: TcpStream, sent: usize) -> io::Result<bool> {
    (&sender).flush()?;
    drop(sender);
    let mut got = Vec::with_capacity(sent);
    receiver.read_to_end(&mut got)?;
    Ok(got.len() == sent && got.iter().all(|&byte| byte == 0xA5))
}

fn paint(base: *mut u8, memory: &Memory, offset: usize, bytes: usize, value: u8) {
    assert!(
        offset + bytes <= memory.len(),
        "the test stays inside its memory"
    );
    // SAFETY: inside the mapping (asserted).
    let start = unsafe { base.add(offset) };
    // SAFETY: inside the mapping (asserted); this thread is the only user of this memory.
    unsafe { start.write_bytes(value, bytes) };
}

/// Bytes of `memory`, seen through the view at `base`.
fn lent(memory: &Memory, base: *mut u8, offset: usize, bytes: usize) -> Lent<'_> {
    assert!(
        offset + bytes <= memory.len(),
        "the test stays inside its memory"
    );
    // SAFETY: inside the mapping (asserted).
    let start = unsafe { base.add(offset) };
    // SAFETY: inside the mapping (asserted); nobody writes while it is being queued.
    Lent::new(memory, offset as u64, unsafe {
        std::slice::from_raw_parts(start, bytes)
    })
}

/// Queues as much as the connection takes at once.
fn queue(lender: &Lender, stream: &TcpStream, lent: Lent<'_>) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    Ok(lender.send(stream, lent, lent.len())?.unwrap_or(0))
}

fn survives(lender: &Lender, memory: &Memory, offset: usize, bytes: usize) -> io::Result<bool> {
    let (sender, receiver) = connection()?;
    paint(memory.base(), memory, offset, bytes, 0xA5);
    let sent = queue(lender, &sender, lent(memory, memory.base(), offset, bytes))?;
    memory.punch(offset as u64, bytes)?;
    paint(memory.base(), memory, offset, bytes, 0x5A);
    let intact = arrives(sender, receiver, sent)?;
    memory.punch(offset as u64, bytes)?;
    Ok(intact)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_kernel_keeps_queued_bytes_after_a_punch() {
        assert!(super::by_reference_is_safe().unwrap());
    }

    #[test]
    fn this_kernel_keeps_queued_bytes_of_a_huge_page_after_a_punch() {
        match super::huge_is_safe() {
            Ok(safe) => assert!(safe),
            Err(error) => eprintln!("no huge pages here: {error}"),
        }
    }
}
