//! An extent between its writer and a reader that follows: what is seen is written, what is final stays, every slot comes home once.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::StripeId;
use super::extent::{Extent, ExtentWriter};
use super::progress::FillState;
use super::slab::{Arena, PAGE_BYTES, Slot};
use crate::explore;

const ID: StripeId = StripeId { version: 1 };
const START: u32 = 10;
const CAPACITY: u32 = 2 * PAGE_BYTES as u32;

/// Where the one reader sleeps.
#[derive(Default)]
struct Sleeper {
    roused: Mutex<bool>,
    changed: Condvar,
}

/// Writes `upto` bytes, a page at a time.
fn write(writer: &mut ExtentWriter, upto: u32, sleeper: &Sleeper) {
    let mut written = 0;
    while written < upto {
        let room = writer.room();
        let bytes = room.len().min((upto - written) as usize);
        for (byte, at) in room[..bytes].iter_mut().zip(written..) {
            *byte = at as u8 + 1;
        }
        writer.advance(bytes, |_| wake(sleeper));
        written += bytes as u32;
    }
}

fn wake(sleeper: &Sleeper) {
    *sleeper.roused.lock().unwrap() = true;
    sleeper.changed.notify_one();
}

/// Follows to the end or until there is `enough`, as `request::deliver` does; gives the bytes there were.
fn follow(extent: &Extent, sleeper: &Sleeper, enough: u32) -> u32 {
    let mut at = START;
    loop {
        let state = extent.progress().state();
        let promised = extent.promised_end();
        let filled = extent.progress().filled();
        while let Some(piece) = extent.piece(at, u32::MAX) {
            for &byte in piece.bytes() {
                at += 1;
                assert_eq!(u32::from(byte), at - START, "a byte that is written");
            }
        }
        if state != FillState::Filling {
            assert_eq!(at, promised, "what is final stays");
        }
        if state != FillState::Filling || at - START >= enough {
            return at - START;
        }
        extent.progress().subscribe(0);
        let moved =
            extent.progress().state() != FillState::Filling || extent.progress().filled() > filled;
        if !moved {
            let mut roused = sleeper.roused.lock().unwrap();
            while !*roused {
                roused = sleeper.changed.wait(roused).unwrap();
            }
            *roused = false;
        }
    }
}

/// A writer of `upto` bytes that ends by `end`, and a reader; then all slots are home.
fn fill(upto: u32, end: fn(ExtentWriter, &Sleeper)) {
    explore(3, move || {
        let arena = Arc::new(Arena::new(2));
        let sleeper = Arc::new(Sleeper::default());
        let window = START..START + CAPACITY;
        let slots = vec![Slot(1), Slot(0)];
        let (extent, mut writer) = Extent::create(ID, window, slots, &arena, &Arc::default());
        let waker = Arc::clone(&sleeper);
        let thread = thread::spawn(move || {
            write(&mut writer, upto, &waker);
            end(writer, &waker);
        });
        assert_eq!(follow(&extent, &sleeper, u32::MAX), upto);
        thread.join().unwrap();
        let unused = 2 - (upto as usize).div_ceil(PAGE_BYTES);
        assert_eq!(arena.home(), unused, "unused room is back");
        drop(extent);
        assert_eq!(arena.home(), 2, "every slot is home");
    });
}

#[test]
fn a_whole_fill_is_read_whole() {
    fill(CAPACITY, |writer, sleeper| {
        writer.finish(|_| wake(sleeper));
    });
}

#[test]
fn a_fill_that_breaks_off_is_read_as_far_as_it_came() {
    fill(3, |writer, sleeper| writer.fail(|_| wake(sleeper)));
}

#[test]
fn a_fill_that_ends_before_its_first_byte_ends_its_reader() {
    fill(0, |writer, sleeper| writer.fail(|_| wake(sleeper)));
}

#[test]
fn bytes_wake_their_reader_also_when_no_more_come() {
    explore(4, || {
        let arena = Arc::new(Arena::new(2));
        let sleeper = Arc::new(Sleeper::default());
        let (extent, mut writer) = Extent::create(
            ID,
            START..START + CAPACITY,
            vec![Slot(0), Slot(1)],
            &arena,
            &Arc::default(),
        );
        let waker = Arc::clone(&sleeper);
        let thread = thread::spawn(move || {
            write(&mut writer, 3, &waker);
            writer
        });
        assert_eq!(follow(&extent, &sleeper, 3), 3);
        drop(thread.join().unwrap());
    });
}
