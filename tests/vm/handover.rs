//! The device tree through real kernels, rkexec's report of it, and what a
//! kernel file says of itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::chain::Chain;
use crate::contents::as_planned;
use crate::lab::{self, Kernel};
use crate::ram::Ram;
use crate::trip::Plan;
use crate::witness::Stage;

const MEMORY: u64 = 1 << 30;
/// Where the chains keep what they load.
const SUPPLIES: u64 = 0x3000_0000;

/// Two pools, the second one with a name and a bitmap of its own.
const POOLS: &str =
    "--pool 0x10000000,64M --pool 0x18000000,16M,bitmap=0x18400000,name=second_pool";

/// A tree that somebody else made, by dtc.
fn foreign() -> Result<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/foreign.dts");
    lab::output(Command::new("dtc").args(["-q", "-O", "dtb"]).arg(source))
}

/// What a kernel with that tree and the pools must show, from the sources
/// above by hand.
fn expected() -> BTreeMap<String, Vec<u8>> {
    let cells = |cells: &[u32]| cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
    let number = |number: u64| number.to_be_bytes().to_vec();
    let properties: [(&str, Vec<u8>); 19] = [
        ("/#address-cells", cells(&[2])),
        ("/#size-cells", cells(&[2])),
        ("/chosen/rkexec-test,note", b"beside the pools\0".to_vec()),
        ("/chosen/default_pmpool/compatible", b"pmpool\0".to_vec()),
        ("/chosen/default_pmpool/base", number(0x1000_0000)),
        ("/chosen/default_pmpool/size", number(0x400_0000)),
        ("/chosen/default_pmpool/bitmap", number(0x1000_0000)),
        ("/chosen/second_pool/compatible", b"pmpool\0".to_vec()),
        ("/chosen/second_pool/base", number(0x1800_0000)),
        ("/chosen/second_pool/size", number(0x100_0000)),
        ("/chosen/second_pool/bitmap", number(0x1840_0000)),
        (
            "/foreign@d0000000/compatible",
            b"rkexec-test,foreign\0rkexec-test,first\0".to_vec(),
        ),
        ("/foreign@d0000000/reg", cells(&[0, 0xd000_0000, 0, 0x1000])),
        ("/foreign@d0000000/rkexec-test,empty", Vec::new()),
        (
            "/foreign@d0000000/rkexec-test,bytes",
            vec![0x00, 0xff, 0x7f, 0x80, 0x01],
        ),
        ("/foreign@d0000000/rkexec-test,see", cells(&[1])),
        (
            "/foreign@d0000000/deeper/rkexec-test,number",
            number(0x0123_4567_89ab_cdef),
        ),
        ("/foreign@d0000000/deeper/phandle", cells(&[1])),
        (
            "/foreign@d0000000/deeper/rkexec-test,end",
            b"end\0".to_vec(),
        ),
    ];
    properties
        .map(|(path, value)| (path.to_owned(), value))
        .into()
}

/// The memory reservations in /sys/firmware/fdt (Devicetree Specification v0.4,
/// 5.2 and 5.3).
fn reservations(fdt: &[u8]) -> Result<Vec<(u64, u64)>> {
    let cell = |at: usize| -> Result<usize> {
        let bytes = fdt.get(at..at + 4).context("a short blob")?;
        Ok(u32::from_be_bytes(bytes.try_into()?) as usize)
    };
    let start = cell(16)?;
    let mut found = Vec::new();
    for entry in fdt.get(start..).context("a short blob")?.chunks_exact(16) {
        let (start, size) = entry.split_at(8);
        let number = |bytes: &[u8]| Ok::<_, anyhow::Error>(u64::from_be_bytes(bytes.try_into()?));
        match (number(start)?, number(size)?) {
            (0, 0) => return Ok(found),
            entry => found.push(entry),
        }
    }
    bail!("no end of the reservations")
}

/// A tree and two pools, named once, through three kexecs.
#[test]
fn tree_and_pools_travel_on_without_being_named_again() -> Result<()> {
    let kernel = Kernel::new("of")?;
    let ram = Ram::new(MEMORY)?;
    let outcome = Chain::new("device-tree", &kernel, 3, SUPPLIES)
        .file("foreign.dtb", foreign()?)
        .first_options(&format!("--dtb /foreign.dtb {POOLS}"))
        .run(&ram, |_| Ok(()))?;
    let expected = expected();
    for stage in 2..=4 {
        let after = outcome.stage(stage)?;
        assert_eq!(after.device_tree()?, expected, "stage {stage}");
        assert_eq!(
            reservations(after.bytes("fdt")?)?,
            [(0x3800_0000, 0x1000)],
            "stage {stage}"
        );
        as_planned(after).with_context(|| outcome.story())?;
        let plan = Plan::of(outcome.stage(stage - 1)?)?;
        let pools = plan.json["pools"].as_array().context("pools")?;
        assert_eq!(pools.len(), 2, "{pools:?}");
    }
    Ok(())
}

/// What the report of `stage` says of `item`.
fn verdict<'a>(report: &'a Value, item: &str) -> Result<&'a Value> {
    let items = report["items"].as_array().context("items")?;
    let found = items.iter().find(|found| found["item"] == item);
    Ok(&found.with_context(|| format!("no {item} in {report}"))?["verdict"])
}

fn report(stage: Stage) -> Result<Value> {
    serde_json::from_str(stage.text("report.out")?).context("the report")
}

/// The host changes the pool's bitmap in the loaded tree, wherever it is.
#[test]
fn a_tree_that_was_tampered_with_is_named() -> Result<()> {
    const PLANNED: u64 = 0x1234_5000;
    const FOUND: u64 = 0x1234_6000;
    let kernel = Kernel::new("of")?;
    let ram = Ram::new(MEMORY)?;
    let mut replaced = 0;
    let outcome = Chain::new("tampered-tree", &kernel, 1, SUPPLIES)
        .first_options(&format!(
            "--no-digest --pool 0x10000000,64M,bitmap={PLANNED:#x}"
        ))
        .run_with(
            &ram,
            |_| Ok(()),
            |_| {
                replaced = ram.replace(PLANNED.to_be_bytes(), FOUND.to_be_bytes())?;
                Ok(())
            },
        )?;
    ensure!(replaced > 0, "the tree was not found in memory");
    let after = outcome.stage(2)?;
    let tree = after.device_tree()?;
    assert_eq!(
        tree["/chosen/default_pmpool/bitmap"],
        FOUND.to_be_bytes(),
        "the tree arrived as it was"
    );
    let told = report(after)?;
    assert_eq!(after.text("report.status")?, "1");
    assert_eq!(told["as_planned"], false);
    for item in ["device tree", "pool default_pmpool"] {
        assert_eq!(*verdict(&told, item)?, "differs", "{told}");
    }
    for item in ["command line", "memory map"] {
        assert_eq!(*verdict(&told, item)?, "as_planned", "{told}");
    }
    let message = after.text("report.err")?;
    ensure!(message.contains("device tree"), "{message}");
    Ok(())
}

/// With pmpool= on the line and KASLR on, a kernel soon lies in a pool of five
/// eighths of the RAM: what protection `kernel` is for.
#[test]
fn with_kaslr_a_kernel_gets_into_its_pool() -> Result<()> {
    let kernel = Kernel::new("of")?;
    let ram = Ram::new(MEMORY)?;
    // About one boot in two misses it: all 12 do once in thousands of runs.
    let outcome = Chain::new("kaslr-in-pool", &kernel, 12, SUPPLIES)
        .words("pmpool=0x8000000,0x28000000")
        .options("--no-carry-pools --direct off")
        .until("pmpool: 0x0000000008000000,0x0000000028000000 is taken")
        .run(&ram, |_| Ok(()))?;
    outcome.stage(2)?;
    ensure!(
        outcome.stage(13).is_err(),
        "KASLR kept off the pool 11 times or more"
    );
    Ok(())
}

/// Holds what `rkexec inspect` reads of CONFIG_OF, CONFIG_PMPOOL and
/// CONFIG_RANDOMIZE_BASE from a lab kernel to `values`, read from `source`.
fn facts(series: &str, config: Option<&str>, values: [&str; 3], source: &str) -> Result<()> {
    let kernel = Kernel::new(series)?;
    let boot = tempfile::tempdir()?;
    let image = boot.path().join("vmlinuz");
    std::fs::copy(kernel.image(), &image)?;
    if let Some(config) = config {
        let beside = format!("{config}-{}", kernel.release);
        let own = kernel.image().with_file_name("config");
        std::fs::copy(own, boot.path().join(beside))?;
    }
    let mut rkexec = Command::new(lab::rkexec()?);
    // Nothing of this machine's /boot.
    rkexec.arg("--root").arg(boot.path());
    let out = lab::output(rkexec.args(["inspect", "--output", "json"]).arg(&image))?;
    let found: Value = serde_json::from_slice(&out)?;
    for (name, value) in [
        ("CONFIG_OF", values[0]),
        ("CONFIG_PMPOOL", values[1]),
        ("CONFIG_RANDOMIZE_BASE", values[2]),
    ] {
        let fact = &found["config"][name];
        ensure!(fact["value"] == value, "{series}: {name}: {fact}");
        let read_from = fact["read_from"].as_str().unwrap_or_default();
        ensure!(read_from.contains(source), "{series}: {name}: {fact}");
    }
    Ok(())
}

#[test]
fn what_the_kernels_can_do_is_read_from_them() -> Result<()> {
    facts("of", None, ["yes", "yes", "yes"], "IKCONFIG")?;
    for series in ["6.1", "6.12"] {
        let config = Some("config");
        facts(series, config, ["no", "no", "yes"], "beside the image")?;
    }
    Ok(())
}
