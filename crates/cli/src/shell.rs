//! `completions` and `man`: generated from the command line's own description.

use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

use crate::args::Args;
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
    clap_complete::generate(args.shell, &mut Args::command(), "holdfast", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(code::SUCCESS)
}

pub(crate) fn man(args: &ManArgs, output: &Output) -> Result<u8> {
    std::fs::create_dir_all(&args.folder)?;
    clap_mangen::generate_to(Args::command(), &args.folder)?;
    output.note(format!("wrote the man pages to {}", args.folder.display()));
    Ok(code::SUCCESS)
}
