//! Archives: what is taken is what Nix writes, in whatever pieces it comes.
#![no_main]

#[path = "../../crates/pack/tests/hostile/checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::nar(bytes);
    checks::names(bytes);
});
