//! Unpacking what a kernel image holds, by formats that the kernel's own build
//! uses (scripts/Makefile.lib, `cmd_*_with_size`).
//!
//! Every one of them but gzip has four bytes behind it that say how large the
//! unpacked kernel is, so bytes behind the end of the stream are no fault. Only
//! the first stream is read, as the kernel's own unpackers do.

use std::error::Error;
use std::io::{self, ErrorKind, Read};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::FrameDecoderError;

/// Largest kernel that is unpacked by default, bytes. Distributions' kernels
/// have 50 to 100 MiB, one with KASAN and every driver built in some 300 MiB.
pub const DEFAULT_CAP: usize = 512 << 20;
/// Largest dictionary or window, bytes: what the kernel's build asks xz and
/// zstd -22 for (scripts/xz_wrap.sh, `cmd_zstd22`).
pub(super) const MAX_WINDOW: u32 = 128 << 20;
/// What lzma-rust2 may take, KiB: the dictionary and 1 MiB for its tables.
pub(super) const LZMA_LIMIT_KIB: u32 = (MAX_WINDOW >> 10) + 1024;
/// Unpacked size of every block of a legacy lz4 frame but the last one, bytes
/// (lz4_Frame_format.md, "Legacy frame").
pub(super) const LZ4_BLOCK: usize = 8 << 20;
/// Largest packed size of such a block: LZ4_COMPRESSBOUND.
pub(super) const LZ4_BOUND: usize = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;

/// The magic of a legacy lz4 frame.
pub(super) const LZ4_LEGACY: &[u8] = b"\x02\x21\x4c\x18";

/// How the kernel inside an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The .lzma format of old ("LZMA alone").
    Lzma,
    /// xz, with the BCJ filter for x86.
    Xz,
    /// lzop: known by name only.
    Lzo,
    /// lz4: the legacy frame (`lz4 -l`), which the kernel's build makes, or the
    /// frame of today, which the tool makes by itself.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// The first bytes of each format: the one table of them.
const MAGICS: [(&[u8], Compression); 8] = [
    (b"\x1f\x8b", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"\x5d\0\0", Compression::Lzma),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"\x89LZO", Compression::Lzo),
    (LZ4_LEGACY, Compression::Lz4),
    (b"\x04\x22\x4d\x18", Compression::Lz4),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
];

impl Compression {
    /// The name of the tool.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Why something could not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// No format that is known.
    #[error("{}", unknown(.0))]
    Unknown(Vec<u8>),
    /// A format that is known by its name only.
    #[error("{} not supported", .0.name())]
    Unsupported(Compression),
    /// The stream is damaged.
    #[error("malformed {} data: {what}", .format.name())]
    Malformed {
        /// The format.
        format: Compression,
        /// What is wrong with it.
        what: String,
    },
    /// The stream unpacks to more than was allowed.
    #[error("{} data unpacks to more than {cap} bytes", .format.name())]
    TooLarge {
        /// The format.
        format: Compression,
        /// What was allowed, bytes.
        cap: usize,
    },
    /// The kernel is not as large as the image says.
    #[error("{} data unpacks to {unpacked} bytes, and the image says {stated}", .format.name())]
    Size {
        /// The format.
        format: Compression,
        /// What came out, bytes.
        unpacked: usize,
        /// The last four bytes of the payload.
        stated: u32,
    },
}

fn unknown(start: &[u8]) -> String {
    if start.is_empty() {
        return "there are no bytes to unpack".to_owned();
    }
    let hex: String = start.iter().map(|byte| format!(" {byte:02x}")).collect();
    format!("not packed in a known format: the first bytes are{hex}")
}

/// The format of `bytes`, by its magic.
#[must_use]
pub fn compression(bytes: &[u8]) -> Option<Compression> {
    let found = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic));
    found.map(|(_, compression)| *compression)
}

/// Unpacks `bytes` to at most `cap` bytes. What follows the stream is ignored.
///
/// Besides the result it takes as much memory as the dictionary needs: up to
/// 128 MiB, and never more.
///
/// # Errors
/// When the format is not known or not supported, or the stream is damaged,
/// truncated, larger than `cap`, or wants a larger dictionary.
pub fn decompress(bytes: &[u8], cap: usize) -> Result<Vec<u8>, DecompressError> {
    let mut unpacked = Vec::new();
    unpack(bytes, cap, &mut unpacked)?;
    Ok(unpacked)
}

/// How many bytes [`decompress`] would give. Nothing but the dictionary is kept in memory.
///
/// # Errors
/// As [`decompress`].
pub fn unpacked_size(bytes: &[u8], cap: usize) -> Result<u64, DecompressError> {
    let mut count = Count(0);
    unpack(bytes, cap, &mut count)?;
    Ok(count.0)
}

/// Gives what [`decompress`] would give to `each`, piece by piece. Nothing but the dictionary
/// is kept in memory.
///
/// # Errors
/// As [`decompress`], after the pieces before the fault.
pub(super) fn unpack_to(
    bytes: &[u8],
    cap: usize,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), DecompressError> {
    unpack(bytes, cap, &mut Pieces { size: 0, each })
}

fn unpack(bytes: &[u8], cap: usize, sink: &mut dyn Sink) -> Result<(), DecompressError> {
    let unknown = || DecompressError::Unknown(bytes.iter().take(6).copied().collect());
    let format = compression(bytes).ok_or_else(unknown)?;
    let mut out = Output { format, cap, sink };
    match format {
        Compression::Gzip => out.read(&mut flate2::bufread::GzDecoder::new(bytes)),
        Compression::Bzip2 => out.read(&mut bzip2::bufread::BzDecoder::new(bytes)),
        Compression::Xz => out.read(&mut lzma_rust2::XzReader::new_mem_limit(
            bytes,
            false,
            LZMA_LIMIT_KIB,
        )),
        Compression::Lzma => {
            let reader = lzma_rust2::LzmaReader::new_mem_limit(bytes, LZMA_LIMIT_KIB, None);
            let mut reader = reader.map_err(|error| out.failed(&error))?;
            out.read(&mut reader)
        }
        Compression::Zstd => zstd(bytes, &mut out),
        Compression::Lz4 if bytes.starts_with(LZ4_LEGACY) => lz4_legacy(bytes, &mut out),
        Compression::Lz4 => lz4_frame(bytes, &mut out),
        Compression::Lzo => Err(DecompressError::Unsupported(format)),
    }
}

/// Unpacks the payload of a bzImage, and checks its size against the four bytes
/// at its end (with gzip they are the stream's own), where the kernel's build
/// writes it: a part of a kernel would answer questions wrongly.
///
/// # Errors
/// As [`decompress`]; or the sizes differ.
pub fn decompress_payload(payload: &[u8], cap: usize) -> Result<Vec<u8>, DecompressError> {
    if let Some(unpacked) = zstd_at_once(payload, cap) {
        return Ok(unpacked);
    }
    let unpacked = decompress(payload, cap)?;
    match (compression(payload), payload.last_chunk()) {
        (Some(format), Some(stated)) => {
            let stated = u32::from_le_bytes(*stated);
            if u64::try_from(unpacked.len()) != Ok(u64::from(stated)) {
                let unpacked = unpacked.len();
                return Err(DecompressError::Size {
                    format,
                    unpacked,
                    stated,
                });
            }
            Ok(unpacked)
        }
        _ => Ok(unpacked),
    }
}

/// Unpacks a zstd payload straight into its place, which takes no window besides: a kernel's
/// is as large as the kernel. `None`: it is packed otherwise, larger than `cap`, or damaged
/// in some way that [`decompress`] names.
fn zstd_at_once(payload: &[u8], cap: usize) -> Option<Vec<u8>> {
    if compression(payload) != Some(Compression::Zstd) {
        return None;
    }
    let stated = u32::from_le_bytes(*payload.last_chunk()?);
    let size = usize::try_from(stated).ok().filter(|size| *size <= cap)?;
    let frame = zstd_safe::find_frame_compressed_size(payload).ok()?;
    let mut unpacked = Vec::with_capacity(size);
    let mut context = zstd_safe::DCtx::try_create()?;
    context
        .decompress(&mut unpacked, payload.get(..frame)?)
        .ok()
        .filter(|done| *done == size)?;
    Some(unpacked)
}

/// A consumer of unpacked bytes.
trait Sink {
    /// Takes all that `reader` gives.
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<()>;
    /// Takes `bytes`.
    fn take(&mut self, bytes: &[u8]);
    /// How many it has, or had before an error.
    fn size(&self) -> u64;
}

impl Sink for Vec<u8> {
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        reader.read_to_end(self).map(drop)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// Counts the bytes and discards them.
struct Count(u64);

impl Sink for Count {
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        in_pieces(reader, |piece| self.0 += piece.len() as u64)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }

    fn size(&self) -> u64 {
        self.0
    }
}

/// Passes the bytes on.
struct Pieces<'a> {
    size: u64,
    each: &'a mut dyn FnMut(&[u8]),
}

impl Sink for Pieces<'_> {
    fn take_all(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        in_pieces(reader, |piece| self.take(piece))
    }

    fn take(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        (self.each)(bytes);
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// Gives all that `reader` has to `each`, a piece at a time.
fn in_pieces(reader: &mut dyn Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(size) => each(buffer.get(..size).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where an unpacker writes to: no more than `cap` bytes.
struct Output<'a> {
    format: Compression,
    cap: usize,
    sink: &'a mut dyn Sink,
}

impl Output<'_> {
    fn read(&mut self, reader: &mut dyn Read) -> Result<(), DecompressError> {
        let limit = (self.cap as u64).saturating_add(1);
        let result = self.sink.take_all(&mut reader.take(limit));
        // Report "too large" first, even if the rest of the stream is damaged as well.
        if self.sink.size() > self.cap as u64 {
            return Err(self.too_large());
        }
        result.map_err(|error| self.failed(&error))
    }

    fn too_large(&self) -> DecompressError {
        DecompressError::TooLarge {
            format: self.format,
            cap: self.cap,
        }
    }

    fn malformed(&self, what: impl Into<String>) -> DecompressError {
        DecompressError::Malformed {
            format: self.format,
            what: what.into(),
        }
    }

    /// The deepest cause best describes the fault in the bytes: ruzstd's outer errors
    /// only name the part of the decoder that was reading.
    fn failed(&self, error: &(dyn Error + 'static)) -> DecompressError {
        let mut cause = error;
        loop {
            match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(ErrorKind::UnexpectedEof) => return self.malformed("truncated"),
                Some(ErrorKind::OutOfMemory) => return self.malformed(too_large_a_window()),
                _ => {}
            }
            // io::Error::source passes over the error that it holds.
            let inner = cause
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            cause = match (inner, cause.source()) {
                (Some(inner), _) => inner,
                (None, Some(source)) => source,
                (None, None) => return self.malformed(cause.to_string()),
            };
        }
    }
}

fn too_large_a_window() -> String {
    format!("it wants a dictionary of more than {MAX_WINDOW} bytes")
}

/// zstd: one frame. ruzstd computes the frame's checksum and leaves it to the
/// caller to compare.
fn zstd(bytes: &[u8], out: &mut Output<'_>) -> Result<(), DecompressError> {
    let mut reader = StreamingDecoder::new_with_max_window_size(bytes, u64::from(MAX_WINDOW))
        .map_err(|error| match error {
            FrameDecoderError::WindowSizeTooBig { .. } => out.malformed(too_large_a_window()),
            _ => out.failed(&error),
        })?;
    out.read(&mut reader)?;
    let frame = &reader.decoder;
    if !frame.is_finished() {
        return Err(out.malformed("truncated"));
    }
    match (
        frame.get_checksum_from_data(),
        frame.get_calculated_checksum(),
    ) {
        (Some(stated), Some(computed)) if stated != computed => Err(out.malformed(format!(
            "checksum {computed:#010x} instead of {stated:#010x}"
        ))),
        _ => Ok(()),
    }
}

/// lz4's frame of today. Its decoder takes the end of the bytes for the end of
/// the frame, wherever that is.
fn lz4_frame(bytes: &[u8], out: &mut Output<'_>) -> Result<(), DecompressError> {
    let frame = lz4_frame_size(bytes).and_then(|size| bytes.get(..size));
    let frame = frame.ok_or_else(|| out.malformed("truncated"))?;
    out.read(&mut lz4_flex::frame::FrameDecoder::new(frame))
}

/// Bytes of the frame that `bytes` begin with; `None` when it is not all there
/// (lz4_Frame_format.md, "General Structure of LZ4 Frame format").
fn lz4_frame_size(bytes: &[u8]) -> Option<usize> {
    const DICTIONARY_ID: u8 = 1 << 0;
    const CONTENT_CHECKSUM: u8 = 1 << 2;
    const CONTENT_SIZE: u8 = 1 << 3;
    const BLOCK_CHECKSUM: u8 = 1 << 4;
    /// The block is not packed.
    const PLAIN: u32 = 1 << 31;
    let flags = *bytes.get(4)?;
    let field = |flag, size| if flags & flag != 0 { size } else { 0 };
    // Magic, flags, block size, checksum of the header.
    let mut at = 4 + 2 + field(CONTENT_SIZE, 8) + field(DICTIONARY_ID, 4) + 1;
    loop {
        let size = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
        at += 4;
        if size == 0 {
            return Some(at + field(CONTENT_CHECKSUM, 4));
        }
        at = at.checked_add(usize::try_from(size & !PLAIN).ok()?)? + field(BLOCK_CHECKSUM, 4);
    }
}

/// lz4's legacy frame: the magic, then blocks of 8 MiB, each after its packed
/// size. It has no end mark: it ends with the first block that is shorter, or
/// where no further block can begin.
fn lz4_legacy(bytes: &[u8], out: &mut Output<'_>) -> Result<(), DecompressError> {
    let mut rest = bytes.get(4..).unwrap_or_default();
    // For a whole block, whatever the file says.
    let mut block = vec![0; LZ4_BLOCK];
    while let Some((size, behind)) = rest.split_first_chunk::<4>() {
        let stated = u32::from_le_bytes(*size);
        let size = usize::try_from(stated).unwrap_or(usize::MAX);
        let unpacked = out.sink.size();
        let is_kernel_size = behind.is_empty() && u64::from(stated) == unpacked;
        if unpacked > 0 && (is_kernel_size || size > LZ4_BOUND) {
            return Ok(());
        }
        let Some((packed, behind)) = behind.split_at_checked(size) else {
            return Err(out.malformed(format!(
                "truncated: a block of {size} bytes, and {} are left",
                behind.len()
            )));
        };
        let length = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| out.malformed(error.to_string()))?;
        let Some(plain) = block.get(..length) else {
            return Err(out.malformed("a block of more than 8 MiB"));
        };
        if plain.len() as u64 > (out.cap as u64).saturating_sub(unpacked) {
            return Err(out.too_large());
        }
        out.sink.take(plain);
        if length < LZ4_BLOCK {
            return Ok(());
        }
        rest = behind;
    }
    if out.sink.size() == 0 || !rest.is_empty() {
        return Err(out.malformed("truncated"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "decompress_tests.rs"]
mod tests;
