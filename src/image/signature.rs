//! Whether a kernel file is signed: PE files carry signatures (PKCS#7) in their
//! certificate table, as crypto/asymmetric_keys/verify_pefile.c looks for them.

use goblin::pe::header::Header;

use super::pe::{Pe, has_magic};

/// Whether `file` carries a signature, valid or not; `None` when it is a PE
/// file whose header makes no sense.
#[must_use]
pub fn is_signed(file: &[u8]) -> Option<bool> {
    if !has_magic(file) {
        return Some(false);
    }
    certificates(file).map(|table| table.is_some())
}

/// Where a PE file ends by its headers: behind its last section or signature, cut to
/// the file's size. `None`: not a PE file, or a damaged one.
pub(super) fn end(file: &[u8]) -> Option<usize> {
    let sections = Pe::parse(file).ok()??.sections.into_iter();
    let table = certificates(file)?.map(|(start, size)| u64::from(start) + u64::from(size));
    let end = sections.map(|section| section.end).chain(table).max()?;
    usize::try_from(end).ok().map(|end| end.min(file.len()))
}

/// Offset and size of a PE file's certificate table, if it has one; `None` when its
/// header makes no sense.
fn certificates(file: &[u8]) -> Option<Option<(u32, u32)>> {
    let header = Header::parse(file).ok()?.optional_header?;
    let table = header.data_directories.get_certificate_table();
    let table = table.filter(|table| table.size != 0);
    // Only this table's address is an offset in the file.
    Some(table.map(|table| (table.virtual_address, table.size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The headers of a PE32+ file without sections, whose certificate table has
    /// `size` bytes.
    fn pe(size: u32) -> Vec<u8> {
        let mut file = vec![0; 0x200];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x40_u32.to_le_bytes());
        put(0x40, b"PE\0\0");
        put(0x44, &0x8664_u16.to_le_bytes());
        // Size of the optional header: 112 bytes and 6 data directories.
        put(0x54, &160_u16.to_le_bytes());
        put(0x58, &0x20b_u16.to_le_bytes());
        put(0x58 + 108, &6_u32.to_le_bytes());
        let table = 0x58 + 112 + 4 * 8;
        put(
            table,
            &(if size == 0 { 0 } else { 0x200_u32 }).to_le_bytes(),
        );
        put(table + 4, &size.to_le_bytes());
        file
    }

    #[test]
    fn the_certificate_table_tells() {
        assert_eq!(is_signed(&pe(1472)), Some(true));
        assert_eq!(is_signed(&pe(0)), Some(false));
        assert_eq!(is_signed(b"MZ and no more"), Some(false));
        assert_eq!(is_signed(&pe(1472)[1..]), Some(false));
        // Cut off inside the header: not known.
        assert_eq!(is_signed(&pe(1472)[..0x60]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..0x200, bytes in proptest::array::uniform4(any::<u8>())) {
            let mut file = pe(1472);
            for (to, from) in file[at..].iter_mut().zip(bytes) {
                *to = from;
            }
            let _ = is_signed(&file);
        }
    }
}
