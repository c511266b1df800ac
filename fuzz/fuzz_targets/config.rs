//! partita.json: any bytes. The parser on target and the one on the host agree on what is a description.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let on_target = partita_config::parse(data);
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(on_target.is_err(), "not UTF-8, but accepted");
        return;
    };
    // What the host accepts, the target must be able to read.
    if partita_config::host::parse("fuzz.json", text).is_ok() {
        assert!(on_target.is_ok(), "the host accepts what the target does not: {:?}", on_target.err());
    }
});
