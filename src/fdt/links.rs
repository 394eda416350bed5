//! Links between nodes: phandles, and the chains that kernels follow.

use std::collections::HashMap;

use super::Node;
use super::error::TreeError;

/// Properties that name one node by its phandle, which may name the next one.
const CHAINS: [&str; 3] = ["interrupt-parent", "msi-parent", "wakeup-parent"];
/// Nodes of a cycle that a message names.
const SHOWN: usize = 6;

/// The nodes of a tree in order, each with its parent's index.
struct Nodes<'a> {
    all: Vec<(&'a Node, Option<usize>)>,
    by_phandle: HashMap<u32, usize>,
}

/// Checks that phandles are valid and unique, and that no chain is a cycle.
pub(super) fn check(root: &Node) -> Result<(), TreeError> {
    let mut nodes = Nodes {
        all: Vec::new(),
        by_phandle: HashMap::new(),
    };
    nodes.add(root, None);
    nodes.read_phandles()?;
    for property in CHAINS {
        nodes.refuse_cycle(property, &nodes.explicit(property))?;
    }
    nodes.refuse_cycle("interrupt-parent", &nodes.interrupt_parents())
}

impl<'a> Nodes<'a> {
    fn add(&mut self, node: &'a Node, parent: Option<usize>) {
        let index = self.all.len();
        self.all.push((node, parent));
        for child in node.children() {
            self.add(child, Some(index));
        }
    }

    fn path(&self, index: usize) -> String {
        let mut names = Vec::new();
        let mut at = Some(index);
        while let Some((node, parent)) = at.and_then(|at| self.all.get(at)) {
            names.push(node.name());
            at = *parent;
        }
        names.reverse();
        match names.as_slice() {
            [_root] => "/".to_owned(),
            names => names.join("/"),
        }
    }

    /// Every node has at most one phandle, which no other node has.
    fn read_phandles(&mut self) -> Result<(), TreeError> {
        for index in 0..self.all.len() {
            let Some(phandle) = self.phandle(index)? else {
                continue;
            };
            if let Some(first) = self.by_phandle.insert(phandle, index) {
                return Err(TreeError::PhandleTwice {
                    phandle,
                    first: self.path(first),
                    second: self.path(index),
                });
            }
        }
        Ok(())
    }

    fn phandle(&self, index: usize) -> Result<Option<u32>, TreeError> {
        let mut found = None;
        // The second is what dtc wrote before the specification had a name for it.
        for property in ["phandle", "linux,phandle"] {
            let fault = |why| TreeError::Phandle {
                path: self.path(index),
                property,
                why,
            };
            match self.all[index].0.cell(property) {
                None => {}
                Some(Err(size)) => return Err(fault(format!("has {size} bytes instead of 4"))),
                Some(Ok(value @ (0 | u32::MAX))) => {
                    return Err(fault(format!("is {value:#x}, which names no node")));
                }
                Some(Ok(value)) => match found.replace(value) {
                    Some(other) if other != value => {
                        return Err(fault(format!("is {value:#x}, but phandle is {other:#x}")));
                    }
                    _ => {}
                },
            }
        }
        Ok(found)
    }

    /// For every node the one that its `property` names. A node that names
    /// itself ends the chain: interrupt controllers at the root do that.
    fn explicit(&self, property: &str) -> Vec<Option<usize>> {
        let nodes = self.all.iter().enumerate();
        nodes
            .map(|(index, (node, _))| {
                let phandle = node.cell(property)?.ok()?;
                let target = self.by_phandle.get(&phandle).copied()?;
                Some(target).filter(|target| *target != index)
            })
            .collect()
    }

    /// For every node the one where of_irq_find_parent() (drivers/of/irq.c) looks
    /// next: the node that `interrupt-parent` names, else the one above; it ends
    /// at a node with `#interrupt-cells`, and where a phandle names no node.
    fn interrupt_parents(&self) -> Vec<Option<usize>> {
        let nodes = self.all.iter();
        nodes
            .map(|(node, above)| {
                if node.property("#interrupt-cells").is_some() {
                    return None;
                }
                match node.property("interrupt-parent").map(<[u8]>::first_chunk) {
                    Some(Some(phandle)) => {
                        let phandle = u32::from_be_bytes(*phandle);
                        self.by_phandle.get(&phandle).copied()
                    }
                    Some(None) | None => *above,
                }
            })
            .collect()
    }

    /// Follows `next` from every node; every node is visited once.
    fn refuse_cycle(
        &self,
        property: &'static str,
        next: &[Option<usize>],
    ) -> Result<(), TreeError> {
        // The walk that first came to a node.
        let mut walk_of = vec![None; next.len()];
        for start in 0..next.len() {
            let mut at = start;
            while walk_of[at].is_none() {
                walk_of[at] = Some(start);
                match next[at] {
                    Some(following) => at = following,
                    None => break,
                }
            }
            if next[at].is_some() && walk_of[at] == Some(start) {
                return Err(TreeError::Cycle {
                    property,
                    nodes: self.describe_cycle(at, next),
                });
            }
        }
        Ok(())
    }

    fn describe_cycle(&self, start: usize, next: &[Option<usize>]) -> String {
        let mut text = self.path(start);
        let mut at = next[start];
        for _ in 0..SHOWN {
            let Some(node) = at else { break };
            text.push_str(" -> ");
            text.push_str(&self.path(node));
            if node == start {
                return text;
            }
            at = next[node];
        }
        text + " -> …"
    }
}
