//! Sessions of live update: luo-v5 with memfd-v2 (include/linux/kho/abi/{luo,block,memfd}.h
//! and `struct kho_vmalloc` of kexec_handover.h).
//!
//! The kernel gives every page here back by itself. So each structure has a page of its
//! own, and is kept as a single page. So are the pages of files: a kernel without
//! CONFIG_TRANSPARENT_HUGEPAGE crashes on larger ones in a memfd.

use super::{Content, EncodeError, FILES, File, Memory, SESSIONS, Session};
use crate::base::{PAGE_BYTES, PAGE_SIZE};

/// Bytes of `struct luo_ser`.
pub(super) const SIZE: u64 = 32;
/// `liveupdate_num`: how often state was handed over.
const FIRST: u64 = 1;
/// Bytes of a session's name with its NULs (`LIVEUPDATE_SESSION_NAME_LENGTH`).
const SESSION_NAME: usize = 64;
/// Bytes of the name of a file's format (`LIVEUPDATE_HNDL_COMPAT_LENGTH`).
const FILE_NAME: usize = 48;
/// Bytes of `struct luo_session_ser`.
const SESSION_SIZE: usize = SESSION_NAME + 16;
/// Bytes of `struct luo_file_ser`.
const FILE_SIZE: usize = FILE_NAME + 16;
/// Bytes before the entries of a block (`struct kho_block_header_ser`).
const BLOCK_HEADER: usize = 16;
/// Most blocks in a chain (`KHO_MAX_BLOCKS` of kernel/liveupdate/kho_block.c).
const MAX_BLOCKS: usize = 10_000;
/// A page of a memfd is dirty and up to date (`MEMFD_LUO_FOLIO_DIRTY`, `…_UPTODATE`). The
/// flags are above the number of the page.
const FOLIO_FLAGS: u64 = 3 << 52;
/// Bytes of `struct memfd_luo_folio_ser`.
const FOLIO: u64 = 16;
/// Addresses in a page of the list of pages (`struct kho_vmalloc_chunk`).
const PER_CHUNK: usize = 511;
/// `KHO_VMALLOC_ALLOC`: the pages were allocated by vmalloc.
const VMALLOC: u16 = 1;
/// Writes `sessions`, and takes pages for their files. Gives the address of the blob.
pub(super) fn write(
    sessions: &[Session],
    memory: &mut Memory<impl Iterator<Item = u64>>,
    contents: &mut Vec<Content>,
) -> Result<u64, EncodeError> {
    let mut entries = Vec::new();
    for (session_at, session) in sessions.iter().enumerate() {
        let mut files = Vec::new();
        for (file_at, file) in session.files.iter().enumerate() {
            let first = contents.len();
            let count = file.size.div_ceil(PAGE_SIZE);
            for page in 0..count {
                contents.push(Content {
                    page: memory.take_kept()?,
                    session: session_at,
                    file: file_at,
                    offset: page * PAGE_SIZE,
                });
            }
            let pages = contents.get(first..).unwrap_or_default();
            let data = memfd(*file, pages, memory)?;
            files.push(entry(FILES, FILE_NAME, [data, file.token]));
        }
        let (count, first) = (files.len() as u64, blocks(&files, FILE_SIZE, memory)?);
        let name = session.name.as_str();
        entries.push(entry(name, SESSION_NAME, [first, count]));
    }
    let first = blocks(&entries, SESSION_SIZE, memory)?;
    let page = memory.take_kept()?;
    // No data that belongs to files of several sessions.
    let no_flbs = 0;
    memory.put(page, {
        let mut bytes = SESSIONS.as_bytes().to_vec();
        bytes.resize(8, 0);
        bytes.extend(
            [FIRST, first, no_flbs]
                .into_iter()
                .flat_map(u64::to_le_bytes),
        );
        bytes
    });
    Ok(page)
}

/// A name in `size` bytes, and two numbers.
fn entry(name: &str, size: usize, numbers: [u64; 2]) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(size, 0);
    bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
    bytes
}

/// Writes `entries` of `size` bytes each as a chain of blocks. Gives the address of the
/// first, 0 for none.
fn blocks(
    entries: &[Vec<u8>],
    size: usize,
    memory: &mut Memory<impl Iterator<Item = u64>>,
) -> Result<u64, EncodeError> {
    let per_block = (PAGE_BYTES - BLOCK_HEADER) / size;
    let blocks = entries.chunks(per_block);
    if blocks.len() > MAX_BLOCKS {
        return Err(EncodeError::TooMany {
            what: "sessions, or files of one session,",
            count: entries.len() as u64,
            limit: (MAX_BLOCKS * per_block) as u64,
        });
    }
    let mut next = 0_u64;
    for block in blocks.rev() {
        let page = memory.take_kept()?;
        let header = [next, block.len() as u64].map(u64::to_le_bytes);
        memory.put(page, [header.as_flattened(), &block.concat()].concat());
        next = page;
    }
    Ok(next)
}

/// Writes what describes a memfd with these `pages`. Gives its address.
fn memfd(
    file: File,
    pages: &[Content],
    memory: &mut Memory<impl Iterator<Item = u64>>,
) -> Result<u64, EncodeError> {
    let records: Vec<u8> = pages
        .iter()
        .flat_map(|content| {
            let folio = (content.page / PAGE_SIZE) | FOLIO_FLAGS;
            [folio, content.offset / PAGE_SIZE]
        })
        .flat_map(u64::to_le_bytes)
        .collect();
    let mut listed = Vec::new();
    for part in records.chunks(PAGE_BYTES) {
        let page = memory.take_kept()?;
        memory.put(page, part.to_vec());
        listed.push(page);
    }
    let total = u32::try_from(listed.len()).map_err(|_| EncodeError::TooMany {
        what: "pages of one file",
        count: pages.len() as u64,
        limit: u64::from(u32::MAX) * (PAGE_SIZE / FOLIO),
    })?;
    let mut first = 0_u64;
    for part in listed.chunks(PER_CHUNK).rev() {
        let chunk = memory.take_kept()?;
        let numbers = [first].into_iter().chain(part.iter().copied());
        memory.put(chunk, numbers.flat_map(u64::to_le_bytes).collect());
        first = chunk;
    }
    let page = memory.take_kept()?;
    // Position, size, seals with flags (none), and the records with where they are.
    let (position, seals) = (0, 0);
    let count = pages.len() as u64;
    let numbers = [position, file.size, seals, count, first];
    let mut bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
    let order = 0_u16;
    bytes.extend(total.to_le_bytes());
    bytes.extend([VMALLOC, order].into_iter().flat_map(u16::to_le_bytes));
    memory.put(page, bytes);
    Ok(page)
}
