#![no_main]

#[expect(dead_code, reason = "one target a program")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::record(bytes));
