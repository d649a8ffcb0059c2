//! Names of origins and their addresses, as this shard knows them.
//!
//! Called by `dial` (which address now?), by every connection's end (how did it fare?) and by the shard, which passes on what
//! the control thread resolved. The control thread repeats its look-ups by their TTL and answers unasked; a name
//! once resolved never waits again and keeps its addresses when a later look-up fails. IP literals, and hosts whose
//! addresses the operator gives, need no answer.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::clock::now_ms;
use crate::io::timeout_ms;

use super::addresses::{AddressSet, RestPolicy};
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::overrides::Overrides;
use super::wait::WaitList;

/// Names kept; the one not used for the longest time goes first. Names can come from clients' `Host`.
const NAMES_MAX: usize = 4096;

/// An unanswered question is put again after so long, should it have been lost.
const ASK_AGAIN_MS: u64 = 1000;

/// How often the control thread is told that a known name is in use; it forgets names after ten minutes.
const KEEP_MS: u64 = 60_000;

/// One name: its addresses, and their health for each port dialled.
pub(super) struct Name {
    addresses: RefCell<Vec<IpAddr>>,
    ports: RefCell<Vec<(u16, AddressSet)>>,
    waiting: Rc<WaitList>,
    /// Answers that came, good or bad.
    answers: Cell<u64>,
    asked_ms: Cell<u64>,
    /// When the control thread was last told that the name is in use.
    kept_ms: Cell<u64>,
    used_ms: Cell<u64>,
    /// Its addresses are an IP literal's or the operator's: no name server is asked.
    is_fixed: bool,
}

impl Name {
    fn new(fixed: Vec<IpAddr>) -> Rc<Self> {
        Rc::new(Self {
            is_fixed: !fixed.is_empty(),
            addresses: RefCell::new(fixed),
            ports: RefCell::default(),
            waiting: Rc::default(),
            answers: Cell::new(0),
            asked_ms: Cell::new(0),
            kept_ms: Cell::new(now_ms()),
            used_ms: Cell::new(0),
        })
    }

    fn is_known(&self) -> bool {
        !self.addresses.borrow().is_empty()
    }

    /// Looks at, or changes, the addresses as dialled on `port`. `look` must not come back here.
    pub fn with<R>(&self, port: u16, look: impl FnOnce(&mut AddressSet) -> R) -> R {
        let mut ports = self.ports.borrow_mut();
        let at = ports
            .iter()
            .position(|(known, _)| *known == port)
            .unwrap_or_else(|| {
                let mut set = AddressSet::default();
                set.replace(&self.addresses.borrow());
                ports.push((port, set));
                ports.len() - 1
            });
        look(&mut ports[at].1)
    }

    fn answer(&self, result: Result<&[IpAddr], ()>) {
        if let Ok(found) = result
            && !found.is_empty()
        {
            *self.addresses.borrow_mut() = found.to_vec();
            for (_, set) in self.ports.borrow_mut().iter_mut() {
                set.replace(found);
            }
        }
        self.answers.set(self.answers.get() + 1);
        self.waiting.wake_all();
    }
}

/// All names of one shard.
pub(super) struct Names {
    table: RefCell<HashMap<Box<str>, Rc<Name>>>,
    ask: Rc<dyn Fn(&str)>,
    pub policy: RestPolicy,
    overrides: Arc<Overrides>,
}

impl Names {
    pub fn new(ask: Rc<dyn Fn(&str)>, policy: RestPolicy, overrides: Arc<Overrides>) -> Self {
        Self {
            table: RefCell::default(),
            ask,
            policy,
            overrides,
        }
    }

    /// The endpoint's name with at least one address; waits for the control thread if it is new.
    pub async fn resolved(
        &self,
        endpoint: &Endpoint,
        limit_ms: u64,
    ) -> Result<Rc<Name>, UpstreamError> {
        let name = self.entry(endpoint);
        if name.is_known() {
            if !name.is_fixed {
                self.keep(&name, &endpoint.host);
            }
            return Ok(name);
        }
        match timeout_ms(limit_ms, self.first_answer(&name, &endpoint.host)).await {
            Some(()) if name.is_known() => Ok(name),
            Some(()) => Err(UpstreamError::Resolve {
                host: endpoint.host.clone(),
            }),
            None => Err(UpstreamError::ResolveTimeout {
                host: endpoint.host.clone(),
                after_ms: limit_ms,
            }),
        }
    }

    /// Says once a minute that a known name is in use: the control thread forgets names that nobody asks for, and would not
    /// look for new addresses any more. Answered from what it knows, without a lookup.
    fn keep(&self, name: &Name, host: &str) {
        let now_ms = now_ms();
        if now_ms >= name.kept_ms.get() + KEEP_MS {
            name.kept_ms.set(now_ms);
            (self.ask)(host);
        }
    }

    async fn first_answer(&self, name: &Name, host: &str) {
        let before = name.answers.get();
        while name.answers.get() == before {
            // Queued before asking: the answer may come from within the question.
            let answer = name.waiting.wait();
            let asked_ms = name.asked_ms.get();
            if asked_ms == 0 || asked_ms + ASK_AGAIN_MS <= now_ms() {
                name.asked_ms.set(now_ms());
                (self.ask)(host);
            }
            // The wait ends early to ask again, in case the question was lost.
            let _ = timeout_ms(ASK_AGAIN_MS, answer).await;
        }
        name.asked_ms.set(0);
    }

    /// What the control thread found; a failure keeps what was known. Names that nobody asked for are ignored.
    pub fn answer(&self, host: &str, result: Result<&[IpAddr], ()>) {
        let name = self.table.borrow().get(host).map(Rc::clone);
        if let Some(name) = name.filter(|name| !name.is_fixed) {
            name.answer(result);
        }
    }

    /// Looks at the addresses of an endpoint; `None` if its name is not known (any more).
    pub fn with<R>(
        &self,
        endpoint: &Endpoint,
        look: impl FnOnce(&mut AddressSet) -> R,
    ) -> Option<R> {
        let name = self.table.borrow().get(&endpoint.host).map(Rc::clone)?;
        Some(name.with(endpoint.port, look))
    }

    /// Addresses that rest now, over all names and ports.
    pub fn resting(&self) -> usize {
        let table = self.table.borrow();
        let ports = |name: &Rc<Name>| {
            name.ports
                .borrow()
                .iter()
                .map(|(_, set)| set.counts().1)
                .sum::<usize>()
        };
        table.values().map(ports).sum()
    }

    /// The addresses that no name server is asked for.
    fn fixed(&self, endpoint: &Endpoint) -> Vec<IpAddr> {
        match self.overrides.addresses(&endpoint.host) {
            Some(addresses) => addresses.to_vec(),
            None => endpoint.ip().into_iter().collect(),
        }
    }

    fn entry(&self, endpoint: &Endpoint) -> Rc<Name> {
        let mut table = self.table.borrow_mut();
        let now = now_ms();
        if let Some(name) = table.get(&endpoint.host) {
            name.used_ms.set(now);
            return Rc::clone(name);
        }
        if table.len() >= NAMES_MAX {
            forget_oldest(&mut table);
        }
        let name = Name::new(self.fixed(endpoint));
        name.used_ms.set(now);
        table.insert(endpoint.host.clone(), Rc::clone(&name));
        name
    }
}

/// Makes room. A name that somebody still waits for lives on in their hands and is asked for again.
fn forget_oldest(table: &mut HashMap<Box<str>, Rc<Name>>) {
    let oldest = table
        .iter()
        .min_by_key(|(_, name)| (name.waiting.len() > 0, name.used_ms.get()));
    let oldest = oldest.map(|(host, _)| host.clone());
    if let Some(host) = oldest {
        table.remove(&host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::ShardRuntime;
    use crate::io::spawn;

    const POLICY: RestPolicy = RestPolicy {
        failures_to_rest: 3,
        rest_ms: 100,
    };

    fn names() -> (Rc<Names>, Rc<RefCell<Vec<String>>>) {
        let asked = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&asked);
        let ask = Rc::new(move |host: &str| log.borrow_mut().push(host.to_owned()));
        (Rc::new(Names::new(ask, POLICY, Arc::default())), asked)
    }

    fn run<F: Future>(main: F) -> F::Output {
        ShardRuntime::new().expect("a ring").block_on(main)
    }

    #[test]
    fn a_name_is_asked_for_once_and_everybody_gets_the_answer() {
        run(async {
            let (names, asked) = names();
            let done = Rc::new(Cell::new(0));
            for _ in 0..5 {
                let (names, done) = (Rc::clone(&names), Rc::clone(&done));
                spawn(async move {
                    let endpoint = Endpoint::new(false, "a.test", 80);
                    let name = names.resolved(&endpoint, 5000).await.expect("resolved");
                    assert_eq!(name.with(80, |set| set.counts()), (2, 0));
                    done.set(done.get() + 1);
                });
            }
            crate::io::sleep_ms(5).await;
            assert_eq!(*asked.borrow(), ["a.test"]);
            names.answer(
                "a.test",
                Ok(&[IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]),
            );
            crate::io::sleep_ms(5).await;
            assert_eq!(done.get(), 5);
        });
    }

    #[test]
    fn a_name_without_address_is_an_error_and_is_asked_again_next_time() {
        run(async {
            let (names, asked) = names();
            let endpoint = Endpoint::new(false, "a.test", 80);
            for round in 1..=2 {
                let answering = Rc::clone(&names);
                spawn(async move { answering.answer("a.test", Err(())) });
                let error = names.resolved(&endpoint, 5000).await.err();
                assert!(matches!(error, Some(UpstreamError::Resolve { .. })));
                assert_eq!(asked.borrow().len(), round);
            }
            let error = names.resolved(&endpoint, 20).await.err();
            assert!(matches!(
                error,
                Some(UpstreamError::ResolveTimeout { after_ms: 20, .. })
            ));
        });
    }

    #[test]
    fn a_later_failure_keeps_the_addresses() {
        run(async {
            let (names, _) = names();
            let endpoint = Endpoint::new(false, "a.test", 80);
            let answering = Rc::clone(&names);
            spawn(async move { answering.answer("a.test", Ok(&[IpAddr::from([10, 0, 0, 1])])) });
            names.resolved(&endpoint, 5000).await.expect("resolved");
            names.answer("a.test", Err(()));
            names.answer("a.test", Ok(&[]));
            let name = names.resolved(&endpoint, 0).await.expect("still known");
            assert_eq!(name.with(80, |set| set.counts()), (1, 0));
        });
    }

    #[test]
    fn an_address_needs_no_answer_and_the_table_is_bounded() {
        run(async {
            let (names, asked) = names();
            for number in 0..=NAMES_MAX {
                let host = format!("10.0.{}.{}", number / 256, number % 256);
                names
                    .resolved(&Endpoint::new(false, &host, 80), 0)
                    .await
                    .expect("a literal");
            }
            assert!(asked.borrow().is_empty());
            assert_eq!(names.table.borrow().len(), NAMES_MAX);
        });
    }
}
