//! What binary caches say of paths.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| drop(phoenix_substituter::NarInfo::parse(text)));
