//! `holdfast repo …` as a person uses it, held against the stock restic binary.

mod answers;
mod bench;
mod disk;
mod exit_codes;
mod locks;
mod passwords;
mod round_trip;
mod selection;
