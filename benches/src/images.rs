//! Images on their way: pull, push, and the hand-over to podman, beside the tools that do the same.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::inputs::Random;
use crate::measure::{Times, peak_memory_of_all, run, settle};
use crate::table::Table;
use crate::{Bench, Result, inputs};

/// Layers of the usual image.
const LAYERS: usize = 5;

/// Bytes in the large files of each of them; with the small files some 60 MB.
const LARGE_FILES: [u64; 8] = [
    16 << 20,
    8 << 20,
    8 << 20,
    4 << 20,
    4 << 20,
    4 << 20,
    2 << 20,
    1 << 20,
];

/// Small files of each layer, 1 to 8 KiB.
const SMALL_FILES: usize = 3_000;

/// The one layer whose size memory must not depend on.
const GREAT_LAYER: u64 = 2 << 30;

/// What memory may grow to for it.
const MEMORY_GOAL: u64 = 100_000_000;

/// How long a registry may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Debian's docker-registry with a storage of its own.
struct Registry {
    server: Child,
    address: String,
    log: PathBuf,
}

impl Registry {
    fn start(place: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::create_dir_all(place)?;
        let (config, log) = (place.join("config.yml"), place.join("log"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            place.display()
        );
        fs::write(&config, text)?;
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log)?)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("docker-registry (Debian's) is needed: {error}"))?;
        let registry = Self {
            server,
            address: format!("localhost:{port}"),
            log,
        };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if start.elapsed() > START_TIMEOUT {
                return Err("docker-registry did not start".into());
            }
            std::thread::yield_now();
        }
        Ok(registry)
    }

    /// Requests so far, by its own log.
    fn requests(&self) -> Result<u32> {
        let text = fs::read_to_string(&self.log)?;
        let lines = text.lines().filter(|line| line.contains(" HTTP/1.1\" "));
        Ok(u32::try_from(lines.count())?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; nothing depends on how.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Everything, in one place.
pub(crate) fn all(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = bench.work.join("images");
    usual(bench, table, &place.join("usual"))?;
    great(bench, table, &place.join("great"))
}

fn rbuild(bench: &Bench, store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(&bench.rbuild);
    command.arg("--root").arg(store).args(arguments);
    command
}

fn tool(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// An image of five layers and 300 MB.
fn usual(bench: &Bench, table: &mut Table, place: &Path) -> Result<()> {
    let (store, context) = (place.join("store"), place.join("context"));
    let mut random = Random::new();
    for number in 0..LAYERS {
        let layer = context.join(number.to_string());
        inputs::files(&layer, SMALL_FILES)?;
        for (large, size) in LARGE_FILES.into_iter().enumerate() {
            inputs::digits(&layer.join(format!("large{large}")), &mut random, size)?;
        }
    }
    let copies = (0..LAYERS).map(|number| format!("COPY {number} /{number}"));
    inputs::dockerfile(
        &context.join("Dockerfile"),
        std::iter::once("FROM scratch".to_owned()).chain(copies),
    )?;
    run(&mut bench.build(&store, &context))?;
    let layout = format!("oci:{}:1", place.join("layout").display());
    // Its layers are compressed here, and are in the store from now on: no push pays for that.
    run(&mut rbuild(
        bench,
        &store,
        &["copy", "store:bench", &layout],
    ))?;
    push(bench, table, place, &store, &layout)?;
    pull(bench, table, place, &layout)?;
    hand_over(bench, table, place, &store, &context)?;
    // Room for what comes; nothing that is timed follows.
    Ok(fs::remove_dir_all(place)?)
}

fn push(bench: &Bench, table: &mut Table, place: &Path, store: &Path, layout: &str) -> Result<()> {
    let [mut ours, mut theirs, mut ours_again, mut theirs_again] =
        [(); 4].map(|()| Times::default());
    let mut requests = [0; 2];
    for number in 0..if bench.is_quick { 3 } else { 5 } {
        // A registry for each: none has what the other one sent.
        let own = Registry::start(&place.join(format!("push-rbuild{number}")))?;
        let other = Registry::start(&place.join(format!("push-skopeo{number}")))?;
        let name = format!("{}/bench:1", own.address);
        run(&mut rbuild(bench, store, &["tag", "bench", &name]))?;
        let target = format!("docker://{}/bench:1", other.address);
        let copy = ["copy", "--dest-tls-verify=false", layout, &target];
        settle(place)?;
        ours.take(|| run(&mut rbuild(bench, store, &["push", &name])))?;
        settle(place)?;
        theirs.take(|| run(&mut tool("skopeo", &copy)))?;
        settle(place)?;
        let before = [own.requests()?, other.requests()?];
        ours_again.take(|| run(&mut rbuild(bench, store, &["push", &name])))?;
        theirs_again.take(|| run(&mut tool("skopeo", &copy)))?;
        requests = [own.requests()? - before[0], other.requests()? - before[1]];
    }
    table.add(
        "push of 5 layers, 300 MB",
        &ours,
        "skopeo copy",
        &theirs,
        1.0,
    );
    let title = "the same again, everything is there";
    table.add(title, &ours_again, "skopeo copy", &theirs_again, 1.0);
    table.add_requests(
        "requests of that",
        requests[0],
        "skopeo copy",
        requests[1],
        1.0,
    );
    Ok(())
}

fn pull(bench: &Bench, table: &mut Table, place: &Path, layout: &str) -> Result<()> {
    let registry = Registry::start(&place.join("pull"))?;
    let name = format!("{}/bench:1", registry.address);
    let source = format!("docker://{name}");
    run(&mut tool(
        "skopeo",
        &["copy", "--dest-tls-verify=false", layout, &source],
    ))?;
    let [mut ours, mut theirs] = [(); 2].map(|()| Times::default());
    for number in 0..if bench.is_quick { 3 } else { 5 } {
        let store = place.join(format!("pulled-rbuild{number}"));
        let copied = place.join(format!("pulled-skopeo{number}"));
        let target = format!("oci:{}:1", copied.display());
        let image = format!("{}:1", copied.display());
        let bundle = place.join(format!("pulled-umoci{number}"));
        settle(place)?;
        ours.take(|| run(&mut rbuild(bench, &store, &["pull", &name])))?;
        settle(place)?;
        theirs.take(|| {
            run(&mut tool(
                "skopeo",
                &["copy", "--src-tls-verify=false", &source, &target],
            ))?;
            run(tool("umoci", &["unpack", "--image", &image]).arg(&bundle))
        })?;
    }
    table.add(
        "pull of it into an empty store",
        &ours,
        "skopeo copy + umoci unpack",
        &theirs,
        1.0,
    );
    Ok(())
}

/// A build whose steps are all cached, with `--load`, beside the first one.
fn hand_over(
    bench: &Bench,
    table: &mut Table,
    place: &Path,
    store: &Path,
    context: &Path,
) -> Result<()> {
    let bin = place.join("bin");
    fs::create_dir_all(&bin)?;
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/podman --root {0}/podman --runroot {0}/podman-run --storage-driver overlay \"$@\"\n",
        place.display()
    );
    fs::write(bin.join("podman"), script)?;
    run(Command::new("chmod").arg("+x").arg(bin.join("podman")))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let load = || {
        let mut command = bench.build(store, context);
        command
            .arg("--load=podman")
            .env("PATH", format!("{}:{path}", bin.display()));
        command
    };
    let [mut first, mut again] = [(); 2].map(|()| Times::default());
    settle(place)?;
    first.take(|| run(&mut load()))?;
    settle(place)?;
    for _ in 0..if bench.is_quick { 5 } else { 15 } {
        again.take(|| run(&mut load()))?;
    }
    table.add(
        "cached build with --load, podman has it",
        &again,
        "podman lacks it",
        &first,
        0.1,
    );
    Ok(())
}

/// A layer of 2 GB: memory, and nothing else.
fn great(bench: &Bench, table: &mut Table, place: &Path) -> Result<()> {
    let (store, context) = (place.join("store"), place.join("context"));
    fs::create_dir_all(&context)?;
    inputs::digits(&context.join("great"), &mut Random::new(), GREAT_LAYER)?;
    inputs::dockerfile(
        &context.join("Dockerfile"),
        ["FROM scratch", "COPY great /"],
    )?;
    let built = peak_memory_of_all(&mut bench.build(&store, &context))?;
    fs::remove_dir_all(&context)?;
    let registry = Registry::start(&place.join("registry"))?;
    let name = format!("{}/great:1", registry.address);
    run(&mut rbuild(bench, &store, &["tag", "bench", &name]))?;
    // Compressed on the way.
    let pushed = peak_memory_of_all(&mut rbuild(bench, &store, &["push", &name]))?;
    fs::remove_dir_all(&store)?;
    let store = place.join("pulled");
    let pulled = peak_memory_of_all(&mut rbuild(bench, &store, &["pull", &name]))?;
    fs::remove_dir_all(&store)?;
    drop(registry);
    fs::remove_dir_all(place.join("registry"))?;
    for (title, peak) in [
        ("memory of COPY of a file of 2 GB", built),
        ("memory of the push of that layer, compressing it", pushed),
        ("memory of its pull", pulled),
    ] {
        table.add_bytes(title, peak, "100 MB", MEMORY_GOAL, 1.0);
    }
    Ok(())
}
