//! `./x test sim --seeds N`, `./x test sim --seed N`.
#![forbid(unsafe_code)]

use clap::Parser;
use godwit_sim::world::{Broken, Stats, run_seed};
use std::process::ExitCode;
use std::time::Instant;

/// Moves domains between two simulated hosts while everything goes wrong.
#[derive(Parser)]
struct Args {
    /// Run this seed only
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 0)]
    first: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seeds = match args.seed {
        Some(seed) => seed..seed + 1,
        None => args.first..args.first + args.seeds,
    };
    let begun = Instant::now();
    let (mut passed, mut failed, mut all) = (0u64, 0u64, Stats::default());
    for seed in seeds {
        match run_seed(seed, Broken::Nothing) {
            Ok(stats) => {
                passed += 1;
                all.add(stats);
            }
            Err(what) => {
                failed += 1;
                println!("{what}\nagain: ./x test sim --seed {seed}\n");
            }
        }
    }
    println!(
        "{} moves begun, {} moved, {} not, {} went back; {} events, {} polls, {} s of virtual time",
        all.begun,
        all.moved,
        all.kept,
        all.returned,
        all.events,
        all.polls,
        all.time_us / 1_000_000
    );
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {:.2}s",
        begun.elapsed().as_secs_f32()
    );
    ExitCode::from(u8::from(failed > 0))
}
