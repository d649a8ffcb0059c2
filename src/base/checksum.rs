//! CRC-32C (Castagnoli), the one checksum of everything on disk.
//!
//! Called by `disk`. Finds accidents, not forgers: what a record is of is said by digests beside it.

use crc_fast::CrcAlgorithm;

/// CRC-32C of `bytes`, as iSCSI and ext4 compute it.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_castagnoli_polynomial() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
        // RFC 3720, B.4: 32 bytes of zeros, 32 bytes of ones.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    }
}
