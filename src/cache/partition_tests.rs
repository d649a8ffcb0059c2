//! What a partition keeps, finds and lets go: the tests of `partition`.

use super::*;
use crate::cache::head::HeadParts;
use crate::cache::parts::Part;
use std::sync::atomic::{AtomicBool, Ordering};

fn partition(ram_bytes: u64) -> Partition {
    Partition::new(ram_bytes, 100, Arc::default()).unwrap()
}
fn id(index: u32) -> StripeId {
    StripeId {
        object: 7,
        version: 8,
        index,
    }
}
fn granted(lease: Lease) -> ExtentWriter {
    match lease {
        Lease::Granted(writer) => writer,
        Lease::Have(_) => panic!("somebody has it"),
        Lease::NoRoom => panic!("no room"),
    }
}
/// Asks as long as room is coming: looks of other tests at their own tables hold it up too.
fn lease(partition: &mut Partition, id: StripeId, window: Range<u32>) -> Lease {
    loop {
        match partition.lease(id, window.clone(), &Arc::default()) {
            Lease::NoRoom if partition.room_is_coming() => std::thread::yield_now(),
            lease => return lease,
        }
    }
}
fn fill(partition: &mut Partition, id: StripeId, window: Range<u32>) {
    let mut writer = granted(lease(partition, id, window));
    while writer.remaining() > 0 {
        let n = writer.room().len();
        writer.advance(n, |_| {});
    }
    writer.finish(|_| {});
}
fn head(object: u128) -> Head {
    Head::new(
        object,
        HeadParts {
            key: (*b"k").into(),
            etag: (*b"\"e\"").into(),
            total: 1,
            ..HeadParts::default()
        },
    )
}

#[test]
fn a_hit_in_ram_is_found_by_the_name_on_disk() {
    let mut partition = partition(8 << 20);
    partition.answer_for_disk();
    for index in 0..3 {
        fill(&mut partition, id(index), 0..5000);
    }
    let spot = on_disk::Spot {
        segment: 0,
        block: 0,
        record_blocks: 2,
        header_blocks: 1,
    };
    let copy = |at: u32| on_disk::DiskExtent::new(&id(at), 0..4096, spot);
    let hit = |partition: &Partition, at: u32| {
        partition.take_ram_hit(on_disk::name_of(id(at).hash()), &copy(at))
    };
    let extent = partition.index().extent_at(&id(1), 0).expect("an extent");
    // The first read is what it was fetched for.
    extent.touch();
    assert!(!hit(&partition, 1));
    extent.touch();
    assert!(!hit(&partition, 0) && hit(&partition, 1) && !hit(&partition, 1));
    extent.touch();
    assert!(partition.drop_stripe(&id(1)) > 0 && !hit(&partition, 1));
    assert_eq!(partition.names.as_ref().map(HashMap::len), Some(2));
}

#[test]
fn what_was_written_outlives_what_nobody_reads() {
    let mut partition = partition(8 << 20);
    let unnamed = StripeId {
        version: 1,
        ..id(0)
    };
    fill(&mut partition, unnamed, 0..100_000);
    let written = partition.index().extent_at(&unnamed, 0).expect("an extent");
    let written = Arc::downgrade(&written);
    assert_eq!(partition.adopt(&[written], 8), 100_000);
    // More than the small queue holds, less than there is room for beside it.
    for index in 1..200 {
        fill(&mut partition, id(index), 0..100_000);
    }
    assert!(partition.tally().evicted > 0);
    assert!(partition.index().extent_at(&id(0), 0).is_some());
}

#[test]
fn a_second_lease_of_bytes_being_fetched_joins_the_first() {
    let mut partition = partition(16 << 20);
    let writer = granted(partition.lease(id(0), 0..100_000, &Arc::default()));
    assert!(matches!(
        partition.lease(id(0), 50..100, &Arc::default()),
        Lease::Have(_)
    ));
    assert!(matches!(
        partition.lease(id(0), 100_000..100_100, &Arc::default()),
        Lease::Granted(_)
    ));
    drop(writer);
}

#[test]
fn what_was_fetched_around_others_takes_their_place_when_it_has_settled() {
    let mut partition = partition(16 << 20);
    for start in [1000, 3000, 9000] {
        fill(&mut partition, id(0), start..start + 100);
    }
    let held = partition.index().extent_at(&id(0), 1000).unwrap();
    fill(&mut partition, id(0), 0..5000);
    assert_eq!(partition.extents(), 4);
    let around = partition.index().extent_at(&id(0), 0).unwrap();
    partition.settled(&around);
    assert_eq!(partition.extents(), 2);
    assert_eq!(partition.index().reach(&id(0), 0, 9100).end, 5000);
    assert!(partition.index().extent_at(&id(0), 9000).is_some());
    assert_eq!(held.promised_end(), 1100, "who reads it reads on");
}

#[test]
fn parts_are_as_many_as_there_is_room_for_and_keep_their_checksums() {
    let stamps = Arc::<Stamps>::default();
    let mut partition = Partition::new(1 << 20, 100, Arc::clone(&stamps)).unwrap();
    let mut publish = |number: u32, checksums: Option<&[u8]>| {
        let part = Part {
            number,
            range: 0..1,
            count: Some(100),
            checksums: checksums.map(Into::into),
        };
        let parts = HeadParts {
            key: (*b"k").into(),
            etag: (*b"\"e\"").into(),
            total: 1,
            part: Some(Arc::new(part)),
            ..HeadParts::default()
        };
        let head = partition
            .publish(Head::new(7, parts), stamps.now(7))
            .unwrap();
        let id = |number| PartId {
            object: 7,
            version: head.version(),
            number,
        };
        let index = Arc::clone(partition.index());
        let known = (1..=100).filter(|number| index.part(&id(*number)).is_some());
        (
            known.count(),
            index.part(&id(number)).unwrap().checksums.is_some(),
        )
    };
    assert_eq!(publish(1, Some(b"x\r\n")), (1, true));
    assert_eq!(publish(1, None), (1, true));
    for number in 1..=100 {
        let (known, _) = publish(number, None);
        assert!(known <= 100 / HEADS_TO_A_PART);
    }
    assert_eq!(publish(100, Some(b"x\r\n")), (25, true));
}

#[test]
fn a_head_of_one_version_ends_with_any_write_to_its_object() {
    let stamps = Arc::<Stamps>::default();
    let mut partition = Partition::new(1 << 20, 100, Arc::clone(&stamps)).unwrap();
    let key = b"\0\x01o\0\x01b\0\x01k\0\x02v1";
    let object = crate::s3::ObjectKeyRef::from_encoded(key)
        .unwrap()
        .digest()
        .0;
    let parts = || HeadParts {
        key: (*key).into(),
        etag: (*b"\"e\"").into(),
        ..HeadParts::default()
    };
    let before = stamps.now(object);
    partition
        .publish(Head::new(object, parts()), before)
        .unwrap();
    assert!(partition.index().head(object, key).is_some());
    // The object itself has another digest, and the same stamp.
    let current = crate::s3::ObjectKeyRef::from_encoded(&key[..9])
        .unwrap()
        .digest()
        .0;
    assert_ne!(current, object);
    partition.invalidate(current);
    assert!(partition.index().head(object, key).is_none());
    assert!(
        partition
            .publish(Head::new(object, parts()), before)
            .is_none()
    );
    partition
        .publish(Head::new(object, parts()), stamps.now(object))
        .unwrap();
    assert!(partition.index().head(object, key).is_some());
}

#[test]
fn the_budget_holds_and_old_bytes_make_way() {
    let mut partition = partition(4 << 20);
    for index in 0..50 {
        fill(&mut partition, id(index), 0..(1 << 20));
        assert!(partition.used_bytes() <= 4 << 20);
    }
    assert!(partition.tally().evicted >= 46);
    assert!(partition.index().extent_at(&id(49), 0).is_some());
    assert!(partition.index().extent_at(&id(0), 0).is_none());
}

#[test]
fn pinned_bytes_are_never_reused_and_room_is_refused_instead() {
    let mut partition = partition(2 << 20);
    fill(&mut partition, id(0), 0..(2 << 20));
    let pin = partition.index().extent_at(&id(0), 0).unwrap();
    let lease = lease(&mut partition, id(1), 0..(1 << 20));
    assert!(matches!(lease, Lease::NoRoom));
    drop(pin);
    fill(&mut partition, id(1), 0..(1 << 20));
}

/// Looks at the index all the time, for as long as it takes to send a small answer each.
fn look_until(index: &Index, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let until_ns = clock::now_ns() + 20_000;
        index.with_head(1, b"k", |_| while clock::now_ns() < until_ns {});
    }
}

#[test]
fn looks_at_the_index_cost_no_more_evictions_than_the_room_that_is_made() {
    let mut partition = partition(16 << 20);
    let stamp = partition.stamps.now(1);
    partition.publish(head(1), stamp);
    let index = Arc::clone(partition.index());
    let stop = AtomicBool::new(false);
    let mut refused = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| look_until(&index, &stop));
        for number in 0..1000 {
            let lease = lease(&mut partition, id(number), 0..(1 << 20));
            let Lease::Granted(mut writer) = lease else {
                refused += 1;
                continue;
            };
            let bytes = writer.room().len();
            writer.advance(bytes, |_| {});
            writer.finish(|_| {});
        }
        stop.store(true, Ordering::Relaxed);
    });
    let evicted = partition.tally().evicted;
    assert!(
        refused == 0 && evicted <= 1000,
        "{refused} refused, {evicted} evicted"
    );
}

#[test]
fn small_objects_that_stay_do_not_keep_the_memory_of_lent_ones_that_went() {
    let mut partition = partition(64 << 20);
    partition.use_huge_pages();
    for round in 0..2000 {
        fill(&mut partition, id(100_000 + round), 0..(1 << 20));
        let index = Arc::clone(partition.index());
        if let Some(extent) = index.extent_at(&id(100_000 + round), 0) {
            let piece = extent.piece(0, 1 << 20).expect("all of it");
            assert_eq!(piece.lend().len(), 1 << 20);
        }
        for small in 0..8 {
            let id = id((round * 8 + small) % 4000);
            match index.extent_at(&id, 0) {
                Some(extent) => extent.touch(),
                None => fill(&mut partition, id, 0..4096),
            }
        }
        let spent = partition.spent_bytes();
        assert!(spent <= 8 << 20, "{spent} spent in round {round}");
    }
}

#[test]
fn small_extents_make_way_for_large_ones() {
    let mut partition = partition(4 << 20);
    for index in 0..4000 {
        fill(&mut partition, id(index), 0..1000);
        if let Some(extent) = partition.index().extent_at(&id(index), 0) {
            extent.touch();
        }
    }
    fill(&mut partition, id(9999), 0..(2 << 20));
    assert!(partition.index().extent_at(&id(9999), 0).is_some());
}

#[test]
fn a_fetch_that_began_before_an_invalidation_is_not_stored() {
    let mut partition = partition(2 << 20);
    let stamp = partition.stamps.now(1);
    assert!(partition.publish(head(1), stamp).is_some());
    partition.invalidate(1);
    assert!(partition.index().head(1, b"k").is_none());
    assert!(partition.publish(head(1), stamp).is_none());
    let stamp = partition.stamps.now(1);
    assert!(partition.publish(head(1), stamp).is_some());
    assert!(
        partition
            .index()
            .head(1, b"other key, same digest")
            .is_none()
    );
}

#[test]
fn a_confirmation_brings_back_nothing_that_is_not_the_current_version() {
    let mut partition = partition(2 << 20);
    let stamp = partition.stamps.now(1);
    assert!(partition.confirm(head(1), stamp).is_some());
    assert!(partition.index().head(1, b"k").is_none(), "none was known");
    partition.publish(head(1), stamp);
    let newer = Head::new(
        1,
        HeadParts {
            key: (*b"k").into(),
            etag: (*b"\"f\"").into(),
            ..HeadParts::default()
        },
    );
    let version = newer.version();
    partition.publish(newer, stamp);
    assert!(partition.confirm(head(1), stamp).is_some());
    let current = partition.index().head(1, b"k").expect("a head");
    assert_eq!(current.version(), version);
    partition.invalidate(1);
    assert!(partition.confirm(head(1), stamp).is_none());
}

#[test]
fn heads_are_bounded() {
    let mut partition = partition(2 << 20);
    for object in 0..1000 {
        let stamp = partition.stamps.now(object);
        partition.publish(head(object), stamp);
    }
    assert!(partition.heads() <= 100);
}

#[test]
fn a_head_that_is_confirmed_again_and_again_costs_no_memory() {
    let mut partition = partition(2 << 20);
    let until_ms = clock::now_ms() + 10_000;
    let mut count = 0;
    // Looks of other tests at their own tables hold what is replaced here: then it takes some more.
    while count < 10_000 || (partition.head_policy.len() >= 2000 && clock::now_ms() < until_ms) {
        let stamp = partition.stamps.now(1);
        partition.publish(head(1), stamp);
        count += 1;
    }
    assert!(
        partition.head_policy.len() < 2000,
        "{} entries",
        partition.head_policy.len()
    );
}

#[test]
fn an_extent_without_a_byte_is_forgotten() {
    let mut partition = partition(2 << 20);
    let writer = granted(partition.lease(id(0), 0..10, &Arc::default()));
    let extent = Arc::clone(writer.extent());
    drop(writer);
    partition.settled(&extent);
    assert_eq!(partition.extents(), 0);
}
