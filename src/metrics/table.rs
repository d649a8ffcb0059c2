//! THE table of metrics: variant, labels, shape, name, help. Everything else about them is generated from it:
//! [`Counter`], [`Gauge`], [`Histogram`], their cells, the exposition and `docs/METRICS.md`.
//!
//! Called by whoever counts (through the three enums) and by the exporter (through [`FAMILIES`]). Invariants: names
//! have the prefix `millrace_` and base units; counters end in `_total`; labels are closed sets, so each combination
//! is one cell whose place is known at compile time.

use super::labels::{
    AccessEvent, BreakerState, Close, DiskFailure, DiskWork, DnsResult, FallbackResult, FillEnd,
    HedgeResult, Invalidation, Label, Malformed, Method, Outcome, Refusal, ReloadResult,
    Revalidation, SendPath, Source, StatusClass, TlsHandshake, TlsSession, TunnelDoor, TunnelEnd,
    TunnelRefusal, TunnelWay, UpstreamFailure, UpstreamKind, Written,
};

/// What a metric is, and how its cells are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A count that only grows; the sum over all shards.
    Counter,
    /// A count that only grows, shown per shard; cells that never counted are left out.
    ShardCounter,
    /// A gauge that is zero when nothing is being served.
    Flow,
    /// The same, shown per shard.
    ShardFlow,
    /// A gauge of what is held, also at rest.
    Level,
    /// A distribution of durations: observed in nanoseconds, shown in seconds.
    Seconds,
    /// A distribution of sizes in bytes.
    Bytes,
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) shape: Shape,
    /// Label names, each with its values.
    pub(super) labels: &'static [(&'static str, &'static [&'static str])],
}

impl Family {
    /// How many label combinations, thus cells, there are.
    pub(super) const fn combinations(&self) -> usize {
        let mut product = 1;
        let mut label = 0;
        while label < self.labels.len() {
            product *= self.labels[label].1.len();
            label += 1;
        }
        product
    }
}

/// The first cell of each family of `table`, and behind the last one the number of all cells.
const fn first_cells<const N: usize>(table: &[Family]) -> [usize; N] {
    assert!(N == table.len() + 1);
    let mut first = [0; N];
    let mut family = 0;
    while family < table.len() {
        first[family + 1] = first[family] + table[family].combinations();
        family += 1;
    }
    first
}

macro_rules! table {
    ($(#[$doc:meta])* $set:ident in $table:ident {
        $( $variant:ident $(( $($label:ident: $values:ty),+ ))?, $shape:ident, $name:literal, $help:literal; )+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $set { $( #[doc = $help] $variant $(( $($values),+ ))? ),+ }

        pub(super) const $table: &[Family] = &[ $( Family {
            name: $name,
            help: $help,
            shape: Shape::$shape,
            labels: &[ $($( (stringify!($label), <$values as Label>::VALUES) ),+)? ],
        } ),+ ];

        const _: () = assert!($set::FIRST[$table.len()] == $set::CELLS);

        impl $set {
            const FIRST: [usize; $table.len() + 1] = first_cells($table);

            /// How many cells all metrics of this kind have.
            pub(super) const CELLS: usize = 0 $( + 1 $($( * <$values as Label>::COUNT )+)? )+;

            /// The place of this label combination among the cells of its kind: a constant where the labels are.
            #[inline(always)]
            pub(super) const fn position(self) -> usize {
                let combination = match self { $(
                    Self::$variant $(( $($label),+ ))? => {
                        let combination = 0;
                        $($( let combination = combination * <$values as Label>::COUNT + $label as usize; )+)?
                        combination
                    }
                ),+ };
                Self::FIRST[self.row()] + combination
            }

            #[inline(always)]
            const fn row(self) -> usize {
                enum Row { $( $variant ),+ }
                match self { $( Self::$variant { .. } => Row::$variant as usize ),+ }
            }
        }
    };
}

table! {
    /// What is counted.
    Counter in COUNTERS {
        ConnectionsAccepted, ShardCounter, "millrace_connections_accepted_total",
            "Client connections taken over by a shard.";
        ConnectionsRefused(reason: Refusal), Counter, "millrace_connections_refused_total",
            "Client connections refused without being served: the connection limit is reached, no descriptor was left, the client is in no network that the door is for, or a balancer's PROXY header is missing or malformed.";
        TlsHandshakes(result: TlsHandshake), Counter, "millrace_tls_handshakes_total",
            "TLS handshakes with clients, by what came of them: full and resumed are sessions, the rest failed.";
        HandoversFailed, Counter, "millrace_handovers_failed_total",
            "Times that a new process was to take over and did not come up.";
        TlsReloads(result: ReloadResult), Counter, "millrace_tls_reloads_total",
            "Times that the files of the TLS door were read again because they had changed or on SIGHUP, by what came of it.";
        ConnectionsClosed(reason: Close), Counter, "millrace_connections_closed_total",
            "Client connections closed, by why: client and idle are normal ends; head_timeout, slow_client and malformed were cut by us; refused were not served because of a limit, their network, their PROXY header or the destination of their tunnel; client_gone left before its response was whole; response_cut ended because the body could not be finished, or was reset with its tunnel.";
        Requests(method: Method, result: Outcome), ShardCounter, "millrace_requests_total",
            "Requests answered, by the shard that accepted the connection, method and result: hit from RAM or disk alone, miss from a fill alone, partial from both, pass untouched through to the origin, error by our own error answer or a cut connection, revalidated from RAM or disk after the origin was asked, stale from RAM or disk past its time because the origin fails or is asked meanwhile.";
        RequestsMalformed(reason: Malformed), Counter, "millrace_requests_malformed_total",
            "Requests refused as malformed, by what was wrong.";
        RequestsForbidden, Counter, "millrace_requests_forbidden_total",
            "Requests answered 403 because their Host leads to no origin that the operator allowed.";
        Responses(status_class: StatusClass), Counter, "millrace_responses_total",
            "Final responses to clients, by class of status code.";
        SentBytes(source: Source), Counter, "millrace_downstream_sent_bytes_total",
            "Response body bytes sent to clients, by where they came from.";
        SentBytesBy(path: SendPath), Counter, "millrace_downstream_sendpath_bytes_total",
            "Response body bytes out of the slab, by the way they went to the kernel: copied, or by reference.";
        ReceivedBytes, Counter, "millrace_downstream_received_bytes_total",
            "Request body bytes received from clients.";

        TunnelsOpened(door: TunnelDoor), Counter, "millrace_tunnels_opened_total",
            "Tunnels opened: connections led on to the destination that they name. Each one ends in millrace_tunnels_closed_total.";
        TunnelsClosed(end: TunnelEnd), Counter, "millrace_tunnels_closed_total",
            "Tunnels ended, by how.";
        TunnelsRefused(reason: TunnelRefusal), Counter, "millrace_tunnels_refused_total",
            "Tunnels that were asked for and not opened, by why.";
        TunnelBytes(way: TunnelWay), Counter, "millrace_tunnel_bytes_total",
            "Bytes that went through tunnels, by direction, as they go; the first message of the client is among them.";

        UpstreamRequests(kind: UpstreamKind), Counter, "millrace_upstream_requests_total",
            "Requests sent to origins, each try counted.";
        UpstreamResponses(status_class: StatusClass), Counter, "millrace_upstream_responses_total",
            "Final response heads received from origins, by class of status code.";
        UpstreamReceivedBytes(kind: UpstreamKind), Counter, "millrace_upstream_received_bytes_total",
            "Response body bytes received from origins.";
        UpstreamSentBytes, Counter, "millrace_upstream_sent_bytes_total",
            "Request body bytes sent to origins.";
        UpstreamErrors(kind: UpstreamFailure), Counter, "millrace_upstream_errors_total",
            "Exchanges with an origin that failed, each try counted, by how.";
        UpstreamRetries, Counter, "millrace_upstream_retries_total",
            "Tries after the first one of an exchange.";
        UpstreamConnectionsOpened, Counter, "millrace_upstream_connections_opened_total",
            "Connections to origins opened.";
        UpstreamConnectionsReused, Counter, "millrace_upstream_connections_reused_total",
            "Requests sent on a kept connection.";
        UpstreamConnectionsStale, Counter, "millrace_upstream_connections_stale_total",
            "Kept connections that the origin had closed when they were to be used again.";
        UpstreamBreakerTurns(state: BreakerState), Counter, "millrace_upstream_breaker_turns_total",
            "Times that the breaker of an origin turned, by what it became.";
        UpstreamRefused, Counter, "millrace_upstream_refused_total",
            "Requests that were not sent because the breaker of their origin was open.";
        UpstreamFallbacks(result: FallbackResult), Counter, "millrace_upstream_fallbacks_total",
            "Requests sent to a fallback because their origin failed, by what came of it.";
        UpstreamHedges(result: HedgeResult), Counter, "millrace_upstream_hedges_total",
            "Second requests beside those whose answer was slow to begin, by what came of them.";
        UpstreamTlsHandshakes(session: TlsSession), Counter, "millrace_upstream_tls_handshakes_total",
            "TLS handshakes with origins finished.";

        FillsStarted, Counter, "millrace_fills_started_total",
            "Fills started. Each one ends in millrace_fills_ended_total.";
        FillsEnded(end: FillEnd), Counter, "millrace_fills_ended_total",
            "Fills ended: completed, failed with nothing kept, aborted because nobody needed them, salvaged with the prefix kept.";
        FillBytes, Counter, "millrace_fill_bytes_total",
            "Body bytes received by fills and written to the slab.";
        FillsCoalesced, Counter, "millrace_fills_coalesced_total",
            "Readers that joined a fill which somebody else had started.";
        ReadAhead, Counter, "millrace_fills_read_ahead_total",
            "Ranges that were asked for ahead of clients that read in order (`cache.read_ahead`).";
        FillWindowWaits, Counter, "millrace_fill_window_waits_total",
            "Times a fill stood still because it was a whole window ahead of its fastest reader.";
        FillsUnstored, Counter, "millrace_fills_unstored_total",
            "Responses that could have been kept but were only passed on, because no slot was free.";

        FillsForbidden, Counter, "millrace_fills_forbidden_total",
            "Responses that could have been kept but were only passed on, because the origin forbids shared caches to keep them and it decides (cache.freshness).";

        RamAdmitted, Counter, "millrace_ram_admitted_total",
            "Extents admitted to RAM.";
        RamAdmittedBytes, Counter, "millrace_ram_admitted_bytes_total",
            "Bytes of extents admitted to RAM.";
        RamEvictions, Counter, "millrace_ram_evictions_total",
            "Extents evicted to make room.";
        RamEvictedBytes, Counter, "millrace_ram_evicted_bytes_total",
            "Bytes of extents evicted to make room.";
        RamGhostHits, Counter, "millrace_ram_ghost_hits_total",
            "Extents admitted straight to the main queue because they had been evicted a short while ago.";
        RamAllocationFailures, Counter, "millrace_ram_allocation_failures_total",
            "Slots asked for when none was free, nor could be freed by eviction.";
        RamPunches, Counter, "millrace_ram_punches_total",
            "Slots punched out of the slab before reuse, because they had been sent by reference.";
        DiskLoads, Counter, "millrace_disk_loads_total",
            "Loads of extents from disk begun.";
        DiskLoadedBytes, Counter, "millrace_disk_loaded_bytes_total",
            "Bytes of extents that loads brought into RAM.";
        DiskHeadsLoaded, Counter, "millrace_disk_heads_loaded_total",
            "Object heads read from disk.";
        DiskWrittenBytes, Counter, "millrace_disk_written_bytes_total",
            "Bytes written to segments, headers and padding included.";
        DiskStored, Counter, "millrace_disk_stored_total",
            "Extents and heads written to disk.";
        DiskMoved, Counter, "millrace_disk_moved_total",
            "Extents and heads written again because their segment was reclaimed and they had been hit.";
        DiskMovedBytes, Counter, "millrace_disk_moved_bytes_total",
            "Bytes written again for the same reason. Beside all bytes written they tell what keeping the hot costs.";
        DiskGhostHits, Counter, "millrace_disk_ghost_hits_total",
            "Extents and heads stored among the proven ones because they had been reclaimed a short while ago.";
        DiskDropped, Counter, "millrace_disk_dropped_total",
            "Copies that were not kept on disk: its queue was full, or it was slow, full or broken.";
        DiskErrors(work: DiskWork, kind: DiskFailure), Counter, "millrace_disk_errors_total",
            "Operations on the disk that failed, by what they were for and how.";
        DiskReclaimed, Counter, "millrace_disk_reclaimed_total",
            "Segments forgotten to make room, counted by each shard.";
        DiskUnrecorded, Counter, "millrace_disk_unrecorded_total",
            "Invalidations that could not be written to the journal in time.";
        Revalidations(result: Revalidation), Counter, "millrace_revalidations_total",
            "Times an origin was asked whether a version still holds, by what it said; who waited for somebody else's question is not counted.";
        Access(event: AccessEvent), Counter, "millrace_access_total",
            "Reads whose access is revalidate or exact: asked of the origin, known because it had accepted the same request, refused by the origin; and grants remembered, or displaced by others while they were valid.";
        ErrorsLate, Counter, "millrace_errors_inside_200_total",
            "Answers to copies and completed uploads that began with 200 and were an error.";
        Written(result: Written), Counter, "millrace_writes_kept_total",
            "Uploads that a rule wanted kept for readers, by what became of their bytes here; whatever it was, the upload went on.";
        WrittenBytes, Counter, "millrace_writes_kept_bytes_total",
            "Bytes of uploads that were kept for readers.";
        DiskFolded, Counter, "millrace_disk_folded_total",
            "Facts of earlier runs, out of journals and snapshots, that were told to the shards.";
        DiskTorn, Counter, "millrace_disk_torn_total",
            "Journals and snapshots of earlier runs that could not be read, or are damaged or cut short somewhere.";
        DiskSnapshots, Counter, "millrace_disk_snapshots_total",
            "Snapshots made out of journals.";
        DiskSnapshotBytes, Counter, "millrace_disk_snapshot_bytes_total",
            "Bytes of the snapshots made.";
        DiskSnapshotFailures, Counter, "millrace_disk_snapshot_failures_total",
            "Snapshots that could not be made; the journals stay.";
        Invalidations(cause: Invalidation), Counter, "millrace_invalidations_total",
            "Objects dropped from the cache before eviction: a write went through, the origin has another version, or an operator purged them.";

        MailboxMessages, ShardCounter, "millrace_mailbox_messages_total",
            "Messages taken out of the mailbox of a shard.";
        MailboxFull, ShardCounter, "millrace_mailbox_full_total",
            "Messages that did not fit into another shard's mailbox at once, by the shard that sent them.";

        DnsLookups(result: DnsResult), Counter, "millrace_dns_lookups_total",
            "DNS lookups of origin names ended, by result.";
        ConfigReloads(result: ReloadResult), Counter, "millrace_config_reloads_total",
            "Times that the settings were read again because the file had changed or SIGHUP came, by what came of it.";
        AccessLogLines, Counter, "millrace_access_log_lines_total",
            "Access-log lines recorded.";
        AccessLogDropped, Counter, "millrace_access_log_dropped_total",
            "Access-log lines lost because the log could not be written, or not as fast as they came.";
        AccessLogBytes, Counter, "millrace_access_log_bytes_total",
            "Bytes of access log written.";
    }
}

table! {
    /// What is held or under way.
    Gauge in GAUGES {
        ConnectionsOpen, ShardFlow, "millrace_connections_open",
            "Client connections open.";
        TlsHandshakesInFlight, Flow, "millrace_tls_handshakes_in_flight",
            "TLS handshakes with clients under way.";
        TlsNotAfter, Level, "millrace_tls_certificate_not_after_seconds",
            "When the certificate that the TLS door shows ends, in seconds since 1970; 0 without that door.";
        TlsRefused, Level, "millrace_tls_refused",
            "1 while the files of the TLS door do not hold and those of before are in effect.";
        RequestsInFlight, ShardFlow, "millrace_requests_in_flight",
            "Requests whose head was received and whose response is not finished.";
        TunnelsOpen, Flow, "millrace_tunnels_open",
            "Tunnels open.";
        TunnelPipes, Flow, "millrace_tunnel_pipes",
            "Pipes that hold bytes of tunnels: those that their receivers have yet to take. An idle tunnel has none.";
        UpstreamConnectionsActive, Flow, "millrace_upstream_connections_active",
            "Connections to origins with an exchange under way, or being opened.";
        UpstreamConnectionsIdle, Level, "millrace_upstream_connections_idle",
            "Connections to origins kept for reuse.";
        UpstreamAddressesResting, Level, "millrace_upstream_addresses_resting",
            "Origin addresses, counted once by each shard, that failed too often and are not dialled until a probe succeeds.";
        UpstreamBreakers(state: BreakerState), Level, "millrace_upstream_breakers",
            "Origins that are not asked (open), or only by one probe at a time (half_open); closed stays 0.";
        StagedBytes, Flow, "millrace_writes_staged_bytes",
            "Bytes of uploads under way that are kept here and that nobody can read yet.";
        FillsInFlight, Flow, "millrace_fills_in_flight",
            "Fills under way.";
        FillWaiters, Flow, "millrace_fill_waiters",
            "Readers that stream along with a fill, or wait for its first byte.";
        RamSlabBytes, Level, "millrace_ram_slab_bytes",
            "Bytes of all slabs.";
        RamUsedBytes, Level, "millrace_ram_used_bytes",
            "Bytes of the slots in use, whole slots counted.";
        RamLeases, Flow, "millrace_ram_leases",
            "Pins that readers and fills hold on slots; a pinned slot is not reused.";
        RamZeroCopy, Level, "millrace_ram_zero_copy_enabled",
            "Shards whose self-test at start proved that bodies may be sent by reference.";
        IndexHeads, Level, "millrace_index_heads",
            "Object heads in the index.";
        IndexExtents, Level, "millrace_index_extents",
            "Extents in the index.";
        DiskUsedBytes, Level, "millrace_disk_used_bytes",
            "Bytes that segments and journals take, room taken ahead included.";
        DiskUselessBytes, Level, "millrace_disk_useless_bytes",
            "Bytes of whole segments that are of no use: expired, overwritten, invalidated, or lost room.";
        DiskQueuedBytes, Flow, "millrace_disk_queued_bytes",
            "Bytes in RAM that wait to be written to disk.";
        DiskHeads, Level, "millrace_disk_heads",
            "Object heads known on disk.";
        DiskExtents, Level, "millrace_disk_extents",
            "Extents known on disk.";
        DiskIndexBytes, Level, "millrace_disk_index_bytes",
            "Bytes of RAM that the index of the disk takes.";
        DiskFoldsRunning, Level, "millrace_disk_folding_shards",
            "Shards that have not heard yet that all older journals are read.";
        DiskFoldBytes, Level, "millrace_disk_fold_bytes",
            "Bytes of earlier journals and snapshots that are read at the start, read by now or not.";
        DiskFoldedBytes, Level, "millrace_disk_folded_bytes",
            "Bytes of earlier journals and snapshots read since the start: all is known when it is as many as there are.";
        MailboxDepth, ShardFlow, "millrace_mailbox_depth",
            "Messages waiting in the mailbox of a shard.";
        DnsHosts, Level, "millrace_dns_hosts",
            "Origin names that are kept resolved.";
        ConfigRefused, Level, "millrace_config_refused",
            "1 while the settings file has errors and the settings before them are in effect.";
        ConfigWaiting, Level, "millrace_config_waiting_for_restart",
            "Keys of the settings file whose change waits for a restart.";
        ProcessStartTime, Level, "millrace_process_start_time_seconds",
            "When the process started, in seconds since 1970-01-01T00:00:00Z.";
        ProcessResidentBytes, Level, "millrace_process_resident_memory_bytes",
            "Resident memory of the process, the touched part of the slabs included.";
        ProcessOpenDescriptors, Level, "millrace_process_open_descriptors",
            "File descriptors open in the process.";
    }
}

table! {
    /// What is measured as a distribution.
    Histogram in HISTOGRAMS {
        RequestDuration(result: Outcome), Seconds, "millrace_request_duration_seconds",
            "From the first byte of a request head to the last byte of its response given to the kernel.";
        RequestFirstByte(result: Outcome), Seconds, "millrace_request_first_byte_seconds",
            "From the whole request head to the first byte of its response given to the kernel.";
        ResponseBytes(result: Outcome), Bytes, "millrace_response_body_bytes",
            "Body bytes sent per response.";
        UpstreamConnect, Seconds, "millrace_upstream_connect_seconds",
            "From dialling an origin to a connection ready for a request, the TLS handshake included.";
        UpstreamFirstByte(kind: UpstreamKind), Seconds, "millrace_upstream_first_byte_seconds",
            "From a whole request sent to an origin to its response head.";
        FillFirstByte, Seconds, "millrace_fill_first_byte_seconds",
            "From the start of a fill to its first body byte, connecting and retries included.";
        FillDuration, Seconds, "millrace_fill_duration_seconds",
            "From the start of a fill to its end.";
        DnsDuration, Seconds, "millrace_dns_lookup_seconds",
            "Time a DNS lookup took, both address families included.";
    }
}

impl Histogram {
    /// The row of the table that this is one label combination of.
    #[inline(always)]
    pub(super) const fn family(self) -> &'static Family {
        &HISTOGRAMS[self.row()]
    }
}

/// Every family of the three tables, with the kind of its cells.
pub(super) const FAMILIES: [(Cells, &[Family]); 3] = [
    (Cells::Counters, COUNTERS),
    (Cells::Gauges, GAUGES),
    (Cells::Histograms, HISTOGRAMS),
];

/// The part of a block in which a family has its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cells {
    /// One cell per combination, added up.
    Counters,
    /// One cell per combination, added up as signed numbers.
    Gauges,
    /// [`super::histogram::WIDTH`] cells per combination.
    Histograms,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn rows() -> impl Iterator<Item = &'static Family> {
        FAMILIES.iter().flat_map(|(_, table)| table.iter())
    }

    #[test]
    fn every_name_has_the_prefix_and_is_used_once() {
        let mut names = HashSet::new();
        for row in rows() {
            assert!(row.name.starts_with("millrace_"), "{}", row.name);
            assert!(
                row.name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                row.name
            );
            assert!(names.insert(row.name), "{} twice", row.name);
        }
    }

    #[test]
    fn a_name_tells_kind_and_base_unit() {
        for row in rows() {
            let counts = matches!(row.shape, Shape::Counter | Shape::ShardCounter);
            assert_eq!(row.name.ends_with("_total"), counts, "{}", row.name);
            match row.shape {
                Shape::Seconds => assert!(row.name.ends_with("_seconds"), "{}", row.name),
                Shape::Bytes => assert!(row.name.ends_with("_bytes"), "{}", row.name),
                Shape::Counter
                | Shape::ShardCounter
                | Shape::Flow
                | Shape::ShardFlow
                | Shape::Level => {}
            }
            for not_base in [
                "_ms", "_millis", "_micros", "_nanos", "_mib", "_kib", "_percent",
            ] {
                assert!(!row.name.contains(not_base), "{}", row.name);
            }
        }
    }

    #[test]
    fn help_is_one_sentence_or_more_on_one_line() {
        for row in rows() {
            assert!(row.help.ends_with('.'), "{}", row.name);
            assert!(!row.help.contains(['\n', '\\', '|', '"']), "{}", row.name);
        }
    }

    #[test]
    fn label_values_are_unique_words() {
        for (key, values) in rows().flat_map(|row| row.labels) {
            let unique: HashSet<_> = values.iter().collect();
            assert_eq!(unique.len(), values.len(), "{key}");
            assert_ne!(*key, "shard", "the shard is added by the exporter");
            for value in *values {
                assert!(
                    value
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                    "{key}={value}"
                );
            }
        }
    }

    #[test]
    fn every_label_combination_has_its_own_cell() {
        let mut seen = HashSet::new();
        for method in Method::ALL {
            for outcome in Outcome::ALL {
                assert!(seen.insert(Counter::Requests(*method, *outcome).position()));
            }
        }
        assert_eq!(seen.len(), Method::COUNT * Outcome::COUNT);
        let first = Counter::Requests(Method::Get, Outcome::Hit).position();
        assert_eq!(
            Counter::Requests(Method::Get, Outcome::Miss).position(),
            first + 1
        );
        assert_eq!(
            Counter::Requests(Method::Head, Outcome::Hit).position(),
            first + Outcome::COUNT
        );
        assert_eq!(Counter::AccessLogBytes.position(), Counter::CELLS - 1);
    }

    #[test]
    fn a_constant_label_combination_is_a_constant_cell() {
        const CELL: usize = Counter::Requests(Method::Get, Outcome::Hit).position();
        assert_eq!(
            CELL,
            Counter::Requests(Method::Get, Outcome::Hit).position()
        );
    }
}
