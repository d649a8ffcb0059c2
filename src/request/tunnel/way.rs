//! One direction of a tunnel: from one socket to the other through a pipe that is only there while bytes are in it.
//!
//! Called by `tunnel`, twice for each. Bytes are taken when they have come, and the next are taken when these have gone: a receiver that
//! is slow makes the sender wait, by TCP's own means.

use std::rc::Rc;

use crate::io::splice::{PIPE_BYTES, Pipe, Pipes};
use crate::io::{Socket, breathe};

/// Bytes moved without a wait before other tasks of the shard get a turn.
pub(super) const FAIR_BYTES: usize = 2 << 20;

/// Bytes moved by copy, where they are.
const COPY_BYTES: usize = 4 << 10;

/// What a look at the sender came to.
enum Came {
    /// Nothing, though it was said that there is something; or the end, as far as the kernel splices.
    Nothing,
    /// All that is there now.
    All,
}

/// Which part of a direction has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Who sends has reset the connection.
    From,
    /// Who receives has.
    To,
    /// There is no descriptor for a pipe.
    Here,
}

/// One direction.
pub(super) struct Way<'t, Moved: Fn(usize)> {
    pub from: &'t Socket,
    pub to: &'t Socket,
    pub pipes: &'t Rc<Pipes>,
    /// Told of bytes that the receiver has taken.
    pub moved: Moved,
}

impl<Moved: Fn(usize)> Way<'_, Moved> {
    /// Moves bytes until the sender's end of stream, which is passed on.
    pub async fn pump(&self) -> Result<(), Broken> {
        loop {
            self.from.readable().await.map_err(|_| Broken::From)?;
            let mut pipe = self.pipes.take().map_err(|_| Broken::Here)?;
            let came = self.drain(&mut pipe).await?;
            drop(pipe);
            let ended = match came {
                Came::All => false,
                Came::Nothing => self.copy().await?,
            };
            if ended {
                self.to.shutdown_send();
                return Ok(());
            }
        }
    }

    /// Moves a little by copy; true at the end. The kernel does not splice what stands behind an urgent byte, and says that there is something all
    /// the same; or, when the sender has ended, that there is no more, which is not true.
    async fn copy(&self) -> Result<bool, Broken> {
        let mut bytes = vec![0; COPY_BYTES];
        let came = self.from.try_recv(&mut bytes).map_err(|_| Broken::From)?;
        match came {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(came) => {
                let sent = self.to.send_all(&bytes[..came], false).await;
                sent.map_err(|_| Broken::To)?;
                (self.moved)(came);
                Ok(false)
            }
        }
    }

    /// Moves what has come, until there is no more now.
    async fn drain(&self, pipe: &mut Pipe) -> Result<Came, Broken> {
        let mut in_turn = 0;
        let mut came = Came::Nothing;
        loop {
            match pipe.pull(self.from, PIPE_BYTES) {
                Ok(Some(0)) => return Ok(Came::Nothing),
                Ok(Some(_)) => came = Came::All,
                Ok(None) => return Ok(came),
                Err(_) => return Err(Broken::From),
            }
            while pipe.held() > 0 {
                match pipe.push(self.to).map_err(|_| Broken::To)? {
                    Some(bytes) => {
                        in_turn += bytes;
                        (self.moved)(bytes);
                    }
                    None => {
                        in_turn = 0;
                        self.to.writable().await.map_err(|_| Broken::To)?;
                    }
                }
            }
            if in_turn >= FAIR_BYTES {
                in_turn = 0;
                breathe().await;
            }
        }
    }
}
