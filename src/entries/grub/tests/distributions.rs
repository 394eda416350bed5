//! Configurations as distributions make them, written from the GRUB manual and the
//! documentation of the distributions.

use super::*;

#[test]
fn debian_12() {
    let config = Machine::default().grubenv("").read(&debian("0"));
    assert_eq!(
        ids(&config),
        [
            "gnulinux-simple",
            "gnulinux-advanced>gnulinux-6.1.0-18-advanced",
            "gnulinux-advanced>gnulinux-6.1.0-18-recovery",
            "gnulinux-advanced>gnulinux-6.1.0-17-advanced",
            "uefi-firmware",
        ]
    );
    assert_eq!((config.default, config.one_shot), (Some(0), None));
    assert_eq!(config.problems, []);
    let recovery = &config.entries[2];
    assert_eq!(
        recovery.title,
        "Debian, with Linux 6.1.0-18-amd64 (recovery mode)"
    );
    assert_eq!(recovery.position, "1>1");
    assert_eq!(recovery.problems, []);
    assert_eq!(
        recovery.boot.kernel,
        Some(uuid("1111-aaaa", "/boot/vmlinuz-6.1.0-18-amd64"))
    );
    assert_eq!(recovery.boot.cmdline, "root=UUID=1111-aaaa ro single quiet");
    assert_eq!(
        recovery.boot.initrds,
        [uuid("1111-aaaa", "/boot/initrd.img-6.1.0-18-amd64")]
    );
    assert_eq!(
        config.entries[4].problems,
        [Problem::OtherProgram("fwsetup".to_owned())]
    );
}

#[test]
fn the_default_by_number_title_id_and_path() {
    let default = |default: &str| {
        let config = Machine::default()
            .grubenv("saved_entry=2\n")
            .read(&debian(default));
        (config.default.unwrap(), config.problems.len())
    };
    for (name, entry) in [
        ("0", 0),
        ("1", 1),
        ("2", 4),
        ("1>2", 3),
        ("Debian GNU/Linux", 0),
        ("gnulinux-advanced>gnulinux-6.1.0-17-advanced", 3),
        (
            "Advanced options for Debian>Debian, with Linux 6.1.0-17-amd64",
            3,
        ),
        ("gnulinux-advanced>1", 2),
        ("gnulinux-advanced", 1),
        ("${saved_entry}", 4),
        ("", 0),
    ] {
        assert_eq!(default(name), (entry, 0), "{name}");
    }
    for gone in ["9", "gone", "gnulinux-advanced>gone", "gone>2", "-1"] {
        let (entry, problems) = default(gone);
        let first = if gone.starts_with("gnu") { 1 } else { 0 };
        assert_eq!((entry, problems), (first, 1), "{gone}");
    }
}

#[test]
fn next_entry_is_started_once() {
    let env =
        "next_entry=gnulinux-advanced>gnulinux-6.1.0-17-advanced\nsaved_entry=uefi-firmware\n";
    let config = Machine::default()
        .grubenv(env)
        .read(&debian("${saved_entry}"));
    assert_eq!((config.default, config.one_shot), (Some(4), Some(3)));
}

#[test]
fn ubuntu_sets_words_of_the_line_in_functions() {
    let text = r#"
        if [ "${recordfail}" != 1 ]; then
          if [ -e ${prefix}/gfxblacklist.txt ]; then
            if hwmatch ${prefix}/gfxblacklist.txt 3; then
              if [ ${match} = 0 ]; then
                set linux_gfx_mode=keep
              else
                set linux_gfx_mode=text
              fi
            else
              set linux_gfx_mode=text
            fi
          else
            set linux_gfx_mode=keep
          fi
        else
          set linux_gfx_mode=text
        fi
        export linux_gfx_mode
        function gfxmode {
          set gfxpayload="${1}"
          if [ "${1}" = "keep" ]; then
            set vt_handoff=vt.handoff=7
          else
            set vt_handoff=
          fi
        }
        menuentry 'Ubuntu' $menuentry_id_option 'gnulinux-simple' {
          gfxmode $linux_gfx_mode
          linux /boot/vmlinuz-6.8.0-31-generic root=UUID=1 ro quiet splash $vt_handoff
          initrd /boot/initrd.img-6.8.0-31-generic
        }
        submenu 'Advanced options for Ubuntu' {
          menuentry 'Ubuntu, with Linux 6.8.0-31-generic' {
            gfxmode $linux_gfx_mode
            linux /boot/vmlinuz-6.8.0-31-generic root=UUID=1 ro quiet splash $vt_handoff
            if [ "${initrdfail}" = 1 ]; then
              initrd /boot/other
            fi
          }
        }"#;
    let config = Machine::default().read(text);
    for entry in &config.entries {
        assert_eq!(
            entry.boot.cmdline,
            "root=UUID=1 ro quiet splash vt.handoff=7"
        );
        assert_eq!(entry.problems, []);
    }
    assert_eq!(config.entries[1].boot.initrds, []);
    // The graphics card is taken for one that is not on the list.
    let machine = Machine::default().with("/boot/grub/gfxblacklist.txt", "");
    let listed = machine.read(text);
    assert_eq!(listed.entries, config.entries);
    // Any other answer that only GRUB has makes the line doubtful.
    let doubtful = |problem: &Problem| matches!(problem, Problem::Doubtful { name, on } if name == "vt_handoff" && on == "hwmatch2");
    let other = machine.read(&text.replace("hwmatch", "hwmatch2"));
    for entry in &other.entries {
        assert!(entry.problems.iter().any(doubtful), "{:?}", entry.problems);
    }
}

#[test]
fn centos_7() {
    let text = r#"
        set pager=1
        if [ -s $prefix/grubenv ]; then
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
        terminal_output console
        menuentry 'CentOS Linux (3.10.0-1160.el7.x86_64) 7 (Core)' --class centos --unrestricted $menuentry_id_option 'gnulinux-3.10.0-1160.el7.x86_64-advanced-1' {
        	set gfxpayload=keep
        	set root='hd0,msdos1'
        	search --no-floppy --fs-uuid --set=root --hint='hd0,msdos1'  b00t
        	linux16 /vmlinuz-3.10.0-1160.el7.x86_64 root=/dev/mapper/centos-root ro crashkernel=auto rd.lvm.lv=centos/root LANG=en_US.UTF-8
        	initrd16 /initramfs-3.10.0-1160.el7.x86_64.img
        }
        menuentry 'CentOS Linux (0-rescue-0f3a) 7 (Core)' --unrestricted $menuentry_id_option 'gnulinux-0-rescue-0f3a-advanced-1' {
        	linuxefi /vmlinuz-0-rescue-0f3a root=/dev/mapper/centos-root ro
        	initrdefi /initramfs-0-rescue-0f3a.img
        }
        if [ -f /boot/grub/user.cfg ]; then
          source /boot/grub/user.cfg
          if [ -n "${GRUB2_PASSWORD}" ]; then
            set superusers="root"
            export superusers
            password_pbkdf2 root ${GRUB2_PASSWORD}
          fi
        fi"#;
    let machine = |saved: &str| Machine::default().grubenv(&format!("saved_entry={saved}\n"));
    let config = machine("CentOS Linux (0-rescue-0f3a) 7 (Core)").read(text);
    assert_eq!(config.default, Some(1));
    let first = &config.entries[0];
    assert_eq!(
        first.boot.kernel,
        Some(uuid("b00t", "/vmlinuz-3.10.0-1160.el7.x86_64"))
    );
    assert_eq!(config.entries[1].boot.initrds.len(), 1);
    assert!(config.entries.iter().all(|entry| entry.problems.is_empty()));
    // With a password all the same: the entries are unrestricted.
    let locked = machine("0").with("/boot/grub/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2.x");
    assert_eq!(locked.read(text).entries[0].problems, []);
    let restricted = locked.read(&text.replace("--unrestricted", ""));
    assert_eq!(restricted.entries[0].problems, [Problem::Password]);
    assert_eq!(config.default, Some(1));
}

#[test]
fn fedora_and_rhel_have_entries_in_files() {
    let env = "saved_entry=aaaa-6.8.5-301.fc40.x86_64\nkernelopts=root=UUID=1 ro rhgb quiet\nboot_success=1\n";
    let config = fedora(env).read(FEDORA);
    assert_eq!(
        ids(&config),
        [
            "aaaa-6.10.0-1.fc40.x86_64",
            "aaaa-6.8.5-301.fc40.x86_64",
            "aaaa-0-rescue",
            "uefi-firmware"
        ]
    );
    assert!(config.entries[0].from_bls && !config.entries[3].from_bls);
    assert_eq!((config.default, config.one_shot), (Some(1), None));
    assert_eq!(config.problems, []);
    let lines: Vec<&str> = config
        .entries
        .iter()
        .map(|entry| &*entry.boot.cmdline)
        .collect();
    assert_eq!(
        lines,
        [
            "root=UUID=2 ro root=UUID=1 ro rhgb quiet",
            "root=UUID=1 ro rhgb quiet",
            "",
            ""
        ]
    );
    let first = &config.entries[0];
    assert_eq!(
        first.boot.kernel,
        Some(uuid("b00t", "/vmlinuz-6.10.0-1.fc40.x86_64"))
    );
    assert_eq!(first.boot.initrds, [uuid("b00t", "/initramfs.img")]);
    assert_eq!(first.version.as_deref(), Some("6.10.0-1.fc40.x86_64"));
    assert!(
        config.entries[..3]
            .iter()
            .all(|entry| entry.problems.is_empty())
    );
}

#[test]
fn tuned_adds_words_and_initrds_and_missing_options_are_said() {
    let env =
        "kernelopts=ro\ntuned_params=isolcpus=2\ntuned_initrd=/tuned.img\nearly_initrd=ucode.img\n";
    let config = fedora(env).read(FEDORA);
    let older = &config.entries[1];
    assert_eq!(older.boot.cmdline, "ro isolcpus=2");
    let initrds: Vec<_> = older.boot.initrds.iter().map(|file| &*file.path).collect();
    assert_eq!(initrds, ["/ucode.img", "/initramfs.img", "/tuned.img"]);
    let config = fedora("").read(FEDORA);
    assert_eq!(
        config.entries[0].problems,
        [Problem::Unset("kernelopts".to_owned())]
    );
    let config = fedora("default_kernelopts=x\nkernelopts=y\n").read(FEDORA);
    assert_eq!(config.entries[2].boot.cmdline, "x");
    let none = Machine::default().read("blscfg");
    assert!(matches!(none.problems[..], [Problem::File { .. }]));
}

#[test]
fn opensuse_with_xen() {
    let text = r#"
        set btrfs_relative_path="y"
        export btrfs_relative_path
        set linux=linux
        menuentry 'openSUSE Leap 15.6' --class opensuse $menuentry_id_option 'gnulinux-simple-5' {
          search --no-floppy --fs-uuid --set=root 5555
          $linux /boot/vmlinuz-6.4.0-150600.21-default root=UUID=5555 splash=silent ${extra_cmdline} quiet mitigations=auto
          initrd /boot/initrd-6.4.0-150600.21-default
        }
        if [ "$grub_platform" = "pc" -o "$grub_platform" = "" ]; then
          xen_rm_opts=
        else
          xen_rm_opts="no-real-mode edd=off"
        fi
        menuentry 'openSUSE, with Xen hypervisor' {
          multiboot2 /boot/xen-4.18.gz placeholder dom0_mem=1G ${xen_rm_opts}
          module2 /boot/vmlinuz-6.4 placeholder root=UUID=5555 ro
          module2 --nounzip /boot/initrd-6.4
        }
        menuentry 'Windows' { chainloader /EFI/Microsoft/Boot/bootmgfw.efi }
        menuentry 'Start bootloader from a read-only snapshot' { configfile /boot/grub2/snapshots.cfg }
    "#;
    let config = Machine::default().read(text);
    let [plain, xen, windows, snapshots] = &config.entries[..] else {
        panic!("{config:?}");
    };
    assert_eq!(
        plain.boot.cmdline,
        "root=UUID=5555 splash=silent quiet mitigations=auto"
    );
    assert_eq!(plain.problems, [Problem::Unset("extra_cmdline".to_owned())]);
    assert_eq!(xen.boot.cmdline, "placeholder dom0_mem=1G");
    let modules: Vec<_> = xen
        .boot
        .modules
        .iter()
        .map(|(file, line)| (&*file.path, &**line))
        .collect();
    assert_eq!(
        modules,
        [
            ("/boot/vmlinuz-6.4", "placeholder root=UUID=5555 ro"),
            ("/boot/initrd-6.4", "")
        ]
    );
    assert!(matches!(windows.problems[..], [Problem::OtherProgram(_)]));
    assert!(matches!(
        snapshots.problems[..],
        [Problem::NotFollowed { .. }]
    ));
}
