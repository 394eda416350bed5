//! Where the running kernel itself lies.

use super::iomem::Iomem;
use super::{Root, text};

const KALLSYMS: &str = "/proc/kallsyms";
/// The symbols are sorted by address, and before `_text` are at most those of the per-CPU
/// area: some hundred lines.
const SYMBOLS: usize = 1 << 20;

/// Where `_text` is, with which the kernel's code begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Its physical address: the resource "Kernel code".
    pub physical: Option<u64>,
    /// Its virtual address; `None` where the kernel hides it from this process, or has no
    /// symbols.
    pub virtual_: Option<u64>,
}

impl Place {
    /// The place of the kernel of the machine below `root`, whose /proc/iomem is `iomem`.
    #[must_use]
    pub fn read(root: &Root, iomem: &Iomem) -> Self {
        let symbols = root.read_start_permitted(KALLSYMS, SYMBOLS);
        let symbols = symbols.ok().flatten().unwrap_or_default();
        let code = iomem.find("Kernel code");
        Self {
            physical: code.first().map(|range| range.start()),
            virtual_: text_of(&symbols),
        }
    }
}

/// The address in the line `ADDRESS TYPE _text`; hidden ones are 0 (kptr_restrict).
fn text_of(symbols: &[u8]) -> Option<u64> {
    let address = |line: &[u8]| {
        let rest = line.strip_suffix(b" _text")?;
        let (address, kind) = rest.split_at_checked(rest.len().checked_sub(2)?)?;
        (kind.starts_with(b" ")).then(|| text::hex(address))?
    };
    let found = symbols.split(|byte| *byte == b'\n').find_map(address);
    found.filter(|address| *address != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::iomem;

    #[test]
    fn the_place_of_the_code() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let tree = "00100000-3fffffff : System RAM\n  01000000-01ffffff : Kernel code\n";
        let tree = iomem::parse(tree.as_bytes()).unwrap();
        let hidden = Place {
            physical: Some(0x100_0000),
            virtual_: None,
        };
        assert_eq!(Place::read(&root, &tree), hidden);
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let write = |symbols: &str| {
            std::fs::write(dir.path().join("proc/kallsyms"), symbols).unwrap();
        };
        let before = "0000000000000000 A fixed_percpu_data\nffffffff9a000000 T x_text\n";
        write(&format!("{before}ffffffff9a000000 T _text\n0 t y\n"));
        let shown = Place {
            virtual_: Some(0xffff_ffff_9a00_0000),
            ..hidden
        };
        assert_eq!(Place::read(&root, &tree), shown);
        for symbols in [
            "0000000000000000 T _text\n",
            "ffffffff9a000000 T _text2\n",
            " _text\n",
            "T _text\n",
            "",
        ] {
            write(symbols);
            assert_eq!(Place::read(&root, &tree), hidden, "{symbols:?}");
        }
        assert_eq!(
            Place::read(&root, &iomem::Iomem::default()),
            Place::default()
        );
    }
}
