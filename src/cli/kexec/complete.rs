//! What a shell completes behind `kexec`, from the table.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, ValueHint};

use super::options::{Does, Opt, all};
use super::request::IMAGE_TYPES;

/// `kexec` as clap would describe it, for its completions alone: the parser
/// is getopt's (getopt.rs). What is refused is not offered.
pub(in crate::cli) fn command() -> Command {
    let kernel = Arg::new("KERNEL").value_hint(ValueHint::FilePath);
    Command::new("kexec")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(kernel)
        .args(all().filter_map(arg))
}

fn arg(option: &'static Opt) -> Option<Arg> {
    let ([name, others @ ..], false) = (option.names, matches!(option.does, Does::Refused(_)))
    else {
        return None;
    };
    let mut arg = Arg::new(*name)
        .long(*name)
        .visible_aliases(others.iter().copied())
        .help(option.help);
    if let Some(letter) = option.letter {
        arg = arg.short(char::from(letter));
    }
    let Some(value) = option.value else {
        return Some(arg.action(ArgAction::SetTrue));
    };
    let arg = arg.value_name(value);
    Some(match option.does {
        Does::Type => {
            arg.value_parser(PossibleValuesParser::new(IMAGE_TYPES.map(|(name, _)| name)))
        }
        Does::Initrd | Does::Module | Does::DeviceTree => arg.value_hint(ValueHint::FilePath),
        _ => arg.value_hint(ValueHint::Other),
    })
}
