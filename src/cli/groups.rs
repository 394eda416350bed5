//! The verbs in `rkexec --help`, by what they are for, and a way on from a wrong verb.

use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use super::Cli;

/// The verbs by what they are for. Every verb is in one group.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Boot a kernel",
        &["plan", "load", "exec", "reboot", "unload"],
    ),
    ("Crash kernel", &["arm", "vmcore-dmesg"]),
    (
        "Look",
        &["status", "doctor", "entries", "memmap", "inspect", "report"],
    ),
    (
        "Other",
        &["retrieve", "capture", "kexec", "generate", "help"],
    ),
];

/// How the program is called. clap writes every option into it.
pub(super) const USAGE: &str = "rkexec [OPTIONS] VERB [ARGUMENTS]";

/// The parser, with its verbs in groups.
pub(super) fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    let mut template = "{about}\n\n{usage-heading} {usage}\n".to_owned();
    for (title, verbs) in GROUPS {
        let _ = writeln!(template, "\n{title}:");
        for verb in verbs {
            let about = command.find_subcommand(verb).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(template, "  {verb:<13} {about}");
        }
    }
    template.push_str("\n{all-args}");
    // The list by clap itself is not wanted beside the groups.
    Cli::command()
        .override_usage(USAGE)
        .help_template(template)
        .mut_subcommands(|verb| verb.hide(true))
}

/// A way on from what is no verb, for words that other tools know, and from options that
/// want a kernel named.
pub(super) fn tip(error: &clap::Error) -> Option<&'static str> {
    if let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg)
        && error.kind() == ErrorKind::MissingRequiredArgument
        && missing.iter().any(|argument| argument.contains("--entry"))
    {
        return Some(
            "what is loaded must be named for this option; `--entry default` names the default boot entry",
        );
    }
    let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    match &**verb {
        "boot" | "start" | "run" => Some(
            "`rkexec reboot` loads the default boot entry, or `rkexec reboot KERNEL` a kernel, stops the services and boots it",
        ),
        "stop" | "clear" => Some("`rkexec unload` takes the loaded kernel away"),
        "show" | "list" | "info" => {
            Some("`rkexec status` shows what is loaded, `rkexec inspect FILE` what a file is")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_one_group() {
        let mut command = Cli::command();
        command.build();
        let mut verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, verbs)| *verbs)
            .copied()
            .collect();
        verbs.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(verbs, grouped);
    }

    #[test]
    fn no_line_of_a_verb_wraps() {
        let help = command().render_help().to_string();
        let verbs = help.lines().filter(|line| line.starts_with("  "));
        let long: Vec<&str> = verbs
            .filter(|line| !line.starts_with("  -") && !line.starts_with("      "))
            .filter(|line| line.len() > 100)
            .collect();
        assert_eq!(long, [""; 0]);
    }
}
