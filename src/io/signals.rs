//! A signal that a new process must not die of before it listens.
//!
//! Called by `server::handover`. Whoever asks for a hand-over may ask all processes of a service (`systemctl kill` does), the one that is being
//! started too; what is ignored when a process is started is ignored by it until it says otherwise.

use std::mem::MaybeUninit;

/// Runs `start` with SIGUSR2 ignored, as what it starts inherits it. One that comes to this process meanwhile asks for what is being done.
pub fn deaf_to_hand_over<T>(start: impl FnOnce() -> T) -> T {
    let before = replace(&ignoring());
    let started = start();
    replace(&before);
    started
}

fn ignoring() -> libc::sigaction {
    // SAFETY: all zero is an action: no flags, an empty mask, and the default handler, which is replaced below.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = libc::SIG_IGN;
    action
}

/// Puts `action` in the place of what is done at SIGUSR2, and says what that was.
fn replace(action: &libc::sigaction) -> libc::sigaction {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: both point to actions that live for the call; `action` is one of ours or one that the kernel gave us.
    let done = unsafe { libc::sigaction(libc::SIGUSR2, action, before.as_mut_ptr()) };
    assert_eq!(done, 0, "SIGUSR2 can be ignored");
    // SAFETY: the call went well, and so filled it; zero is an action too.
    unsafe { before.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_is_started_so_does_not_die_of_the_signal_and_we_hear_it_again() {
        let run = || {
            let script = "kill -USR2 $$; exit 7";
            Command::new("sh").args(["-c", script]).status()
        };
        let code =
            |status: std::io::Result<std::process::ExitStatus>| status.expect("a shell").code();
        assert_eq!(code(deaf_to_hand_over(run)), Some(7));
        assert_eq!(code(run()), None, "killed by the signal");
    }
}
