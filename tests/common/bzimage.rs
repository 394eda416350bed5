//! A tiny bzImage, byte by byte.

/// Offsets of setup header fields from the start of the file
/// (Documentation/arch/x86/boot.rst, "Details of Header Fields").
pub(crate) mod field {
    pub(crate) const SETUP_SECTS: usize = 0x1f1;
    pub(crate) const SYSSIZE: usize = 0x1f4;
    pub(crate) const BOOT_FLAG: usize = 0x1fe;
    /// Distance of the jump over the header: its end less 0x202.
    pub(crate) const JUMP: usize = 0x201;
    pub(crate) const MAGIC: usize = 0x202;
    pub(crate) const VERSION: usize = 0x206;
    pub(crate) const KERNEL_VERSION: usize = 0x20e;
    pub(crate) const LOADFLAGS: usize = 0x211;
    pub(crate) const RAMDISK_IMAGE: usize = 0x218;
    pub(crate) const RAMDISK_SIZE: usize = 0x21c;
    pub(crate) const INITRD_ADDR_MAX: usize = 0x22c;
    pub(crate) const KERNEL_ALIGNMENT: usize = 0x230;
    pub(crate) const RELOCATABLE_KERNEL: usize = 0x234;
    pub(crate) const XLOADFLAGS: usize = 0x236;
    pub(crate) const CMDLINE_SIZE: usize = 0x238;
    pub(crate) const PAYLOAD_OFFSET: usize = 0x248;
    pub(crate) const PAYLOAD_LENGTH: usize = 0x24c;
    pub(crate) const SETUP_DATA: usize = 0x250;
    pub(crate) const PREF_ADDRESS: usize = 0x258;
    pub(crate) const INIT_SIZE: usize = 0x260;
    pub(crate) const KERNEL_INFO: usize = 0x268;
    /// First byte after the header of protocol 2.15.
    pub(crate) const END: usize = 0x26c;
}

/// Sectors of the setup part behind the boot sector.
const SETUP_SECTS: u8 = 7;
/// Bytes of the setup part.
pub(crate) const SETUP_SIZE: usize = (SETUP_SECTS as usize + 1) * 512;
/// Where the payload starts in the protected-mode part.
pub(crate) const PAYLOAD_OFFSET: usize = 0x300;
/// Something that unpacks, and is no kernel.
const PAYLOAD: &[u8] = include_bytes!("../data/tiny.xz");
/// What it unpacks to, bytes: the kernel's build appends this number.
const PAYLOAD_UNPACKED: u32 = 42;
/// kernel_info of Linux 6.12: "LToP", its size, its whole size, setup_type_max.
const KERNEL_INFO: [u32; 4] = [u32::from_le_bytes(*b"LToP"), 16, 16, 0x8000_0009];
/// Where it lies in the protected-mode part.
const KERNEL_INFO_OFFSET: usize = 0x2c0;
/// What the tiny kernel calls itself.
pub(crate) const VERSION: &str = "6.12.0-tiny (builder@host) #1 SMP";

/// A bzImage that can be changed field by field.
#[derive(Debug, Clone)]
pub(crate) struct TinyBzImage(Vec<u8>);

impl TinyBzImage {
    /// A well-formed image as Debian's are, with a protected-mode part of
    /// `kernel_size` bytes: a multiple of 16, above 0x400.
    pub(crate) fn new(kernel_size: usize) -> Self {
        let mut kernel: Vec<u8> = (0..251_u8).cycle().take(kernel_size).collect();
        for (to, from) in kernel[PAYLOAD_OFFSET..].iter_mut().zip(PAYLOAD) {
            *to = *from;
        }
        for (at, word) in KERNEL_INFO.iter().enumerate() {
            let at = KERNEL_INFO_OFFSET + at * 4;
            kernel[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        kernel[kernel_size - 4..].copy_from_slice(&PAYLOAD_UNPACKED.to_le_bytes());
        let mut file = vec![0; SETUP_SIZE];
        file[..2].copy_from_slice(b"MZ");
        file.extend(kernel);
        Self(file)
            .u8(field::SETUP_SECTS, SETUP_SECTS)
            .u32(field::SYSSIZE, u32::try_from(kernel_size / 16).unwrap())
            .u16(field::BOOT_FLAG, 0xaa55)
            .put(
                field::JUMP - 1,
                &[0xeb, u8::try_from(field::END - 0x202).unwrap()],
            )
            .put(field::MAGIC, b"HdrS")
            .u16(field::VERSION, 0x020f)
            .u16(field::KERNEL_VERSION, 0x400)
            .u8(field::LOADFLAGS, 1)
            .u32(field::INITRD_ADDR_MAX, 0x7fff_ffff)
            .u32(field::KERNEL_ALIGNMENT, 0x20_0000)
            .u8(field::RELOCATABLE_KERNEL, 1)
            .u16(field::XLOADFLAGS, 0x7f)
            .u32(field::CMDLINE_SIZE, 2047)
            .u32(
                field::PAYLOAD_OFFSET,
                u32::try_from(PAYLOAD_OFFSET).unwrap(),
            )
            .u32(
                field::PAYLOAD_LENGTH,
                u32::try_from(kernel_size - PAYLOAD_OFFSET).unwrap(),
            )
            .u32(
                field::KERNEL_INFO,
                u32::try_from(KERNEL_INFO_OFFSET).unwrap(),
            )
            .u64(field::PREF_ADDRESS, 0x100_0000)
            .u32(field::INIT_SIZE, 0x180_0000)
            .put(0x600, VERSION.as_bytes())
    }

    /// An image that holds `kernel`, packed as `lz4 -l` packs it.
    pub(crate) fn holding(kernel: &[u8]) -> Self {
        let mut payload = b"\x02\x21\x4c\x18".to_vec();
        for block in kernel.chunks(8 << 20) {
            let packed = lz4_flex::block::compress(block);
            payload.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            payload.extend(packed);
        }
        payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        // The payload ends with the file: the kernel's build fills up in front of it.
        let size = (PAYLOAD_OFFSET + payload.len()).next_multiple_of(16);
        let start = size.max(0x1_0000) - payload.len();
        let length = u32::try_from(payload.len()).unwrap();
        Self::new(size.max(0x1_0000))
            .u32(field::PAYLOAD_OFFSET, u32::try_from(start).unwrap())
            .u32(field::PAYLOAD_LENGTH, length)
            .put(SETUP_SIZE + start, &payload)
    }

    /// An image that the loader unpacks and places itself, always at the same place: the
    /// kernel inside has no relocation lists, and so no KASLR.
    pub(crate) fn direct() -> Self {
        // What it was built with cannot be told from its texts.
        Self::saying(b"OF_NAME=\0it says pmpool\0")
    }

    /// The same with these texts in the kernel.
    pub(crate) fn saying(texts: &[u8]) -> Self {
        let mut kernel = super::elf::TinyElf::vmlinux();
        kernel.loads[0].bytes[0xa00..0xa00 + texts.len()].copy_from_slice(texts);
        Self::holding(&kernel.build())
    }

    /// Overwrites what lies at `offset` in the file.
    pub(crate) fn put(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn u8(self, offset: usize, value: u8) -> Self {
        self.put(offset, &[value])
    }

    pub(crate) fn u16(self, offset: usize, value: u16) -> Self {
        self.put(offset, &value.to_le_bytes())
    }

    pub(crate) fn u32(self, offset: usize, value: u32) -> Self {
        self.put(offset, &value.to_le_bytes())
    }

    pub(crate) fn u64(self, offset: usize, value: u64) -> Self {
        self.put(offset, &value.to_le_bytes())
    }

    /// The file.
    pub(crate) fn build(self) -> Vec<u8> {
        self.0
    }
}
