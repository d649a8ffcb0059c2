//! Any bytes as a chunked body, whole, byte by byte and cut anywhere.
//!
//! Held: the same data, trailers, end or error at any split, and what was decoded decodes to the same when it is
//! encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace::http::{
    CRLF, ChunkError, ChunkStep, ChunkedDecoder, LAST_CHUNK, TRAILER_BYTES_MAX, write_chunk_header,
};

#[derive(Debug, Default, PartialEq)]
struct Decoded {
    data: Vec<u8>,
    trailers: Vec<u8>,
    bytes: usize,
    done: bool,
}

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let cut = usize::from(*first) * (bytes.len() + 1) / 256;
    let whole = decode(bytes, [].into_iter());
    assert_eq!(decode(bytes, [cut].into_iter()), whole);
    assert_eq!(decode(bytes, 0..bytes.len()), whole);
    let Ok(decoded) = whole else { return };
    let mut again = Vec::new();
    if !decoded.data.is_empty() {
        write_chunk_header(&mut again, decoded.data.len());
        again.extend_from_slice(&decoded.data);
        again.extend_from_slice(CRLF);
    }
    again.extend_from_slice(&LAST_CHUNK[..3]);
    again.extend_from_slice(&decoded.trailers);
    again.extend_from_slice(CRLF);
    let second = decode(&again, [].into_iter()).expect("what was decoded can be encoded");
    assert_eq!(
        (second.data, second.trailers),
        (decoded.data, decoded.trailers)
    );
    assert!(second.done && second.bytes == again.len());
});

/// Feeds `input` in pieces that end at `cuts`, keeping what the decoder leaves, as a connection does.
fn decode(input: &[u8], cuts: impl Iterator<Item = usize>) -> Result<Decoded, ChunkError> {
    let mut decoder = ChunkedDecoder::new();
    let mut decoded = Decoded::default();
    for end in cuts.chain([input.len()]) {
        loop {
            let pending = &input[decoded.bytes..end];
            let taken = match decoder.step(pending)? {
                ChunkStep::NeedMore => {
                    assert!(pending.len() < TRAILER_BYTES_MAX);
                    break;
                }
                ChunkStep::End { bytes: 0 } => break,
                ChunkStep::End { bytes } | ChunkStep::Skip(bytes) => bytes,
                ChunkStep::Data { bytes } => {
                    decoded.data.extend_from_slice(&pending[..bytes]);
                    bytes
                }
                ChunkStep::Trailer { bytes } => {
                    decoded.trailers.extend_from_slice(&pending[..bytes]);
                    bytes
                }
            };
            assert!(taken > 0 && taken <= pending.len());
            decoded.bytes += taken;
        }
    }
    decoded.done = decoder.is_done();
    Ok(decoded)
}
