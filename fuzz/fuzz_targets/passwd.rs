//! `USER` and `--chown` looked up in any passwd and group files: an id of the file or an error, never one that wrapped around.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_runner::fuzz;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (text, passwd, group) = (next(), next(), next());
    if let Some(user) = fuzz::user(text, passwd, group) {
        let limit = i32::MAX.cast_unsigned();
        assert!(user.uid <= limit && user.gid <= limit, "{user:?}");
        assert!(user.groups.contains(&user.gid), "{user:?}");
        // Root is only who is so called, who is numbered so, or whose line has no number.
        let digits: Vec<u8> = text.iter().copied().take_while(|byte| *byte != b':').collect();
        if let Some(number) = std::str::from_utf8(&digits).ok().and_then(|text| text.parse::<u64>().ok())
            && digits.iter().all(u8::is_ascii_digit)
        {
            assert_eq!(u64::from(user.uid), number, "{user:?}");
        }
    }
});
