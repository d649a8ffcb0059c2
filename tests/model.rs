//! The cache against plain maps: random reads, fills that end anyhow, evictions from a tiny slab, writes, versions that come and come
//! back, readers that hold on, peers that read late. Never a wrong byte, never a byte of another version, never a head that an
//! invalidation beat, never a slot lost. (2C.63)
//!
//! `world` drives the real partitions, index and extents through their public calls, on one thread and in an order that a seed
//! replays; `reference` says what must come out. `PROPTEST_CASES` sets how many worlds are tried. The last test has real readers on other
//! threads, and no order.

#[path = "model/objects.rs"]
mod objects;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/threads.rs"]
mod threads;
#[path = "model/world.rs"]
mod world;

use millrace::ram::STRIPE_BYTES;
use proptest::prelude::*;

use objects::{OBJECTS, Wish};
use world::{End, Sizes, World};

/// Something happens.
#[derive(Debug, Clone)]
enum Step {
    Put {
        object: usize,
        etag: u8,
        total: u64,
        through_us: bool,
    },
    Invalidate(usize),
    InvalidateBucket(bool),
    VersionGone(usize),
    Begin(usize, Wish, bool),
    /// A fetch that nothing interrupts.
    Fetch(usize, Wish),
    Advance(usize, usize),
    End(usize, End),
    Read(usize, Wish, bool),
    /// What somebody fetched lately is wanted by others: the number says which fetch.
    Hold {
        recent: usize,
        shard: usize,
        lend: bool,
    },
    Send(usize),
    Release(usize),
    Receive(usize),
    Collect,
}

fn apply(world: &mut World, step: Step) {
    match step {
        Step::Put {
            object,
            etag,
            total,
            through_us,
        } => world.put(object, etag, total, through_us),
        Step::Invalidate(object) => world.invalidate(object),
        Step::InvalidateBucket(a) => world.invalidate_bucket(if a { b"a/" } else { b"b/" }),
        Step::VersionGone(object) => world.version_gone(object),
        Step::Begin(object, wish, checksums) => world.begin(object, wish, checksums),
        Step::Advance(fill, bytes) => world.advance(fill, bytes),
        Step::End(fill, end) => world.end(fill, end),
        Step::Read(object, wish, touch) => world.read(object, wish, touch),
        Step::Fetch(object, wish) => world.fetch(object, wish),
        Step::Hold {
            recent,
            shard,
            lend,
        } => world.hold(recent, shard, lend),
        Step::Send(recent) => world.send(recent),
        Step::Release(pin) => world.release(pin),
        Step::Receive(peer) => world.receive(peer),
        Step::Collect => world.collect(),
    }
}

/// Lengths of objects: none, small, many pages, one stripe and its neighbours, several stripes. Few enough that versions come back.
fn total() -> impl Strategy<Value = u64> {
    let few = [
        0,
        1,
        700,
        5000,
        70_000,
        1 << 20,
        2_500_000,
        STRIPE_BYTES - 1,
        STRIPE_BYTES,
        STRIPE_BYTES + 1,
        2 * STRIPE_BYTES + 123_456,
    ];
    proptest::sample::select(few.to_vec())
}

fn wish() -> impl Strategy<Value = Wish> {
    let bytes = prop_oneof![1u32..3000, 1u32..300_000, 1u32..3_000_000];
    (0u8..3, 0u32..20_000_000, bytes).prop_map(|(kind, at, bytes)| Wish { kind, at, bytes })
}

fn step() -> impl Strategy<Value = Step> {
    let object = || 0..OBJECTS;
    let any = || 0usize..8;
    let end = prop_oneof![Just(End::Finish), Just(End::Fail), Just(End::Forget)];
    let bytes = prop_oneof![1usize..2000, 1usize..200_000, 1usize..5_000_000];
    let put =
        (object(), 0u8..3, total(), any_bool()).prop_map(|(object, etag, total, through_us)| {
            Step::Put {
                object,
                etag,
                total,
                through_us,
            }
        });
    let hold = (any(), 0usize..256, any_bool()).prop_map(|(recent, shard, lend)| Step::Hold {
        recent,
        shard,
        lend,
    });
    prop_oneof![
        3 => put,
        1 => object().prop_map(Step::Invalidate),
        1 => any_bool().prop_map(Step::InvalidateBucket),
        1 => object().prop_map(Step::VersionGone),
        8 => (object(), wish(), any_bool()).prop_map(|(o, w, c)| Step::Begin(o, w, c)),
        20 => (object(), wish()).prop_map(|(o, w)| Step::Fetch(o, w)),
        24 => (any(), bytes).prop_map(|(fill, bytes)| Step::Advance(fill, bytes)),
        4 => (any(), end).prop_map(|(fill, end)| Step::End(fill, end)),
        8 => (object(), wish(), any_bool()).prop_map(|(o, w, t)| Step::Read(o, w, t)),
        8 => hold,
        6 => any().prop_map(Step::Send),
        8 => any().prop_map(Step::Release),
        2 => any().prop_map(Step::Receive),
        1 => Just(Step::Collect),
    ]
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}

fn sizes() -> impl Strategy<Value = Sizes> {
    (
        1usize..=3,
        prop_oneof![4 => 2u64..=4, 1 => 8u64..=10],
        2usize..=9,
        any::<bool>(),
    )
        .prop_map(|(shards, mib, heads_max, huge_pages)| Sizes {
            shards,
            ram_bytes: mib << 20,
            heads_max,
            huge_pages,
        })
}

fn configuration() -> ProptestConfig {
    let mut configuration = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        configuration.cases = 400;
    }
    configuration
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn the_cache_says_what_plain_maps_say(sizes in sizes(), steps in proptest::collection::vec(step(), 1..400)) {
        let mut world = World::new(sizes);
        for step in steps {
            apply(&mut world, step);
            world.check();
        }
        world.close_down();
    }
}

#[test]
fn readers_on_other_threads_see_right_bytes_of_the_version_they_found() {
    threads::read_beside_a_writer(1, 6000);
}
