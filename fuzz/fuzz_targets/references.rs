//! Image names and platforms: what parses prints, and parses again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::reference::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        let again = Reference::parse(&reference.to_string());
        assert_eq!(again.ok(), Some(reference));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().ok(), Some(platform));
    }
});
