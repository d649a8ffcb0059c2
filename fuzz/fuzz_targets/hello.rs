//! Any bytes as a TLS hello. The first byte says in what pieces they come.
//!
//! Held: the pieces make no difference, and a name that is found is one that a host can have.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace::tls::hello::{Hello, NoHello};

fn read(bytes: &[u8], piece: usize) -> Result<Option<Box<str>>, NoHello> {
    let mut hello = Hello::default();
    for piece in bytes.chunks(piece) {
        if let Some(name) = hello.read(piece)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fuzz_target!(|input: &[u8]| {
    let [first, bytes @ ..] = input else {
        return;
    };
    let whole = read(bytes, usize::MAX);
    let pieces = read(bytes, usize::from(*first) + 1);
    assert_eq!(whole, pieces);
    if let Ok(Some(name)) = whole {
        assert!(!name.is_empty() && name.len() <= 255);
        let of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        assert!(name.bytes().all(of_a_host) && name.parse::<std::net::IpAddr>().is_err());
    }
});
