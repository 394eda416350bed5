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

pub(super) fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut text = Vec::new();
    match &args.what {
        What::Completions { shell } => {
            clap_complete::generate(*shell, &mut command, "rkexec", &mut text)
        }
        What::Man { verb: None } => clap_mangen::Man::new(command)
            .section("8")
            .render(&mut text)?,
        What::Man { verb: Some(verb) } => {
            let found = command
                .get_subcommands()
                .find(|known| known.get_name() == verb);
            let found = found
                .ok_or_else(|| super::Usage(format!("generate failed: there is no verb {verb}")))?
                .clone();
            clap_mangen::Man::new(found)
                .section("8")
                .render(&mut text)?;
        }
    }
    super::write_out(&text)
}
