//! `rkexec generate`: documentation from the definitions that the parser uses.

use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;

use super::Cli;

/// `rkexec generate`.
#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The man page rkexec(8), or the one of a verb; that of the verb kexec is kexec(8).
    Man {
        /// The verb.
        verb: Option<String>,
    },
    /// Completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
        /// For which program.
        #[arg(value_enum, default_value_t = Program::Rkexec)]
        program: Program,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Program {
    Rkexec,
    /// The drop-in.
    Kexec,
}

/// What no option says, for rkexec(8): written by hand.
const MORE: &str = include_str!("../../man/more.roff");
/// The line of [`MORE`] in whose place the checks of `doctor` are.
const CHECKS: &str = ".\\\" CHECKS OF DOCTOR\n";
/// The date in the pages: of the last change of what they say.
pub(super) const DATE: &str = "2026-11-27";

pub(super) fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut text = Vec::new();
    match &args.what {
        What::Completions { shell, program } => {
            let (mut command, name) = match program {
                Program::Rkexec => (command, "rkexec"),
                Program::Kexec => (super::kexec::for_completions(), "kexec"),
            };
            clap_complete::generate(*shell, &mut command, name, &mut text);
        }
        What::Man { verb: None } => {
            text.extend(page(command)?);
            text.extend_from_slice(more().as_bytes());
        }
        What::Man { verb: Some(verb) } if verb == "kexec" => {
            text.extend_from_slice(super::kexec::man_page().as_bytes());
        }
        What::Man { verb: Some(verb) } => {
            let mut verbs = command.get_subcommands();
            let found = verbs.find(|known| known.get_name() == verb);
            let unknown = || {
                super::Usage(format!(
                    "generate failed: unknown verb \"{verb}\"; rkexec --help lists the verbs"
                ))
            };
            text.extend(page(found.ok_or_else(unknown)?.clone())?);
            text.extend(output_of(verb).into_bytes());
        }
    }
    super::write_out(&text)
}

/// man/more.roff, with the tables that are made from the code.
fn more() -> String {
    MORE.replace(CHECKS, &super::render::doctor::roff())
}

/// What man/more.roff says of a verb's output, as sections of the verb's own page. A line
/// that begins with `.PP` and names a section in a comment begins that section there.
fn output_of(verb: &str) -> String {
    let head = format!(".SS \"rkexec {}\"\n", verb.replace('-', "\\-"));
    let more = more();
    let Some((_, behind)) = more.split_once(&head) else {
        return String::new();
    };
    let ends = ["\n.SS ", "\n.SH "].iter();
    let end = ends.filter_map(|end| behind.find(end)).min();
    let (own, _) = behind.split_at(end.map_or(behind.len(), |end| end + 1));
    let own = own.replace(".PP\n.\\\" SH ", ".SH ");
    let also = match verb {
        "load" | "retrieve" => ",\n.BR rkexec\\-carry (7)",
        _ => "",
    };
    format!(".SH OUTPUT\n{own}.SH \"SEE ALSO\"\n.BR rkexec (8){also}\n")
}

/// The page of a command, without the empty lines that clap_mangen puts between
/// line breaks: mandoc warns of them.
fn page(command: clap::Command) -> std::io::Result<Vec<u8>> {
    let title = command
        .get_display_name()
        .unwrap_or("rkexec")
        .to_uppercase();
    let synopsis = synopsis(&command);
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .title(title)
        .section("8")
        .date(DATE)
        .source(concat!("rkexec ", env!("CARGO_PKG_VERSION")))
        .manual("System Manager's Manual")
        .render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    let page = page.replace("\n.br\n\n.br\n", "\n.sp\n");
    Ok(with_synopsis(&page, &synopsis).into_bytes())
}

/// The line that `--help` begins with. clap_mangen writes every option into it.
fn synopsis(command: &clap::Command) -> String {
    match command.get_name() {
        "rkexec" => super::groups::USAGE.to_owned(),
        _ => {
            let usage = command.clone().render_usage().to_string();
            usage.trim_start_matches("Usage: ").replace(['<', '>'], "")
        }
    }
}

/// The page with this synopsis.
fn with_synopsis(page: &str, synopsis: &str) -> String {
    const HEAD: &str = ".SH SYNOPSIS\n";
    let Some((before, rest)) = page.split_once(HEAD) else {
        return page.to_owned();
    };
    let (_, after) = rest.split_once(".SH ").unwrap_or_default();
    let synopsis = synopsis.replace('-', "\\-");
    // Its own name is bold.
    let words = synopsis.find(" [").unwrap_or(synopsis.len());
    let (name, arguments) = synopsis.split_at(words);
    format!("{before}{HEAD}\\fB{name}\\fR{arguments}\n.SH {after}")
}
