//! The breaker of one origin: whether a request may go to it, told by how the last ones fared. Pure: no clock, no I/O.
//!
//! Used by `outages`, which keeps one for each origin that fails. Counts and names are HAProxy's: `fall` failures in a row open it, `rise` probes
//! that go well in a row close it. While it is open nothing is sent for a while that doubles; then one request at a time is sent as a probe.

/// The longest pause between probes is this many times doubled.
const DOUBLINGS_MAX: u8 = 5;
/// Failures and successes are counted no further.
const COUNT_MAX: u16 = 0xfff;

/// What the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it; 0: it never opens.
    pub fall: u32,
    /// Probes in a row that must go well to close it.
    pub rise: u32,
    /// The first pause before a probe.
    pub delay_ms: u64,
}

impl Default for BreakerConfig {
    /// One that never opens.
    fn default() -> Self {
        Self {
            fall: 0,
            rise: 2,
            delay_ms: 1_000,
        }
    }
}

/// What it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everything.
    Closed,
    /// One request at a time, each of them a probe.
    HalfOpen,
    /// Nothing, until its pause is over.
    Open,
}

/// Whom a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A client that has nothing yet: it can be told no.
    Answer,
    /// A client that has a part of its answer, which would have to be broken off.
    Rest,
    /// Nobody waits for it.
    Spare,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is sent.
    Sent,
    /// It is sent, and nothing else until it has fared well or ill.
    Probe,
    /// It is not sent.
    Refused,
}

/// The state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// Failures in a row while it is closed, successes in a row while it is half open.
    count: u16,
    /// How often its pause was doubled.
    doublings: u8,
    /// A probe is under way.
    probing: bool,
    /// When its pause is over.
    until_ms: u64,
}

impl Breaker {
    /// Of an origin that nothing bad is known of.
    pub const CALM: Self = Self {
        phase: Phase::Closed,
        count: 0,
        doublings: 0,
        probing: false,
        until_ms: 0,
    };

    /// What it lets through now.
    #[must_use]
    pub fn phase(self) -> Phase {
        self.phase
    }

    /// Whether nothing has failed since something went well.
    #[must_use]
    pub fn is_calm(self) -> bool {
        self.phase == Phase::Closed && self.count == 0
    }

    /// Milliseconds until a probe may be sent.
    #[must_use]
    pub fn pause_ms(self, now_ms: u64) -> u64 {
        match self.phase {
            Phase::Open => self.until_ms.saturating_sub(now_ms),
            Phase::Closed | Phase::HalfOpen => 0,
        }
    }

    /// Whether the rest of an answer would not be sent for now.
    #[must_use]
    pub fn refuses(self, now_ms: u64) -> bool {
        self.phase == Phase::Open && self.pause_ms(now_ms) > 0
    }

    /// Asks for one request to be sent. Among failures, one at a time will do for what nobody waits for.
    #[must_use]
    pub fn admit(self, now_ms: u64, claim: Claim) -> (Self, Admission) {
        let probe = (
            Self {
                probing: true,
                ..self
            },
            Admission::Probe,
        );
        match self.phase {
            Phase::Closed if claim != Claim::Spare || self.count == 0 => (self, Admission::Sent),
            Phase::HalfOpen if claim == Claim::Rest => (self, Admission::Sent),
            Phase::Closed | Phase::HalfOpen if !self.probing => probe,
            Phase::Open if self.pause_ms(now_ms) == 0 => (
                Self {
                    phase: Phase::HalfOpen,
                    count: 0,
                    ..probe.0
                },
                Admission::Probe,
            ),
            Phase::Closed | Phase::HalfOpen | Phase::Open => (self, Admission::Refused),
        }
    }

    /// A request went well. What was sent before it opened says nothing of now.
    #[must_use]
    pub fn succeeded(self, probe: bool, config: &BreakerConfig) -> Self {
        match self.phase {
            Phase::Closed => Self::CALM,
            Phase::HalfOpen if probe => {
                let count = self.count.saturating_add(1).min(COUNT_MAX);
                if u32::from(count) >= config.rise {
                    return Self::CALM;
                }
                Self {
                    count,
                    probing: false,
                    ..self
                }
            }
            Phase::HalfOpen | Phase::Open => self,
        }
    }

    /// A request failed.
    #[must_use]
    pub fn failed(self, probe: bool, now_ms: u64, config: &BreakerConfig) -> Self {
        match self.phase {
            Phase::Closed => {
                let count = self.count.saturating_add(1).min(COUNT_MAX);
                if config.fall == 0 || u32::from(count) < config.fall {
                    return Self {
                        count,
                        probing: self.probing && !probe,
                        ..self
                    };
                }
                Self {
                    phase: Phase::Open,
                    until_ms: now_ms + config.delay_ms,
                    ..Self::CALM
                }
            }
            Phase::HalfOpen if probe => {
                let doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
                Self {
                    phase: Phase::Open,
                    count: 0,
                    doublings,
                    probing: false,
                    until_ms: now_ms + (config.delay_ms << doublings),
                }
            }
            Phase::HalfOpen | Phase::Open => self,
        }
    }

    /// A probe ended without a word of the origin: its client has left.
    #[must_use]
    pub fn released(self) -> Self {
        Self {
            probing: false,
            ..self
        }
    }

    /// In one word of memory.
    #[must_use]
    pub fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::HalfOpen => 1,
            Phase::Open => 2,
        };
        phase
            | u64::from(self.probing) << 2
            | u64::from(self.doublings & 0xf) << 3
            | u64::from(self.count & COUNT_MAX) << 7
            | self.until_ms << 19
    }

    /// Out of it.
    #[must_use]
    pub fn unpack(word: u64) -> Self {
        Self {
            phase: match word & 3 {
                0 => Phase::Closed,
                1 => Phase::HalfOpen,
                _ => Phase::Open,
            },
            probing: word >> 2 & 1 == 1,
            doublings: (word >> 3 & 0xf) as u8,
            count: (word >> 7) as u16 & COUNT_MAX,
            until_ms: word >> 19,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        fall: 3,
        rise: 2,
        delay_ms: 1_000,
    };

    fn opened() -> Breaker {
        (0..3).fold(Breaker::CALM, |state, _| state.failed(false, 500, &CONFIG))
    }

    fn probed(state: Breaker, now_ms: u64) -> Breaker {
        let (state, admission) = state.admit(now_ms, Claim::Answer);
        assert_eq!(admission, Admission::Probe);
        state
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut state = Breaker::CALM;
        for _ in 0..9 {
            state = state.failed(false, 0, &CONFIG).failed(false, 0, &CONFIG);
            assert!(state.phase() == Phase::Closed && !state.is_calm());
            assert_eq!(state.admit(0, Claim::Answer).1, Admission::Sent);
            state = state.succeeded(false, &CONFIG);
            assert!(state.is_calm());
        }
        let open = opened();
        assert_eq!((open.phase(), open.pause_ms(600)), (Phase::Open, 900));
        assert_eq!(open.admit(1_499, Claim::Answer).1, Admission::Refused);
        assert_eq!(open.admit(1_499, Claim::Rest).1, Admission::Refused);
        assert!(open.refuses(1_499) && !open.refuses(1_500));
        let never = BreakerConfig { fall: 0, ..CONFIG };
        let state = (0..9_999).fold(Breaker::CALM, |state, _| state.failed(false, 0, &never));
        assert!(state.phase() == Phase::Closed && !state.is_calm());
    }

    #[test]
    fn one_probe_at_a_time_and_as_many_as_rise_says_close_it() {
        let state = probed(opened(), 1_500);
        assert_eq!(state.phase(), Phase::HalfOpen);
        assert_eq!(state.admit(9_999, Claim::Answer).1, Admission::Refused);
        assert_eq!(state.admit(9_999, Claim::Rest).1, Admission::Sent);
        let state = state.succeeded(true, &CONFIG);
        assert_eq!(state.phase(), Phase::HalfOpen);
        let state = probed(state, 1_500);
        assert_eq!(state.succeeded(true, &CONFIG), Breaker::CALM);
    }

    #[test]
    fn each_probe_that_fails_doubles_the_pause_up_to_a_bound() {
        let (mut state, mut now_ms) = (opened(), 500);
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 32_000] {
            assert_eq!(state.pause_ms(now_ms), pause_ms);
            now_ms += pause_ms;
            state = probed(state, now_ms).failed(true, now_ms, &CONFIG);
            assert_eq!(state.phase(), Phase::Open);
        }
    }

    #[test]
    fn what_was_sent_before_it_opened_changes_nothing_after() {
        let open = opened();
        assert_eq!(open.failed(false, 9_000, &CONFIG), open);
        assert_eq!(open.succeeded(false, &CONFIG), open);
        let half = probed(open, 1_500);
        assert_eq!(half.failed(false, 9_000, &CONFIG), half);
        assert_eq!(half.succeeded(false, &CONFIG), half);
    }

    #[test]
    fn a_probe_without_an_answer_makes_way_for_the_next() {
        let state = probed(opened(), 1_500).released();
        probed(state, 1_500);
    }

    #[test]
    fn among_failures_what_nobody_waits_for_goes_one_at_a_time() {
        assert_eq!(Breaker::CALM.admit(0, Claim::Spare).1, Admission::Sent);
        let failing = Breaker::CALM.failed(false, 0, &CONFIG);
        let (state, admission) = failing.admit(0, Claim::Spare);
        assert_eq!(admission, Admission::Probe);
        assert_eq!(state.admit(0, Claim::Spare).1, Admission::Refused);
        assert_eq!(state.admit(0, Claim::Answer).1, Admission::Sent);
        let state = state.failed(true, 0, &CONFIG);
        assert_eq!(state.admit(0, Claim::Spare).1, Admission::Probe);
    }

    #[test]
    fn it_is_the_same_out_of_one_word() {
        let states = [
            Breaker::CALM,
            opened(),
            probed(opened(), 1_500),
            probed(opened(), 1_500).failed(true, 1 << 40, &CONFIG),
        ];
        for state in states {
            assert_eq!(Breaker::unpack(state.pack()), state);
        }
    }
}
