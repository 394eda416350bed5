//! What configurations come to on a machine of files.

mod distributions;

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

/// A machine of files: `path` lies on the configuration's file system, `@uuid:X path` on
/// another one.
#[derive(Default)]
struct Machine(BTreeMap<FileRef, Vec<u8>>);

impl Machine {
    fn with(mut self, path: &str, text: &str) -> Self {
        self.0.insert(FileRef::of_config(path), text.into());
        self
    }

    fn grubenv(self, lines: &str) -> Self {
        self.with(
            "/boot/grub/grubenv",
            &format!("# GRUB Environment Block\n{lines}####"),
        )
    }

    fn read(&self, text: &str) -> Config {
        let path = "/boot/grub/grub.cfg".to_owned();
        read(&Start { path, efi: false }, text.as_bytes(), self)
    }
}

impl Files for Machine {
    fn is_file(&self, file: &FileRef) -> bool {
        self.0.contains_key(file)
    }
    fn is_dir(&self, directory: &FileRef) -> bool {
        self.list(directory).is_some()
    }
    fn read(&self, file: &FileRef) -> Result<Vec<u8>, String> {
        self.0
            .get(file)
            .cloned()
            .ok_or_else(|| "no such file".to_owned())
    }
    fn list(&self, directory: &FileRef) -> Option<Vec<String>> {
        let start = format!("{}/", directory.path);
        let files = self.0.keys().filter(|file| file.on == directory.on);
        let names = files.filter_map(|file| file.path.strip_prefix(&start).map(str::to_owned));
        let names: Vec<String> = names.collect();
        (!names.is_empty()).then_some(names)
    }
}

fn ids(config: &Config) -> Vec<&str> {
    config.entries.iter().map(|entry| &*entry.id).collect()
}

fn uuid(uuid: &str, path: &str) -> FileRef {
    FileRef {
        on: Fs::Uuid(uuid.to_owned()),
        path: path.to_owned(),
    }
}

/// What comes before the entries on Debian; `$DEFAULT` is GRUB_DEFAULT.
const DEBIAN_HEAD: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod vbe
  fi
}
if loadfont unicode ; then
  set gfxmode=auto
  load_video
fi
function gfxmode {
	set gfxpayload="${1}"
}
set linux_gfx_mode=
export linux_gfx_mode
"#;

fn debian_entry(title: &str, id: &str, version: &str, more: &str) -> String {
    format!(
        r#"
menuentry '{title}' --class debian --class gnu-linux --class os $menuentry_id_option '{id}' {{
	load_video
	gfxmode $linux_gfx_mode
	insmod ext2
	set root='hd0,msdos1'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 --hint='hd0,msdos1' 1111-aaaa
	else
	  search --no-floppy --fs-uuid --set=root 1111-aaaa
	fi
	echo	'Loading Linux {version} ...'
	linux	/boot/vmlinuz-{version} root=UUID=1111-aaaa ro {more} quiet
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-{version}
}}
"#
    )
}

fn debian(default: &str) -> String {
    let advanced = [
        debian_entry(
            "Debian, with Linux 6.1.0-18-amd64",
            "gnulinux-6.1.0-18-advanced",
            "6.1.0-18-amd64",
            "",
        ),
        debian_entry(
            "Debian, with Linux 6.1.0-18-amd64 (recovery mode)",
            "gnulinux-6.1.0-18-recovery",
            "6.1.0-18-amd64",
            "single",
        ),
        debian_entry(
            "Debian, with Linux 6.1.0-17-amd64",
            "gnulinux-6.1.0-17-advanced",
            "6.1.0-17-amd64",
            "",
        ),
    ];
    format!(
        "{}{}submenu 'Advanced options for Debian' $menuentry_id_option 'gnulinux-advanced' {{\n{}}}\n\
         menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {{\n\tfwsetup\n}}\n\
         if [ -f  ${{config_directory}}/custom.cfg ]; then\n  source ${{config_directory}}/custom.cfg\n\
         elif [ -z \"${{config_directory}}\" -a -f  $prefix/custom.cfg ]; then\n  source $prefix/custom.cfg\nfi\n",
        DEBIAN_HEAD.replace("DEFAULT", default),
        debian_entry("Debian GNU/Linux", "gnulinux-simple", "6.1.0-18-amd64", ""),
        advanced.concat(),
    )
}

#[test]
fn other_files_are_read() {
    let machine = Machine::default().grubenv("").with(
        "/boot/grub/custom.cfg",
        "menuentry 'Mine' { linux /mine a=\"b c\" }\nset default=Mine\n",
    );
    let config = machine.read(&debian("0"));
    let mine = config.entries.last().unwrap();
    assert_eq!(config.default, Some(5));
    assert_eq!(mine.boot.kernel, Some(FileRef::of_config("/mine")));
    // A word with a blank is quoted for the kernel.
    assert_eq!(mine.boot.cmdline, "\"a=b c\"");
    let endless = Machine::default().with("/boot/grub/a.cfg", "source $prefix/a.cfg");
    let config = endless.read("source $prefix/a.cfg\nmenuentry a { linux /a }");
    assert_eq!(config.entries.len(), 1);
    assert!(matches!(config.problems[..], [Problem::Limit(_)]));
}

const FEDORA: &str = r#"
    if [ -f ${config_directory}/grubenv ]; then
      load_env -f ${config_directory}/grubenv
    elif [ -s $prefix/grubenv ]; then
      load_env
    fi
    if [ "${next_entry}" ] ; then
       set default="${next_entry}"
       set next_entry=
       save_env next_entry
       set boot_once=true
    else
       set default="${saved_entry}"
    fi
    if [ x"${feature_menuentry_id}" = xy ]; then menuentry_id_option="--id"; fi
    search --no-floppy --fs-uuid --set=root --hint='hd0,gpt2'  b00t
    insmod blscfg
    blscfg
    if [ "${boot_success}" = "1" -o "${boot_indeterminate}" = "1" ]; then
      set menu_hide_ok=1
    fi
    increment boot_indeterminate
    menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
      fwsetup
    }"#;

fn fedora(env: &str) -> Machine {
    let mut machine = Machine::default().grubenv(env);
    let options = [
        (
            "aaaa-6.8.5-301.fc40.x86_64",
            "/vmlinuz-6.8.5-301.fc40.x86_64",
            "$kernelopts $tuned_params",
        ),
        (
            "aaaa-6.10.0-1.fc40.x86_64",
            "/vmlinuz-6.10.0-1.fc40.x86_64",
            "root=UUID=2 ro ${kernelopts}",
        ),
        ("aaaa-0-rescue", "/vmlinuz-0-rescue-aaaa", ""),
    ];
    for (name, kernel, options) in options {
        let text = format!(
            "title Fedora Linux ({name})\nversion {}\nlinux {kernel}\ninitrd /initramfs.img $tuned_initrd\n\
             options {options}\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n",
            &name[5..]
        );
        let file = uuid("b00t", &format!("/loader/entries/{name}.conf"));
        machine.0.insert(file, text.into());
    }
    machine
}

#[test]
fn file_systems_by_every_name() {
    let on = |text: &str| {
        let config = Machine::default().read(&format!("{text}\nmenuentry a {{ linux $x/k }}"));
        config.entries[0].boot.kernel.clone().unwrap().on
    };
    assert_eq!(on(""), Fs::Config);
    assert_eq!(
        on("search --label --set=root ROOT"),
        Fs::Label("ROOT".to_owned())
    );
    assert_eq!(
        on("search --file --set=root /x"),
        Fs::Holding("/x".to_owned())
    );
    assert_eq!(
        on("search --set root --file /x"),
        Fs::Holding("/x".to_owned())
    );
    assert_eq!(on("search.fs_uuid 12 root hd0"), Fs::Uuid("12".to_owned()));
    assert_eq!(on("set root=hd0,gpt2"), Fs::Device("hd0,gpt2".to_owned()));
    assert_eq!(
        on("search -n -u -s root 12\nset x=($root)\nset root=y"),
        Fs::Uuid("12".to_owned())
    );
    assert_eq!(
        on("search --fs-uuid --set=dev --hint hd0 12\nset x=(${dev})"),
        Fs::Uuid("12".to_owned())
    );
}

#[test]
fn what_is_not_followed_is_said() {
    let text = r#"
        for disk in (hd*,gpt*); do
          menuentry "on $disk" { linux ($disk)/vmlinuz }
        done
        for n in 1 2; do
          menuentry "number $n" --id "n$n" { linux /vmlinuz-$n }
        done
        if regexp --set=1:major '([0-9]+)' $x; then set late=1; fi
        menuentry 'doubtful' { linux /k a=$major b=$late }
        while true; do set w=1; done
        menuentry 'loop' { linux /k $w }
    "#;
    let config = Machine::default().read(text);
    assert!(
        matches!(&config.problems[..], [Problem::NotFollowed { line: 2, .. }]),
        "{:?}",
        config.problems
    );
    assert_eq!(ids(&config), ["n1", "n2", "doubtful", "loop"]);
    // As in GRUB the block runs when the entry is chosen: then `n` has its last value.
    assert_eq!(
        config.entries[0].boot.kernel,
        Some(FileRef::of_config("/vmlinuz-2"))
    );
    assert_eq!(config.entries[2].problems.len(), 2);
    assert_eq!(config.entries[3].problems.len(), 1);
}

#[test]
fn one_bad_entry_does_not_hide_the_others() {
    let text = "menuentry 'a' { linux /a 'b\u{fffd}' }\nmenuentry 'b' {\n linux /b\nmenuentry 'c' { linux /c }\n\
                menuentry 'd' { if true; then linux /d }\n";
    let config = Machine::default().read(text);
    assert_eq!(ids(&config), ["a", "b", "c", "d"]);
    assert_eq!(config.entries[0].problems, [Problem::NotText]);
    assert!(
        config.entries[1..]
            .iter()
            .all(|entry| !entry.problems.is_empty()),
        "{:?}",
        config.entries
    );
    let nothing = Machine::default().read("menuentry 'x'\nmenuentry y { true }");
    assert!(matches!(
        nothing.problems[..],
        [Problem::Syntax { line: 1, .. }]
    ));
    assert_eq!(nothing.entries[0].problems, [Problem::NoKernel]);
}

#[test]
fn work_ends() {
    for text in [
        "function f { f; f; }\nf\n",
        "function f { menuentry a { f } }\nf\n",
        "function f { submenu a { f } }\nf\n",
        "set a=xxxxxxxx\nfunction f { set a=$a$a$a$a; }\nfor i in 1 2 3 4 5 6 7 8 9 10 11 12; do f; done\nmenuentry b { linux /$a }",
        "set t='eval \"$t\"'\neval \"$t\"",
    ] {
        let config = Machine::default().read(text);
        let said = !config.problems.is_empty()
            || config
                .entries
                .iter()
                .any(|entry| !entry.problems.is_empty());
        assert!(said, "{text}");
        assert!(config.entries.len() <= MAX_ENTRIES);
    }
    let many = "menuentry a { linux /a }\n".repeat(MAX_ENTRIES + 1);
    let config = Machine::default().read(&many);
    assert_eq!(config.entries.len(), MAX_ENTRIES);
    assert_eq!(config.problems, [Problem::TooMany]);
}

/// A machine where every file has 1 MiB, which counts what is read.
#[derive(Default)]
struct Large(std::cell::Cell<usize>);

impl Files for Large {
    fn is_file(&self, _: &FileRef) -> bool {
        true
    }
    fn is_dir(&self, _: &FileRef) -> bool {
        true
    }
    fn read(&self, _: &FileRef) -> Result<Vec<u8>, String> {
        self.0.set(self.0.get() + 1);
        let mut bytes = b"# GRUB Environment Block\n".to_vec();
        bytes.resize(crate::entries::MAX_FILE, b'#');
        Ok(bytes)
    }
    fn list(&self, _: &FileRef) -> Option<Vec<String>> {
        Some((0..100).map(|number| format!("{number}.conf")).collect())
    }
}

#[test]
fn the_next_boot_is_told_by_its_place_and_where_it_differs() {
    let text = format!(
        "{}menuentry a --id x {{ linux /1 }}\nmenuentry b --id x {{ linux /2 }}\n",
        DEBIAN_HEAD.replace("DEFAULT", "${saved_entry}")
    );
    let marks = |env: &str| {
        let config = Machine::default().grubenv(env).read(&text);
        (config.default, config.one_shot)
    };
    assert_eq!(marks("next_entry=1\nsaved_entry=0\n"), (Some(0), Some(1)));
    assert_eq!(marks("next_entry=b\nsaved_entry=a\n"), (Some(0), Some(1)));
    assert_eq!(marks("next_entry=1\nsaved_entry=1\n"), (Some(1), None));
}

/// `$1` of a block is the title.
#[test]
fn arguments_of_blocks_and_functions() {
    let text = r#"
        function load { linux /k "$@" "x$@y" $# "$*"; }
        menuentry 'T 1' --id a "b c" d { linux /k "$1" $2 "$2" $3 $4 $#; }
        menuentry 'f' --id f { load one "two three"; }
        menuentry 'g' --id g { load; }
        submenu 'S' --id s inner { menuentry "$1 $2" --id i { linux /k } }
    "#;
    let config = Machine::default().read(text);
    let lines: Vec<_> = config
        .entries
        .iter()
        .map(|entry| &*entry.boot.cmdline)
        .collect();
    assert_eq!(
        lines,
        [
            "\"T 1\" b c \"b c\" d 3",
            "one \"two three\" xone \"two threey\" 2 \"one two three\"",
            "xy 0",
            "",
        ]
    );
    assert_eq!(config.entries[3].title, "S inner");
    assert!(config.entries.iter().all(|entry| entry.problems.is_empty()));
}

/// Files that are there and that only root may read.
struct Locked;

impl Files for Locked {
    fn is_file(&self, file: &FileRef) -> bool {
        file.path.ends_with("env")
    }
    fn is_dir(&self, _: &FileRef) -> bool {
        false
    }
    fn read(&self, _: &FileRef) -> Result<Vec<u8>, String> {
        Err("only root may read it".to_owned())
    }
    fn list(&self, _: &FileRef) -> Option<Vec<String>> {
        None
    }
}

#[test]
fn an_environment_that_cannot_be_read_leaves_the_default_open() {
    let path = "/boot/grub/grub.cfg".to_owned();
    let head = DEBIAN_HEAD.replace("DEFAULT", "0");
    let text = format!("{head}menuentry a {{ linux /a }}\n");
    let config = read(&Start { path, efi: false }, text.as_bytes(), &Locked);
    assert!(
        matches!(&config.problems[..], [Problem::Unread { path, .. }] if path == "/boot/grub/grubenv"),
        "{:?}",
        config.problems
    );
    assert!(config.problems[0].hides_default());
}

/// openSUSE on btrfs: what GRUB writes is in blocks of the device, and grubenv names them.
#[test]
fn an_environment_in_blocks_of_the_device_leaves_the_default_open() {
    let text = r#"
        load_env
        if [ "${env_block}" ] ; then
          set env_block="(${root})${env_block}"
          export env_block
          load_env -f "${env_block}"
        fi
        set default="${saved_entry}"
        menuentry a { linux /a }
    "#;
    for (blocks, is_list) in [("512+1", true), ("+1,5+2", true), ("/512+1", false)] {
        let machine = Machine::default().grubenv(&format!("env_block={blocks}\n"));
        let config = machine.read(text);
        assert_eq!(ids(&config), ["a"]);
        let told: Vec<_> = config.problems.iter().map(ToString::to_string).collect();
        let is_said = told
            .iter()
            .any(|told| told.contains(": GRUB keeps its environment in"));
        assert_eq!(is_said, is_list, "{told:?}");
        assert_eq!(config.problems.iter().any(Problem::hides_default), is_list);
    }
}

#[test]
fn values_that_are_used_often_have_a_bound() {
    let is_limit = |problem: &Problem| matches!(problem, Problem::Limit(_));
    // Words out of a value, and blanks alone.
    for value in ["a ", "  "] {
        let value = value.repeat(30_000);
        let config =
            Machine::default().read(&format!("set v=\"{value}\"\n{}", "x $v\n".repeat(5_000)));
        assert!(
            config.problems.iter().any(is_limit),
            "{:?}",
            config.problems
        );
        let config =
            Machine::default().read(&format!("set v=\"{value}\"\nx {}", "$v ".repeat(300_000)));
        assert_eq!(config.entries, []);
    }
    // Lines of a file of the Boot Loader Specification.
    let value = "a".repeat(60_000);
    let machine = Machine::default()
        .with("/loader/entries/a.conf", "linux /k\noptions $v $v\n")
        .with("/loader/entries/b.conf", "linux /k\noptions $v\n")
        .with(
            "/loader/entries/c.conf",
            &format!("linux /k\noptions x\n{}", "initrd /$v\n".repeat(200)),
        );
    let config = machine.read(&format!("set v={value}\nblscfg\n"));
    let limits = |id: &str| {
        let entry = config.entries.iter().find(|entry| entry.id == id).unwrap();
        entry.problems.iter().any(is_limit)
    };
    assert_eq!(["a", "b", "c"].map(limits), [true, false, true]);
}

#[test]
fn modules_and_texts_have_a_bound() {
    let config = Machine::default().read(&format!(
        "menuentry a {{ multiboot /x\n{} }}\nmenuentry b {{ chainloader {} }}",
        "module /m a\n".repeat(101),
        "b".repeat(50_000)
    ));
    let [a, b] = &config.entries[..] else {
        panic!("{} entries", config.entries.len());
    };
    assert_eq!(a.boot.modules.len(), 100);
    assert!(matches!(a.problems[..], [Problem::Limit(_)]));
    assert!(b.problems[0].to_string().len() < 300);
}

#[test]
fn a_return_ends_one_block() {
    let machine = Machine::default().with("/boot/grub/a.cfg", "set a=1\nreturn\nset a=2\n");
    let config = machine.read(
        "source $prefix/a.cfg\nmenuentry x { linux /x $a; return; linux /y }\n\
         submenu s { menuentry z { linux /z }; return; menuentry no { linux /no } }\n\
         menuentry w { linux /w }\n",
    );
    assert_eq!(ids(&config), ["x", "s>z", "w"]);
    assert_eq!(config.entries[0].boot.cmdline, "1");
    assert!(config.entries.iter().all(|entry| entry.problems.is_empty()));
}

#[test]
fn a_fault_is_told_with_the_file_that_it_is_in() {
    let text = "function f { configfile /x; }\n}\nmenuentry m { configfile /y }\n";
    let machine = Machine::default().with("/boot/grub/a.cfg", text);
    let config = machine.read("}\nsource $prefix/a.cfg\nmenuentry n { f; }\n");
    let said = |problems: &[Problem]| -> Vec<String> {
        let starts = problems.iter().map(|problem| problem.to_string());
        starts.map(|text| text.chars().take(24).collect()).collect()
    };
    let problems = said(&config.problems);
    assert!(problems[0].starts_with("line 1: "), "{problems:?}");
    assert!(
        problems[1].starts_with("/boot/grub/a.cfg: line 2"),
        "{problems:?}"
    );
    for (entry, line) in config.entries.iter().zip([3, 1]) {
        let start = format!("/boot/grub/a.cfg: line {line}");
        assert_eq!(said(&entry.problems), [start], "{entry:?}");
    }
}

#[test]
fn what_is_read_and_told_has_a_bound() {
    let path = "/boot/grub/grub.cfg".to_owned();
    let start = Start { path, efi: false };
    for command in [
        "load_env",
        "blscfg",
        "source /x",
        "menuentry a { load_env; }",
    ] {
        let machine = Large::default();
        let text = format!("{command}\n").repeat(5_000);
        let config = read(&start, text.as_bytes(), &machine);
        assert!(machine.0.get() <= 6, "{command}: {}", machine.0.get());
        assert!(config.entries.len() <= MAX_ENTRIES, "{command}");
        let own = config.entries.iter().flat_map(|entry| &entry.problems);
        let is_limit = |problem: &Problem| matches!(problem, Problem::Limit(_));
        assert!(config.problems.iter().chain(own).any(is_limit), "{command}");
    }
    for text in [
        "}\n".repeat(crate::entries::MAX_FILE / 2),
        format!("menuentry a {{ linux /a {} }}", "$a ".repeat(9_999)),
        (0..9_999).fold(String::new(), |text, number| {
            format!("{text}menuentry\n$x{number}\n")
        }),
    ] {
        let config = Machine::default().read(&text);
        let own = config.entries.iter().map(|entry| &entry.problems);
        for problems in own.chain([&config.problems]) {
            assert!(problems.len() <= crate::entries::MAX_PROBLEMS + 1);
        }
    }
    let config = Machine::default().read(&format!(
        "menuentry a {{ linux /a\n initrd {} }}",
        "/i ".repeat(101)
    ));
    assert_eq!(config.entries[0].boot.initrds.len(), 100);
    assert!(matches!(
        config.entries[0].problems[..],
        [Problem::Limit(_)]
    ));
    let config = Machine::default().read(&"submenu a { submenu b { }; }\n".repeat(MAX_ENTRIES + 1));
    assert_eq!(config.problems, [Problem::TooMany]);
}

proptest! {
    #[test]
    fn any_configuration_is_carried_out(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("menuentry 'a' --id b {".to_owned()), Just("}".to_owned()), Just("\n".to_owned()),
                Just("submenu x {".to_owned()), Just("if [ ".to_owned()), Just(" ]; then".to_owned()),
                Just("fi".to_owned()), Just("else".to_owned()), Just("set a=$a${b}".to_owned()),
                Just("linux /x $a".to_owned()), Just("function f {".to_owned()), Just("f 1 2".to_owned()),
                Just("load_env".to_owned()), Just("blscfg".to_owned()), Just("'".to_owned()), Just("\"".to_owned()),
                Just("for x in 1 2 ; do".to_owned()), Just("done".to_owned()), Just("search --set=root -u 1".to_owned()),
                "[ -~]{0,6}",
            ],
            0..40,
        ),
    ) {
        let config = fedora("next_entry=1\n").read(&parts.join(" "));
        prop_assert!(config.default.is_none_or(|at| at < config.entries.len()));
        prop_assert!(config.one_shot.is_none_or(|at| at < config.entries.len()));
    }

    #[test]
    fn any_bytes_are_carried_out(bytes: Vec<u8>) {
        let path = "/grub.cfg".to_owned();
        let _ = read(&Start { path, efi: true }, &bytes, &Machine::default());
    }
}
