//! Where CONFIG_IKCONFIG keeps the configuration inside a kernel
//! (kernel/configs.c, scripts/extract-ikconfig).

use memchr::memmem;

use super::decompress::{self, Compression, DecompressError};
use crate::kconfig::{KernelConfig, MAX_CONFIG};

/// Before the configuration.
const START: &[u8] = b"IKCFG_ST";
/// Behind it.
const END: &[u8] = b"IKCFG_ED";

/// Why the configuration inside a kernel cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IkconfigError {
    /// It has a start mark but no end mark.
    #[error("IKCONFIG: no IKCFG_ED behind IKCFG_ST")]
    NoEnd,
    /// It cannot be unpacked.
    #[error("IKCONFIG: {0}")]
    Decompress(#[from] DecompressError),
    /// It is no configuration.
    #[error("IKCONFIG: no line sets a symbol")]
    NoSymbols,
}

/// The configuration inside an unpacked kernel. `None`: it has none
/// (CONFIG_IKCONFIG is off, or a module).
///
/// # Errors
/// When there is one that is damaged.
pub fn find(vmlinux: &[u8]) -> Result<Option<KernelConfig>, IkconfigError> {
    // A mark may also be a string in code that searches for it.
    let mut found = memmem::find_iter(vmlinux, START).filter_map(|at| {
        let behind = vmlinux.get(at + START.len()..)?;
        (decompress::compression(behind) == Some(Compression::Gzip)).then_some(behind)
    });
    let Some(behind) = found.next() else {
        return Ok(None);
    };
    let end = memmem::find(behind, END).ok_or(IkconfigError::NoEnd)?;
    let packed = behind.get(..end).unwrap_or_default();
    let text = decompress::decompress(packed, MAX_CONFIG)?;
    let config = KernelConfig::parse(&text).ok_or(IkconfigError::NoSymbols)?;
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::kconfig::Symbol;

    const TEXT: &str = "CONFIG_X86_64=y\n# CONFIG_OF is not set\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    /// A kernel with `packed` between the marks.
    fn kernel(packed: &[u8]) -> Vec<u8> {
        [
            b"\x7fELF code IKCFG_ST IKCFG_ED \0",
            START,
            packed,
            END,
            b"\0more",
        ]
        .concat()
    }

    #[test]
    fn it_is_found_between_its_marks() {
        let config = KernelConfig::parse(TEXT.as_bytes());
        assert_eq!(find(&kernel(&gzip(TEXT.as_bytes()))), Ok(config));
        assert_eq!(find(b"\x7fELF IKCFG_ST IKCFG_ED"), Ok(None));
        assert_eq!(find(b""), Ok(None));
    }

    #[test]
    fn a_damaged_one_says_what_is_wrong() {
        let packed = gzip(TEXT.as_bytes());
        let whole = kernel(&packed);
        let cut = whole.len() - b"ED\0more".len();
        assert_eq!(find(&whole[..cut]), Err(IkconfigError::NoEnd));
        assert_eq!(
            find(&kernel(&gzip(b"nothing here"))),
            Err(IkconfigError::NoSymbols)
        );
        let error = find(&kernel(&packed[..packed.len() - 9])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "IKCONFIG: malformed gzip data: truncated"
        );
        let bomb = gzip(&vec![b'#'; MAX_CONFIG + 1]);
        let error = find(&kernel(&bomb)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "IKCONFIG: gzip data unpacks to more than 4194304 bytes"
        );
    }

    proptest! {
        #[test]
        fn whatever_symbols_there_are_come_back(
            values in proptest::collection::btree_map("CONFIG_[A-Z0-9_]{1,12}", 0..4_u8, 1..40),
            before in "[ -~\n]{0,30}",
        ) {
            let mut text = before.replace('=', " ").replace("# CONFIG", "") + "\n";
            for (name, kind) in &values {
                text += &match kind {
                    0 => format!("{name}=y\n"),
                    1 => format!("{name}=m\n"),
                    2 => format!("# {name} is not set\n"),
                    _ => format!("{name}=0x1000\n"),
                };
            }
            let config = find(&kernel(&gzip(text.as_bytes()))).unwrap().unwrap();
            prop_assert_eq!(config.symbols().count(), values.len());
            for (name, kind) in &values {
                let expected = match kind {
                    0 => Symbol::Yes,
                    1 => Symbol::Module,
                    2 => Symbol::NotSet,
                    _ => Symbol::Value("0x1000".into()),
                };
                prop_assert_eq!(config.get(name), Some(&expected));
            }
        }

        #[test]
        fn any_damage_is_an_answer(at in 0..400_usize, bit in 0..8_u32, cut in 0..600_usize) {
            let mut bytes = kernel(&gzip(TEXT.as_bytes()));
            let length = bytes.len();
            bytes[at % length] ^= 1 << bit;
            bytes.truncate(cut.max(1));
            // gzip's checksum leaves no third: the configuration, or none.
            if let Ok(Some(config)) = find(&bytes) {
                prop_assert_eq!(Some(config), KernelConfig::parse(TEXT.as_bytes()));
            }
        }
    }
}
