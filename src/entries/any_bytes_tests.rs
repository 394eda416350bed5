//! Every parser has an answer for any bytes.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn no_bytes_stop_a_parser(bytes: Vec<u8>, name: String) {
        let _ = bls::parse(&name, &bytes);
        let _ = bls::parse("a+1.conf", &bytes);
        let _ = loader_conf::parse(&bytes);
        let _ = grubenv::parse(&bytes);
        let _ = extlinux::parse(&bytes, &mut |_| Ok(bytes.clone()));
        let _ = os_release::parse(&bytes);
        default_kexec::DefaultKexec::default().read(&bytes);
    }

    #[test]
    fn words_of_the_formats_in_any_order(
        lines in proptest::collection::vec(
            "(title|linux|initrd|options|version|LABEL|KERNEL|MENU|APPEND|INCLUDE|default|DEFAULT|#)[ \t]{0,2}[ -~]{0,9}",
            0..12,
        ),
    ) {
        let text = lines.join("\n");
        let entry = bls::parse("a.conf", text.as_bytes());
        prop_assert!(entry.is_some_and(|entry| entry.linux.is_some() || !entry.problems.is_empty()));
        let config = extlinux::parse(text.as_bytes(), &mut |_| Err(Problem::NoKernel));
        prop_assert_eq!(config.default.is_some(), !config.labels.is_empty());
        for label in config.labels {
            prop_assert!(label.kernel.is_some() || !label.problems.is_empty());
        }
    }
}
