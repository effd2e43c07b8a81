//! Tests of the scheduler: simulation in virtual time, every interleaving of small worlds, and random programs.

extern crate std;

mod fairness;
mod hand_off;
mod interleave;
mod latency;
mod random;
mod sim;
