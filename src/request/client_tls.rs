//! What a client's connection does differently inside a TLS session.
//!
//! Called by `client`. Bytes are encrypted where the shard has its scratch area and wait in the session for the socket; a call that returns well
//! has given all of them to the kernel.

use std::io;

use crate::tls::TlsServer;

use super::client::{Client, Gone};

impl Client {
    /// Receives behind `input`, `room` bytes at most; end of stream is `Ok(0)`.
    pub(super) async fn receive(
        &mut self,
        input: Vec<u8>,
        room: usize,
    ) -> (io::Result<usize>, Vec<u8>) {
        if self.is_tls() {
            return Box::pin(self.receive_encrypted(input, room)).await;
        }
        self.socket.recv_append(input, room).await
    }

    async fn receive_encrypted(
        &self,
        mut input: Vec<u8>,
        room: usize,
    ) -> (io::Result<usize>, Vec<u8>) {
        let old = input.len();
        loop {
            input.resize(old + room, 0);
            let received = self.try_receive(&mut input[old..]);
            let bytes = received.as_ref().map_or(0, |bytes| bytes.unwrap_or(0));
            input.truncate(old + bytes);
            match received {
                Ok(Some(bytes)) => return (Ok(bytes), input),
                Ok(None) => {}
                Err(error) => return (Err(error), input),
            }
            if let Some(tls) = self.session()
                && old == 0
            {
                input = Vec::new();
                tls.rest();
            }
            if let Err(error) = self.socket.readable().await {
                return (Err(error), input);
            }
        }
    }

    /// Receives what is there; `Ok(Some(0))` is end of stream, `Ok(None)` would block.
    pub(super) fn try_receive(&self, out: &mut [u8]) -> io::Result<Option<usize>> {
        match self.session() {
            None => self.socket.try_recv(out),
            Some(tls) => tls.try_read(&self.socket, out),
        }
    }

    /// Encrypts and sends both parts, and what waits from before.
    pub(super) async fn send_encrypted(
        &self,
        tls: &TlsServer,
        mut first: &[u8],
        mut second: &[u8],
    ) -> Result<(), Gone> {
        while !first.is_empty() || !second.is_empty() || tls.is_waiting() {
            self.take_turn().await?;
            let sent = tls.try_send(&self.socket, first, second);
            let Some(sent) = sent.map_err(|_| self.gone())? else {
                self.writable().await?;
                continue;
            };
            let of_first = sent.min(first.len());
            first = &first[of_first..];
            second = &second[sent - of_first..];
            self.sent(sent);
        }
        Ok(())
    }

    /// Sends what may also go later, and is never missed: the next [`Client::send`] sends the rest of what this took. Says how many bytes it took.
    pub(super) fn offer(&self, bytes: &[u8]) -> usize {
        match self.session() {
            None => self.try_send(bytes, &[]).unwrap_or(0),
            Some(tls) => {
                let taken = tls.try_send(&self.socket, bytes, &[]);
                taken.ok().flatten().unwrap_or(0)
            }
        }
    }

    /// Says that no more will come from us: where there is a session in its own words, or the client must take it for cut. That waits until
    /// the client has taken enough of what came before, as long as any answer does.
    pub async fn end(&self) {
        if let Some(tls) = self.session() {
            tls.close(&self.socket);
            if tls.is_waiting() {
                Box::pin(self.end_later(tls)).await;
            }
        }
    }

    async fn end_later(&self, tls: &TlsServer) {
        while matches!(tls.try_flush(&self.socket), Ok(false)) {
            if self.writable().await.is_err() {
                return self.cut();
            }
        }
    }
}
