//! The running kernel's screen, as its boot loader described it.
//!
//! Source: include/uapi/linux/screen_info.h. The firmware or the first boot
//! loader set this mode, and it cannot be changed now.

use crate::abi::x86::boot_params::join;

/// orig_video_isVGA: a VGA in text mode, as the kernel's own setup code says it.
const VGA_TEXT: u8 = 1;
/// VIDEO_TYPE_VGAC: the same, as others say it.
const VGA_COLOR: u8 = 0x22;
/// VIDEO_TYPE_VLFB: a linear frame buffer that the VESA BIOS set up.
const VESA: u8 = 0x23;
/// VIDEO_TYPE_EFI: a linear frame buffer that EFI set up.
const EFI: u8 = 0x70;
/// VIDEO_CAPABILITY_64BIT_BASE: `ext_lfb_base` counts.
const WIDE_BASE: u32 = 1 << 1;
/// The BIOS mode of an MDA: its text lies elsewhere.
const MONOCHROME: u8 = 7;

/// A field of the pixel: lowest bit, and number of bits.
pub type Bits = (u8, u8);

/// How a pixel, or a character, is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels {
    /// A character and its attribute, two bytes.
    Text,
    /// Red, green and blue.
    Rgb([Bits; 3]),
}

/// Something to draw on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Physical address of its first byte.
    pub address: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Pixels or characters in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits of a pixel or a character.
    pub depth: u8,
    /// What is in them.
    pub pixels: Pixels,
}

impl Screen {
    /// The screen that `screen_info` describes; `None` without one, or when multiboot
    /// cannot describe it.
    #[must_use]
    pub fn new(screen_info: &[u8; 0x40]) -> Option<Self> {
        let byte = |at: usize| screen_info.get(at).copied().unwrap_or(0);
        let half = |at| u16::from_le_bytes([byte(at), byte(at + 1)]);
        let word = |at| u32::from(half(at + 2)) << 16 | u32::from(half(at));
        match byte(0x0f) {
            VGA_TEXT | VGA_COLOR => {
                let (columns, lines) = (u32::from(byte(0x07)), u32::from(byte(0x0e)));
                let monochrome = byte(0x06) == MONOCHROME;
                (columns > 0 && lines > 0).then_some(Self {
                    address: if monochrome { 0xb_0000 } else { 0xb_8000 },
                    pitch: 2 * columns,
                    width: columns,
                    height: lines,
                    depth: 16,
                    pixels: Pixels::Text,
                })
            }
            VESA | EFI => {
                let base = word(0x18);
                let high = if word(0x36) & WIDE_BASE != 0 {
                    word(0x3a)
                } else {
                    0
                };
                let color = |at| (byte(at + 1), byte(at));
                let screen = Self {
                    address: join(base, high),
                    pitch: half(0x24).into(),
                    width: half(0x12).into(),
                    height: half(0x14).into(),
                    depth: u8::try_from(half(0x16)).ok()?,
                    pixels: Pixels::Rgb([color(0x26), color(0x28), color(0x2a)]),
                };
                let complete = screen.address != 0
                    && screen.pitch > 0
                    && screen.width > 0
                    && screen.height > 0;
                // With 8 bits or fewer there is a palette, whose colours are not known.
                (complete && screen.depth > 8).then_some(screen)
            }
            _ => None,
        }
    }
}
