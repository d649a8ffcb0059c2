//! What goes to a client: encrypted in the shard's scratch area and sent from there, so that a session keeps only what its socket did not take.
//!
//! Called by [`super::server`].

use std::io::IoSlice;

use rustls::unbuffered::EncryptError;

use crate::io::Socket;

use super::TlsError;
use super::session::{SCRATCH_BYTES, Side, TlsFailure, TlsScratch, TlsSession};

/// Plaintext encrypted in one go at most.
pub(super) const SEND_BYTES: usize = 256 * 1024;
/// A record's plaintext and what it becomes larger, in either version, rounded up.
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_MORE_BYTES: usize = 64;
/// Room for all of it: two parts, each with a record that is not full.
const ROOM_BYTES: usize = SEND_BYTES + (SEND_BYTES / RECORD_BYTES + 2) * RECORD_MORE_BYTES;

const _: () = assert!(ROOM_BYTES > SCRATCH_BYTES);

impl<S: Side> TlsSession<S> {
    /// Whether ciphertext waits for the socket.
    pub(super) fn is_waiting(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Encrypts `bytes_max` of the parts at most and sends that; says how many bytes it took. `Ok(None)`: ciphertext of before still waits for
    /// the socket. What the socket does not take now waits too.
    pub(super) fn try_send(
        &mut self,
        socket: &Socket,
        scratch: &TlsScratch,
        parts: [&[u8]; 2],
        bytes_max: usize,
    ) -> Result<Option<usize>, TlsFailure> {
        if !self.try_flush(socket)? {
            return Ok(None);
        }
        let bytes_max = bytes_max.min(SEND_BYTES);
        let mut area = scratch.0.borrow_mut();
        if area.len() < ROOM_BYTES {
            area.resize(ROOM_BYTES, 0);
        }
        let (mut taken, mut filled) = (0, 0);
        let mut failed = false;
        self.with_write_traffic(|traffic, _| {
            for part in parts {
                let piece = &part[..part.len().min(bytes_max - taken)];
                if piece.is_empty() || failed {
                    continue;
                }
                match traffic.encrypt(piece, &mut area[filled..]) {
                    Ok(bytes) => filled += bytes,
                    Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                        failed = true;
                    }
                }
                taken += piece.len();
            }
        })?;
        if failed {
            return Err(TlsError::Refused(rustls::Error::EncryptError).into());
        }
        // What the session itself had to say was encrypted before, and goes before.
        let mut sent = 0;
        if self.try_flush(socket)? {
            while sent < filled {
                match socket.try_send(&[IoSlice::new(&area[sent..filled])], false)? {
                    Some(bytes) => sent += bytes,
                    None => break,
                }
            }
        }
        self.outgoing.extend_from_slice(&area[sent..filled]);
        Ok(Some(taken))
    }

    /// Keeps no more room for what waits than this, beyond what does wait.
    pub(super) fn trim(&mut self, bytes: usize) {
        self.outgoing.shrink_to(bytes);
    }

    /// Puts a byte back that was read to see whether there is one.
    pub(super) fn unread(&mut self, byte: u8) {
        self.plain.insert(self.plain_at, byte);
    }
}
