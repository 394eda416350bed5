//! The records that guests send: what a kernel says of itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Records by stage and name.
#[derive(Debug, Default)]
pub(crate) struct Records(BTreeMap<(u32, String), Vec<u8>>);

/// What one stage's kernel said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<'a> {
    records: &'a Records,
    number: u32,
}

impl Records {
    /// Takes in one line of the record port, and says which record it is.
    pub(crate) fn take(&mut self, line: &str) -> Result<(u32, String)> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (stage, name, base64) = match words[..] {
            ["record", stage, name, base64, "."] => (stage, name, base64),
            // An empty record has no fourth word.
            ["record", stage, name, "."] => (stage, name, ""),
            _ => bail!("not a record: {line:.80?}"),
        };
        let key = (stage.parse().context("stage")?, name.to_owned());
        let content = decode_base64(base64).with_context(|| name.to_owned())?;
        ensure!(
            self.0.insert(key.clone(), content).is_none(),
            "stage {stage} sent {name} twice"
        );
        Ok(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The records of one stage, which must have got as far as to send any.
    pub(crate) fn stage(&self, number: u32) -> Result<Stage<'_>> {
        ensure!(
            self.0.keys().any(|(stage, _)| *stage == number),
            "stage {number} sent nothing"
        );
        Ok(Stage {
            records: self,
            number,
        })
    }

    /// Whether no stage's script failed: `end` holds its exit code.
    pub(crate) fn all_ended_well(&self) -> Result<()> {
        let mut ended = self.0.iter().filter(|((_, name), _)| name == "end");
        ensure!(ended.clone().count() == 1, "no stage came to its end");
        match ended.find(|(_, code)| code.trim_ascii() != b"0") {
            None => Ok(()),
            Some(((stage, _), code)) => bail!(
                "the script of stage {stage} failed with {}",
                String::from_utf8_lossy(code).trim()
            ),
        }
    }

    /// One record's bytes.
    pub(crate) fn get(&self, stage: u32, name: &str) -> Option<&[u8]> {
        self.0.get(&(stage, name.to_owned())).map(Vec::as_slice)
    }
}

impl<'a> Stage<'a> {
    /// Its number, from 1 on.
    pub(crate) const fn number(self) -> u32 {
        self.number
    }

    /// A record as it was sent.
    pub(crate) fn bytes(self, name: &str) -> Result<&'a [u8]> {
        self.records
            .get(self.number, name)
            .with_context(|| format!("stage {} sent no {name}", self.number))
    }

    /// A record of text, trimmed.
    pub(crate) fn text(self, name: &str) -> Result<&'a str> {
        Ok(std::str::from_utf8(self.bytes(name)?)
            .with_context(|| name.to_owned())?
            .trim())
    }

    /// A record of sha256sum: the digest.
    pub(crate) fn digest(self, name: &str) -> Result<&'a str> {
        let line = self.text(name)?;
        line.split_whitespace().next().context("an empty digest")
    }

    /// The map that this kernel was told of: /sys/firmware/memmap.
    pub(crate) fn firmware_map(self) -> Result<Vec<Row>> {
        let mut files: BTreeMap<u64, [Option<String>; 3]> = BTreeMap::new();
        for line in self.text("firmware-map")?.lines() {
            let (path, value) = line.split_once(':').context(line.to_owned())?;
            let mut path = path.rsplit('/');
            let (file, entry) = (path.next().unwrap_or(""), path.next().unwrap_or(""));
            let field = match file {
                "start" => 0,
                "end" => 1,
                "type" => 2,
                _ => bail!("{line}"),
            };
            files
                .entry(entry.parse().context(line.to_owned())?)
                .or_default()[field] = Some(value.to_owned());
        }
        let mut rows = Vec::new();
        for (entry, fields) in files {
            let [Some(start), Some(end), Some(kind)] = fields else {
                bail!("memmap/{entry} is incomplete");
            };
            rows.push(Row {
                start: hex(&start)?,
                end: hex(&end)? + 1,
                kind,
            });
        }
        Ok(merged(rows))
    }

    /// The e820 table that this kernel found in its boot_params: (start, size, type).
    pub(crate) fn boot_e820(self) -> Result<Vec<(u64, u64, u32)>> {
        // Documentation/arch/x86/zero-page.rst: e820_entries, e820_table
        let params = self.bytes("boot-params")?;
        ensure!(
            params.len() == 4096,
            "boot_params of {} bytes",
            params.len()
        );
        Ok(params[0x2d0..]
            .chunks_exact(20)
            .take(params[0x1e8].into())
            .map(|entry| {
                let number = |at| u64::from_le_bytes(std::array::from_fn(|i| entry[at + i]));
                let kind = u32::from_le_bytes(std::array::from_fn(|i| entry[16 + i]));
                (number(0), number(8), kind)
            })
            .collect())
    }

    /// The properties in /proc/device-tree by path (`/chosen/pool/base`), less
    /// the `name` that the kernel adds to every node.
    pub(crate) fn device_tree(self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut properties = BTreeMap::new();
        for line in self.text("device-tree")?.lines() {
            let (path, value) = line.split_once(' ').unwrap_or((line, ""));
            let path = path.trim_start_matches('.');
            if !path.ends_with("/name") {
                let value = decode_base64(value).with_context(|| path.to_owned())?;
                properties.insert(path.to_owned(), value);
            }
        }
        Ok(properties)
    }

    /// The setup_data types, in the chain's order.
    pub(crate) fn setup_data_types(self) -> Vec<u64> {
        (0..)
            .map_while(|number| self.text(&format!("setup-data-{number}.type")).ok())
            .filter_map(|kind| hex(kind).ok())
            .collect()
    }

    /// /proc/iomem, every row at every depth.
    pub(crate) fn iomem(self) -> Result<Vec<Row>> {
        self.rows("iomem")
    }

    /// A record in the form of /proc/iomem.
    pub(crate) fn rows(self, name: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for line in self.text(name)?.lines() {
            let (range, kind) = line.split_once(" : ").context(line.to_owned())?;
            let (start, last) = range.trim().split_once('-').context(line.to_owned())?;
            rows.push(Row {
                start: hex(start)?,
                end: hex(last)? + 1,
                kind: kind.to_owned(),
            });
        }
        Ok(rows)
    }
}

/// A row of a memory map, half-open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: String,
}

impl Row {
    /// Its size in bytes, and its kind.
    pub(crate) fn size_and_kind(&self) -> (u64, String) {
        (self.end - self.start, self.kind.clone())
    }

    pub(crate) fn overlaps(&self, other: &Row) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Rows by address, neighbours of one kind joined, as the kernel itself does.
pub(crate) fn merged(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    let mut out: Vec<Row> = Vec::new();
    for row in rows {
        match out.last_mut() {
            Some(last) if last.end == row.start && last.kind == row.kind => last.end = row.end,
            _ => out.push(row),
        }
    }
    out
}

/// A map, a line per row: what an assertion shows.
pub(crate) fn show(rows: &[Row]) -> String {
    rows.iter()
        .map(|row| format!("{:#014x}-{:#014x} {}\n", row.start, row.end, row.kind))
        .collect()
}

/// A hexadecimal number with or without `0x`.
pub(crate) fn hex(text: &str) -> Result<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).with_context(|| text.to_owned())
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let digits = text.trim_end_matches('=').as_bytes();
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => bail!("{:?} is not base64", char::from(digit)),
            };
            bits = bits << 6 | u32::from(value);
        }
        ensure!(group.len() != 1, "base64 ends within a byte");
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    ensure!(text.len().is_multiple_of(4), "a truncated base64 text");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Records, decode_base64};

    #[test]
    fn base64_of_every_length() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("AA==", b"\0"),
            ("/+8=", b"\xff\xef"),
            ("YWJj", b"abc"),
        ] {
            assert_eq!(decode_base64(text).unwrap(), bytes);
        }
        for text in ["A", "AAA", "AA=A", "A*=="] {
            assert!(decode_base64(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cut_line_is_no_record() {
        let mut records = Records::default();
        assert!(records.take("record 1 cmdline YWJj").is_err());
        assert_eq!(
            records.take("record 1 empty  .").unwrap(),
            (1, "empty".to_owned())
        );
        assert!(records.take("record 1 empty  .").is_err(), "sent twice");
    }
}
