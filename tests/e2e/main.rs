//! End-to-end tests: a real server process, real sockets, an origin that counts. A
//! file per topic; each test is named by what it promises, and ends by asking the
//! server whether it still holds anything.
//!
//! `(2A.1)` in a comment cites the list of known failures of caching S3 proxies that
//! the tests are drawn from, by its section and number; `wire rule` its list of rules.

#![allow(
    clippy::disallowed_methods,
    reason = "tests live in real time: deadlines, and polls inside wait_for"
)]
#![allow(
    clippy::disallowed_types,
    reason = "the stub origin's log is shared by its threads"
)]
#![allow(missing_docs, reason = "a test's name is its document")]
#![allow(
    dead_code,
    reason = "the harness serves every topic, no topic uses all of it"
)]

mod harness;

mod aborted_writes;
mod access;
mod chain;
mod conditions;
mod config_cli;
mod crashes;
mod disk;
mod disk_damage;
mod disk_faults;
mod disk_hangs;
mod disk_room;
mod drain;
mod endpoints;
mod failing_origin;
mod fallback;
mod freshness;
mod gaps;
mod golden;
mod handover;
mod handover_steps;
mod hedge;
mod herd;
mod host_map;
mod hostile;
mod http_client_shapes;
mod idle;
mod interims;
mod kept_writes;
mod kept_writes_odd;
mod kept_writes_together;
mod late_answers;
mod leaving_clients;
mod log_and_metrics;
mod multi_deletes;
mod notify;
mod origin_decides;
mod origin_decides_past;
mod outage;
mod outage_speed;
mod own_writes;
mod parts;
mod pass;
mod proxy_protocol;
mod purge;
mod reads;
mod regression;
mod reload;
mod rules;
mod shards;
mod signed_range;
mod tls_door;
mod tls_origin;
mod tunnel;
mod tunnel_inside;
mod tunnel_many;
mod tunnel_refused;
mod two_on_one_directory;
mod upload_memory;
mod versions;
mod wishes;
mod write_drops;
mod writes_as_they_came;
mod writes_in_doubt;
