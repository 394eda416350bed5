//! The next kernel's command line: a value that cannot be wrong, and the
//! rules that make one out of the running kernel's.

use super::PlanError;
use crate::handover::HandoverError;

/// A command line without NUL and newline, within the image's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Cmdline(String);

/// Parameters of the running command line that belong to that boot alone:
/// what its boot loader added, and what an earlier kexec or crash load added.
const ONE_BOOT_ONLY: [&str; 6] = [
    "BOOT_IMAGE",
    "initrd",
    "elfcorehdr",
    "acpi_rsdp",
    "dmcryptkeys",
    "kexec_jump_back_entry",
];

/// What the running command line says of the memory of that kernel: to a crash
/// kernel, which has another, it would do harm. With `crashkernel` it would
/// reserve what it runs in, with `mem` its reservation may lie too high.
const NOT_FOR_CRASH: [&str; 4] = ["crashkernel", "mem", "memmap", "pmpool"];

/// Keeps the capture kernel's ACPI driver from adding the machine's DIMMs to its
/// memory, as it would without being told: they are in the dump, and it would write
/// into them (drivers/acpi/acpi_memhotplug.c).
pub(super) const NO_MEMHOTPLUG: &str = "acpi_no_memhotplug";

/// How the command line is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CmdlineRequest {
    /// Where it starts from.
    pub base: CmdlineBase,
    /// Text added behind it, in order.
    pub append: Vec<String>,
    /// Parameters removed at last: a name, with or without a value, or `name=value`.
    pub remove: Vec<String>,
}

/// Where the command line starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CmdlineBase {
    /// Nothing.
    #[default]
    Empty,
    /// This line.
    Given(String),
    /// The running kernel's, without what belongs to that boot alone.
    Running,
}

impl Cmdline {
    /// Makes the line and checks it; `limit` is the image's, bytes without the NUL.
    ///
    /// # Errors
    /// When it holds a NUL or a newline, or is longer than `limit`.
    pub fn make(request: &CmdlineRequest, running: &str, limit: usize) -> Result<Self, PlanError> {
        let mut line = match &request.base {
            CmdlineBase::Empty => String::new(),
            CmdlineBase::Given(line) => line.clone(),
            CmdlineBase::Running => reusable(running),
        };
        for text in request.append.iter().filter(|text| !text.is_empty()) {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(text);
        }
        if !request.remove.is_empty() {
            line = without(&line, |name, word| {
                request
                    .remove
                    .iter()
                    .any(|unwanted| unwanted == name || unwanted == word)
            });
        }
        if let Some(at) = line.find(['\0', '\n']) {
            let what = if line.as_bytes().get(at) == Some(&0) {
                "a NUL"
            } else {
                "a newline"
            };
            return Err(PlanError::CmdlineCharacter { what, at });
        }
        if line.len() > limit {
            return Err(PlanError::CmdlineTooLong {
                length: line.len(),
                limit,
            });
        }
        Ok(Self(line))
    }

    /// The line with `parameter` added where the kernel reads it: before `--`;
    /// `limit` is the image's.
    ///
    /// # Errors
    /// When a quote is left open, or the line grows longer than `limit`.
    pub fn with(&self, parameter: &str, limit: usize) -> Result<Self, PlanError> {
        let (kernels, inits) = split_at_init(&self.0);
        if kernels.bytes().filter(|byte| *byte == b'"').count() % 2 != 0 {
            return Err(HandoverError::OpenQuote(parameter.to_owned()).into());
        }
        let parts = [kernels.trim_end(), parameter, inits];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let base = CmdlineBase::Given(parts.join(" "));
        Self::make(
            &CmdlineRequest {
                base,
                ..CmdlineRequest::default()
            },
            "",
            limit,
        )
    }

    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The running line without what belongs to its boot alone. A line with
/// `memmap=exactmap` was written by a loader that told a crash kernel its whole
/// memory so: none of its `memmap=` holds for another kernel. Without that word
/// they are the operator's, who set memory aside, and stay.
fn reusable(running: &str) -> String {
    let mut parameters = words(running).take_while(|word| *word != "--");
    let crash_map = parameters.any(|word| word == "memmap=exactmap");
    let line = without(running, |name, _| {
        ONE_BOOT_ONLY.contains(&name) || (crash_map && name == "memmap")
    });
    match has(running, "elfcorehdr") {
        true => without_last(&line, NO_MEMHOTPLUG),
        false => line,
    }
}

/// `line` without `word` when it is the last one of the kernel's own: there a crash load
/// puts what it adds. Elsewhere it is the operator's.
fn without_last(line: &str, word: &str) -> String {
    let (kernels, inits) = split_at_init(line);
    match kernels.trim_end().strip_suffix(word) {
        Some(rest) if rest.is_empty() || rest.ends_with(' ') => {
            let parts = [rest.trim_end(), inits].into_iter();
            parts
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        }
        _ => line.to_owned(),
    }
}

/// The running line for a crash kernel.
#[must_use]
pub(super) fn for_crash(running: &str) -> String {
    without(running, |name, _| NOT_FOR_CRASH.contains(&name))
}

/// The words of a command line as the kernel cuts it (`next_arg` in
/// lib/cmdline.c): at white space outside double quotes.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_ascii_whitespace()
    })
    .filter(|word| !word.is_empty())
}

/// The value of the last parameter `wanted` on `line`, without quotes around it.
#[must_use]
pub fn value<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    let parameters = words(line).take_while(|word| *word != "--");
    let values = parameters
        .filter(|word| name(word) == wanted)
        .filter_map(|word| word.split_once('='));
    values.last().map(|(_, value)| value.trim_matches('"'))
}

/// Whether the parameter or flag `wanted` is on `line`.
#[must_use]
pub fn has(line: &str, wanted: &str) -> bool {
    words(line)
        .take_while(|word| *word != "--")
        .any(|word| name(word) == wanted)
}

/// The line cut before the word `--`: what is the kernel's, and what is init's.
fn split_at_init(line: &str) -> (&str, &str) {
    let init = words(line).find(|word| *word == "--");
    // `words` gives parts of `line`: the distance of their starts is an offset.
    let at = init.map_or(line.len(), |word| {
        word.as_ptr().addr() - line.as_ptr().addr()
    });
    line.split_at(at)
}

/// The name of a word: what stands before `=`, without a leading quote.
fn name(word: &str) -> &str {
    let word = word.strip_prefix('"').unwrap_or(word);
    word.split('=').next().unwrap_or(word).trim_end_matches('"')
}

/// `line` without the words that `unwanted(name, word)` names; the rest is
/// joined by single spaces. Words behind `--` are for init and stay.
pub(super) fn without(line: &str, unwanted: impl Fn(&str, &str) -> bool) -> String {
    let mut for_init = false;
    let kept: Vec<&str> = words(line)
        .filter(|word| {
            for_init |= *word == "--";
            for_init || !unwanted(name(word), word)
        })
        .collect();
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(request: &CmdlineRequest, running: &str) -> String {
        Cmdline::make(request, running, 2047)
            .unwrap()
            .as_str()
            .to_owned()
    }

    #[test]
    fn reuse_drops_what_belongs_to_one_boot() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            ..Default::default()
        };
        let running = "BOOT_IMAGE=/vmlinuz root=/dev/sda initrd=\\x.img dyndbg=\"file a +p; file b\" \
                       elfcorehdr=0x1 quiet acpi_rsdp=0x2 initrd_x=1 -- initrd=forinit";
        let expected =
            "root=/dev/sda dyndbg=\"file a +p; file b\" quiet initrd_x=1 -- initrd=forinit";
        assert_eq!(make(&request, running), expected);
    }

    #[test]
    fn the_map_of_a_crash_kernel_is_dropped_and_the_operators_stays() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            ..Default::default()
        };
        let crash = "quiet memmap=exactmap memmap=640K@0K memmap=260M@768M elfcorehdr=867640K \
                     dmcryptkeys=0x1 -- memmap=x";
        assert_eq!(make(&request, crash), "quiet -- memmap=x");
        let set_aside = "memmap=64M$0x20000000 memmap=1G!4G -- memmap=exactmap";
        assert_eq!(make(&request, set_aside), set_aside);
    }

    #[test]
    fn reuse_drops_the_word_that_a_crash_load_added() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            ..Default::default()
        };
        let line = "quiet acpi_no_memhotplug elfcorehdr=0x1 -- acpi_no_memhotplug";
        assert_eq!(make(&request, line), "quiet -- acpi_no_memhotplug");
        let by_the_kernel = "elfcorehdr=0x1 quiet acpi_no_memhotplug";
        assert_eq!(make(&request, by_the_kernel), "quiet");
        assert_eq!(make(&request, "acpi_no_memhotplug elfcorehdr=0x1"), "");
        // The operator's own.
        for own in ["quiet acpi_no_memhotplug", "acpi_no_memhotplug quiet"] {
            assert_eq!(make(&request, own), own);
        }
        let own = "acpi_no_memhotplug quiet elfcorehdr=0x1";
        assert_eq!(make(&request, own), "acpi_no_memhotplug quiet");
        let other = "xacpi_no_memhotplug elfcorehdr=0x1";
        assert_eq!(make(&request, other), "xacpi_no_memhotplug");
    }

    #[test]
    fn a_crash_kernel_is_told_nothing_of_another_ones_memory() {
        let running = "root=/dev/sda crashkernel=256M mem=4G memmap=64M$0x20000000 memtest=1 pmpool=1,2 -- mem=1";
        assert_eq!(for_crash(running), "root=/dev/sda memtest=1 -- mem=1");
    }

    #[test]
    fn append_then_remove() {
        let request = CmdlineRequest {
            base: CmdlineBase::Given("a b=1 b=2 \"c d=x y\"".to_owned()),
            append: vec!["e=5".to_owned(), String::new(), "f".to_owned()],
            remove: vec!["b=2".to_owned(), "f".to_owned(), "c d".to_owned()],
        };
        assert_eq!(make(&request, ""), "a b=1 e=5");
    }

    #[test]
    fn a_given_line_is_kept_byte_for_byte() {
        let request = CmdlineRequest {
            base: CmdlineBase::Given(" a  b\t".to_owned()),
            ..Default::default()
        };
        assert_eq!(make(&request, "x"), " a  b\t");
    }

    #[test]
    fn values_are_found_as_the_kernel_finds_them() {
        let line = "a pmpool=1,2 b=\"x pmpool=9,9\" pmpool=0x10,0x20 -- pmpool=7,7";
        assert_eq!(value(line, "pmpool"), Some("0x10,0x20"));
        assert_eq!(value("\"pmpool=1,2\"", "pmpool"), Some("1,2"));
        assert_eq!(value("xpmpool=1 pmpool", "pmpool"), None);
        assert!(has("quiet nokaslr", "nokaslr") && !has("-- nokaslr", "nokaslr"));
    }

    #[test]
    fn a_parameter_is_added_where_the_kernel_reads_it() {
        let with = |line: &str| {
            let request = CmdlineRequest {
                base: CmdlineBase::Given(line.to_owned()),
                ..Default::default()
            };
            let line = Cmdline::make(&request, "", 2047).unwrap();
            line.with("a=1", 2047).map(|line| line.as_str().to_owned())
        };
        assert_eq!(with("").unwrap(), "a=1");
        assert_eq!(with("x  y").unwrap(), "x  y a=1");
        assert_eq!(with("x -- single --").unwrap(), "x a=1 -- single --");
        assert_eq!(with("-- s").unwrap(), "a=1 -- s");
        assert_eq!(with("x=\"a -- b\" c").unwrap(), "x=\"a -- b\" c a=1");
        let open = with("x=\"a b").unwrap_err();
        assert_eq!(
            open.to_string(),
            "a=1 cannot be added to the command line: a quote is left open"
        );
    }

    #[test]
    fn the_limit_counts_bytes_without_the_nul() {
        let request = |n: usize| CmdlineRequest {
            base: CmdlineBase::Given("x".repeat(n)),
            ..Default::default()
        };
        assert!(Cmdline::make(&request(2047), "", 2047).is_ok());
        assert!(matches!(
            Cmdline::make(&request(2048), "", 2047),
            Err(PlanError::CmdlineTooLong {
                length: 2048,
                limit: 2047
            })
        ));
    }

    #[test]
    fn no_nul_and_no_newline() {
        for (line, at) in [("a\0b", 1), ("ab\n", 2)] {
            let request = CmdlineRequest {
                base: CmdlineBase::Given(line.to_owned()),
                ..Default::default()
            };
            let error = Cmdline::make(&request, "", 2047).unwrap_err();
            assert!(matches!(error, PlanError::CmdlineCharacter { at: seen, .. } if seen == at));
        }
    }
}
