//! Questions under way: a future here, the answer from another shard (or another task of this one).
//!
//! Called by `Shard` for everything that a message is answered by. A ticket names a place in this table by number and generation, so an
//! answer that comes after its asker has left is dropped, with all it holds. Bounded by the number of requests in flight.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Names one question of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The shard that asks.
    pub shard: u16,
    place: u32,
    generation: u32,
}

enum State<A> {
    Free,
    Waiting(Option<Waker>),
    Answered(A),
}

struct Place<A> {
    generation: u32,
    state: State<A>,
}

struct Table<A> {
    places: Vec<Place<A>>,
    free: Vec<u32>,
}

/// All questions of one shard.
pub struct Asks<A> {
    shard: u16,
    table: RefCell<Table<A>>,
}

impl<A> Asks<A> {
    /// An empty table for a shard.
    #[must_use]
    pub fn new(shard: u16) -> Rc<Self> {
        Rc::new(Self {
            shard,
            table: RefCell::new(Table {
                places: Vec::new(),
                free: Vec::new(),
            }),
        })
    }

    /// A new question: the ticket to send along, and the future of its answer.
    pub fn open(self: &Rc<Self>) -> (Ticket, Ask<A>) {
        let mut table = self.table.borrow_mut();
        let place = table.free.pop().unwrap_or_else(|| {
            table.places.push(Place {
                generation: 0,
                state: State::Free,
            });
            table.places.len() as u32 - 1
        });
        let entry = &mut table.places[place as usize];
        entry.state = State::Waiting(None);
        let ticket = Ticket {
            shard: self.shard,
            place,
            generation: entry.generation,
        };
        (
            ticket,
            Ask {
                asks: Rc::clone(self),
                ticket,
            },
        )
    }

    /// Hands an answer in; gives it back when nobody waits for it any more.
    ///
    /// # Errors
    /// The answer.
    pub fn answer(&self, ticket: Ticket, answer: A) -> Result<(), A> {
        assert_eq!(
            ticket.shard, self.shard,
            "an answer goes to the shard that asked"
        );
        let waker = {
            let mut table = self.table.borrow_mut();
            let entry = &mut table.places[ticket.place as usize];
            if entry.generation != ticket.generation {
                return Err(answer);
            }
            match std::mem::replace(&mut entry.state, State::Answered(answer)) {
                State::Waiting(waker) => waker,
                State::Free | State::Answered(_) => panic!("a question is answered once"),
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Questions under way.
    #[must_use]
    pub fn len(&self) -> usize {
        let table = self.table.borrow();
        table.places.len() - table.free.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The future of one answer; dropping it withdraws the question.
pub struct Ask<A> {
    asks: Rc<Asks<A>>,
    ticket: Ticket,
}

impl<A> Future for Ask<A> {
    type Output = A;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<A> {
        let mut table = self.asks.table.borrow_mut();
        let entry = &mut table.places[self.ticket.place as usize];
        match std::mem::replace(&mut entry.state, State::Free) {
            State::Answered(answer) => Poll::Ready(answer),
            State::Waiting(_) => {
                entry.state = State::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
            State::Free => panic!("an answer is taken once"),
        }
    }
}

impl<A> Drop for Ask<A> {
    fn drop(&mut self) {
        let state = {
            let mut table = self.asks.table.borrow_mut();
            let entry = &mut table.places[self.ticket.place as usize];
            entry.generation = entry.generation.wrapping_add(1);
            let state = std::mem::replace(&mut entry.state, State::Free);
            table.free.push(self.ticket.place);
            state
        };
        // An answer that was never taken may hold connections and pins: they go outside the borrow.
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: std::sync::Arc<Self>) {}
    }

    #[test]
    fn an_answer_reaches_its_question_and_no_other() {
        let asks = Asks::<u32>::new(3);
        let (first, gone) = asks.open();
        drop(gone);
        let (second, mut ask) = asks.open();
        assert_eq!(asks.answer(first, 1), Err(1));
        assert_eq!(asks.answer(second, 2), Ok(()));
        let waker = Waker::from(std::sync::Arc::new(Nobody));
        assert_eq!(
            Pin::new(&mut ask).poll(&mut Context::from_waker(&waker)),
            Poll::Ready(2)
        );
        drop(ask);
        assert!(asks.is_empty());
    }
}
