//! Chunked transfer coding (RFC 9112, section 7.1), incremental and without a copy of the data.
//!
//! Called by everybody who reads a chunked body: request bodies from clients, responses from the
//! origin. The decoder sees the caller's bytes and says what the next ones are; it keeps no bytes
//! itself, so any split of the input gives the same data. Exact CRLFs, plain hexadecimal sizes, and
//! no more: what lenient readers take for the end of a chunk is how requests get smuggled.

use memchr::memchr;

use super::line::{LineFault, field_fault, is_text};

/// The longest chunk-size line, extensions included, line end excluded.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// The longest trailer section, all its lines together, without the last empty one.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// A line end: it follows each chunk's data.
pub const CRLF: &[u8] = b"\r\n";

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Framing fields make no sense behind a body, and a reader that merged them would reframe the
/// message (RFC 9110, section 6.5.1).
const FORBIDDEN_TRAILERS: [&str; 3] = ["content-length", "host", "transfer-encoding"];

/// Why a chunked body was refused. Nothing behind it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No hexadecimal digit where a chunk size begins.
    #[error("the chunk size is missing")]
    NoSize,
    /// A byte in the size line that does not belong there.
    #[error("byte {byte:#04x} in the chunk-size line")]
    InvalidSizeLine {
        /// That byte.
        byte: u8,
    },
    /// The size does not fit in 64 bits.
    #[error("the chunk size overflows")]
    SizeOverflow,
    /// The size line is longer than [`CHUNK_LINE_BYTES_MAX`].
    #[error("the chunk-size line exceeds {CHUNK_LINE_BYTES_MAX} bytes")]
    SizeLineTooLong,
    /// No LF behind a CR of the framing.
    #[error("byte {byte:#04x} where LF belongs")]
    NoLf {
        /// The byte in its place.
        byte: u8,
    },
    /// The data does not end in CRLF.
    #[error("byte {byte:#04x} where the chunk's data should end")]
    DataNotEnded {
        /// The byte in place of CR.
        byte: u8,
    },
    /// The trailer section is longer than [`TRAILER_BYTES_MAX`].
    #[error("the trailer section exceeds {TRAILER_BYTES_MAX} bytes")]
    TrailerTooLarge,
    /// A malformed trailer line.
    #[error("a trailer line has {fault}")]
    InvalidTrailer {
        /// What is wrong with it.
        fault: LineFault,
    },
    /// A trailer that would reframe the message.
    #[error("a trailer with a framing field")]
    ForbiddenTrailer,
}

/// What the next bytes of the input are. The caller takes that many bytes off before the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkStep {
    /// Nothing can be said yet: call again with the same bytes and more behind them. Never asked
    /// for with more than [`TRAILER_BYTES_MAX`] bytes at hand.
    NeedMore,
    /// Framing, of no interest.
    Skip(usize),
    /// Data of the body; they count as read, wherever the caller puts them.
    Data {
        /// How many.
        bytes: usize,
    },
    /// One whole trailer line, valid, with its CRLF.
    Trailer {
        /// Its length.
        bytes: usize,
    },
    /// The end of the body. What follows belongs to the next message.
    End {
        /// Framing bytes up to the end; 0 when asked again.
        bytes: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first digit of a size.
    SizeStart,
    /// Behind at least one digit.
    Size,
    /// In whitespace behind the size, which only an extension may follow.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    Done,
    Failed(ChunkError),
}

/// Reads one chunked body; make a new one for the next.
#[derive(Debug, Clone)]
pub struct ChunkedDecoder {
    state: State,
    /// The size being read, then the bytes of data still to come.
    left: u64,
    line_bytes: usize,
    trailer_bytes: usize,
    /// Bytes of an incomplete trailer line that are known to hold no LF.
    scanned: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// At the start of a body.
    pub const fn new() -> Self {
        Self {
            state: State::SizeStart,
            left: 0,
            line_bytes: 0,
            trailer_bytes: 0,
            scanned: 0,
        }
    }

    /// Whether the end of the body has been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the current chunk's data still to come: as much may be read at once into a place
    /// for data, and handed to [`step`](Self::step) from there. 0 outside of data.
    pub fn data_left(&self) -> u64 {
        if self.state == State::Data {
            self.left
        } else {
            0
        }
    }

    /// Says what the first bytes of `input` are, which begins where the last step ended.
    ///
    /// # Errors
    /// [`ChunkError`], from then on at every call.
    pub fn step(&mut self, input: &[u8]) -> Result<ChunkStep, ChunkError> {
        let step = match self.state {
            State::Failed(error) => Err(error),
            State::Done => Ok(ChunkStep::End { bytes: 0 }),
            _ if input.is_empty() => Ok(ChunkStep::NeedMore),
            State::Data => Ok(self.data(input)),
            State::Trailer => self.trailer(input),
            _ => self.framing(input),
        };
        if let Err(error) = step {
            self.state = State::Failed(error);
        }
        step
    }

    fn data(&mut self, input: &[u8]) -> ChunkStep {
        let bytes = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
        self.left -= bytes as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        ChunkStep::Data { bytes }
    }

    fn framing(&mut self, input: &[u8]) -> Result<ChunkStep, ChunkError> {
        for (at, byte) in input.iter().enumerate() {
            self.state = self.framing_byte(*byte)?;
            if matches!(self.state, State::Data | State::Trailer) {
                return Ok(ChunkStep::Skip(at + 1));
            }
        }
        Ok(ChunkStep::Skip(input.len()))
    }

    fn framing_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataCr, _) => Err(ChunkError::DataNotEnded { byte }),
            (State::DataLf, b'\n') => {
                (self.left, self.line_bytes) = (0, 0);
                Ok(State::SizeStart)
            }
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::Trailer),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataLf | State::SizeLf, _) => Err(ChunkError::NoLf { byte }),
            _ => self.size_line_byte(byte),
        }
    }

    fn size_line_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        if byte == b'\r' && self.state != State::SizeStart && self.state != State::SizeSpace {
            return Ok(State::SizeLf);
        }
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(ChunkError::SizeLineTooLong);
        }
        if self.state == State::Extension {
            return is_text(byte)
                .then_some(State::Extension)
                .ok_or(ChunkError::InvalidSizeLine { byte });
        }
        let digit = char::from(byte).to_digit(16);
        match (self.state, digit, byte) {
            (State::SizeStart | State::Size, Some(digit), _) => {
                self.left = self
                    .left
                    .checked_mul(16)
                    .map(|size| size + u64::from(digit))
                    .ok_or(ChunkError::SizeOverflow)?;
                Ok(State::Size)
            }
            (State::SizeStart, None, _) => Err(ChunkError::NoSize),
            (_, _, b';') => Ok(State::Extension),
            (_, _, b' ' | b'\t') => Ok(State::SizeSpace),
            _ => Err(ChunkError::InvalidSizeLine { byte }),
        }
    }

    fn trailer(&mut self, input: &[u8]) -> Result<ChunkStep, ChunkError> {
        match input {
            [b'\r'] => return Ok(ChunkStep::NeedMore),
            [b'\r', b'\n', ..] => {
                self.state = State::Done;
                return Ok(ChunkStep::End { bytes: 2 });
            }
            [b'\r', byte, ..] => return Err(ChunkError::NoLf { byte: *byte }),
            _ => {}
        }
        let room = TRAILER_BYTES_MAX - self.trailer_bytes;
        let seen = &input[..input.len().min(room)];
        let scanned = self.scanned.min(seen.len());
        let Some(lf) = memchr(b'\n', &seen[scanned..]).map(|at| scanned + at) else {
            self.scanned = seen.len();
            let full = seen.len() == room;
            return if full {
                Err(ChunkError::TrailerTooLarge)
            } else {
                Ok(ChunkStep::NeedMore)
            };
        };
        check_trailer(&seen[..lf]).inspect_err(|_| self.scanned = 0)?;
        self.scanned = 0;
        self.trailer_bytes += lf + 1;
        Ok(ChunkStep::Trailer { bytes: lf + 1 })
    }
}

/// `line` is without its LF.
fn check_trailer(line: &[u8]) -> Result<(), ChunkError> {
    let content = line.strip_suffix(b"\r").ok_or(ChunkError::InvalidTrailer {
        fault: LineFault::BareLf,
    })?;
    if let Some(fault) = field_fault(content, true) {
        return Err(ChunkError::InvalidTrailer { fault });
    }
    let name = content
        .split(|byte| *byte == b':')
        .next()
        .unwrap_or_default();
    match FORBIDDEN_TRAILERS
        .iter()
        .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
    {
        true => Err(ChunkError::ForbiddenTrailer),
        false => Ok(()),
    }
}

/// Appends the size line of a chunk with `bytes` bytes of data; the data and [`CRLF`] follow.
///
/// # Panics
/// If `bytes` is 0: that would end the body, which [`LAST_CHUNK`] does.
pub fn write_chunk_header(out: &mut Vec<u8>, bytes: usize) {
    assert!(bytes > 0, "an empty chunk ends the body");
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(bytes >> (4 * digit)) & 15]);
    }
    out.extend_from_slice(CRLF);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a body decodes to: data, trailer lines, and the bytes behind its end.
    #[derive(Debug, Default, PartialEq)]
    struct Decoded {
        data: Vec<u8>,
        trailers: Vec<Vec<u8>>,
        bytes: usize,
        done: bool,
    }

    /// Feeds `input` in pieces that end at `cuts`, keeping what a `NeedMore` leaves, as a
    /// connection does.
    fn decode(input: &[u8], cuts: &[usize]) -> Result<Decoded, ChunkError> {
        let mut decoder = ChunkedDecoder::new();
        let mut decoded = Decoded::default();
        for end in cuts.iter().copied().chain([input.len()]) {
            loop {
                let pending = &input[decoded.bytes..end];
                let taken = match decoder.step(pending)? {
                    ChunkStep::NeedMore => break,
                    ChunkStep::Skip(bytes) => bytes,
                    ChunkStep::Data { bytes } => {
                        decoded.data.extend_from_slice(&pending[..bytes]);
                        bytes
                    }
                    ChunkStep::Trailer { bytes } => {
                        decoded.trailers.push(pending[..bytes].to_vec());
                        bytes
                    }
                    ChunkStep::End { bytes: 0 } => break,
                    ChunkStep::End { bytes } => bytes,
                };
                assert!(taken > 0 && taken <= pending.len());
                decoded.bytes += taken;
            }
        }
        decoded.done = decoder.is_done();
        Ok(decoded)
    }

    #[test]
    fn a_body_with_extensions_and_trailers_is_read() {
        let body = b"5;sig=\"a b\"\r\nhello\r\n1 ;x\r\n \r\n00A\r\n0123456789\r\n0;last\r\n\
            x-a: 1\r\nx-b:\r\n\r\nGET";
        let decoded = decode(body, &[]).unwrap();
        assert_eq!(decoded.data, b"hello 0123456789");
        assert_eq!(decoded.trailers, [&b"x-a: 1\r\n"[..], b"x-b:\r\n"]);
        assert_eq!(&body[decoded.bytes..], b"GET");
        assert!(decoded.done);
    }

    #[test]
    fn the_last_chunk_alone_is_an_empty_body() {
        let decoded = decode(LAST_CHUNK, &[]).unwrap();
        assert_eq!(
            decoded,
            Decoded {
                bytes: 5,
                done: true,
                ..Decoded::default()
            }
        );
    }

    #[test]
    fn malformed_bodies_are_refused_at_any_split() {
        use ChunkError::*;
        let table: [(&[u8], ChunkError); 29] = [
            (b"\r\n\r\n", NoSize),
            (b"\n", NoSize),
            (b" 5\r\n", NoSize),
            (b";x\r\n", NoSize),
            (b"-1\r\n", NoSize),
            (b"+5\r\n", NoSize),
            (b"0x5\r\n", InvalidSizeLine { byte: b'x' }),
            (b"5_0\r\n", InvalidSizeLine { byte: b'_' }),
            (b"5\n", InvalidSizeLine { byte: b'\n' }),
            (b"5 \r\n", InvalidSizeLine { byte: b'\r' }),
            (b"5 5\r\n", InvalidSizeLine { byte: b'5' }),
            (b"5;x\n", InvalidSizeLine { byte: b'\n' }),
            (b"5;x\x00\r\n", InvalidSizeLine { byte: 0 }),
            (b"5;x\rhello", NoLf { byte: b'h' }),
            (b"5\r\r\n", NoLf { byte: b'\r' }),
            (b"10000000000000000\r\n", SizeOverflow),
            (b"fffffffffffffffff\r\n", SizeOverflow),
            (b"2\r\nabc\r\n", DataNotEnded { byte: b'c' }),
            (b"2\r\nab\n", DataNotEnded { byte: b'\n' }),
            (b"2\r\nab\rx", NoLf { byte: b'x' }),
            (b"2\r\nab\r\n\r\n", NoSize),
            (b"0\r\n\rX", NoLf { byte: b'X' }),
            (
                b"0\r\n\n",
                InvalidTrailer {
                    fault: LineFault::BareLf,
                },
            ),
            (
                b"0\r\na: 1\n\r\n",
                InvalidTrailer {
                    fault: LineFault::BareLf,
                },
            ),
            (
                b"0\r\na : 1\r\n\r\n",
                InvalidTrailer {
                    fault: LineFault::SpaceBeforeColon,
                },
            ),
            (
                b"0\r\na: 1\r\n b\r\n\r\n",
                InvalidTrailer {
                    fault: LineFault::Folded,
                },
            ),
            (
                b"0\r\na: \x01\r\n\r\n",
                InvalidTrailer {
                    fault: LineFault::Value,
                },
            ),
            (
                b"0\r\nGET / HTTP/1.1\r\n\r\n",
                InvalidTrailer {
                    fault: LineFault::SpaceBeforeColon,
                },
            ),
            (b"0\r\nContent-LENGTH: 3\r\n\r\n", ForbiddenTrailer),
        ];
        for (body, error) in table {
            let every: Vec<_> = (0..body.len()).collect();
            assert_eq!(decode(body, &[]), Err(error), "{body:?}");
            assert_eq!(decode(body, &every), Err(error), "{body:?} byte by byte");
        }
    }

    #[test]
    fn size_lines_and_trailers_have_limits() {
        let line = |bytes: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes - 2));
        assert!(
            decode(line(CHUNK_LINE_BYTES_MAX).as_bytes(), &[])
                .unwrap()
                .done
        );
        let long = line(CHUNK_LINE_BYTES_MAX + 1);
        assert_eq!(
            decode(long.as_bytes(), &[]),
            Err(ChunkError::SizeLineTooLong)
        );
        let zeros = format!("{}5\r\n", "0".repeat(CHUNK_LINE_BYTES_MAX));
        assert_eq!(
            decode(zeros.as_bytes(), &[]),
            Err(ChunkError::SizeLineTooLong)
        );

        let section = |bytes: usize| format!("0\r\na: {}\r\nb: 2\r\n\r\n", "x".repeat(bytes - 11));
        let decoded = decode(section(TRAILER_BYTES_MAX).as_bytes(), &[]).unwrap();
        assert!(decoded.done && decoded.trailers.len() == 2);
        let large = section(TRAILER_BYTES_MAX + 1);
        assert_eq!(
            decode(large.as_bytes(), &[]),
            Err(ChunkError::TrailerTooLarge)
        );
        let endless = [b"0\r\n", &b"x".repeat(TRAILER_BYTES_MAX)[..]].concat();
        assert_eq!(decode(&endless, &[]), Err(ChunkError::TrailerTooLarge));
    }

    /// Reference 2E.93.
    #[test]
    fn a_chunk_of_64_bits_is_counted_not_buffered() {
        let mut decoder = ChunkedDecoder::new();
        assert_eq!(
            decoder.step(b"ffffffffffffffff\r\nab"),
            Ok(ChunkStep::Skip(18))
        );
        assert_eq!(decoder.data_left(), u64::MAX);
        assert_eq!(decoder.step(b"ab"), Ok(ChunkStep::Data { bytes: 2 }));
        assert_eq!(decoder.data_left(), u64::MAX - 2);
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = ChunkedDecoder::new();
        assert_eq!(decoder.step(b"x"), Err(ChunkError::NoSize));
        assert_eq!(decoder.step(LAST_CHUNK), Err(ChunkError::NoSize));
        assert!(!decoder.is_done());
    }

    #[test]
    fn nothing_is_read_behind_the_end() {
        let mut decoder = ChunkedDecoder::new();
        assert_eq!(decoder.step(b"0\r\n\r\nx"), Ok(ChunkStep::Skip(3)));
        assert_eq!(decoder.step(b"\r\nx"), Ok(ChunkStep::End { bytes: 2 }));
        assert_eq!(decoder.step(b"x"), Ok(ChunkStep::End { bytes: 0 }));
        assert_eq!(decoder.step(b""), Ok(ChunkStep::End { bytes: 0 }));
    }

    #[test]
    fn chunk_headers_are_plain_hexadecimal() {
        for bytes in [1, 9, 10, 15, 16, 255, 256, 65536, 8 << 20, usize::MAX] {
            let mut out = Vec::new();
            write_chunk_header(&mut out, bytes);
            assert_eq!(out, format!("{bytes:x}\r\n").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_data(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            extension in "(;[a-z]{1,5}(=\"[ -!#-~]{0,8}\")?)?",
            trailers in prop::collection::vec("x-[a-z]{1,8}: [ -~]{0,12}", 0..4),
            behind in prop::collection::vec(any::<u8>(), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                write_chunk_header(&mut body, chunk.len());
                body.splice(body.len() - 2..body.len() - 2, extension.bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(CRLF);
            }
            body.extend_from_slice(b"0\r\n");
            for trailer in &trailers {
                body.extend_from_slice(trailer.as_bytes());
                body.extend_from_slice(CRLF);
            }
            body.extend_from_slice(CRLF);
            let end = body.len();
            body.extend_from_slice(&behind);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            cuts.sort_unstable();
            let whole = decode(&body, &[]).unwrap();
            prop_assert_eq!(&whole.data, &chunks.concat());
            prop_assert_eq!(whole.trailers.len(), trailers.len());
            prop_assert_eq!(whole.bytes, end);
            prop_assert!(whole.done);
            prop_assert_eq!(decode(&body, &cuts).unwrap(), whole);
        }

        #[test]
        fn any_bytes_give_the_same_answer_at_any_split(
            body in "[0-9a-f;x: \t\r\n]{0,60}|(([1-4]\r\n[a-z\r\n]{1,4}\r\n){0,4}0\r\n(a:b\r\n|\r\n|\n){0,3})",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(decode(body.as_bytes(), &cuts), decode(body.as_bytes(), &[]));
        }
    }
}
