//! Disks that move while a guest uses them, against what the guest has written: every order of events by
//! seeds, every failure of the target, power cuts.

mod bench;
mod faults;
mod moves;
mod power;
mod remote;
