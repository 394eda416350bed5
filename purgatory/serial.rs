//! A polled 16550 on I/O ports, as the running kernel left it: speed and format
//! are the ones its console uses.

use core::arch::asm;

/// Line status register, from the first port.
const LINE_STATUS: u16 = 5;
/// Line status: the transmit holding register is empty.
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// Polls per byte before the UART counts as dead. One poll takes about 1 µs on
/// hardware and more under a hypervisor; a byte takes 8 ms at 1200 baud.
const PATIENCE: u32 = 200_000;

/// A UART, or what is left of it.
pub struct Serial {
    port: u16,
    /// It did not take a byte in time; nothing more is sent.
    dead: bool,
}

impl Serial {
    /// # Safety
    /// A 16550, or nothing at all, is at `port`.
    pub unsafe fn new(port: u16) -> Self {
        Self { port, dead: false }
    }

    /// Prints text.
    pub fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(byte);
        }
    }

    /// Prints `0x1f`.
    pub fn number(&mut self, number: u64) {
        self.text("0x");
        let digits = (67 - (number | 1).leading_zeros()) / 4;
        for digit in (0..digits).rev() {
            self.digit((number >> (4 * digit)) as u8);
        }
    }

    /// Prints two digits per byte.
    pub fn hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digit(byte >> 4);
            self.digit(*byte);
        }
    }

    fn digit(&mut self, nibble: u8) {
        let nibble = nibble & 15;
        self.byte(if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        });
    }

    fn byte(&mut self, byte: u8) {
        if self.dead {
            return;
        }
        for _ in 0..PATIENCE {
            if self.line_status() & TRANSMIT_EMPTY != 0 {
                // SAFETY: the promise made to `new`.
                unsafe {
                    asm!("out dx, al", in("dx") self.port, in("al") byte, options(nomem, nostack, preserves_flags));
                }
                return;
            }
        }
        self.dead = true;
    }

    fn line_status(&self) -> u8 {
        let status: u8;
        // SAFETY: the promise made to `new`; reading has no effect on memory.
        unsafe {
            asm!("in al, dx", in("dx") self.port.wrapping_add(LINE_STATUS), out("al") status, options(nomem, nostack, preserves_flags));
        }
        status
    }
}
