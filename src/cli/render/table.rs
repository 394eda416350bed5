//! Tables whose columns stand under each other, however wide their texts are, and lists
//! of ranges that are folded where they are long.

use crate::base::PhysRange;

use super::{human, range};

/// A list with more rows than this is folded.
const LONG: usize = 16;
/// A column is at most so wide. A longer cell moves the cells behind it to the right.
const MAX_WIDTH: usize = 200;
/// Ranges of one kind stay single rows up to this number.
const FEW: usize = 3;

/// Rows of texts. The last column may have any length.
#[derive(Debug)]
pub(in crate::cli) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    /// Columns that stand at the right: sizes.
    right: [bool; N],
}

impl<const N: usize> Table<N> {
    /// Without rows. `right` says which columns hold numbers.
    pub(in crate::cli) const fn new(right: [bool; N]) -> Self {
        Self {
            rows: Vec::new(),
            right,
        }
    }

    pub(in crate::cli) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The rows as lines, without line ends.
    pub(in crate::cli) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width).min(MAX_WIDTH);
            }
        }
        self.rows.iter().map(move |row| {
            let cells = row.iter().zip(widths).zip(self.right);
            let cells = cells.map(|((cell, width), right)| {
                // A format takes no width above 65,535.
                let spaces = " ".repeat(width.saturating_sub(cell.chars().count()));
                if right {
                    spaces + cell
                } else {
                    format!("{cell}{spaces}")
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            line.trim_end().to_owned()
        })
    }

    /// The rows as text, each two columns from the left.
    pub(in crate::cli) fn text(&self) -> String {
        self.lines().map(|line| format!("  {line}\n")).collect()
    }
}

/// A row of a range: its addresses, its size, and what it is.
fn row(addresses: PhysRange, what: &str) -> [String; 3] {
    [range(addresses), human(addresses.size()), what.to_owned()]
}

/// Ranges, and what each is. A long list is folded: ranges that are the same thing become
/// one row, unless there are few of them. With `all` no list is folded; `option` is the one
/// that asks for that.
pub(in crate::cli) fn ranges(list: &[(PhysRange, String)], all: bool, option: &str) -> String {
    let mut table = Table::new([false, true, false]);
    if all || list.len() <= LONG {
        for (range, what) in list {
            table.push(row(*range, what));
        }
        return table.text();
    }
    let mut groups: Vec<(&str, Vec<PhysRange>)> = Vec::new();
    for (range, what) in list {
        match groups.iter_mut().find(|(known, _)| known == what) {
            Some((_, ranges)) => ranges.push(*range),
            None => groups.push((what, vec![*range])),
        }
    }
    for (what, ranges) in groups {
        if ranges.len() <= FEW {
            for range in ranges {
                table.push(row(range, what));
            }
        } else {
            let total = ranges.iter().map(|range| range.size()).sum();
            table.push([folded(&ranges), human(total), what.to_owned()]);
        }
    }
    table.text() + &format!("  ({option} lists every range)\n")
}

/// "70 ranges of 4 KiB", or "9 ranges" where their sizes differ.
fn folded(ranges: &[PhysRange]) -> String {
    let mut sizes = ranges.iter().map(|range| range.size());
    let first = sizes.next().unwrap_or_default();
    if sizes.all(|size| size == first) {
        format!("{} ranges of {}", ranges.len(), human(first))
    } else {
        format!("{} ranges", ranges.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: u64, size: u64) -> PhysRange {
        PhysRange::new(start, size).unwrap()
    }

    #[test]
    fn columns_stand_under_each_other_above_4_gib() {
        let list = [
            (at(0, 0x1000), "a".to_owned()),
            (at(0xfd_0000_0000, 0x3_0000_0000), "b".to_owned()),
        ];
        assert_eq!(
            ranges(&list, false, "--explain"),
            "  0x0-0xfff                   4 KiB  a\n  \
               0xfd00000000-0xffffffffff  12 GiB  b\n"
        );
    }

    #[test]
    fn a_cell_may_be_longer_than_a_format_takes() {
        let long = "x".repeat(70_000);
        let mut table = Table::new([false, true, false]);
        table.push([long.clone(), long.clone(), long.clone()]);
        table.push(["a", "b", "c"].map(str::to_owned));
        let lines: Vec<String> = table.lines().collect();
        let [first, second] = lines.as_slice() else {
            panic!("two rows")
        };
        assert_eq!(*first, [&*long; 3].join("  "));
        let gap = " ".repeat(MAX_WIDTH - 1);
        assert_eq!(*second, format!("a{gap}  {gap}b  c"));
    }

    #[test]
    fn a_long_list_has_a_row_for_each_kind() {
        let mut list: Vec<_> = (0..20)
            .map(|number| (at(number << 20, 0x1000), "small".to_owned()))
            .collect();
        list.push((at(1 << 32, 1 << 30), "large".to_owned()));
        assert_eq!(
            ranges(&list, false, "--explain"),
            "  20 ranges of 4 KiB       80 KiB  small\n  \
               0x100000000-0x13fffffff   1 GiB  large\n  \
               (--explain lists every range)\n"
        );
        assert_eq!(ranges(&list, true, "--explain").lines().count(), 21);
        // What is short stays as it is.
        assert_eq!(ranges(&list[5..], false, "--explain").lines().count(), 16);
        list[0].0 = at(0, 0x2000);
        assert!(ranges(&list, false, "--explain").starts_with("  20 ranges   "));
    }
}
