//! Multiboot 1, section 3.3 of its specification: one structure, and what it
//! points to.

use super::{BootInformation, LOADER_NAME, Pixels, Screen, lower_and_upper};

/// Bytes of the structure with its framebuffer fields.
const SIZE: usize = 116;
/// Flags: `mem_lower` and `mem_upper` are valid.
const MEMORY: u32 = 1 << 0;
/// Flags: the command line is there.
const CMDLINE: u32 = 1 << 2;
/// Flags: the modules are there.
const MODULES: u32 = 1 << 3;
/// Flags: the memory map is there.
const MEMORY_MAP: u32 = 1 << 6;
/// Flags: the boot loader's name is there.
const LOADER: u32 = 1 << 9;
/// Flags: the framebuffer fields are valid.
const FRAMEBUFFER: u32 = 1 << 12;

/// The information for the physical address `at`: as long for any address.
#[must_use]
pub fn bytes(information: &BootInformation<'_>, at: u32) -> Vec<u8> {
    let mut out = Structure {
        bytes: vec![0; SIZE],
        at,
    };
    let mut flags = MEMORY | CMDLINE | MODULES | MEMORY_MAP | LOADER;
    let (lower, upper) = lower_and_upper(information.map);
    out.set(4, lower);
    out.set(8, upper);

    let map = out.append(&memory_map(information));
    out.set(44, out.length_since(map));
    out.set(48, map);

    let modules: Vec<[u32; 4]> = information
        .modules
        .iter()
        .map(|module| [module.start, module.end, out.string(module.cmdline), 0])
        .collect();
    let list: Vec<u8> = modules
        .as_flattened()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let list = out.append(&list);
    out.set(20, u32::try_from(modules.len()).unwrap_or(u32::MAX));
    out.set(24, list);

    let cmdline = out.string(information.cmdline);
    out.set(16, cmdline);
    let name = out.string(LOADER_NAME.as_bytes());
    out.set(64, name);
    if let Some(screen) = &information.screen {
        flags |= FRAMEBUFFER;
        out.framebuffer(screen);
    }
    out.set(0, flags);
    out.bytes
}

/// The map: each entry is behind its own size, which does not count itself.
fn memory_map(information: &BootInformation<'_>) -> Vec<u8> {
    let mut map = Vec::with_capacity(24 * information.map.len());
    for (range, kind) in information.map {
        map.extend(20_u32.to_le_bytes());
        map.extend(range.start().to_le_bytes());
        map.extend(range.size().to_le_bytes());
        map.extend(kind.0.to_le_bytes());
    }
    map
}

/// The structure and what follows it.
struct Structure {
    bytes: Vec<u8>,
    at: u32,
}

impl Structure {
    /// Sets the field at `offset`.
    fn set(&mut self, offset: usize, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        if let Some(field) = self.bytes.get_mut(offset..offset + value.len()) {
            field.copy_from_slice(value);
        }
    }

    /// The address of what is appended next.
    fn end(&self) -> u32 {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.at.saturating_add(length)
    }

    fn length_since(&self, address: u32) -> u32 {
        self.end() - address
    }

    /// Adds bytes at a multiple of 4, and says where.
    fn append(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let address = self.end();
        self.bytes.extend_from_slice(bytes);
        address
    }

    /// Adds a C string, and says where.
    fn string(&mut self, text: &[u8]) -> u32 {
        let address = self.append(text);
        self.bytes.push(0);
        address
    }

    fn framebuffer(&mut self, screen: &Screen) {
        self.put(88, &screen.address.to_le_bytes());
        self.set(96, screen.pitch);
        self.set(100, screen.width);
        self.set(104, screen.height);
        self.put(108, &[screen.depth]);
        match screen.pixels {
            Pixels::Text => self.put(109, &[2]),
            Pixels::Rgb(colors) => {
                self.put(109, &[1]);
                for (offset, (lowest, bits)) in (110..).step_by(2).zip(colors) {
                    self.put(offset, &[lowest, bits]);
                }
            }
        }
    }
}
