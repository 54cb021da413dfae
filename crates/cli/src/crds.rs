//! `crds`: prints the custom resource definitions.

use crate::failure::{Result, code};
use crate::output::Output;

pub(crate) fn run(output: &Output) -> Result<u8> {
    let yaml = holdfast_api::crds::to_yaml().map_err(anyhow::Error::from)?;
    output.result(&holdfast_api::crds::crds(), || yaml)?;
    Ok(code::SUCCESS)
}
