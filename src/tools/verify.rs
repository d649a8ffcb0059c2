//! Reads every record that a journal names, and checks every byte of it.
//!
//! Called by `millrace cache verify`. Damage costs a server nothing but a miss; this says how much of it there is.

use std::fmt::Write as _;
use std::path::Path;

use crate::base::checksum::crc32c;
use crate::disk::format::BLOCK_BYTES;
use crate::disk::format::fact::Place;
use crate::disk::format::record::{Kind, Record, frame_bytes};
use crate::disk::keeper::DirectoryError;

use super::Answer;
use super::bars::Bars;
use super::picture::{Picture, StoredExtent, StoredHead, read};

/// What is wrong with a record.
fn check_extent(extent: &StoredExtent) -> Result<(), String> {
    let place = &extent.place;
    let memory = read(&extent.segment, place.block, place.record_blocks)
        .map_err(|error| error.to_string())?;
    let (record, layout) = Record::decode(&memory).map_err(|error| error.to_string())?;
    let id = extent.id;
    let same = record.kind == Kind::Extent
        && (record.object, record.version, record.stripe) == (id.object, id.version, id.index)
        && record.window == extent.window;
    if !same {
        return Err("it is of something else".to_owned());
    }
    let mut at = layout.data_offset as usize;
    for (index, frame) in record.frames.iter().enumerate() {
        let end = at + frame.stored_bytes as usize;
        let stored = memory.get(at..end).ok_or("it is cut short")?;
        at = end;
        if crc32c(stored) != frame.sum {
            return Err(format!("the checksum of frame {index} does not fit"));
        }
        let whole = frame_bytes(record.window.len() as u32, index as u32) as usize;
        let unpacked = match frame.lz4 {
            true => lz4_flex::block::decompress(stored, whole).map_or(0, |plain| plain.len()),
            false => stored.len(),
        };
        if unpacked != whole {
            return Err(format!("frame {index} has {unpacked} bytes, not {whole}"));
        }
    }
    Ok(())
}

fn check_head(object: u128, head: &StoredHead) -> Result<(), String> {
    let place = &head.place;
    let memory =
        read(&head.segment, place.block, place.record_blocks).map_err(|error| error.to_string())?;
    let (record, _) = Record::decode(&memory).map_err(|error| error.to_string())?;
    let same =
        record.kind == Kind::Head && (record.object, record.version) == (object, head.version);
    if same {
        Ok(())
    } else {
        Err("it is of something else".to_owned())
    }
}

/// Checks everything.
pub(super) fn run(dir: &Path) -> Result<Answer, DirectoryError> {
    let bars = Bars::new();
    let picture = Picture::read(dir, &bars)?;
    let extents = picture.extents.iter();
    let extent_bytes: u64 = extents.map(StoredExtent::record_bytes).sum();
    let heads = picture.heads.values();
    let head_bytes: u64 = heads.map(StoredHead::record_bytes).sum();
    let bar = bars.of_bytes("checking", head_bytes + extent_bytes);
    let (mut text, mut damaged, mut bytes) = (String::new(), 0u64, 0u64);
    let mut note = |what: &str, path: &Path, place: &Place, result: Result<(), String>| {
        let block = place.block;
        bar.inc(u64::from(place.record_blocks) * BLOCK_BYTES);
        if let Err(why) = result {
            damaged += 1;
            let _ = writeln!(text, "{} block {block}: {what}: {why}", path.display());
        }
    };
    for (object, head) in &picture.heads {
        note(
            "a head",
            &head.segment.path,
            &head.place,
            check_head(*object, head),
        );
    }
    for extent in &picture.extents {
        bytes += extent.bytes();
        note(
            "an extent",
            &extent.segment.path,
            &extent.place,
            check_extent(extent),
        );
    }
    bar.finish_and_clear();
    let tally = picture.tally;
    let _ = writeln!(
        text,
        "{} heads and {} extents of {bytes} bytes: {damaged} damaged; {} journals with {} facts, {} torn",
        picture.heads.len(),
        picture.extents.len(),
        tally.journals,
        tally.facts,
        tally.torn
    );
    Ok(Answer {
        text,
        good: damaged == 0,
    })
}
