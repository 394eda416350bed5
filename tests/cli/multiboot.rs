//! Multiboot kernels at the command line.

use serde_json::{Value, json};

use crate::common::multiboot::{TinyElf, header_v1, header_v2, tag};
use crate::{Lab, captured};

/// A lab with a kernel of each version, and two modules.
fn lab() -> Lab {
    let lab = Lab::new();
    let kernel = |header: &[u8], at| {
        let mut bytes = header.to_vec();
        bytes.resize(6000, 0x90);
        TinyElf::new(at, &bytes).build()
    };
    lab.write("one", kernel(&header_v1(3, &[]), 0x10_0000));
    let tags = [
        tag(1, 0, &[4, 6]),
        tag(1, 1, &[8, 77]),
        tag(10, 1, &[0x20_0000, 0xffff_ffff, 0x20_0000, 2]),
    ];
    lab.write("two", kernel(&header_v2(0, &tags), 0x20_0000));
    lab.write("sub/dom0", [1; 5000]);
    lab.write("initrd", [2; 10]);
    lab
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_plan_names_the_modules_and_where_all_goes() {
    let lab = lab();
    let root = captured("bios-512m");
    let args = [
        "plan",
        "--root",
        &root,
        "--output",
        "json",
        "--cmdline",
        "a",
    ];
    let modules = ["--module", "sub/dom0 root=x  ro", "--module", "initrd"];
    let two = lab.run(&[&args[..], &["two"], &modules].concat());
    assert_eq!(two.code, Some(0), "{two:?}");
    let plan = json(&two.out);
    assert_eq!(plan["cmdline"], "two a");
    assert_eq!(plan["syscall"]["name"], "kexec_load");
    assert_eq!(plan["image"]["format"], "multiboot 2");
    assert_eq!(
        plan["image"]["modules"],
        json!([
            { "cmdline": "sub/dom0 root=x  ro", "size": 5000 },
            { "cmdline": "initrd", "size": 10 },
        ])
    );
    let roles = |plan: &Value| -> Vec<String> {
        let segments = plan["segments"].as_array().unwrap();
        let mut roles: Vec<String> = segments
            .iter()
            .map(|segment| segment["role"].as_str().unwrap().to_owned())
            .collect();
        roles.sort();
        roles
    };
    let expected = ["boot_params", "kernel", "module", "module", "purgatory"];
    assert_eq!(roles(&plan), expected);
    assert_eq!(
        plan["segments"][0]["mem"], "0x1fe00000",
        "as high as can be"
    );

    let one = json(&lab.run(&[&args[..], &["one"], &modules].concat()).out);
    assert_eq!(roles(&one), expected);
    assert_eq!(one["segments"][0]["mem"], "0x100000", "where it is linked");
    let text = lab.run(&["plan", "--root", &root, "one", "--explain"]).out;
    assert!(
        text.starts_with(
            "can be loaded: a multiboot 1 kernel, for exec, through kexec_load (1 warning)\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("the kernel's own address: it is not relocatable; 5.8 KiB of it are loaded")
    );
}

#[test]
fn what_belongs_to_linux_is_refused_with_the_way_out() {
    let lab = lab();
    let root = captured("bios-512m");
    let plan = ["plan", "--root", &root];
    let initrd = lab.fails(2, &[&plan[..], &["one", "--initrd", "initrd"]].concat());
    assert!(
        initrd.starts_with(
            "rkexec: planning failed: --initrd is not for a multiboot kernel: it takes modules\nhint: --module "
        ),
        "{initrd}"
    );
    let module = lab.fails(2, &[&plan[..], &["vmlinuz", "--module", "initrd"]].concat());
    assert_eq!(
        module,
        "rkexec: planning failed: --module works only with multiboot kernels (Xen), and this is a Linux kernel: use --initrd FILE\n"
    );
    let missing = lab.fails(
        1,
        &[&plan[..], &["one", "--module", "nothing a b"]].concat(),
    );
    assert_eq!(
        missing,
        "rkexec: opening the module failed: nothing: no such file\n"
    );
    let call = ["one", "--syscall", "kexec_file_load"];
    let file_load = lab.fails(1, &[&plan[..], &call].concat());
    assert!(
        file_load.contains("it is a multiboot kernel"),
        "{file_load}"
    );
}

#[test]
fn inspect_shows_loads_entry_and_bounds() {
    let lab = lab();
    let two = json(&lab.succeeds(&["inspect", "two", "--output", "json"]));
    assert_eq!(two["schema"], 1);
    assert_eq!(two["format"], "multiboot 2");
    assert_eq!(two["entry"], "0x200000");
    let load = json!({ "start": "0x200000", "size": 6000, "file_size": 6000 });
    assert_eq!(two["loads"], json!([load]));
    assert_eq!(
        two["relocatable"],
        json!({ "min": "0x200000", "max": "0xffffffff", "align": 0x20_0000, "preference": "highest" })
    );
    assert_eq!(
        two["requests"][0],
        json!({ "tag": 4, "name": "basic memory information", "required": true })
    );
    assert_eq!(
        two["requests"][3],
        json!({ "tag": 77, "name": null, "required": false })
    );
    let text = lab.succeeds(&["inspect", "one"]);
    for line in [
        "format:        multiboot 1\n",
        "loads:         0x100000-0x10176f (5.8 KiB, 5.8 KiB of it from the file)\n",
        "entry:         0x100000\n",
        "relocatable:   no\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_header_that_is_not_quite_one_is_told() {
    let lab = lab();
    let mut header = header_v1(3, &[]);
    header[4] = 1;
    lab.write("near", [&[0; 12], &header[..], &[0; 9000]].concat());
    let error = lab.fails(1, &["inspect", "near"]);
    assert!(
        error.contains("this is no multiboot 1 kernel, although the magic of its header is at 0xc: its checksum is wrong"),
        "{error}"
    );
}
