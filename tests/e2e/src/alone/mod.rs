//! What disturbs everybody: parts of the cluster stopped, nodes cut off, operators killed and installed anew. These tests
//! run one after the other on a cluster of their own, beside all others on theirs. `test_alone` belongs here and `test`
//! does not.

mod install;
mod nodes;
mod operators;
mod servers;
