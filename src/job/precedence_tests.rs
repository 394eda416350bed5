//! The table of precedence in `mod.rs`, row by row.

use bstr::ByteSlice as _;

use super::*;
use crate::base::Syscall;
use crate::cmdline::CmdlineBase;
use crate::image::uki::Addon;
use crate::image::{Contents, Found, Image, open_as};
use crate::request::SyscallChoice;
use crate::testing::bzimage::TinyBzImage;
use crate::testing::pe::TinyPe;

const FRESH: Fresh = Fresh {
    seed: [7; 32],
    time: 7,
};

fn options() -> Options {
    Options {
        kernel: "/option".into(),
        initrds: vec!["/i".into()],
        ..Options::default()
    }
}

fn rules() -> ArmRules {
    ArmRules {
        kernel: "/rule".into(),
        ..ArmRules::default()
    }
}

/// What `job` and a UKI with one addon come to.
fn merged<T>(job: &Job, then: impl FnOnce(Merged<'_>) -> T) -> T {
    let uki = TinyPe::uki().build();
    let addon = TinyPe::new([
        (".cmdline", &b"of-addon"[..]),
        (".ucode", b"addon's microcode"),
        (".initrd", b"addon's initrd"),
        (".dtb", b"addon's tree"),
    ])
    .build();
    let contents = Contents::of(&uki).unwrap();
    let found = open_as(&contents, None, None).unwrap();
    let addon = Addon::parse(&addon).unwrap();
    then(Merged::of(&job.request, &found, &[addon], &[b"source's"]).unwrap())
}

/// The base, and the words that are added to it.
fn line(line: Line) -> (CmdlineBase, String) {
    let job = Options { line, ..options() }.job(FRESH);
    merged(&job, |merged| {
        let request = merged.request.cmdline;
        (
            request.base,
            bstr::join(" ", &request.append).to_str_lossy().into_owned(),
        )
    })
}

fn given(text: &str) -> CmdlineBase {
    CmdlineBase::Given(text.into())
}

fn kernel() {
    assert_eq!(options().job(FRESH).kernel.to_str(), Some("/option"));
    let job = options().or_entry(entry()).job(FRESH);
    assert_eq!(job.kernel.to_str(), Some("/entry"));
    let job = rules().or_entry(entry()).job(FRESH);
    assert_eq!(job.kernel.to_str(), Some("/entry"));
    let job = rules().job(FRESH);
    assert_eq!(job.kernel.to_str(), Some("/rule"));
    assert_eq!(Kept::of(&job).job(FRESH).kernel, job.kernel);
}

/// A boot entry with everything.
fn entry() -> EntryFiles {
    EntryFiles {
        kernel: "/entry".into(),
        initrds: vec!["/e".into()],
        line: Some("of-entry".into()),
        profile: Some("p".to_owned()),
        addons: vec!["/a.addon.efi".into()],
        modules: vec!["/m x".into()],
        dtb: Some(vec![1]),
        hashes: vec![("/e".into(), [2; 32])],
    }
}

fn initrds_of_the_source() {
    let own = options().or_entry(entry()).job(FRESH);
    assert_eq!(own.initrds, [std::path::Path::new("/i")]);
    let job = Options::default().or_entry(entry()).job(FRESH);
    assert_eq!(job.initrds, [std::path::Path::new("/e")]);
    let job = rules().or_entry(entry()).job(FRESH);
    assert_eq!(job.initrds, [std::path::Path::new("/e")]);
    let own = ArmRules {
        initrds: vec!["/i".into()],
        ..rules()
    };
    let job = own.or_entry(entry()).job(FRESH);
    assert_eq!(job.initrds, [std::path::Path::new("/i")]);
}

fn modules() {
    let own = Options {
        modules: vec!["/n".into()],
        ..Options::default()
    };
    assert_eq!(own.or_entry(entry()).job(FRESH).modules, ["/n"]);
    let job = Options::default().or_entry(entry()).job(FRESH);
    assert_eq!(job.modules, ["/m x"]);
}

fn addons() {
    let own = Options {
        addons: vec!["/b.addon.efi".into()],
        ..Options::default()
    };
    let job = own.or_entry(entry()).job(FRESH);
    assert_eq!(
        job.addons,
        ["/a.addon.efi", "/b.addon.efi"].map(std::path::Path::new)
    );
    let job = rules().or_entry(entry()).job(FRESH);
    assert_eq!(job.addons, [std::path::Path::new("/a.addon.efi")]);
}

/// What the line of an entry, and options beside it, come to.
fn line_of_entry(line: Line) -> CmdlineBase {
    let options = Options {
        line,
        ..Options::default()
    };
    options.or_entry(entry()).job(FRESH).request.cmdline.base
}

fn initrds() {
    merged(&options().job(FRESH), |merged| {
        let expected: [&[u8]; 5] = [
            b"addon's microcode",
            b"070701 microcode",
            b"070701 an initrd",
            b"addon's initrd",
            b"source's",
        ];
        assert_eq!(merged.initrds, expected);
    });
}

fn profile() {
    assert_eq!(
        Options::default()
            .or_entry(entry())
            .job(FRESH)
            .profile
            .as_deref(),
        Some("p")
    );
    let own = Options {
        profile: Some("own".to_owned()),
        ..Options::default()
    };
    assert_eq!(
        own.or_entry(entry()).job(FRESH).profile.as_deref(),
        Some("own")
    );
    let job = rules().or_entry(entry()).job(FRESH);
    assert_eq!(job.profile.as_deref(), Some("p"));
    let job = Options {
        profile: Some("other".to_owned()),
        ..options()
    };
    assert_eq!(job.job(FRESH).profile.as_deref(), Some("other"));
    assert_eq!(options().job(FRESH).profile, None);
    let uki = TinyPe::uki().build();
    let contents = Contents::of(&uki).unwrap();
    // The UKI has no profile of that name. Without a name nothing is looked for.
    assert!(open_as(&contents, Some("other"), None).is_err());
    assert!(open_as(&contents, None, None).is_ok());
}

fn format() {
    let job = Options {
        wish: Some(Wish::Vmlinux),
        ..options()
    };
    assert_eq!(job.job(FRESH).wish, Some(Wish::Vmlinux));
    // A file that has not that format is what it is found to be.
    let file = TinyBzImage::new(0x1000).build();
    let contents = Contents::of(&file).unwrap();
    let found = open_as(&contents, None, Some(Wish::Vmlinux)).unwrap();
    assert!(matches!(
        found,
        Found {
            image: Image::Linux(_),
            uki: None
        }
    ));
}

fn command_line() {
    assert_eq!(line_of_entry(Line::default()), given("of-entry"));
    let job = rules().or_entry(entry()).job(FRESH);
    assert_eq!(job.request.cmdline.base, CmdlineBase::Empty);
    let own = Line {
        given: Some("own".into()),
        ..Line::default()
    };
    assert_eq!(line_of_entry(own), given("own"));
    let running = Line {
        running: true,
        ..Line::default()
    };
    assert_eq!(line_of_entry(running), CmdlineBase::Running);
    let mine = || Line {
        given: Some("mine".into()),
        running: true,
        ..Line::default()
    };
    assert_eq!(line(mine()).0, given("mine"));
    let running = Line {
        given: None,
        ..mine()
    };
    assert_eq!(line(running).0, CmdlineBase::Running);
    let own = given("root=LABEL=x  quiet of-addon");
    assert_eq!(line(Line::default()).0, own);
    // A given line may be empty.
    let empty = Line {
        given: Some("".into()),
        ..Line::default()
    };
    assert_eq!(line(empty).0, given(""));
}

fn words_of_addons() {
    let append = || vec!["x".into()];
    for (text, running, words) in [
        (None, true, "x"),
        (Some("mine"), false, "of-addon x"),
        // They are in the base.
        (None, false, "x"),
    ] {
        let asked = Line {
            given: text.map(BString::from),
            running,
            append: append(),
            remove: Vec::new(),
        };
        assert_eq!(line(asked).1, words, "{text:?} {running}");
    }
}

fn words_added() {
    let asked = Line {
        given: Some("mine".into()),
        append: vec!["first".into(), "last".into()],
        ..Line::default()
    };
    assert_eq!(line(asked.clone()).1, "of-addon first last");
    let job = ArmRules {
        line: asked,
        ..rules()
    };
    assert_eq!(job.job(FRESH).request.cmdline.append, ["first", "last"]);
}

fn words_removed() {
    let asked = Line {
        remove: vec!["of-addon".into()],
        append: vec!["of-addon".into()],
        ..Line::default()
    };
    let job = Options {
        line: asked,
        ..options()
    };
    let line = merged(&job.job(FRESH), |merged| {
        crate::cmdline::Cmdline::make(&merged.request.cmdline, "", 100).unwrap()
    });
    assert_eq!(line.as_bstr(), "root=LABEL=x quiet");
}

fn hashes_of_files() {
    let expected = [("/e".into(), [2; 32])];
    let job = options().or_entry(entry()).job(FRESH);
    assert_eq!(job.hashes, expected);
    assert_eq!(rules().or_entry(entry()).job(FRESH).hashes, expected);
    assert_eq!(options().job(FRESH).hashes, []);
}

fn device_tree() {
    let dtb = |options: Options| options.or_entry(entry()).job(FRESH).request.handover.dtb;
    assert_eq!(dtb(Options::default()), Some(vec![1]));
    let mut own = Options::default();
    own.rest.handover.dtb = Some(vec![2]);
    assert_eq!(dtb(own), Some(vec![2]));
    let trees = |mine: Option<&[u8]>| {
        let mut options = options();
        options.rest.handover.dtb = mine.map(<[u8]>::to_vec);
        merged(&options.job(FRESH), |merged| {
            let handover = merged.request.handover;
            (handover.dtb, handover.uki_dtb)
        })
    };
    assert_eq!(trees(Some(b"mine")), (Some(b"mine".to_vec()), None));
    assert_eq!(trees(None), (None, Some(b"addon's tree".to_vec())));
}

fn system_call() {
    let only = SyscallChoice::Only(Syscall::KexecLoad);
    let job = ArmRules {
        syscall: only,
        ..rules()
    };
    let job = job.job(FRESH);
    assert_eq!(job.request.syscall, only);
    assert_eq!(Kept::of(&job).job(FRESH).request.syscall, only);
    // `auto` leaves it to the facts, each time anew.
    let auto = rules().job(FRESH);
    assert_eq!(
        Kept::of(&auto).job(FRESH).request.syscall,
        SyscallChoice::Auto
    );
}

fn seed_and_time() {
    let mut options = options();
    options.rest.seed = Some([1; 32]);
    options.rest.time = 1;
    for job in [options.job(FRESH), rules().job(FRESH)] {
        assert_eq!((job.request.seed, job.request.time), (Some([7; 32]), 7));
        let later = Fresh {
            seed: [8; 32],
            time: 8,
        };
        let again = Kept::of(&job).job(later);
        assert_eq!((again.request.seed, again.request.time), (Some([8; 32]), 8));
    }
    let kept = serde_json::to_string(&Kept::of(&rules().job(FRESH))).unwrap();
    assert!(!kept.contains("seed") && !kept.contains("time"), "{kept}");
}

#[test]
fn every_row_holds() {
    let checks: [(&str, fn()); 15] = [
        ("kernel", kernel),
        ("initrds of the source", initrds_of_the_source),
        ("modules", modules),
        ("addons", addons),
        ("initrds", initrds),
        ("profile", profile),
        ("format", format),
        ("command line", command_line),
        ("words of addons", words_of_addons),
        ("words added", words_added),
        ("words removed", words_removed),
        ("SHA-256 of files", hashes_of_files),
        ("device tree", device_tree),
        ("system call", system_call),
        ("seed and time", seed_and_time),
    ];
    let rows: Vec<&str> = include_str!("mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .filter_map(|row| row.split(" |").next())
        .skip(1)
        .collect();
    assert_eq!(rows, checks.map(|(row, _)| row));
    for (_, check) in checks {
        check();
    }
}
