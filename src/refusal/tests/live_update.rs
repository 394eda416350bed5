use super::*;
use crate::host::kho::Kho;
use crate::refusal::live_update::{LiveUpdateFacts, no_file};
use crate::sys::liveupdate::SessionName;

fn facts(on: bool, is_asked_for: bool) -> LiveUpdateFacts {
    LiveUpdateFacts {
        kho: Kho {
            on,
            why: "kho=off".to_owned(),
            ..Kho::default()
        },
        is_asked_for,
        open_in: Vec::new(),
    }
}

#[test]
fn a_device_that_cannot_be_opened_says_why() {
    for (on, is_asked_for, errno, why) in [
        (
            false,
            true,
            libc::ENOENT,
            "KHO) is off in this kernel (kho=off)",
        ),
        (
            true,
            false,
            libc::ENOENT,
            "liveupdate=on is not on the command line",
        ),
        (true, true, libc::ENOENT, "CONFIG_LIVEUPDATE"),
        (
            true,
            true,
            libc::EACCES,
            "only root may open /dev/liveupdate",
        ),
        (
            true,
            true,
            libc::EBUSY,
            "another program has /dev/liveupdate open",
        ),
        (true, true, libc::EIO, "could not read the sessions"),
    ] {
        let error = SysError::no_device(&facts(on, is_asked_for), Errno::new(errno));
        let said = error.to_string();
        assert!(said.starts_with("retrieve failed: "), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(error.hint().is_some(), "{said}");
    }
}

#[test]
fn a_session_that_is_not_to_be_had_says_why() {
    let name = SessionName::new("vm".into()).unwrap();
    let mut facts = facts(true, true);
    let says = |facts: &LiveUpdateFacts, errno| {
        SysError::no_session(facts, &name, Errno::new(errno)).to_string()
    };
    assert_eq!(
        says(&facts, libc::ENOENT),
        "retrieve failed: there is no session vm: none was handed over to this kernel, or it is finished (ENOENT)"
    );
    assert_eq!(
        says(&facts, libc::EINVAL),
        "retrieve failed: another program has taken the session vm (EINVAL)"
    );
    facts.open_in = vec!["agent (12)".to_owned()];
    assert_eq!(
        says(&facts, libc::EINVAL),
        "retrieve failed: another program has taken the session vm: agent (12) (EINVAL)"
    );
    let missing = no_file(Errno::new(libc::ENOENT));
    assert_eq!(missing, "the session has no file with this token (ENOENT)");
}

#[test]
fn what_is_not_handed_over_says_why() {
    let name = SessionName::new("rkexec".into()).unwrap();
    let mut facts = facts(true, false);
    let device = SysError::no_outgoing_device(&facts, Errno::new(libc::ENOENT));
    assert_eq!(
        device.to_string(),
        "exec failed: live update is off: liveupdate=on is not on the command line of this kernel (ENOENT)"
    );
    assert!(
        device
            .hint()
            .unwrap()
            .contains("load again without --carry")
    );
    let exists = |facts: &LiveUpdateFacts| {
        SysError::no_outgoing_session(facts, &name, Errno::new(libc::EEXIST))
    };
    let said = exists(&facts).to_string();
    assert_eq!(
        said,
        "exec failed: there is a session rkexec already, which another program has made (EEXIST)"
    );
    facts.open_in = vec!["agent (12)".to_owned()];
    let error = exists(&facts);
    assert!(error.to_string().contains("has made: agent (12) (EEXIST)"));
    assert!(error.hint().is_some());
    let file = SysError::not_handed_over("/a", Errno::new(libc::ENOENT)).to_string();
    assert!(
        file.contains("/a cannot be handed over: this kernel hands over no file"),
        "{file}"
    );
}
