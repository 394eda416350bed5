//! Trees to source text.

use std::fmt::Write as _;

use super::{DeviceTree, Node};

pub(super) fn print(tree: &DeviceTree) -> String {
    let mut text = String::from("/dts-v1/;\n\n");
    for entry in &tree.reservations {
        let _ = writeln!(
            text,
            "/memreserve/\t{:#018x} {:#018x};",
            entry.address, entry.size
        );
    }
    print_node(&mut text, &tree.root, 0);
    text
}

fn print_node(text: &mut String, node: &Node, depth: usize) {
    let indent = "\t".repeat(depth);
    let name = if node.name.is_empty() {
        "/"
    } else {
        &node.name
    };
    let _ = writeln!(text, "{indent}{name} {{");
    for property in &node.properties {
        let _ = write!(text, "{indent}\t{}", property.name);
        print_value(text, &property.value);
        text.push_str(";\n");
    }
    for child in &node.children {
        text.push('\n');
        print_node(text, child, depth + 1);
    }
    let _ = writeln!(text, "{indent}}};");
}

/// A value says nothing of its type: what looks like strings is printed so,
/// else as cells where its length allows, else as bytes.
fn print_value(text: &mut String, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    text.push_str(" = ");
    if let Some(strings) = as_strings(value) {
        for (index, string) in strings.enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}\"{}\"", escaped(string));
        }
    } else if let (cells, []) = value.as_chunks::<4>() {
        let cells = cells.iter().map(|cell| u32::from_be_bytes(*cell));
        let _ = write!(
            text,
            "<{}>",
            joined(cells.map(|cell| format!("{cell:#04x}")))
        );
    } else {
        let bytes = value.iter().map(|byte| format!("{byte:02x}"));
        let _ = write!(text, "[{}]", joined(bytes));
    }
}

fn joined(numbers: impl Iterator<Item = String>) -> String {
    numbers.collect::<Vec<_>>().join(" ")
}

fn escaped(string: &[u8]) -> String {
    let mut text = String::new();
    for byte in string {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            other => text.push(char::from(*other)),
        }
    }
    text
}

/// The strings that the value is a list of: each printable and ended by a NUL,
/// not more NULs than text.
fn as_strings(value: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let text = value.strip_suffix(b"\0")?;
    let ends = value.iter().filter(|byte| **byte == 0).count();
    let printable = |byte: &u8| matches!(byte, 0 | b' '..=b'~' | b'\t' | b'\n' | b'\r');
    let list = value.iter().all(printable) && 2 * ends <= value.len();
    list.then(|| text.split(|byte| *byte == 0))
}
