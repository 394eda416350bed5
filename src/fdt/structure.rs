//! The structure block: every token, name and length is checked here, before
//! dtoolkit walks it.

use std::collections::HashSet;

use super::error::TreeError;

/// Most levels of nodes, the root's included. unflatten_dt_nodes() has an
/// array of FDT_MAX_DEPTH = 64 nodes, the first of which is the root's parent,
/// and skips what is below (drivers/of/fdt.c).
pub const MAX_LEVELS: usize = 63;
/// Longest name: /proc/device-tree could not show a longer one (NAME_MAX).
/// The specification has 31, but dtc makes `__symbols__` of labels of any length.
pub(super) const MAX_NAME: usize = 255;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// A node whose end has not been seen.
#[derive(Default)]
struct Open<'a> {
    /// Length of the path of the node that it is in.
    parent_path: usize,
    properties: HashSet<&'a [u8]>,
    children: HashSet<&'a [u8]>,
}

/// Checks that `structure` is one tree, and answers with its part from the root's
/// first token (dtoolkit does not skip NOPs before it) to FDT_END.
pub(super) fn check<'a>(structure: &'a [u8], strings: &[u8]) -> Result<&'a [u8], TreeError> {
    let mut cursor = Cursor { structure, at: 0 };
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut path = String::new();
    let mut root = None;
    loop {
        let offset = cursor.at;
        let fault = |why| TreeError::Structure { offset, why };
        match cursor.number()? {
            BEGIN_NODE => {
                if open.is_empty() && root.is_some() {
                    return Err(fault("a second root"));
                }
                let name = cursor.name()?;
                let parent_path = path.len();
                match open.last_mut() {
                    None if name.is_empty() => root = Some(offset),
                    None => return Err(fault("the root has a name")),
                    Some(parent) => {
                        enter(&mut path, name)?;
                        if !parent.children.insert(name) {
                            path.truncate(parent_path);
                            return Err(duplicate(&path, "nodes", name));
                        }
                    }
                }
                if open.len() == MAX_LEVELS {
                    return Err(TreeError::TooDeep { path });
                }
                open.push(Open {
                    parent_path,
                    ..Open::default()
                });
            }
            END_NODE => {
                let closed = open.pop();
                let closed = closed.ok_or_else(|| fault("a node ends that did not begin"))?;
                path.truncate(closed.parent_path);
            }
            PROP => {
                let (size, name) = (cursor.number()?, cursor.number()?);
                cursor.skip(size)?;
                let node = open.last_mut();
                let node = node.ok_or_else(|| fault("a property outside of every node"))?;
                if !node.children.is_empty() {
                    return Err(fault("a property after a node"));
                }
                let name = string(strings, name)
                    .ok_or_else(|| fault("the property's name is not in the strings block"))?;
                if !is_name(name) {
                    return Err(TreeError::Name {
                        path: shown(&path),
                        what: "property",
                        name: name.escape_ascii().to_string(),
                    });
                }
                if !node.properties.insert(name) {
                    return Err(duplicate(&path, "properties", name));
                }
            }
            NOP => {}
            END => {
                let tree = root.filter(|_| open.is_empty());
                let tree = tree.and_then(|start| structure.get(start..cursor.at));
                return tree.ok_or_else(|| fault("the block ends inside a node"));
            }
            _ => return Err(fault("unknown token")),
        }
    }
}

/// Appends a node's name to the path of its parent.
fn enter(path: &mut String, name: &[u8]) -> Result<(), TreeError> {
    let (before, unit) = match name.iter().position(|byte| *byte == b'@') {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, &[][..]),
    };
    let fits = is_name(before) && unit.iter().all(|byte| is_name_byte(*byte));
    match std::str::from_utf8(name) {
        Ok(text) if fits && name.len() <= MAX_NAME => {
            path.push('/');
            path.push_str(text);
            Ok(())
        }
        _ => Err(TreeError::Name {
            path: shown(path),
            what: "node",
            name: name.escape_ascii().to_string(),
        }),
    }
}

fn duplicate(path: &str, what: &'static str, name: &[u8]) -> TreeError {
    TreeError::Duplicate {
        path: shown(path),
        what,
        name: name.escape_ascii().to_string(),
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "/" } else { path }.to_owned()
}

fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.iter().all(|byte| is_name_byte(*byte))
}

/// What dtc allows in names: the specification's characters, `*`, and in a
/// node's name `#` and `?` as well.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b",._+*#?-".contains(&byte)
}

/// The string at `offset`, without the NUL that ends it.
fn string(strings: &[u8], offset: u32) -> Option<&[u8]> {
    let from = strings.get(usize::try_from(offset).ok()?..)?;
    // One byte more than a name may have, so that a longer one is seen as such
    // without reading on to the end of the block for every property.
    let from = from.get(..MAX_NAME + 2).unwrap_or(from);
    let length = from.iter().position(|byte| *byte == 0);
    match length {
        Some(length) => from.get(..length),
        None if from.len() > MAX_NAME => Some(from),
        None => None,
    }
}

/// A place in the structure block, always a multiple of 4.
struct Cursor<'a> {
    structure: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn fault(&self, why: &'static str) -> TreeError {
        TreeError::Structure {
            offset: self.at,
            why,
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.structure.get(self.at..).unwrap_or_default()
    }

    fn number(&mut self) -> Result<u32, TreeError> {
        let bytes = self.rest().first_chunk();
        let bytes = bytes.ok_or_else(|| self.fault("the block ends without FDT_END"))?;
        self.at += 4;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A name, and what pads it.
    fn name(&mut self) -> Result<&'a [u8], TreeError> {
        let rest = self.rest();
        let length = rest.iter().position(|byte| *byte == 0);
        let length = length.ok_or_else(|| self.fault("the node's name has no end"))?;
        self.at = (self.at + length + 1).next_multiple_of(4);
        Ok(&rest[..length])
    }

    /// A value, and what pads it.
    fn skip(&mut self, size: u32) -> Result<(), TreeError> {
        let size = usize::try_from(size).ok();
        let size = size.filter(|size| *size <= self.rest().len());
        let size = size.ok_or_else(|| self.fault("the value is not inside the block"))?;
        self.at = (self.at + size).next_multiple_of(4);
        Ok(())
    }
}
