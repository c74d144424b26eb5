#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runner_controller::outside::runner_record(bytes));
