//! /proc/iomem as a tree.
//!
//! Format: kernel/resource.c, `r_show`. Two spaces of indentation per level, but
//! never more than [`MAX_IORES_LEVEL`] levels: below that the file shows a child
//! exactly like a sibling, and only its addresses tell that it is one. Without
//! CAP_SYS_ADMIN every address reads as 0.

use std::fmt;

use super::{HostError, Root, text};
use crate::base::PhysRange;

/// Deepest level that is printed with an indentation of its own (kernel/resource.c).
pub const MAX_IORES_LEVEL: usize = 5;

/// Deepest nesting that is accepted. Real trees stay below ten levels; the limit
/// keeps walking and dropping a tree, which recurse, off the end of the stack.
pub const MAX_NESTING: usize = 128;

/// Reads tried until two agree.
const MAX_READS: u32 = 10;

const PATH: &str = "/proc/iomem";

/// One line of /proc/iomem with what is indented below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The addresses.
    pub range: PhysRange,
    /// The name, as printed.
    pub name: String,
    /// Resources inside this one, in address order.
    pub children: Vec<Resource>,
}

/// The whole tree, in address order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Iomem {
    /// Top-level resources.
    pub roots: Vec<Resource>,
}

/// Why bytes are not a usable /proc/iomem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Every address is 0: the reader lacked CAP_SYS_ADMIN.
    #[error("every address is 0")]
    Hidden,
    /// There is no line at all.
    #[error("the file is empty")]
    Empty,
    /// A line is not what it should be.
    #[error("line {line}: {what}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// Parses the text of /proc/iomem.
///
/// # Errors
/// [`ParseError::Hidden`] when it shows only zeroes; otherwise when a line is
/// malformed, or does not fit the lines before it, as in a torn read.
pub fn parse(bytes: &[u8]) -> Result<Iomem, ParseError> {
    if bytes.is_empty() {
        return Err(ParseError::Empty);
    }
    let mut tree = Builder::default();
    // The first thing wrong is reported only if the file is not a hidden one:
    // a hidden file's lines all overlap one another.
    let mut wrong = None;
    let mut hidden = true;
    for (index, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
        let added = Line::parse(line).and_then(|line| {
            hidden &= line.start == 0 && line.last == 0;
            if wrong.is_none() {
                tree.add(line)?;
            }
            Ok(())
        });
        if let Err(what) = added {
            wrong.get_or_insert(ParseError::Line {
                line: index + 1,
                what,
            });
            if !hidden {
                break;
            }
        }
    }
    match wrong {
        _ if hidden => Err(ParseError::Hidden),
        Some(error) => Err(error),
        None => Ok(tree.finish()),
    }
}

/// One line, taken apart.
struct Line<'a> {
    level: usize,
    start: u64,
    last: u64,
    name: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, String> {
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err("the file ends within this line".to_owned());
        };
        let spaces = line.iter().take_while(|&&b| b == b' ').count();
        let (indent, rest) = line.split_at(spaces);
        if indent.len() % 2 != 0 {
            return Err(format!(
                "indented by {spaces} spaces, which is not a whole number of levels"
            ));
        }
        let expected = || {
            let line = String::from_utf8_lossy(line.get(..80).unwrap_or(line));
            format!("`{}` is not `START-END : NAME`", line.escape_debug())
        };
        let (start, rest) = number(rest, b"-").ok_or_else(expected)?;
        let (last, name) = number(rest, b" : ").ok_or_else(expected)?;
        Ok(Self {
            level: spaces / 2,
            start,
            last,
            name,
        })
    }
}

/// A hexadecimal number in front of `end`, and what follows that.
fn number<'a>(bytes: &'a [u8], end: &[u8]) -> Option<(u64, &'a [u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, rest) = bytes.split_at(digits);
    Some((text::hex(digits)?, rest.strip_prefix(end)?))
}

/// The tree so far, with the resources that may still get children on a stack.
#[derive(Default)]
struct Builder {
    roots: Vec<Resource>,
    open: Vec<(usize, Resource)>,
}

impl Builder {
    fn add(&mut self, line: Line<'_>) -> Result<(), String> {
        let Line {
            level, start, last, ..
        } = line;
        let range = text::inclusive(start, last)?;
        self.close(level, range);
        if self.open.len() >= MAX_NESTING {
            return Err(format!("nested more than {MAX_NESTING} levels deep"));
        }
        let siblings = match self.open.last() {
            Some((above, parent)) => {
                if level > above + 1 {
                    return Err(format!(
                        "indented {level} levels below a line of level {above}"
                    ));
                }
                if !parent.range.covers(range) {
                    return Err(format!(
                        "{range} does not lie in {} ({}), below which it is shown",
                        parent.range, parent.name
                    ));
                }
                &parent.children
            }
            None if level > 0 => return Err("indented, and there is no line above".to_owned()),
            None => &self.roots,
        };
        if let Some(before) = siblings.last()
            && before.range.end() > range.start()
        {
            return Err(format!(
                "{range} does not lie after {} ({}), which is shown before it",
                before.range, before.name
            ));
        }
        self.open.push((
            level,
            Resource {
                range,
                name: String::from_utf8_lossy(line.name).into_owned(),
                children: Vec::new(),
            },
        ));
        Ok(())
    }

    /// Closes what cannot be the parent of `range`, shown at `level`.
    fn close(&mut self, level: usize, range: PhysRange) {
        while let Some((above, resource)) = self.open.last() {
            let nested_at_cap =
                *above == level && level >= MAX_IORES_LEVEL && resource.range.covers(range);
            if *above < level || nested_at_cap {
                break;
            }
            self.close_one();
        }
    }

    fn close_one(&mut self) {
        if let Some((_, done)) = self.open.pop() {
            match self.open.last_mut() {
                Some((_, parent)) => parent.children.push(done),
                None => self.roots.push(done),
            }
        }
    }

    fn finish(mut self) -> Iomem {
        while !self.open.is_empty() {
            self.close_one();
        }
        Iomem { roots: self.roots }
    }
}

impl Iomem {
    /// Calls `visit` for every resource, parents before children, in address
    /// order, with its ancestors, outermost first.
    pub fn walk<'a>(&'a self, mut visit: impl FnMut(&'a Resource, &[&'a Resource])) {
        walk(&self.roots, &mut Vec::new(), &mut visit);
    }

    /// The ranges of all resources called `name`, at any depth, in address order.
    #[must_use]
    pub fn find(&self, name: &str) -> Vec<PhysRange> {
        let mut found = Vec::new();
        self.walk(|resource, _| {
            if resource.name == name {
                found.push(resource.range);
            }
        });
        found
    }

    /// The ranges of `Crash kernel`: none, one, or a low and a high one.
    #[must_use]
    pub fn crash_kernel(&self) -> Vec<PhysRange> {
        self.find("Crash kernel")
    }
}

fn walk<'a>(
    resources: &'a [Resource],
    ancestors: &mut Vec<&'a Resource>,
    visit: &mut impl FnMut(&'a Resource, &[&'a Resource]),
) {
    for resource in resources {
        visit(resource, ancestors);
        ancestors.push(resource);
        walk(&resource.children, ancestors, visit);
        ancestors.pop();
    }
}

impl fmt::Display for Iomem {
    /// As the kernel prints it, the cap on indentation included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.walk(|resource, ancestors| {
            let indent = 2 * ancestors.len().min(MAX_IORES_LEVEL);
            if result.is_ok() {
                result = writeln!(f, "{:indent$}{} : {}", "", resource.range, resource.name);
            }
        });
        result
    }
}

/// Reads /proc/iomem until two reads agree: the kernel hands the file out in
/// pieces and looks its place up again for each, so that a hotplug in between
/// repeats or drops lines.
///
/// # Errors
/// When it cannot be read, is malformed or changes all the time, and when it shows zeroes for
/// want of privilege.
pub fn read(root: &Root) -> Result<Iomem, HostError> {
    let bytes = steady(|| root.read(PATH))?;
    parse(&bytes).map_err(|error| match error {
        ParseError::Hidden => HostError::Hidden,
        other => HostError::malformed(PATH, other.to_string()),
    })
}

/// What `read` gives twice in a row.
fn steady(mut read: impl FnMut() -> Result<Vec<u8>, HostError>) -> Result<Vec<u8>, HostError> {
    let mut before = read()?;
    for _ in 1..MAX_READS {
        let now = read()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    Err(HostError::Unsteady {
        path: PATH.to_owned(),
        reads: MAX_READS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    /// `depth name` per resource, in order.
    fn outline(iomem: &Iomem) -> Vec<String> {
        let mut lines = Vec::new();
        iomem.walk(|resource, ancestors| {
            lines.push(format!("{} {}", ancestors.len(), resource.name));
        });
        lines
    }

    #[test]
    fn a_tree_with_awkward_names() {
        let text = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-3ffdffff : System RAM
  01000000-01ffffff : Kernel code
  02000000-02ffffff : Kernel data : odd
40000000-5fffffff : Persistent Memory (legacy)
  48000000-5fffffff : dax0.0
    48000000-5fffffff : System RAM (kmem)
fed00000-fed003ff :  leading space
fee00000-fee00fff : 
4000000000-7fffffffff : PCI Bus 0000:00
";
        let iomem = parse(text.as_bytes()).unwrap();
        assert_eq!(
            outline(&iomem),
            [
                "0 Reserved",
                "0 System RAM",
                "0 System RAM",
                "1 Kernel code",
                "1 Kernel data : odd",
                "0 Persistent Memory (legacy)",
                "1 dax0.0",
                "2 System RAM (kmem)",
                "0  leading space",
                "0 ",
                "0 PCI Bus 0000:00",
            ]
        );
        assert_eq!(iomem.to_string(), text);
        assert_eq!(
            iomem.find("System RAM (kmem)"),
            [PhysRange::from_bounds(0x4800_0000, 0x6000_0000).unwrap()]
        );
        assert_eq!(iomem.find("System RAM").len(), 2);
        assert_eq!(iomem.crash_kernel(), []);
    }

    #[test]
    fn below_the_indentation_cap_containment_tells_the_parent() {
        let text = "\
00000000-ffffffff : 0
  00000000-ffffffff : 1
    00000000-ffffffff : 2
      00000000-ffffffff : 3
        00000000-ffffffff : 4
          00000000-7fffffff : 5
          00000000-3fffffff : 6
          00000000-3fffffff : 7
          40000000-40000fff : 6b
          80000000-ffffffff : 5b
        ";
        let text = text.trim_end_matches(' ');
        let iomem = parse(text.as_bytes()).unwrap();
        assert_eq!(
            outline(&iomem),
            [
                "0 0", "1 1", "2 2", "3 3", "4 4", "5 5", "6 6", "7 7", "6 6b", "5 5b"
            ]
        );
        assert_eq!(iomem.to_string(), text);
    }

    #[test]
    fn names_that_are_not_utf8_are_kept_lossily() {
        let iomem = parse(b"00001000-00001fff : a\xffb\n").unwrap();
        assert_eq!(iomem.roots[0].name, "a\u{fffd}b");
    }

    #[test]
    fn zeroes_everywhere_are_hidden_and_one_zero_line_is_not() {
        let hidden = "00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n";
        assert_eq!(parse(hidden.as_bytes()), Err(ParseError::Hidden));
        let one = "00000000-00000000 : odd device\n00001000-0009ffff : System RAM\n";
        assert_eq!(parse(one.as_bytes()).unwrap().roots.len(), 2);
        // Two zero lines cannot be siblings, nor is this file hidden.
        let two = "00000000-00000000 : a\n00000000-00000000 : b\n00001000-0009ffff : System RAM\n";
        assert_eq!(
            error(two),
            "line 2: 00000000-00000000 does not lie after 00000000-00000000 (a), which is shown before it"
        );
        assert_eq!(parse(b""), Err(ParseError::Empty));
    }

    #[test]
    fn malformed_lines_are_named_by_number() {
        let first = "00001000-0009ffff : System RAM\n";
        for (line, what) in [
            (
                " 00100000-001fffff : x\n",
                "indented by 1 spaces, which is not a whole number of levels",
            ),
            (
                "    00001000-00001fff : x\n",
                "indented 2 levels below a line of level 0",
            ),
            (
                "00100000-001fffff: x\n",
                "`00100000-001fffff: x` is not `START-END : NAME`",
            ),
            (
                "0010000g-001fffff : x\n",
                "`0010000g-001fffff : x` is not `START-END : NAME`",
            ),
            (
                "-001fffff : x\n",
                "`-001fffff : x` is not `START-END : NAME`",
            ),
            (
                "10000000000000000-10000000000000001 : x\n",
                "`10000000000000000-10000000000000001 : x` is not `START-END : NAME`",
            ),
            ("\n", "`` is not `START-END : NAME`"),
            ("\0\n", "`\\0` is not `START-END : NAME`"),
            (
                "00200000-001fffff : x\n",
                "the range's last byte 0x1fffff lies before its first, 0x200000",
            ),
            (
                "ffffffffffffffff-ffffffffffffffff : x\n",
                "the range at 0xffffffffffffffff is empty",
            ),
            (
                "00001000-00001fff : x\n",
                "00001000-00001fff does not lie after 00001000-0009ffff (System RAM), which is shown before it",
            ),
            (
                "00000000-00000fff : x\n",
                "00000000-00000fff does not lie after 00001000-0009ffff (System RAM), which is shown before it",
            ),
            (
                "  0009f000-000a0fff : x\n",
                "0009f000-000a0fff does not lie in 00001000-0009ffff (System RAM), below which it is shown",
            ),
            ("00100000-001fffff : x", "the file ends within this line"),
        ] {
            assert_eq!(
                error(&format!("{first}{line}")),
                format!("line 2: {what}"),
                "{line:?}"
            );
        }
        assert_eq!(
            error("  00001000-00001fff : x\n"),
            "line 1: indented, and there is no line above"
        );
        let late = format!(
            "{first}00100000-001fffff : x\n  00100000-00100fff : y\n  00100800-00101fff : z\n"
        );
        assert!(error(&late).starts_with("line 4: "), "{}", error(&late));
    }

    #[test]
    fn the_end_of_the_address_space_is_clamped() {
        let iomem = parse(b"00001000-ffffffffffffffff : PCI mem\n").unwrap();
        assert_eq!(iomem.roots[0].range.end(), u64::MAX);
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut text = String::new();
        for level in 0..MAX_NESTING {
            let indent = 2 * level.min(MAX_IORES_LEVEL);
            text += &format!("{:indent$}00001000-00001fff : x\n", "");
        }
        assert!(parse(text.as_bytes()).is_ok());
        text += "          00001000-00001fff : x\n";
        assert_eq!(error(&text), "line 129: nested more than 128 levels deep");
    }

    #[test]
    fn a_changing_file_is_read_again() {
        let mut reads = [1u8, 2, 2].into_iter();
        let bytes = steady(|| Ok(vec![reads.next().unwrap()])).unwrap();
        assert_eq!(bytes, [2]);
        let mut count = 0u8;
        let error = steady(|| {
            count += 1;
            Ok(vec![count])
        })
        .unwrap_err();
        assert_eq!(count, 10);
        assert_eq!(
            error.to_string(),
            "/proc/iomem changed during each of 10 reads"
        );
    }

    #[test]
    fn errors_of_the_reader_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let root = Root::at(dir.path());
        let write = |text: &str| std::fs::write(dir.path().join("proc/iomem"), text).unwrap();
        write("00001000-00001fff : a\nx\n");
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            "/proc/iomem: line 2: `x` is not `START-END : NAME`"
        );
        write("00000000-00000000 : a\n");
        assert!(matches!(read(&root), Err(HostError::Hidden)));
    }

    /// Children inside `range`, at most `depth` levels of them.
    fn children(range: PhysRange, depth: u32) -> BoxedStrategy<Vec<Resource>> {
        if depth == 0 || range.size() < 8 {
            return Just(Vec::new()).boxed();
        }
        let cuts = prop::collection::btree_set(range.start()..=range.end(), 0..5);
        cuts.prop_flat_map(move |cuts| {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            // A cut pair may be the whole of the parent, and neighbours may touch.
            let ranges = cuts
                .windows(2)
                .map(|pair| PhysRange::from_bounds(pair[0], pair[1]).unwrap());
            ranges
                .map(move |range| resource(range, depth - 1))
                .collect::<Vec<_>>()
        })
        .boxed()
    }

    fn resource(range: PhysRange, depth: u32) -> BoxedStrategy<Resource> {
        ("[ -~é]{0,12}", children(range, depth))
            .prop_map(move |(name, children)| Resource {
                range,
                name,
                children,
            })
            .boxed()
    }

    /// A chain of nested resources with siblings at its end, to reach below the cap.
    fn deep() -> impl Strategy<Value = Iomem> {
        let all = PhysRange::from_bounds(0, 1 << 40).unwrap();
        (0usize..9, children(all, 3)).prop_map(move |(chain, leaves)| {
            let mut roots = leaves;
            for level in 0..chain {
                roots = vec![Resource {
                    range: all,
                    name: format!("level {level}"),
                    children: roots,
                }];
            }
            Iomem { roots }
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_itself(iomem in deep()) {
            prop_assume!(!iomem.roots.is_empty());
            prop_assert_eq!(parse(iomem.to_string().as_bytes()), Ok(iomem));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_lines_panic(text in "( {0,12}[0-9a-f]{1,17}-[0-9a-f]{0,17} ?:? [a-z]{0,3}\n){0,12}") {
            if let Ok(iomem) = parse(text.as_bytes()) {
                prop_assert_eq!(parse(iomem.to_string().as_bytes()), Ok(iomem));
            }
        }
    }
}
