//! Derivations, as Nix writes them to `.drv` files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(phoenix_model::Derivation::parse(bytes)));
