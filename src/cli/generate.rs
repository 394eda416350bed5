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
    /// The man page rkexec(8), or the one of a verb.
    Man {
        /// The verb.
        verb: Option<String>,
    },
    /// Completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What no option says, for rkexec(8): written by hand.
const MORE: &str = include_str!("../../man/more.roff");

pub(super) fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut text = Vec::new();
    match &args.what {
        What::Completions { shell } => {
            clap_complete::generate(*shell, &mut command, "rkexec", &mut text);
        }
        What::Man { verb: None } => {
            page(command).render(&mut text)?;
            text.extend_from_slice(MORE.as_bytes());
        }
        What::Man { verb: Some(verb) } => {
            let mut verbs = command.get_subcommands();
            let found = verbs.find(|known| known.get_name() == verb);
            let unknown = || super::Usage(format!("generate failed: there is no verb {verb}"));
            page(found.ok_or_else(unknown)?.clone()).render(&mut text)?;
        }
    }
    super::write_out(&text)
}

fn page(command: clap::Command) -> clap_mangen::Man {
    let title = command
        .get_display_name()
        .unwrap_or("rkexec")
        .to_uppercase();
    clap_mangen::Man::new(command)
        .title(title)
        .section("8")
        .source(concat!("rkexec ", env!("CARGO_PKG_VERSION")))
        .manual("System Manager's Manual")
}
