//! Any bytes as a record's header, as facts of a journal, as blocks of a snapshot and as the headers of files, as they are and with a checksum that fits: what
//! stands behind a checksum must be as robust as the checksum itself.
//!
//! Held: no panic, nothing read beyond the input, and what was decoded is encoded to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace::base::checksum::crc32c;
use millrace::disk::format::fact::{Fact, Facts};
use millrace::disk::format::record::Record;
use millrace::disk::format::segment::{FileHeader, check_format_text};
use millrace::disk::format::snapshot::{Entries, Entry, PIECE_BYTES, Piece, SnapshotHeader};

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    match first % 6 {
        0 => record(bytes),
        1 => {
            let mut fitting = bytes.to_vec();
            if fitting.len() >= 12 {
                let whole = fitting.len() as u32;
                fitting[..4].copy_from_slice(b"MRr\x01");
                fitting[8..12].copy_from_slice(&whole.to_le_bytes());
                let sum = crc32c(&fitting[8..]);
                fitting[4..8].copy_from_slice(&sum.to_le_bytes());
            }
            record(&fitting);
        }
        2 => facts(bytes),
        4 => snapshot(bytes),
        5 => snapshot(&fitting_snapshot(bytes)),
        _ => {
            facts(&fitting_facts(bytes));
            let _ = FileHeader::of_segment(bytes);
            let _ = FileHeader::of_journal(bytes);
            let _ = check_format_text(&String::from_utf8_lossy(bytes), 8 << 20);
        }
    }
});

fn record(bytes: &[u8]) {
    let Ok((record, layout)) = Record::decode(bytes) else {
        return;
    };
    assert!(layout.header_bytes as usize <= bytes.len());
    let mut again = Vec::new();
    record.encode(&mut again);
    let (second, same) = Record::decode(&again).expect("what was decoded can be encoded");
    assert_eq!((second, same), (record, layout));
}

/// A block that fits, with the input as what is in it: kind, number and entries.
fn fitting_snapshot(bytes: &[u8]) -> Vec<u8> {
    let mut block = vec![0; PIECE_BYTES];
    let length = bytes.len().min(PIECE_BYTES - 12);
    block[12..12 + length].copy_from_slice(&bytes[..length]);
    let sum = crc32c(&block[4..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
    block
}

fn snapshot(bytes: &[u8]) {
    if let Ok(header) = SnapshotHeader::decode(bytes) {
        assert_eq!(SnapshotHeader::decode(&header.encode()), Ok(header));
    }
    let Ok(entries) = Entries::of(bytes, 0, 0) else {
        return;
    };
    let decoded: Vec<Entry<'_>> = entries.map_while(Result::ok).collect();
    let (mut piece, mut again) = (Piece::default(), Vec::new());
    for entry in &decoded {
        assert!(piece.push(entry), "what came out of a block fits one");
    }
    piece.finish(0, 0, &mut again);
    let entries = Entries::of(&again, 0, 0).expect("what was written can be read");
    assert!(entries.map_while(Result::ok).eq(decoded));
}

/// The input cut into facts: a length and a kind, then that many bytes.
fn fitting_facts(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [length, kind, rest @ ..] = bytes {
        let length = usize::from(*length).min(rest.len());
        let begun = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&[kind % 8, 0]);
        out.extend_from_slice(&rest[..length]);
        let sum = crc32c(&out[begun + 4..]);
        out[begun..begun + 4].copy_from_slice(&sum.to_le_bytes());
        bytes = &rest[length..];
    }
    out
}

fn facts(bytes: &[u8]) {
    let mut facts = Facts::new(bytes);
    let decoded: Vec<Fact<'_>> = facts.by_ref().collect();
    assert!(facts.position() <= bytes.len());
    let mut again = Vec::new();
    decoded.iter().for_each(|fact| fact.encode(&mut again));
    assert!(Facts::new(&again).eq(decoded));
}
