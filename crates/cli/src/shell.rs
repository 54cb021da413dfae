//! `completions` and `man`: generated from the command line's own description.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap_complete::Shell;

use crate::environment;
use crate::failure::{Result, code};
use crate::output::Output;

#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// The folder to write the pages into
    folder: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, output: &Output) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut environment::command(), "holdfast", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(code::SUCCESS)
}

pub(crate) fn man(args: &ManArgs, output: &Output) -> Result<u8> {
    std::fs::create_dir_all(&args.folder)?;
    clap_mangen::generate_to(environment::command(), &args.folder)?;
    output.note(format!("wrote the man pages to {}", args.folder.display()));
    Ok(code::SUCCESS)
}
