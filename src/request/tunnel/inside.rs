//! The two directions of a tunnel whose client is inside a TLS session with us: what it sends is decrypted and copied to the destination, what
//! comes back is copied and encrypted.
//!
//! Called by `tunnel`. The kernel cannot move these bytes. Each direction takes a piece, and the next when that has gone, so a receiver that is
//! slow makes the sender wait; a direction that rests keeps no room. An end of stream is `close_notify` on the client's side, and FIN on the
//! destination's: a client that ends its connection without saying so in the session has been cut.

use crate::io::{Socket, breathe};
use crate::tls::TlsServer;

use super::way::{Broken, FAIR_BYTES};

/// Bytes taken at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Both ends.
pub(super) struct Inside<'t> {
    pub client: &'t Socket,
    pub session: &'t TlsServer,
    pub origin: &'t Socket,
}

impl Inside<'_> {
    /// Copies from the client to the destination until the client says that it has ended. `moved` is told of what has been taken, and
    /// now and then of nothing: something was taken.
    pub async fn up(&self, moved: impl Fn(usize)) -> Result<(), Broken> {
        let mut room = Vec::new();
        let mut in_turn = 0;
        loop {
            room.resize(PIECE_BYTES, 0);
            // Looked at before it is waited for: the session may have bytes that the socket has no more.
            let came = self.session.try_read(self.client, &mut room);
            match came.map_err(|_| Broken::From)? {
                Some(0) => {
                    self.origin.shutdown_send();
                    return Ok(());
                }
                Some(came) => {
                    let sent = self.origin.send_all(&room[..came], false).await;
                    sent.map_err(|_| Broken::To)?;
                    moved(came);
                    take_turn(&mut in_turn, came).await;
                }
                None => {
                    room = Vec::new();
                    in_turn = 0;
                    self.more(self.client).await?;
                }
            }
        }
    }

    /// Copies from the destination to the client until the destination ends; `moved` as for [`Self::up`].
    pub async fn down(&self, moved: impl Fn(usize)) -> Result<(), Broken> {
        let mut room = Vec::new();
        let mut in_turn = 0;
        loop {
            room.resize(PIECE_BYTES, 0);
            let came = self.origin.try_recv(&mut room);
            match came.map_err(|_| Broken::From)? {
                Some(0) => {
                    self.session.close(self.client);
                    return self.flush(&moved).await;
                }
                Some(came) => {
                    self.give(&room[..came], &moved).await?;
                    moved(came);
                    take_turn(&mut in_turn, came).await;
                }
                None => {
                    room = Vec::new();
                    in_turn = 0;
                    self.more(self.origin).await?;
                }
            }
        }
    }

    /// Waits until more comes from a socket that has nothing now; the session keeps no room meanwhile.
    async fn more(&self, from: &Socket) -> Result<(), Broken> {
        self.session.rest();
        from.readable().await.map_err(|_| Broken::From)
    }

    /// Gives the client all of it.
    async fn give(&self, mut bytes: &[u8], moved: &impl Fn(usize)) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let taken = self.session.try_send(self.client, bytes, &[]);
            let taken = taken.map_err(|_| Broken::To)?.unwrap_or(0);
            bytes = &bytes[taken..];
            self.flush(moved).await?;
        }
        Ok(())
    }

    /// Waits until the socket has taken what the session has for it.
    async fn flush(&self, moved: &impl Fn(usize)) -> Result<(), Broken> {
        while !self
            .session
            .try_flush(self.client)
            .map_err(|_| Broken::To)?
        {
            self.client.writable().await.map_err(|_| Broken::To)?;
            moved(0);
        }
        Ok(())
    }
}

/// Lets other tasks of the shard go first, when this one has had its share.
async fn take_turn(in_turn: &mut usize, bytes: usize) {
    *in_turn += bytes;
    if *in_turn >= FAIR_BYTES {
        *in_turn = 0;
        breathe().await;
    }
}
