//! Every flag has a twin in the environment: restic's variable where restic has one, else `HOLDFAST_` and the flag's name.
//!
//! The command line wins: a flag that is given leaves its variable aside, and those of flags that cannot be used with it.
//! An empty variable is as good as none, and so is a false one of a flag that is only there or not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, Error, FromArgMatches};

use crate::args::Args;

/// The whole command line with all variables, to be described.
pub(crate) fn command() -> Command {
    with_variables(Args::command(), &|_| true)
}

/// Reads the command line and the environment.
pub(crate) fn parse() -> Result<Args, Error> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut left_out = without_effect();
    loop {
        let error = match with_variables(Args::command(), &|name| !left_out.contains(name)).try_get_matches_from(&words)
        {
            Ok(matches) => return Args::from_arg_matches(&matches),
            // What is left out is shown all the same.
            Err(error) if !error.use_stderr() => {
                return Err(command().try_get_matches_from(&words).err().unwrap_or(error));
            }
            Err(error) => error,
        };
        let given = given(&words);
        let variable_of: BTreeMap<String, String> = flags()
            .into_iter()
            .filter(|flag| !given.contains(&flag.id) && !left_out.contains(&flag.variable))
            .filter(|flag| std::env::var_os(&flag.variable).is_some())
            .map(|flag| (flag.shown, flag.variable))
            .collect();
        let at_fault: Vec<String> =
            at_fault(&error).iter().filter_map(|shown| variable_of.get(shown)).cloned().collect();
        let is_conflict = error.kind() == ErrorKind::ArgumentConflict;
        match at_fault.as_slice() {
            // The other one is on the command line.
            [variable] if is_conflict => _ = left_out.insert(variable.clone()),
            _ => return Err(naming(error, &variable_of)),
        }
    }
}

/// A flag and its variable.
struct Flag {
    id: String,
    /// As errors name it.
    shown: String,
    variable: String,
    is_switch: bool,
}

/// The flags of all commands.
fn flags() -> Vec<Flag> {
    fn collect(command: &Command, flags: &mut Vec<Flag>) {
        flags.extend(command.get_arguments().filter_map(|arg| {
            Some(Flag {
                id: arg.get_id().to_string(),
                shown: arg.to_string(),
                variable: arg.get_env()?.to_string_lossy().into_owned(),
                is_switch: !arg.get_action().takes_values(),
            })
        }));
        command.get_subcommands().for_each(|command| collect(command, flags));
    }
    let mut command = command();
    command.build();
    let mut flags = Vec::new();
    collect(&command, &mut flags);
    flags
}

fn with_variables(command: Command, wanted: &dyn Fn(&str) -> bool) -> Command {
    command.mut_args(|arg| with_variable(arg, wanted)).mut_subcommands(|subcommand| with_variables(subcommand, wanted))
}

fn with_variable(arg: Arg, wanted: &dyn Fn(&str) -> bool) -> Arg {
    let Some(flag) = arg.get_long() else { return arg };
    let name = match arg.get_env() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => format!("HOLDFAST_{}", flag.to_ascii_uppercase().replace('-', "_")),
    };
    let arg = match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => arg.value_parser(BoolishValueParser::new()),
        ArgAction::Count => arg.value_parser(parse_count),
        _ => arg,
    };
    // The values may be nobody else's business.
    arg.env(if wanted(&name) { Resettable::Value(name.into()) } else { Resettable::Reset }).hide_env_values(true)
}

/// How often a flag is meant to be there, as a number or as yes and no.
fn parse_count(text: &str) -> Result<u8, String> {
    let count = if is_false(text) {
        Ok(0)
    } else if text == "true" {
        Ok(1)
    } else {
        text.parse()
    };
    count.map_err(|_| "expected true, false or a number".to_owned())
}

fn is_false(text: &str) -> bool {
    // What BoolishValueParser takes for false.
    ["0", "f", "false", "n", "no", "off"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// The variables that are set and say nothing.
fn without_effect() -> BTreeSet<String> {
    let says_nothing = |flag: &Flag| {
        let value = std::env::var_os(&flag.variable);
        value.is_some_and(|value| value.is_empty() || (flag.is_switch && value.to_str().is_some_and(is_false)))
    };
    flags().into_iter().filter(says_nothing).map(|flag| flag.variable).collect()
}

/// The ids of the flags that stand on the command line, as far as it can be read.
fn given(words: &[OsString]) -> BTreeSet<String> {
    fn collect(command: &Command, matches: &ArgMatches, ids: &mut BTreeSet<String>) {
        // Matches hold global flags of other levels, too, and will not be asked about them.
        let own: BTreeSet<&str> = matches.ids().map(|id| id.as_str()).collect();
        let own = command.get_arguments().map(|arg| arg.get_id().as_str()).filter(|id| own.contains(id));
        let given = own.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
        ids.extend(given.map(str::to_owned));
        if let Some((name, matches)) = matches.subcommand()
            && let Some(command) = command.find_subcommand(name)
        {
            collect(command, matches, ids);
        }
    }
    let mut command = with_variables(Args::command(), &|_| false).ignore_errors(true);
    command.build();
    let mut ids = BTreeSet::new();
    if let Ok(matches) = command.try_get_matches_from_mut(words) {
        collect(&command, &matches, &mut ids);
    }
    ids
}

/// The flags that an error is about, as it names them.
fn at_fault(error: &Error) -> Vec<String> {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(flag)) => vec![flag.clone()],
        Some(ContextValue::Strings(flags)) => flags.clone(),
        _ => Vec::new(),
    };
    [of(ContextKind::InvalidArg), of(ContextKind::PriorArg)].concat()
}

/// The error with the variable in place of the flag that it was given by.
fn naming(mut error: Error, variable_of: &BTreeMap<String, String>) -> Error {
    let name = |flag: &String| match variable_of.get(flag) {
        Some(variable) => format!("{variable}, the variable of {flag}"),
        None => flag.clone(),
    };
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let named = match error.get(kind) {
            Some(ContextValue::String(flag)) => ContextValue::String(name(flag)),
            Some(ContextValue::Strings(flags)) => ContextValue::Strings(flags.iter().map(name).collect()),
            _ => continue,
        };
        error.insert(kind, named);
    }
    error
}

#[cfg(test)]
mod tests {
    use holdfast_api::names::pod as names;

    use super::*;

    /// The flags of a command and all below it that have no variable, with the command's name.
    fn without_variable(command: &Command, below: &str) -> Vec<String> {
        let path = format!("{below} {}", command.get_name());
        let own = command.get_arguments().filter(|arg| arg.get_long().is_some() && arg.get_env().is_none());
        let own = own.filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()));
        let own = own.map(|arg| format!("{path} {arg}"));
        let subcommands = command.get_subcommands().filter(|command| command.get_name() != "help");
        own.chain(subcommands.flat_map(|command| without_variable(command, &path))).collect()
    }

    #[test]
    fn every_flag_has_a_variable_and_one_name_is_one_variable() {
        let mut command = command();
        command.build();
        assert_eq!(without_variable(&command, ""), Vec::<String>::new());
        let flags = flags();
        assert!(flags.len() > 100, "{}", flags.len());
        let mut variables: BTreeMap<&str, &str> = BTreeMap::new();
        // What AgentTemplates pass has the names of their variables.
        let of_templates = [names::BACKUP_NAME, names::RECOVERY_NAME, names::PUSH_GATEWAY_URL];
        for Flag { shown, variable, .. } in &flags {
            let known = variable.starts_with("HOLDFAST_") || variable.starts_with("RESTIC_");
            assert!(known || of_templates.contains(&variable.as_str()), "{variable}");
            assert_eq!(variables.entry(shown).or_insert(variable), variable, "{shown}");
        }
    }

    #[test]
    fn help_shows_the_variables() {
        let mut command = command();
        let help = command.find_subcommand_mut("standalone").unwrap().render_long_help().to_string();
        assert!(help.contains("[env: HOLDFAST_ONCE]"), "{help}");
    }

    #[test]
    fn counts_are_numbers_or_yes_and_no() {
        for (text, expected) in [("0", Some(0)), ("false", Some(0)), ("true", Some(1)), ("1", Some(1)), ("2", Some(2))]
        {
            assert_eq!(parse_count(text).ok(), expected, "{text}");
        }
        assert!(parse_count("much").is_err() && parse_count("-1").is_err());
    }
}
