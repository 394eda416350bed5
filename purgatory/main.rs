//! The purgatory: what runs between the old kernel and the next one. README.md
//! beside this file is its contract.

#![no_std]
#![no_main]
#![allow(dead_code, reason = "abi.rs, rapidhash.rs and stamps.rs serve the loader as well")]

mod abi;
mod entry;
mod rapidhash;
mod serial;
mod stamps;

use core::arch::asm;
use core::arch::x86_64::_rdtsc;

use abi::{
    ABI_VERSION, Evidence, FLAG_SERIAL, FLAG_VERIFY, Fault, MAGIC, MAX_REGIONS, Params, Region,
};
use serial::Serial;
use stamps::{
    EXEC_KNOWN, EXEC_NOT_STAMPED, EXEC_PAGE_LOST, ExecPage, STAMPS_MAGIC, Stamps,
};

/// The parameter block, at offset 0 of the image wherever that was loaded.
fn params() -> &'static Params {
    let params: *const Params;
    // SAFETY: takes an address. A Rust static here would be folded into the
    // code, or reached through a GOT slot that nobody relocates.
    unsafe {
        asm!("lea {}, [rip + purgatory_params]", out(reg) params, options(pure, nomem, nostack, preserves_flags));
    }
    // SAFETY: entry.rs puts a page-aligned block of this size there; every bit
    // pattern is a valid one, and nobody writes while the purgatory runs.
    unsafe { &*params }
}

/// Checks the block and every region. Executes no privileged instruction:
/// the tests call it in user space.
///
/// Returns 0 or a [`Fault`].
///
/// # Safety
/// `evidence` may be written; the regions of a correct block may be read.
#[unsafe(no_mangle)]
unsafe extern "C" fn purgatory_verify(evidence: *mut Evidence) -> u32 {
    let (fault, found) = match check(params()) {
        Ok(()) => return 0,
        Err(fault) => fault,
    };
    // SAFETY: the caller's promise.
    unsafe { evidence.write(found) };
    fault as u32
}

/// The first fault of the block or the regions.
fn check(params: &Params) -> Result<(), (Fault, Evidence)> {
    let mut found = Evidence {
        region: MAX_REGIONS as u64,
        computed: [0; 8],
    };
    if params.magic != MAGIC {
        return Err((Fault::Magic, found));
    }
    if params.version != ABI_VERSION {
        return Err((Fault::Version, found));
    }
    if params.flags & FLAG_VERIFY == 0 {
        return Ok(());
    }
    let Some(regions) = params.regions.get(..params.region_count as usize) else {
        return Err((Fault::Table, found));
    };
    for (region, number) in regions.iter().zip(0..) {
        found.region = number;
        let end = region.address.checked_add(region.size);
        if region.address == 0 || region.size == 0 || end.is_none() {
            return Err((Fault::Table, found));
        }
        found.computed = digest(region);
        if found.computed != region.digest {
            return Err((Fault::Digest, found));
        }
    }
    Ok(())
}

/// The digest of what lies in a region now.
fn digest(region: &Region) -> rapidhash::Digest {
    // SAFETY: the kernel maps every segment it loaded, and nothing else runs.
    let bytes =
        unsafe { core::slice::from_raw_parts(region.address as *const u8, region.size as usize) };
    rapidhash::digest(bytes)
}

/// The time stamp counter, where stamps are wanted; else 0. It is not read without
/// need: a confidential guest may get a #VC for it.
fn now(params: &Params) -> u64 {
    if params.stamps == 0 {
        return 0;
    }
    // SAFETY: every x86_64 CPU has RDTSC, and the old kernel cleared CR4.TSD.
    unsafe { _rdtsc() }
}

/// Leaves the time stamps for the next kernel, if they are wanted. `entered` is the
/// time of the entry. Executes no privileged instruction, as `purgatory_verify`.
///
/// # Safety
/// The block is correct: at `stamps`, where it is not 0, a `Stamps` may be written, and
/// at `exec_page`, where it is not 0, an `ExecPage` may be read.
#[unsafe(no_mangle)]
#[inline(never)] // Or the linker drops what nobody calls, and the tests have nothing to call.
unsafe extern "C" fn purgatory_stamp(entered: u64) {
    let params = params();
    if params.stamps == 0 {
        return;
    }
    let mut stamps = Stamps {
        magic: STAMPS_MAGIC,
        load: 0,
        exec: 0,
        entered,
        verified: now(params),
        exec_unknown: params.exec_unknown,
        reserved: 0,
    };
    if params.exec_page != 0 {
        // SAFETY: the caller's promise. The page is RAM of the old kernel, all of which
        // is mapped, and any bit pattern is a valid ExecPage.
        let page = unsafe { (params.exec_page as *const ExecPage).read_unaligned() };
        if page.nonce == params.nonce {
            stamps.load = page.load;
            stamps.exec = page.exec;
            stamps.exec_unknown = match page.exec {
                0 => EXEC_NOT_STAMPED,
                _ => EXEC_KNOWN,
            };
        } else {
            stamps.exec_unknown = EXEC_PAGE_LOST;
        }
    }
    // SAFETY: the caller's promise: a node of a segment that is loaded, and checked by
    // now. Nobody else uses it yet.
    unsafe { (params.stamps as *mut Stamps).write_unaligned(stamps) };
}

/// Called by the entry code with a stack and SSE. Returns only to go on to the
/// next kernel.
#[unsafe(no_mangle)]
extern "C" fn purgatory_main() {
    let entered = now(params());
    let mut evidence = Evidence {
        region: 0,
        computed: [0; 8],
    };
    // SAFETY: a local to write to; the loader made the block.
    let fault = unsafe { purgatory_verify(&mut evidence) };
    if fault != 0 {
        report(params(), fault, &evidence);
        entry::halt();
    }
    // SAFETY: the check says that the loader made the block.
    unsafe { purgatory_stamp(entered) };
}

/// The port to print on. A block without the magic may say anything, so from
/// such a one only the four customary ports are believed.
fn port(params: &Params) -> Option<u16> {
    let port = params.serial_port;
    let trusted = params.magic == MAGIC || matches!(port, 0x3f8 | 0x2f8 | 0x3e8 | 0x2e8);
    (params.flags & FLAG_SERIAL != 0 && port != 0 && trusted).then_some(port)
}

/// Prints what is wrong.
fn report(params: &Params, fault: u32, evidence: &Evidence) {
    let Some(port) = port(params) else {
        return;
    };
    // SAFETY: the loader, or custom, says that a UART is there.
    let mut out = unsafe { Serial::new(port) };
    out.text("\r\nrkexec purgatory: ");
    let region = params.regions.get(evidence.region as usize);
    if let Some(region) = region {
        out.text("segment at ");
        out.number(region.address);
        out.text(", ");
        out.number(region.size);
        out.text(" bytes: ");
    }
    if fault == Fault::Magic as u32 {
        out.text("bad magic in the parameter block: ");
        out.number(params.magic);
    } else if fault == Fault::Version as u32 {
        out.text("parameter block of version ");
        out.number(u64::from(params.version));
        out.text(", wanted ");
        out.number(u64::from(ABI_VERSION));
    } else if fault == Fault::Table as u32 {
        out.text("bad table of segments, count ");
        out.number(u64::from(params.region_count));
    } else if let Some(region) = region {
        out.text("digest mismatch: expected ");
        out.hex(&region.digest);
        out.text(" computed ");
        out.hex(&evidence.computed);
    }
    out.text("\r\nrkexec purgatory: the next kernel was not started; halted\r\n");
}

/// Called by the entry code on a CPU exception, once.
#[unsafe(no_mangle)]
extern "C" fn purgatory_exception(vector: u64, rip: u64, cr2: u64) {
    let Some(port) = port(params()) else {
        return;
    };
    // SAFETY: as in `report`.
    let mut out = unsafe { Serial::new(port) };
    out.text("\r\nrkexec purgatory: CPU exception ");
    out.number(vector);
    out.text(" at ");
    out.number(rip);
    out.text(", cr2 ");
    out.number(cr2);
    out.text("\r\nrkexec purgatory: the next kernel was not started; halted\r\n");
}

/// Never reached: build.rs refuses an image that needs a relocation, and the
/// strings of any panic would need one.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    entry::halt()
}
