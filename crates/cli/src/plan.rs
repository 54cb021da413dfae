//! `plan`: prints what `standalone` would do with a folder, and touches nothing.

use clap::Args;

use crate::failure::{Result, code};
use crate::folder::FolderArgs;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    folder: FolderArgs,
}

pub(crate) fn run(args: &PlanArgs, output: &Output) -> Result<u8> {
    let (plan, _) = args.folder.plan()?;
    let yaml = serde_saphyr::to_string(&plan).map_err(anyhow::Error::from)?;
    output.result(&plan, || yaml)?;
    for problem in plan.warnings.iter().filter(|_| !output.is_json()) {
        output.note(format!("warning: {problem}"));
    }
    for problem in plan.errors.iter().filter(|_| !output.is_json()) {
        output.note(format!("error: {problem}"));
    }
    Ok(if plan.errors.is_empty() { code::SUCCESS } else { code::FAILED })
}
