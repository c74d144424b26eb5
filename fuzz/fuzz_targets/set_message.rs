#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runner_controller::outside::set_message(bytes));
