//! Wrong bytes from registries and on the socket.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use super::daemon::{Daemon, Setting};
use super::registry::{Layer, Shelf, digest};
use super::rig::{CLIENT_TIMEOUT, Rig, Running, Trouble, Verdict, ensure, refused_by};
use super::tar::{self, Member};
use super::{Case, On};
use crate::process::at;
use crate::wire::{self, Answer};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "a layer whose bytes are not those of its digest is refused",
        on: On::Both,
        run: tampered_layer,
    },
    Case {
        sentence: "a manifest whose bytes are not those of its digest is refused",
        on: On::Both,
        run: tampered_manifest,
    },
    Case {
        sentence: "a layer that is cut short, of the wrong size or not there is refused",
        on: On::Both,
        run: cut_layer,
    },
    Case {
        sentence: "a layer that holds another tar than its image says is refused",
        on: On::Both,
        run: wrong_diff_id,
    },
    Case {
        sentence: "manifests and configs that are no such thing are refused",
        on: On::Both,
        run: odd_documents,
    },
    Case {
        sentence: "a registry that is down is named",
        on: On::Both,
        run: registry_down,
    },
    Case {
        sentence: "garbage on the socket leaves the daemon serving",
        on: On::Wire,
        run: garbage,
    },
    Case {
        sentence: "definitions with missing, circular or very many vertices are refused or built",
        on: On::Wire,
        run: odd_definitions,
    },
];

fn some_layer() -> Layer {
    Layer::tar(tar::write(&[Member::file(
        "hello",
        b"hello from a registry\n",
    )]))
}

/// Builds from `image` on a daemon that knows the registry; the build must fail with these words.
fn refuse(rig: &Rig<'_>, shelf: Shelf, image: &str, words: &[&str]) -> Verdict {
    let origin = shelf.open()?;
    let setting = Setting {
        http: vec![origin.port],
        ..Setting::default()
    };
    let mut daemon = Daemon::with(rig, setting)?;
    let text = format!(
        "FROM localhost:{}/cases/image{image}\nCOPY Dockerfile /\n",
        origin.port
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let output = format!("type=oci,dest={}", rig.dir.join("out.tar").display());
    daemon.refuses(&context, &["--output", &output], words)?;
    // Twice: what was refused must not have been kept as good.
    daemon.refuses(&context, &["--output", &output], words)
}

fn tampered_layer(rig: &Rig<'_>) -> Verdict {
    let mut shelf = Shelf::default();
    let (_, layers) = shelf.image("1", &[some_layer()]);
    let name = layers.first().cloned().unwrap_or_default();
    shelf.tamper(&name, |bytes| {
        if let Some(byte) = bytes.get_mut(520) {
            *byte ^= 1;
        }
    });
    refuse(rig, shelf, ":1", &[&name])
}

fn tampered_manifest(rig: &Rig<'_>) -> Verdict {
    let mut shelf = Shelf::default();
    let (name, _) = shelf.image("1", &[some_layer()]);
    shelf.tamper_manifest("1", |bytes| bytes.extend(b" "));
    refuse(rig, shelf, &format!("@{name}"), &[&name])
}

fn cut_layer(rig: &Rig<'_>) -> Verdict {
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(700);
    let longer: fn(&mut Vec<u8>) = |bytes| bytes.extend([0; 600]);
    let gone: fn(&mut Vec<u8>) = Vec::clear;
    for (number, change) in [cut, longer, gone].into_iter().enumerate() {
        let mut shelf = Shelf::default();
        let (_, layers) = shelf.image("1", &[some_layer()]);
        let name = layers.first().cloned().unwrap_or_default();
        shelf.tamper(&name, change);
        refuse(rig, shelf, ":1", &[])
            .map_err(|trouble| trouble.about(&format!("change {number}")))?;
    }
    Ok(())
}

fn wrong_diff_id(rig: &Rig<'_>) -> Verdict {
    let mut shelf = Shelf::default();
    let mut layer = some_layer();
    layer.diff_id = digest(b"another tar");
    shelf.image("1", &[layer]);
    // Only unpacking shows it.
    let origin = shelf.open()?;
    let setting = Setting {
        http: vec![origin.port],
        ..Setting::default()
    };
    let mut daemon = Daemon::with(rig, setting)?;
    let text = format!(
        "FROM localhost:{}/cases/image:1 AS wrong\nFROM busybox\nCOPY --from=wrong / /\n",
        origin.port
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    daemon.refuses(&context, &[], &[])
}

fn odd_documents(rig: &Rig<'_>) -> Verdict {
    let huge = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\"}}",
        "x".repeat(20_000_000)
    );
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let layer = digest(b"no such layer");
    let no_config = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"layers\":[{{\"digest\":\"{layer}\",\"size\":-5}}]}}"
    );
    let odd_digest = "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
        \"config\":{\"digest\":\"sha256:../../../../etc/passwd\",\"size\":3},\"layers\":[]}";
    for (number, bytes) in [
        huge.as_str(),
        &nested,
        &no_config,
        odd_digest,
        "",
        "null",
        "\u{0}\u{1}",
    ]
    .iter()
    .enumerate()
    {
        let mut shelf = Shelf::default();
        shelf.manifest("1", bytes.as_bytes().to_vec());
        refuse(rig, shelf, ":1", &[])
            .map_err(|trouble| trouble.about(&format!("document {number}")))?;
    }
    Ok(())
}

fn registry_down(rig: &Rig<'_>) -> Verdict {
    let bound =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let port = bound
        .map_err(at("listening", Path::new("127.0.0.1")))?
        .port();
    let setting = Setting {
        http: vec![port],
        ..Setting::default()
    };
    let mut daemon = Daemon::with(rig, setting)?;
    let name = format!("localhost:{port}/cases/image:1");
    let context = rig.context(
        "project",
        &[("Dockerfile", &format!("FROM {name}\nRUN true\n"))],
    )?;
    daemon.refuses(&context, &[], &[&name, "refused"])?;
    let push = format!("type=image,push=true,name=localhost:{port}/cases/pushed:1");
    let good = rig.context("pushed", &[("Dockerfile", "FROM busybox\nRUN true\n")])?;
    daemon.refuses(
        &good,
        &["--output", &push],
        &[&format!("localhost:{port}"), "refused"],
    )
}

fn garbage(rig: &Rig<'_>) -> Verdict {
    let mut daemon = Daemon::start(rig)?;
    let noise: Vec<u8> = (0_u32..200_000)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let solve = "/moby.buildkit.v1.Control/Solve";
    let whole = wire::request(solve, &[&[0, 0, 0, 4, 0][..], &noise].concat());
    let mut pieces: Vec<(&str, Vec<u8>)> = vec![
        ("noise", noise.clone()),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (
            "noise after the preface",
            [preface.clone(), noise.clone()].concat(),
        ),
        (
            "a message longer than what comes",
            wire::request(solve, &[0, 0xff, 0xff, 0xff, 0xff, 1]),
        ),
        (
            "a compressed message that is none",
            wire::request(solve, &[1, 0, 0, 0, 3, 1, 2, 3]),
        ),
        ("a message cut short", wire::request(solve, &[0, 0, 0])),
    ];
    for cut in [10, 24, 33, 40, 100, 300, whole.len() / 2] {
        pieces.push((
            "a request cut short",
            whole.get(..cut).unwrap_or_default().to_vec(),
        ));
    }
    for (what, bytes) in &pieces {
        // Cut requests rightly get no answer; they must not cost the daemon anything.
        let patient = bytes.len() > 400;
        let answer = wire::send_for(&daemon.socket, bytes, if patient { 5_000 } else { 300 })
            .map_err(at("writing to", &daemon.socket))?;
        ensure(answer != Answer::Message, || {
            format!("{what} is answered with a message")
        })?;
        daemon.alive().map_err(|trouble| trouble.about(what))?;
    }
    for method in [
        solve,
        "/moby.buildkit.v1.Control/Status",
        "/moby.buildkit.v1.Control/Prune",
        "/moby.buildkit.v1.Control/DiskUsage",
        "/moby.buildkit.v1.Control/Session",
        "/moby.buildkit.v1.Control/ListenBuildHistory",
        "/moby.buildkit.v1.Control/NoSuchMethod",
        "/moby.buildkit.v1.frontend.LLBBridge/Solve",
        "/moby.buildkit.v1.frontend.LLBBridge/ReadFile",
    ] {
        let mut truncated = Vec::new();
        wire::field(&mut truncated, 1, b"an id");
        truncated.extend([0x12, 0xff, 0xff, 0xff, 0x7f, 1]);
        let groups = [0x0b; 5_000].to_vec();
        for message in [
            &truncated,
            &groups,
            &noise.get(..5_000).unwrap_or_default().to_vec(),
        ] {
            let answer = wire::call_for(&daemon.socket, method, message, 5_000)
                .map_err(at("calling on", &daemon.socket))?;
            let is_session = method.ends_with("/Session");
            ensure(
                answer != Answer::Message && (answer != Answer::Silence || is_session),
                || format!("garbage for {method} is answered with {answer:?}"),
            )?;
            daemon.alive().map_err(|trouble| trouble.about(method))?;
        }
    }
    daemon.memory_below(500_000_000)?;
    daemon.goes_on()
}

/// An op of `kind` (its field's number) and its inputs.
fn op(inputs: &[(&str, u64)], kind: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, index) in inputs {
        let mut input = Vec::new();
        wire::field(&mut input, 1, name.as_bytes());
        if *index > 0 {
            wire::number(&mut input, 2, *index);
        }
        wire::field(&mut bytes, 1, &input);
    }
    if kind > 0 {
        wire::field(&mut bytes, kind, body);
    }
    bytes
}

fn definition(ops: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for op in ops {
        wire::field(&mut bytes, 1, op);
    }
    bytes
}

const SOURCE: u64 = 3;
const FILE: u64 = 4;
const MERGE: u64 = 6;

/// A file op that makes `/n` in each of its inputs' trees.
fn mkdir(input: &str, name: &str) -> Vec<u8> {
    let mut mkdir = Vec::new();
    wire::field(&mut mkdir, 1, format!("/{name}").as_bytes());
    wire::number(&mut mkdir, 2, 0o755);
    let mut action = Vec::new();
    // No second input: -1.
    wire::number(&mut action, 2, u64::MAX);
    wire::field(&mut action, 6, &mkdir);
    let mut file = Vec::new();
    wire::field(&mut file, 2, &action);
    op(&[(input, 0)], FILE, &file)
}

fn odd_definitions(rig: &Rig<'_>) -> Verdict {
    let mut daemon = Daemon::start(rig)?;
    let mut source = Vec::new();
    wire::field(
        &mut source,
        1,
        b"docker-image://docker.io/library/busybox:latest",
    );
    let base = op(&[], SOURCE, &source);
    let base_name = digest(&base);
    let last = |of: &[u8], index: u64| op(&[(&digest(of), index)], 0, &[]);

    let absent = digest(b"nothing has this digest");
    let missing = mkdir(&absent, "x");
    let beyond = mkdir(&base_name, "x");
    // No digest can hold itself; two that name each other with wrong digests are what is left of a cycle.
    let one = mkdir(&digest(b"two"), "one");
    let two = mkdir(&digest(&one), "two");
    let unknown_scheme = {
        let mut source = Vec::new();
        wire::field(&mut source, 1, b"carrier-pigeon://x");
        op(&[], SOURCE, &source)
    };
    // Each merge takes the one before twice: 2^200 ways to the base.
    let mut doubled = vec![base.clone()];
    for _ in 0..200 {
        let below = digest(doubled.last().unwrap_or(&base));
        let mut merge = Vec::new();
        for input in [0, 1] {
            let mut number = Vec::new();
            wire::number(&mut number, 1, input);
            wire::field(&mut merge, 1, &number);
        }
        doubled.push(op(&[(&below, 0), (&below, 0)], MERGE, &merge));
    }
    doubled.push(last(doubled.last().unwrap_or(&base), 0));
    // A chain that no stack holds when it is walked by calling oneself. Its end is wrong, so that nothing of it is built.
    let mut chain = vec![unknown_scheme.clone()];
    for number in 0..20_000 {
        chain.push(mkdir(
            &digest(chain.last().unwrap_or(&base)),
            &number.to_string(),
        ));
    }
    chain.push(last(chain.last().unwrap_or(&base), 0));

    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "an input that is not there",
            definition(&[missing.clone(), last(&missing, 0)]),
        ),
        (
            "an output that is not there",
            definition(&[base.clone(), beyond.clone(), last(&beyond, 1_000_000)]),
        ),
        (
            "a negative output",
            definition(&[base.clone(), beyond.clone(), last(&beyond, u64::MAX)]),
        ),
        (
            "two that want each other",
            definition(&[one, two.clone(), last(&two, 0)]),
        ),
        (
            "an unknown scheme",
            definition(&[unknown_scheme.clone(), last(&unknown_scheme, 0)]),
        ),
        (
            "only a last op without inputs",
            definition(&[op(&[], 0, &[])]),
        ),
        (
            "an input that is no digest",
            definition(&[op(&[("../../x", 0)], 0, &[])]),
        ),
        (
            "ops that are garbage",
            definition(&[vec![0xff; 100], vec![0x0a, 0xff]]),
        ),
        ("a chain of 20,000", definition(&chain)),
    ];
    for (what, bytes) in &cases {
        let ran = solve(rig, &daemon, bytes)?;
        refused_by(&ran, what)?;
        daemon.alive().map_err(|trouble| trouble.about(what))?;
    }
    let ran = solve(rig, &daemon, &definition(&doubled))?;
    ensure(ran.code.is_some(), || {
        format!("200 doubled merges: {}", ran.tail())
    })?;
    daemon.memory_below(800_000_000)?;
    daemon.goes_on()
}

/// Has `buildctl` solve a definition of any bytes.
fn solve(
    rig: &Rig<'_>,
    daemon: &Daemon<'_>,
    definition: &[u8],
) -> Result<super::rig::Ran, Trouble> {
    let file = rig.dir.join("definition");
    std::fs::write(&file, definition).map_err(at("writing", &file))?;
    let mut command = Command::new(rig.lab.buildctl());
    command.args(["--addr", &daemon.address, "build", "--progress=plain"]);
    let input = std::fs::File::open(&file).map_err(at("opening", &file))?;
    Ok(Running::with_input(&rig.dir, &mut command, input.into())?.wait(CLIENT_TIMEOUT)?)
}
