use super::*;

fn read(text: &str) -> Config {
    parse(text.as_bytes(), &mut |file| {
        Err(Problem::NotSeen(format!("no {file}")))
    })
}

fn names(config: &Config) -> Vec<&str> {
    config.labels.iter().map(|label| &*label.name).collect()
}

#[test]
fn labels_as_distributions_write_them() {
    let config = read(
        "## /boot/extlinux/extlinux.conf\r\n\
         default l0\r\n\
         menu title U-Boot menu\n\
         prompt 0\n\
         timeout 50\n\
         append ro\n\
         label l0\n\
         \tmenu label ^Debian GNU/Linux 12\n\
         \tlinux /boot/vmlinuz-6.1.0-18-amd64\n\
         \tinitrd /boot/ucode.img,/boot/initrd.img-6.1.0-18-amd64\n\
         \tfdt /boot/a.dtb\n\
         \tappend root=/dev/sda1 ro  quiet\n\
         label l0r\n\
         \tTEXT HELP\n\
         \tlabel none\n\
         \tENDTEXT\n\
         \tKERNEL vmlinuz\n\
         \tAPPEND initrd=a.img,b.img single\n\
         label plain\n\
         \tkernel /vmlinuz.2.6.0\n\
         label bare\n\
         \tkernel /vmlinuz\n\
         \tappend -\n",
    );
    assert_eq!(names(&config), ["l0", "l0r", "plain", "bare"]);
    assert_eq!(config.default, Some(0));
    assert_eq!(config.problems, []);
    let [first, second, plain, bare] = &config.labels[..] else {
        panic!("four labels");
    };
    assert_eq!(first.title.as_deref(), Some("Debian GNU/Linux 12"));
    assert_eq!(
        first.kernel.as_deref(),
        Some("/boot/vmlinuz-6.1.0-18-amd64")
    );
    assert_eq!(
        first.initrds,
        ["/boot/ucode.img", "/boot/initrd.img-6.1.0-18-amd64"]
    );
    assert_eq!(first.devicetree.as_deref(), Some("/boot/a.dtb"));
    assert_eq!(first.cmdline, "root=/dev/sda1 ro quiet");
    assert_eq!(second.initrds, ["a.img", "b.img"]);
    assert_eq!(second.cmdline, "single");
    assert_eq!((&*plain.cmdline, &*bare.cmdline), ("ro", ""));
    assert_eq!(plain.kernel.as_deref(), Some("/vmlinuz.2.6.0"));
}

#[test]
fn the_default() {
    let labels = "label a\nlinux /a\nlabel b\nlinux /b\nlabel c\nlinux /c\n";
    let of = |head: &str| read(&format!("{head}\n{labels}")).default;
    assert_eq!(of(""), Some(0));
    assert_eq!(of("DEFAULT b"), Some(1));
    assert_eq!(of("DEFAULT vesamenu.c32"), Some(0));
    // Where nobody is asked, nobody waits.
    assert_eq!(of("DEFAULT b\nONTIMEOUT c"), Some(1));
    assert_eq!(of("DEFAULT b\nPROMPT 0\nONTIMEOUT c"), Some(1));
    assert_eq!(of("DEFAULT b\nPROMPT 1\nONTIMEOUT c"), Some(2));
    assert_eq!(of("DEFAULT menu.c32\nONTIMEOUT c"), Some(2));
    let in_menu = |head: &str| {
        let text = format!("{head}\nlabel a\nlinux /a\nlabel b\nmenu default\nlinux /b");
        read(&text).default
    };
    for head in [
        "DEFAULT a",
        "UI menu.c32\nDEFAULT a",
        "UI menu.c32\nDEFAULT a x",
    ] {
        assert_eq!(in_menu(head), Some(0), "{head}");
    }
    for head in ["", "UI menu.c32", "DEFAULT vesamenu.c32"] {
        assert_eq!(in_menu(head), Some(1), "{head}");
    }
    let gone = read(&format!("DEFAULT x\n{labels}"));
    assert_eq!(gone.default, Some(0));
    assert_eq!(gone.problems, [Problem::NoSuchDefault("x".to_owned())]);
    assert_eq!(read("DEFAULT x").default, None);
}

#[test]
fn a_default_with_words_of_its_own() {
    let config = read("DEFAULT b  x y\nlabel a\nlinux /a\nlabel b\nlinux /b\nappend ro\n");
    assert_eq!(names(&config), ["a", "b", "b  x y"]);
    assert_eq!(config.default, Some(2));
    assert_eq!(config.problems, []);
    let lines = config.labels.iter().map(|label| &*label.cmdline);
    assert_eq!(lines.collect::<Vec<_>>(), ["", "ro", "ro x y"]);
}

#[test]
fn what_is_no_kernel_is_said() {
    let config = read(
        "label a\ncom32 reboot.c32\nlabel b\nkernel chain.c32\nlabel c\nlocalboot 0\nlabel d\n\
         label e\nmenu passwd x\nlinux /\u{fffd}\nlabel f\nlinux /f\0",
    );
    let problems: Vec<_> = config
        .labels
        .iter()
        .map(|label| &label.problems[..])
        .collect();
    let other = |what: &str| vec![Problem::OtherProgram(what.to_owned())];
    assert_eq!(problems[0], other("COM32 reboot.c32"));
    assert_eq!(problems[1], other("KERNEL chain.c32"));
    assert_eq!(problems[2], other("LOCALBOOT 0"));
    assert_eq!(problems[3], [Problem::NoKernel]);
    assert_eq!(problems[4], [Problem::Password, Problem::NotText]);
    assert_eq!(problems[5], [Problem::NotText]);
}

#[test]
fn files_are_included_up_to_a_depth() {
    let mut asked = Vec::new();
    let text = b"include more.cfg\nmenu include self.cfg tag\ninclude gone.cfg\n";
    let config = parse(text, &mut |file| {
        asked.push(file.to_owned());
        match file {
            "more.cfg" => Ok(b"label more\nlinux /more\n".to_vec()),
            "self.cfg" => Ok(b"label self\nlinux /s\nmenu include self.cfg\n".to_vec()),
            _ => Err(Problem::Unread {
                path: file.to_owned(),
                why: "no".to_owned(),
            }),
        }
    });
    assert_eq!(config.labels.len(), 1 + MAX_DEPTH);
    assert_eq!(config.problems.len(), 2, "{:?}", config.problems);
    assert!(config.problems[1].hides_default());
    // Each file includes itself three times: the number of files ends it.
    let mut count = 0;
    let text = b"include x\ninclude x\ninclude x\n";
    parse(text, &mut |_| {
        count += 1;
        Ok(text.to_vec())
    });
    assert!(count < MAX_FILES, "{count}");
}

#[test]
fn a_thousand_labels() {
    let config = read(&"label a\nlinux /a\n".repeat(MAX_ENTRIES + 5));
    assert_eq!(config.labels.len(), MAX_ENTRIES);
    assert_eq!(config.problems, [Problem::TooMany]);
    // What belongs to the label behind them changes none of them.
    let text = format!(
        "{}label b\nlinux /b\nappend b\n",
        "label a\nlinux /a\n".repeat(MAX_ENTRIES)
    );
    let config = read(&text);
    assert!(
        config
            .labels
            .iter()
            .all(|label| label.kernel.as_deref() == Some("/a"))
    );
    assert!(config.labels.iter().all(|label| label.cmdline.is_empty()));
}

#[test]
fn initrds_have_a_bound() {
    let config = read(&format!("label a\nlinux /a\ninitrd {}\n", "i,".repeat(999)));
    assert_eq!(config.labels[0].initrds.len(), MAX_INITRDS);
    assert_eq!(config.labels[0].problems, [TOO_MANY_INITRDS]);
}

#[test]
fn what_is_told_has_a_bound() {
    let includes = (0..9_999).map(|number| format!("include f{number}\n"));
    let config = read(&includes.collect::<String>());
    assert_eq!(config.problems.len(), crate::entries::MAX_PROBLEMS + 1);
    assert_eq!(config.problems.last(), Some(&Problem::More));
    let config = read(&format!("label a\n{}", "\0\n".repeat(9_999)));
    assert_eq!(
        config.labels[0].problems,
        [Problem::NotText, Problem::NoKernel]
    );
}

#[test]
fn a_menu_within_the_menu_ends_a_label() {
    let config = read(
        "append outer\nlabel a\nmenu label A\nlinux /a\n\
         menu begin more\nmenu label More\nappend inner\nlabel b\nlinux /b\nmenu end\n\
         menu label Behind\nlabel c\nlinux /c\n",
    );
    let titles: Vec<_> = config
        .labels
        .iter()
        .map(|label| label.title.as_deref())
        .collect();
    assert_eq!(titles, [Some("A"), None, None]);
    let lines: Vec<_> = config.labels.iter().map(|label| &*label.cmdline).collect();
    assert_eq!(lines, ["outer", "inner", "outer"]);
}
