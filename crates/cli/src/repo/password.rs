//! Where passwords come from: files, commands, variables, a terminal, standard input; in restic's order.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use holdfast_repository::Error as RepositoryError;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::open::read_text;
use crate::failure::{Failure, Result};

const WAYS: &str = "give it with --password-file or --password-command, or in RESTIC_PASSWORD, RESTIC_PASSWORD_FILE or RESTIC_PASSWORD_COMMAND";

/// The repository's password.
#[derive(Debug, Args)]
pub(crate) struct PasswordArgs {
    /// A file that holds the password
    #[arg(short, long, global = true, value_name = "FILE", env = "RESTIC_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// A command that prints the password
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        env = "RESTIC_PASSWORD_COMMAND",
        conflicts_with = "password_file"
    )]
    password_command: Option<String>,
    /// Use the empty password: whoever can read the repository's files can read what is in them
    #[arg(long, global = true, conflicts_with_all = ["password_file", "password_command"])]
    insecure_no_password: bool,
}

impl PasswordArgs {
    /// The password of `what`, which exists; asked for once.
    pub(crate) fn existing(&self, what: &str) -> Result<String> {
        match self.given()? {
            Some(password) => Ok(password),
            None => ask(what, false),
        }
    }

    /// A password for `what`, which is to be made: asked for twice.
    pub(crate) fn new_one(&self, what: &str) -> Result<String> {
        match self.given()? {
            Some(password) => Ok(password),
            None => ask(what, true),
        }
    }

    /// The password without reading it from standard input.
    pub(crate) fn without_stdin(&self) -> Result<String> {
        self.given()?.ok_or_else(|| Failure::with_hint("no password given, and standard input holds the data", WAYS))
    }

    fn given(&self) -> Result<Option<String>> {
        if self.insecure_no_password {
            return Ok(Some(String::new()));
        }
        let variable = std::env::var("RESTIC_PASSWORD").ok();
        from_file_command_or(self.password_file.as_deref(), self.password_command.as_deref(), variable)
    }
}

/// The password that a file or a command gives, or else `variable`. It must not be empty.
pub(crate) fn from_file_command_or(
    file: Option<&Path>,
    command: Option<&str>,
    variable: Option<String>,
) -> Result<Option<String>> {
    let password = match (file, command) {
        (Some(file), _) => Some(read_text(file, "password")?.trim().to_owned()),
        (None, Some(command)) => Some(run(command)?.trim().to_owned()),
        (None, None) => variable.filter(|password| !password.is_empty()),
    };
    match password {
        Some(password) if password.is_empty() => Err(empty()),
        password => Ok(password),
    }
}

fn empty() -> Failure {
    Failure::with_hint("the password is empty", "if the repository really is to have none, say --insecure-no-password")
}

/// Asks for a password, on a terminal without showing it, or reads a line from standard input.
pub(crate) fn ask(what: &str, twice: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(|error| {
            Failure::new(error)
                .hinting("the password was expected on standard input, because it was not given otherwise")
        })?;
        let password = line.trim_end_matches(['\n', '\r']);
        return if password.is_empty() {
            Err(Failure::with_hint(format!("no password given for {what}"), WAYS))
        } else {
            Ok(password.to_owned())
        };
    }
    let password = prompt(&format!("password for {what}: "))?;
    if password.is_empty() {
        return Err(empty());
    }
    if twice && prompt("the same again: ")? != password {
        return Err(Failure::with_hint("the two passwords differ", "run it again, and type the same twice"));
    }
    Ok(password)
}

/// Reads a line from the terminal that is not shown. Keys come one by one, so that Ctrl-C cannot leave the terminal
/// in this state.
fn prompt(text: &str) -> Result<String> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(std::io::Error::from)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(std::io::Error::from)?;
    eprint(text);
    let line = read_keys(stdin.lock());
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    eprint("\n");
    restored.map_err(std::io::Error::from)?;
    line
}

fn eprint(text: &str) {
    // Nobody can be told when standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn read_keys(keys: impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    for key in keys.bytes() {
        match key? {
            b'\n' | b'\r' | 4 => break,
            3 => return Err(RepositoryError::Interrupted.into()),
            8 | 127 => {
                // A character may be several bytes.
                while line.pop().is_some_and(|byte: u8| byte & 0xC0 == 0x80) {}
            }
            21 => line.clear(),
            byte => line.push(byte),
        }
    }
    String::from_utf8(line)
        .map_err(|_| Failure::with_hint("the password is no text in UTF-8", "is the terminal's encoding right?"))
}

/// Runs the command without a shell, split at white space and quotes as restic does.
fn run(command: &str) -> Result<String> {
    let failed = |why: String| {
        Failure::with_hint(format!("the password command {command:?} failed: {why}"), "run it by hand to see why")
    };
    let words = split_words(command).ok_or_else(|| failed("a quote is not closed".into()))?;
    let (program, args) = words.split_first().ok_or_else(|| failed("it is empty".into()))?;
    let done = Command::new(program)
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !done.status.success() {
        return Err(failed(done.status.to_string()));
    }
    String::from_utf8(done.stdout).map_err(|_| failed("what it printed is no text in UTF-8".into()))
}

fn split_words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_white_space_outside_quotes() {
        let check = |text: &str, want: Option<&[&str]>| {
            assert_eq!(split_words(text), want.map(|words| words.iter().map(ToString::to_string).collect()), "{text}");
        };
        check("pass show backup", Some(&["pass", "show", "backup"]));
        check("  a  'b c' \"d \\\" e\" f\\ g ''", Some(&["a", "b c", "d \" e", "f g", ""]));
        check("a 'b", None);
        check("", Some(&[]));
    }

    #[test]
    fn keys_make_a_line() {
        let check = |keys: &[u8], want: &str| assert_eq!(read_keys(keys).unwrap(), want);
        check(b"secret\nmore", "secret");
        check("aä\u{7f}b\r".as_bytes(), "ab");
        check(b"\x08x\x15y\x04z", "y");
        assert_eq!(read_keys(&b"abc\x03"[..]).unwrap_err().code(), crate::failure::code::INTERRUPTED);
    }

    #[test]
    fn files_go_before_commands_and_commands_before_variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "\u{feff} of file \n\n").unwrap();
        let given = |file, command, variable: Option<&str>| {
            from_file_command_or(file, command, variable.map(Into::into)).unwrap()
        };
        assert_eq!(given(Some(&*file), Some("echo x"), Some("y")).as_deref(), Some("of file"));
        assert_eq!(given(None, Some("echo ' x '"), Some("y")).as_deref(), Some("x"));
        assert_eq!(given(None, None, Some(" y ")).as_deref(), Some(" y "));
        assert_eq!(given(None, None, Some("")), None);
        std::fs::write(&file, "\n").unwrap();
        assert!(from_file_command_or(Some(&*file), None, None).unwrap_err().message().contains("empty"));
        assert!(from_file_command_or(None, Some("false"), None).unwrap_err().message().contains("\"false\" failed"));
    }
}
