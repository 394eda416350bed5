//! The order of versions, held against the programs of others: systemd-analyze for the
//! UAPI Group's "Version Format Specification", rpm for that of packages.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

use std::cmp::Ordering;
use std::process::{Command, Output};

use proptest::prelude::*;
use rkexec::entries::version;

fn run(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?}: {error}: run tests/vm/setup tools first"),
    }
}

/// The order that systemd has for two versions. It exits with 11 where the first is newer,
/// with 12 where the second is.
fn systemd(a: &str, b: &str) -> Ordering {
    let mut command = Command::new("systemd-analyze");
    let ended = run(command.args(["compare-versions", "--", a, b]));
    match ended.status.code() {
        Some(0) => Ordering::Equal,
        Some(11) => Ordering::Greater,
        Some(12) => Ordering::Less,
        _ => panic!("systemd-analyze compare-versions {a:?} {b:?}: {ended:?}"),
    }
}

/// The orders that rpm has for pairs of versions.
fn rpm(pairs: &[(String, String)]) -> Vec<Ordering> {
    let calls = pairs.iter();
    let calls = calls.map(|(a, b)| format!("print(rpm.vercmp('{a}', '{b}'), '\\n') "));
    let program = format!("%{{lua: {}}}", calls.collect::<String>());
    let ended = run(Command::new("rpm").args(["--eval", &program]));
    assert!(ended.status.success(), "{ended:?}");
    let said = String::from_utf8(ended.stdout).unwrap();
    let numbers = said.split_whitespace();
    let orders: Vec<_> = numbers
        .map(|number| number.parse::<i32>().unwrap().cmp(&0))
        .collect();
    assert_eq!(orders.len(), pairs.len(), "{said}");
    orders
}

/// Two versions with a common start, so that what differs comes behind it.
fn pair(part: &'static str) -> impl Strategy<Value = (String, String)> {
    (part, part, part).prop_map(|(start, a, b)| (format!("{start}{a}"), format!("{start}{b}")))
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn the_order_of_the_specification_is_systemds((a, b) in pair("([0-9]{1,3}|[a-cA-C]{1,2}|[-~^._+]){0,4}")) {
        prop_assert_eq!(version::uapi(&a, &b), systemd(&a, &b), "{} {}", a, b);
    }
}

proptest! {
    #![proptest_config(cases(10))]

    // A dash and a colon are no part of a version here: they end it.
    #[test]
    fn the_order_of_packages_is_rpms(
        pairs in proptest::collection::vec(pair("([0-9]{1,3}|[a-cA-C]{1,2}|[~^._+]){1,4}"), 200)
    ) {
        for ((a, b), order) in pairs.iter().zip(rpm(&pairs)) {
            prop_assert_eq!(version::rpm(a, b), order, "{} {}", a, b);
        }
    }
}
