//! Which rung is chosen from which facts.

use rustix::thread::CapabilitySet;

use super::machine::Helper;
use super::*;

const MAPPING: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP);

fn user() -> Machine {
    Machine {
        uid: 1000,
        gid: 1001,
        ..Machine::default()
    }
}

fn root(capabilities: CapabilitySet) -> Machine {
    Machine {
        capabilities: capabilities.bits(),
        uid_map: "0 0 4294967295\n".into(),
        gid_map: "0 0 4294967295\n".into(),
        ..Machine::default()
    }
}

fn granted() -> Machine {
    Machine {
        subuids: vec![(100_000, 65_536)],
        subgids: vec![(200_000, 65_536)],
        newuidmap: Helper::Usable("/usr/bin/newuidmap".into()),
        newgidmap: Helper::Usable("/usr/bin/newgidmap".into()),
        ..user()
    }
}

#[test]
fn auto_takes_the_strongest_rung_and_what_is_asked_for_is_never_weakened() {
    let full = CapabilitySet::SYS_ADMIN | MAPPING;
    let rows: [(&str, Machine, Isolation, Result<&str, &str>); 9] = [
        ("root", root(full), Isolation::Auto, Ok("namespaces")),
        (
            "root, userns asked for",
            root(full),
            Isolation::Userns,
            Ok("userns"),
        ),
        (
            "root in a container",
            root(MAPPING),
            Isolation::Auto,
            Ok("userns"),
        ),
        (
            "… asked for more",
            root(MAPPING),
            Isolation::Namespaces,
            Err("CAP_SYS_ADMIN"),
        ),
        (
            "bare root",
            root(CapabilitySet::empty()),
            Isolation::Auto,
            Err("CAP_SETFCAP"),
        ),
        ("user", granted(), Isolation::Auto, Ok("userns")),
        (
            "user, asked for more",
            granted(),
            Isolation::Namespaces,
            Err("uid 1000"),
        ),
        (
            "user without a grant",
            user(),
            Isolation::Auto,
            Ok("userns"),
        ),
        (
            "forbidden",
            Machine {
                limit_forbids_userns: true,
                ..granted()
            },
            Isolation::Auto,
            Err("max_user_namespaces"),
        ),
    ];
    for (name, machine, asked, expected) in rows {
        match (machine.decide(asked, false), expected) {
            (Ok(rung), Ok(expected)) => assert_eq!(rung.name(), expected, "{name}"),
            (Err(error), Err(expected)) => {
                assert!(error.message.contains(expected), "{name}: {error:?}");
                assert!(error.help.is_some(), "{name}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
    }
}

#[test]
fn ids_come_from_where_there_are_most() {
    let maps = |machine: Machine| match machine.decide(Isolation::Userns, false) {
        Ok(Rung::Userns(maps)) => maps,
        other => panic!("{other:?}"),
    };
    let own = maps(root(MAPPING));
    assert_eq!(
        (own.source, count(&own.uids)),
        (IdSource::Own, 4_294_967_295)
    );
    let many = maps(granted());
    assert!(matches!(many.source, IdSource::Granted { .. }));
    assert_eq!(count(&many.uids), 65_537);
    assert!(many.has_gid(0) && many.has_gid(65_536) && !many.has_gid(65_537));
    assert_eq!(many.gids[1].outside, 200_000);
    let one = maps(user());
    assert!(one.is_single());
    assert_eq!((one.uids[0].outside, one.gids[0].outside), (1000, 1001));
}
