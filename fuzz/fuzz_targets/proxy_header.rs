//! Any bytes as a PROXY header.
//!
//! Held: a verdict within bounds; a header that is whole is whole whatever follows it, and incomplete wherever it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace::listener::proxy_header::{Header, V1_BYTES_MAX, V2_REST_BYTES_MAX, parse};

fuzz_target!(|input: &[u8]| {
    match parse(input) {
        Header::Whole { bytes, client } => {
            assert!(bytes <= input.len() && bytes <= 16 + V2_REST_BYTES_MAX);
            assert_eq!(parse(&input[..bytes]), Header::Whole { bytes, client });
            for cut in [0, 1, bytes / 2, bytes - 1] {
                assert_eq!(parse(&input[..cut]), Header::Incomplete);
            }
        }
        Header::Incomplete => {
            assert!(input.len() < (16 + V2_REST_BYTES_MAX).max(V1_BYTES_MAX));
        }
        Header::Malformed => {}
    }
});
