//! Faults in the middle of work: programs killed at any request, rivals, stores and servers that are away.

mod gate;
