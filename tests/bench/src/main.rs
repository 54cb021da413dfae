//! Measures the operator and its agents on a real Kubernetes, from outside. `cargo xtask bench operator` and `cargo xtask
//! bench pod` start a cluster of their own and run this in it.
//!
//! It judges nothing: the table has the goal beside what was measured.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to the person who runs it")]

mod kernel;
mod made;
mod one_namespace;
mod operator;
mod pod;
mod process;
mod requests;
mod seen;
mod table;

use anyhow::Result;
use clap::Parser;

use table::Table;

#[derive(Parser)]
enum Measure {
    /// The operator over thousands of objects
    Operator(operator::Arguments),
    /// The agent in a pod
    Pod(pod::Arguments),
}

fn main() -> Result<()> {
    let mut table = Table::default();
    let result = match Measure::parse() {
        Measure::Operator(arguments) => of_operator(&arguments, &mut table),
        Measure::Pod(arguments) => pod::measure(&arguments, &mut table),
    };
    // What was measured before something failed is worth to be seen.
    println!("{}", table.markdown());
    result
}

fn of_operator(arguments: &operator::Arguments, table: &mut Table) -> Result<()> {
    one_namespace::measure(table)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(operator::measure(arguments, table))
}
