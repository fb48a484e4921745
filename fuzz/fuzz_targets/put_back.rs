//! Putting hash parts back.
#![no_main]

#[path = "../../crates/pack/tests/hostile/checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::put_back(bytes));
