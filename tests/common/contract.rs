//! The JSON contract of a plan: which fields there are, and what is in them.

use serde_json::{Map, Value};

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Is {
    /// A text.
    Text,
    /// An integer that is no address.
    Size,
    /// A text "0x…".
    Address,
    /// true or false.
    Flag,
    /// What the first is, or null.
    Maybe(&'static Is),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of what it says.
    List(&'static Is),
    /// These fields, and no others.
    Object(&'static [(&'static str, Is)]),
    /// The description of a kernel file, which has fields of its own for each format.
    Image,
}

use Is::{Address, Flag, Image, List, Maybe, Object, OneOf, Size, Text};

const RANGE: Is = Object(&[("start", Address), ("size", Size)]);

const PLAN: &[(&str, Is)] = &[
    ("schema", Size),
    ("target", OneOf(&["normal", "crash"])),
    (
        "syscall",
        Object(&[
            ("name", OneOf(&["kexec_load", "kexec_file_load"])),
            ("reason", Text),
        ]),
    ),
    ("image", Image),
    ("cmdline", Text),
    (
        "direct",
        Maybe(&Object(&[
            ("physical", Maybe(&Address)),
            ("virtual", Maybe(&Address)),
            ("randomized", Flag),
            ("reason", Text),
        ])),
    ),
    ("entry", Maybe(&Address)),
    (
        "segments",
        List(&Object(&[
            (
                "role",
                OneOf(&[
                    "kernel",
                    "initrd",
                    "boot_params",
                    "setup_data",
                    "purgatory",
                    "elfcorehdr",
                    "module",
                    "preserved",
                ]),
            ),
            ("mem", Address),
            ("memsz", Size),
            ("bufsz", Size),
            ("rule", Text),
        ])),
    ),
    (
        "memory_map",
        List(&Object(&[
            ("start", Address),
            ("size", Size),
            ("kind", OneOf(KINDS)),
            ("e820", Maybe(&Size)),
            ("sources", List(&Text)),
            ("driver", Maybe(&Text)),
            ("segments", OneOf(&["yes", "no", "last_choice"])),
            ("in_dump", Flag),
            ("reason", Text),
        ])),
    ),
    (
        "e820",
        List(&Object(&[
            ("start", Address),
            ("size", Size),
            ("type", Size),
        ])),
    ),
    (
        "excluded",
        List(&Object(&[
            ("start", Address),
            ("size", Size),
            ("name", Text),
            ("reason", Text),
        ])),
    ),
    (
        "setup_data",
        List(&Object(&[("type", Text), ("size", Size)])),
    ),
    (
        "pools",
        List(&Object(&[
            ("name", Text),
            ("start", Address),
            ("size", Size),
            ("bitmap", Address),
            (
                "protection",
                OneOf(&["kernel", "reserved", "indirect", "kho"]),
            ),
            ("origin", Text),
            ("reason", Text),
        ])),
    ),
    (
        "crash",
        Maybe(&Object(&[
            ("dump", List(&RANGE)),
            ("hotplug_flag", Maybe(&Text)),
            ("kernel_updates", Flag),
            ("reservation", RANGE),
            ("usable", List(&RANGE)),
        ])),
    ),
    ("empty_initrd", Maybe(&Text)),
    (
        "kho",
        Maybe(&Object(&[
            (
                "way",
                OneOf(&["built", "at_exec", "kept", "forwarded", "dropped"]),
            ),
            ("version", Text),
            ("scratch", List(&RANGE)),
            (
                "scratch_sum",
                List(&Object(&[("what", Text), ("size", Size)])),
            ),
            ("preserved", List(&RANGE)),
            (
                "carried",
                List(&Object(&[
                    ("name", Text),
                    ("size", Size),
                    ("sha256", Maybe(&Text)),
                    ("token", Size),
                ])),
            ),
            ("pools", List(&Text)),
        ])),
    ),
    ("warnings", List(&Text)),
];

const KINDS: &[&str] = &[
    "ram",
    "hot_added_ram",
    "driver_managed",
    "persistent_memory",
    "persistent_memory_legacy",
    "reserved",
    "acpi_tables",
    "acpi_nvs",
    "unusable",
    "soft_reserved",
    "unknown",
    "withheld",
    "efi_tables",
    "pool",
];

/// What in `plan` breaks the contract; empty when nothing does.
pub(crate) fn breaches(plan: &Value) -> Vec<String> {
    let mut breaches = Vec::new();
    check("plan", plan, Object(PLAN), &mut breaches);
    if plan["schema"] != 1 {
        breaches.push("schema is not 1".to_owned());
    }
    breaches
}

fn is_address(value: &Value) -> bool {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.is_some_and(|digits| {
        u64::from_str_radix(digits, 16).is_ok_and(|number| format!("{number:x}") == digits)
    })
}

fn check(name: &str, value: &Value, is: Is, breaches: &mut Vec<String>) {
    let good = match is {
        Text => value.is_string(),
        Size => value.is_u64(),
        Address => is_address(value),
        Flag => value.is_boolean(),
        OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
        Maybe(is) => {
            if !value.is_null() {
                check(name, value, *is, breaches);
            }
            true
        }
        List(is) => {
            let list = value.as_array();
            for (number, item) in list.into_iter().flatten().enumerate() {
                check(&format!("{name}[{number}]"), item, *is, breaches);
            }
            list.is_some()
        }
        Object(fields) => {
            let object = value.as_object();
            if let Some(object) = object {
                check_fields(name, object, fields, breaches);
            }
            object.is_some()
        }
        Image => ["format", "path"]
            .iter()
            .all(|field| value[field].is_string()),
    };
    if !good {
        breaches.push(format!("{name} is {value}, not {is:?}"));
    }
}

fn check_fields(
    name: &str,
    object: &Map<String, Value>,
    fields: &[(&str, Is)],
    breaches: &mut Vec<String>,
) {
    for (field, is) in fields {
        match object.get(*field) {
            Some(value) => check(&format!("{name}.{field}"), value, *is, breaches),
            None => breaches.push(format!("{name} has no {field}")),
        }
    }
    for field in object.keys() {
        if !fields.iter().any(|(known, _)| known == field) {
            breaches.push(format!("{name} has {field}, which is in no contract"));
        }
    }
}
