//! `apt-get install`, by rbuild, by hand and by others.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::measure::{Times, run, settle};
use crate::peers::Peer;
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// With what they depend on, some 100 packages that a minimal Debian lacks.
const PACKAGES: &str = "build-essential git python3 curl";

/// The command, once the packages are there.
fn install() -> String {
    format!(
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-download {PACKAGES} >/dev/null"
    )
}

/// The files of a Debian that has downloaded the packages, and lacks them.
fn prepare(tree: &Path) -> Result<()> {
    let script = format!(
        "set -e; debootstrap --variant=minbase bookworm \"$0\"
        cp /etc/resolv.conf \"$0/etc/resolv.conf\"
        export DEBIAN_FRONTEND=noninteractive
        chroot \"$0\" apt-get update -q
        chroot \"$0\" apt-get install -y -q --no-install-recommends --download-only {PACKAGES}"
    );
    run(Command::new("sh").args(["-c", &script]).arg(tree)).map_err(|error| {
        format!("cannot make a Debian with downloaded packages (debootstrap, apt-get): {error}")
            .into()
    })
}

/// Installs them in turns.
pub(crate) fn install_all(bench: &Bench, table: &mut Table, peers: &[Peer]) -> Result<()> {
    let place = bench.work.join("packages");
    let (base, context) = (place.join("base"), place.join("context"));
    fs::create_dir_all(&base)?;
    fs::create_dir_all(&context)?;
    prepare(&base.join("tree"))?;
    inputs::dockerfile(&base.join("Dockerfile"), ["FROM scratch", "COPY tree /"])?;
    let lines = [
        "FROM localhost/base".to_owned(),
        format!("RUN {}", install()),
    ];
    inputs::dockerfile(&context.join("Dockerfile"), lines)?;
    let store = place.join("store");
    let mut build = Command::new(&bench.rbuild);
    build.arg("--root").arg(&store);
    run(build.args(["build", "-t", "localhost/base"]).arg(&base))?;
    let [mut ours, mut by_hand] = [(); 2].map(|()| Times::default());
    for number in 0..if bench.is_quick { 2 } else { 5 } {
        settle(&place)?;
        ours.take(|| {
            run(bench
                .build(&store, &context)
                .args(["--network", "host", "--no-cache"]))
        })?;
        settle(&place)?;
        by_hand.take(|| {
            run(&mut in_chroot(
                &base.join("tree"),
                &place.join(format!("hand{number}")),
            ))
        })?;
    }
    table.add(
        "RUN apt-get install of 100 downloaded packages",
        &ours,
        "the same in a chroot on a volatile overlay",
        &by_hand,
        1.03,
    );
    for peer in peers {
        run(&mut peer.build_as(&base, "packages", "localhost/base"))?;
        let mut times = Times::default();
        for _ in 0..if bench.is_quick { 1 } else { 3 } {
            settle(&place)?;
            times.take(|| run(&mut peer.build_anew(&context, "packages")))?;
        }
        table.beside(&peer.name, &times, 1);
    }
    Ok(())
}

/// By hand: an overlay, what `apt-get` needs to see, the command, and the files on the disk as a build leaves them.
fn in_chroot(tree: &Path, scratch: &Path) -> Command {
    let script = format!(
        "set -e; mkdir -p \"$1/upper\" \"$1/work\" \"$1/merged\"
        mount -t overlay -o \"volatile,lowerdir=$0,upperdir=$1/upper,workdir=$1/work\" none \"$1/merged\"
        mount -t proc proc \"$1/merged/proc\"; mount --rbind /dev \"$1/merged/dev\"
        chroot \"$1/merged\" sh -c '{}'
        sync -f \"$1/upper\"",
        install()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "sh", "-c", &script]);
    command.arg(tree).arg(scratch);
    command
}
