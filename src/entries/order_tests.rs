use super::*;
use proptest::prelude::*;

fn key(id: &str) -> Key {
    Key {
        name: id.to_owned(),
        ..Key::default()
    }
}

fn with(id: &str, sort_key: &str, machine: &str, version: &str) -> Key {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Key {
        sort_key: some(sort_key),
        machine_id: some(machine),
        version: some(version),
        ..key(id)
    }
}

fn counted(id: &str, left: u32, done: u32) -> Key {
    Key {
        tries: Some(Tries { left, done }),
        ..key(id)
    }
}

fn sorted(mut keys: Vec<Key>) -> Vec<String> {
    keys.sort_by(Key::compare);
    keys.iter().map(Key::id).collect()
}

#[test]
fn sort_keys_come_first_then_file_names_backwards() {
    let keys = vec![
        with("a-10.conf", "", "dd23", "10"),
        with("a-5.conf", "", "dd23", "5"),
        with("b.conf", "", "b754", "3"),
        with("c.conf", "xxxx", "309d", "5"),
        with("cx.conf", "xxxx", "309d", "10"),
        with("d.conf", "kkkk", "81c6", "100"),
    ];
    let expected = [
        "d.conf",
        "cx.conf",
        "c.conf",
        "b.conf",
        "a-10.conf",
        "a-5.conf",
    ];
    assert_eq!(sorted(keys), expected);
}

#[test]
fn within_a_sort_key_machines_then_newer_versions() {
    let keys = vec![
        with("1", "k", "b", "2"),
        with("2", "k", "a", "1.9"),
        with("3", "k", "a", "1.10"),
        with("4", "k", "", "9"),
        with("5", "k", "a", "1.10~rc1"),
    ];
    assert_eq!(sorted(keys), ["4", "3", "5", "2", "1"]);
}

#[test]
fn entries_without_tries_come_last() {
    let keys = vec![
        counted("z.conf", 0, 3),
        counted("m.conf", 1, 2),
        counted("m.conf", 3, 0),
        key("a.conf"),
        Key {
            tries: Some(Tries { left: 0, done: 1 }),
            ..with("y.conf", "aaa", "", "")
        },
    ];
    assert_eq!(
        sorted(keys.clone()),
        ["m.conf", "m.conf", "a.conf", "y.conf", "z.conf"]
    );
    let mut keys = keys;
    keys.sort_by(Key::compare);
    assert_eq!(keys[0].tries, Some(Tries { left: 3, done: 0 }));
}

#[test]
fn file_names_as_packages() {
    let machine = "0f3a5b1c";
    let mut names = vec![
        format!("{machine}-0-rescue"),
        format!("{machine}-5.14.0-70.13.1.el9_0.x86_64"),
        format!("{machine}-5.14.0-162.6.1.el9_1.x86_64"),
        format!("{machine}-5.9.0-1.el9.x86_64"),
    ];
    names.sort_by(|a, b| rpm(a, b));
    assert_eq!(
        names,
        [
            format!("{machine}-5.14.0-162.6.1.el9_1.x86_64"),
            format!("{machine}-5.14.0-70.13.1.el9_0.x86_64"),
            format!("{machine}-5.9.0-1.el9.x86_64"),
            format!("{machine}-0-rescue"),
        ]
    );
}

#[test]
fn profiles_keep_their_order() {
    let profile = |name: &str, profile| Key {
        profile,
        ..key(name)
    };
    let keys = vec![
        profile("a.efi", 10),
        profile("a.efi", 2),
        profile("a.efi", 0),
        profile("b.efi", 1),
    ];
    assert_eq!(sorted(keys), ["b.efi@1", "a.efi", "a.efi@2", "a.efi@10"]);
}

prop_compose! {
    fn any_key()(
        name in "[ab0-2.~^-]{0,5}",
        profile in 0_usize..3,
        sort_key in proptest::option::of("[ab]{1,2}"),
        machine_id in proptest::option::of("[ab]"),
        version in proptest::option::of("[0-2.~a]{0,4}"),
        tries in proptest::option::of((0_u32..3, 0_u32..3)),
    ) -> Key {
        let tries = tries.map(|(left, done)| Tries { left, done });
        Key { name, profile, sort_key, machine_id, version, tries }
    }
}

proptest! {
    #[test]
    fn any_two_have_one_order(a in any_key(), b in any_key()) {
        prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
        prop_assert_eq!(a.compare(&a), Ordering::Equal);
        if a.is_bad() && !b.is_bad() {
            prop_assert_eq!(a.compare(&b), Ordering::Greater);
        }
    }

    /// Sorting may panic without it.
    #[test]
    fn three_have_one_order(a in any_key(), b in any_key(), c in any_key()) {
        let (mut b, mut c) = (b, c);
        for same_name in [false, true] {
            if same_name {
                b = Key { name: a.name.clone(), ..b.clone() };
                c = Key { tries: c.tries, ..a.clone() };
            }
            let mut three = [&a, &b, &c];
            three.sort_by(|a, b| a.compare(b));
            let [first, _, last] = three;
            prop_assert_ne!(first.compare(last), Ordering::Greater);
            let equal = |one: &Key, other: &Key| one.compare(other) == Ordering::Equal;
            if equal(&a, &b) && equal(&b, &c) {
                prop_assert!(equal(&a, &c));
            }
        }
    }

    #[test]
    fn packages_have_one_order(a in "[ab01.~^_-]{0,8}", b in "[ab01.~^_-]{0,8}") {
        prop_assert_eq!(rpm(&a, &b), rpm(&b, &a).reverse());
        prop_assert_eq!(rpm(&a, &a), Ordering::Equal);
    }
}
