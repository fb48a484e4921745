//! Packs as they lie in a depot: footer, directory, frames, and the catalog of them.
#![no_main]

#[path = "../../crates/pack/tests/hostile/checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(checks::pack(bytes)));
