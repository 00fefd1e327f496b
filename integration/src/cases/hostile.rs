//! Images made to hurt: what is in their layers stays in their root, or is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::daemon::{Built, Daemon, Setting};
use super::origin::Origin;
use super::registry::{GZIP, Layer, Shelf, digest};
use super::rig::{Rig, Trouble, Verdict, ensure, failed};
use super::tar::{self, Member};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "names of a layer that lead out of its root touch nothing of the host",
        on: On::Both,
        run: names,
    },
    Case {
        sentence: "links of a layer that lead out of its root read nothing of the host",
        on: On::Both,
        run: links,
    },
    Case {
        sentence: "links in build contexts and stages read nothing of the host",
        on: On::Both,
        run: links_of_stages,
    },
    Case {
        sentence: "layers with huge headers, bombs and broken archives cost no memory",
        on: On::Both,
        run: bombs,
    },
    Case {
        sentence: "layers with forged whiteouts and overlay xattrs hide nothing and show nothing",
        on: On::Both,
        run: whiteouts,
    },
];

const SECRET: &str = "this file is the host's";

/// A folder of the host that nothing may touch and a daemon with a registry of attacks.
struct Attack<'a> {
    rig: &'a Rig<'a>,
    canary: PathBuf,
    before: super::tree::Tree,
    daemon: Daemon<'a>,
    origin: Origin,
}

impl<'a> Attack<'a> {
    fn new(
        rig: &'a Rig<'a>,
        images: impl FnOnce(&Path) -> Vec<Vec<Layer>>,
    ) -> Result<Self, Trouble> {
        let canary = rig.context("canary", &[("secret", SECRET), ("dir/inner", SECRET)])?;
        let mut shelf = Shelf::default();
        for (number, layers) in images(&canary).iter().enumerate() {
            shelf.image(&number.to_string(), layers);
        }
        let origin = shelf.open()?;
        let setting = Setting {
            http: vec![origin.port],
            ..Setting::default()
        };
        Ok(Self {
            rig,
            before: super::tree::read(&canary, "")?,
            daemon: Daemon::with(rig, setting)?,
            canary,
            origin,
        })
    }

    /// Builds `text`, in which `IMAGE` is the image of that number; the host stays as it was.
    fn build(&mut self, number: usize, text: &str) -> Result<Built, Trouble> {
        let image = format!("localhost:{}/attack/image:{number}", self.origin.port);
        let context = self
            .rig
            .context("project", &[("Dockerfile", &text.replace("IMAGE", &image))])?;
        let built = self.daemon.build(&context, &[])?;
        ensure(built.ran.code.is_some(), || {
            format!("attack {number}: {}", built.tail())
        })?;
        self.daemon
            .alive()
            .map_err(|trouble| trouble.about(&format!("attack {number}")))?;
        let after = super::tree::read(&self.canary, "")?;
        let lines = super::tree::differences(&after, &self.before);
        ensure(lines.is_empty(), || {
            format!(
                "attack {number} changed the host: {}\n{}",
                lines.join("\n"),
                built.tail()
            )
        })?;
        for place in ["/rbuild-pwned", "/tmp/rbuild-pwned", "/etc/rbuild-pwned"] {
            ensure(!Path::new(place).exists(), || {
                format!("attack {number} wrote {place}")
            })?;
        }
        ensure(!built.progress.logs.contains(SECRET), || {
            format!("attack {number} read the host:\n{}", built.progress.logs)
        })?;
        Ok(built)
    }
}

/// Unpacks the image, looks at all of it and writes through it.
const LOOK: &str = "FROM IMAGE AS attack\nFROM busybox\nCOPY --from=attack / /attack/\n\
    RUN --mount=from=attack,target=/m,rw find /attack /m -type f -size -100k -exec cat {} + ; find /m /attack; true\n";

fn names(rig: &Rig<'_>) -> Verdict {
    let mut attack = Attack::new(rig, |canary| {
        let host = canary.display().to_string();
        let up = format!("{}{}", "../".repeat(40), host.trim_start_matches('/'));
        let file = |name: String| Member::file(&name, b"pwned");
        vec![
            vec![file(format!("{up}/pwned"))],
            vec![file(format!("{host}/pwned"))],
            vec![file("../../../../../../../../rbuild-pwned".to_owned())],
            vec![file("/tmp/rbuild-pwned".to_owned())],
            vec![file(format!("a/b/../../{up}/pwned"))],
            vec![
                Member::link(b'2', "out", &host),
                file("out/pwned".to_owned()),
            ],
            vec![
                Member::link(b'2', "out", &host),
                Member::file("out", b"pwned"),
            ],
            vec![
                Member::link(b'2', "out", &up),
                Member::new(b'5', "out"),
                file("out/pwned".to_owned()),
            ],
            vec![
                Member::link(b'2', "out", "/"),
                file(format!("out{host}/pwned")),
            ],
            vec![
                Member::link(b'2', "a", "b"),
                Member::link(b'2', "b", &host),
                file("a/pwned".to_owned()),
            ],
            vec![
                Member::link(b'2', "self", "/proc/self/cwd"),
                file("self/pwned".to_owned()),
            ],
            vec![
                Member::link(b'2', "root", "/proc/1/root"),
                file(format!("root{host}/pwned")),
            ],
            vec![
                Member::link(b'2', "out", &host),
                Member::new(b'0', "out/.wh.secret"),
            ],
            vec![
                Member::link(b'2', "out", &host),
                Member::new(b'0', "out/.wh..wh..opq"),
            ],
            vec![Member::new(b'0', ".wh..."), Member::new(b'0', ".wh..")],
            vec![Member::new(b'0', &format!("{up}/.wh.secret"))],
            vec![Member::new(b'5', &format!("{up}/dir")).with_mode(0o777)],
            vec![Member::new(b'5', &host).with_mode(0)],
            vec![
                Member::link(b'2', "secret", &format!("{host}/secret")),
                Member::file("secret", b"pwned"),
            ],
            vec![
                Member::link(b'2', "out", &host),
                Member::link(b'1', "out/hard", "out/secret"),
                file("out/hard".to_owned()),
            ],
            vec![
                Member::link(b'1', "hard", &format!("{host}/secret")),
                Member::file("hard", b"pwned"),
            ],
            vec![
                Member::link(b'1', "hard", &format!("{up}/secret")),
                Member::new(b'0', "hard").with_mode(0o777),
            ],
            vec![
                Member::file("", b"x"),
                Member::file(".", b"x"),
                Member::file("..", b"x"),
                Member::file("/", b"x"),
            ],
            vec![
                Member::link(b'2', ".", &host),
                Member::link(b'2', "/", &host),
                file("pwned".to_owned()),
            ],
        ]
        .into_iter()
        .map(|members| vec![Layer::tar(tar::write(&members))])
        // The same with the link in one layer and the file in the next.
        .chain([vec![
            Layer::tar(tar::write(&[Member::link(b'2', "out", &host)])),
            Layer::tar(tar::write(&[
                file("out/pwned".to_owned()),
                Member::new(b'0', "out/.wh.secret"),
            ])),
        ]])
        .collect()
    })?;
    for number in 0..25 {
        attack.build(number, LOOK)?;
    }
    attack.daemon.goes_on()
}

fn links(rig: &Rig<'_>) -> Verdict {
    let mut attack = Attack::new(rig, |canary| {
        let host = canary.display().to_string();
        let up = format!("{}{}", "../".repeat(40), host.trim_start_matches('/'));
        vec![
            vec![Member::link(b'1', "leak", &format!("{host}/secret"))],
            vec![Member::link(b'1', "leak", &format!("{up}/secret"))],
            vec![
                Member::link(b'2', "out", &host),
                Member::link(b'1', "leak", "out/secret"),
            ],
            vec![Member::link(b'2', "leak", &format!("{host}/secret"))],
            vec![Member::link(b'2', "leak", &host)],
            vec![Member::link(b'2', "leak", &up)],
            vec![Member::link(b'2', "leak", "/proc/self/fd/3")],
        ]
        .into_iter()
        .map(|members| vec![Layer::tar(tar::write(&members))])
        .collect()
    })?;
    let follow = "FROM IMAGE AS attack\nFROM busybox\nCOPY --from=attack /leak /one\nRUN cat /one /one/* || true\n";
    let bind = "FROM IMAGE AS attack\nFROM busybox\nRUN --mount=from=attack,source=/leak,target=/two cat /two /two/* || true\n";
    let below = "FROM IMAGE AS attack\nFROM busybox\nCOPY --from=attack /leak/secret /three\nRUN cat /three\n";
    let add = "FROM IMAGE\nCOPY Dockerfile /leak/pwned\nWORKDIR /leak/dir\nCOPY Dockerfile secret\nADD Dockerfile /leak/\n";
    for number in 0..7 {
        for text in [LOOK, follow, bind, below, add] {
            attack.build(number, text)?;
        }
    }
    attack.daemon.goes_on()
}

fn links_of_stages(rig: &Rig<'_>) -> Verdict {
    let mut attack = Attack::new(rig, |_| Vec::new())?;
    let host = attack.canary.display().to_string();
    let context = rig.folder("project")?;
    for (name, target) in [
        ("file", format!("{host}/secret")),
        ("dir", host.clone()),
        ("up", "../canary/secret".to_owned()),
    ] {
        let link = context.join(name);
        std::os::unix::fs::symlink(target, &link).map_err(at("linking", &link))?;
    }
    let texts = [
        "FROM busybox\nCOPY file /one\nRUN cat /one\n".to_owned(),
        "FROM busybox\nCOPY up /one\nRUN cat /one\n".to_owned(),
        "FROM busybox\nCOPY dir/secret /one\nRUN cat /one\n".to_owned(),
        "FROM busybox\nCOPY . /all/\nRUN cat /all/file /all/up /all/dir/secret; true\n".to_owned(),
        format!(
            "FROM busybox AS one\nRUN ln -s {host} /leak\nFROM busybox\nCOPY --from=one /leak/secret /two\nRUN cat /two\n"
        ),
        format!(
            "FROM busybox AS one\nRUN ln -s {host} /leak\nFROM one\nCOPY Dockerfile /leak/pwned\nRUN ls -R /leak/\n"
        ),
        format!(
            "FROM busybox\nRUN rm -r /etc && ln -s {host} /etc\nRUN ls /etc/; echo x > /etc/pwned\nUSER nobody\nRUN id; true\n"
        ),
        format!(
            "FROM busybox\nRUN rm -r /proc /dev /sys; ln -s {host} /proc && ln -s {host} /dev && ln -s {host} /sys\nRUN cat /proc/secret\n"
        ),
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c ln -s {host} /c/sub\n\
             FROM busybox AS base\nRUN mkdir -p /src && ln -s {host} /src/sub\n\
             FROM busybox\nRUN --mount=type=cache,target=/d,from=base,source=/src/sub,id=two cat /d/secret\n"
        ),
        format!(
            "FROM busybox\nRUN ln -s {host} /run/secrets\nRUN --mount=type=cache,target=/run/secrets/made echo x > /run/secrets/made/pwned\n"
        ),
    ];
    for (number, text) in texts.iter().enumerate() {
        attack.build(number, text)?;
    }
    attack.daemon.goes_on()
}

/// Compresses a beginning and so many zeros.
fn gzip(rig: &Rig<'_>, begin: &[u8], zeros: u64) -> Result<Vec<u8>, Trouble> {
    let file = rig.dir.join("begin");
    fs::write(&file, begin).map_err(at("writing", &file))?;
    let script = format!("(cat begin; head -c {zeros} /dev/zero) | gzip -1");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&rig.dir)
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(output.stdout),
        other => failed(format!("gzip: {other:?}")),
    }
}

fn bombs(rig: &Rig<'_>) -> Verdict {
    let layer = |bytes: Vec<u8>| Layer {
        media_type: GZIP,
        bytes,
        diff_id: digest(b"not asked for"),
    };
    let mut attacks = Vec::new();
    // A pax header of a gigabyte, a long name of one, a link of one.
    for kind in [b'x', b'g', b'L', b'K'] {
        let mut head = Vec::new();
        tar::block(&mut head, &Member::new(kind, "PaxHeaders/x"), 1 << 30);
        attacks.push(layer(gzip(rig, &head, 700 << 20)?));
    }
    // A million records, a record that lies about its length, an xattr of 10 MB.
    let mut head = Vec::new();
    tar::pax(&mut head, &b"10 a=bcde\n".repeat(500_000));
    tar::append(&mut head, &Member::file("x", b""));
    attacks.push(layer(gzip(rig, &head, 1024)?));
    for lie in [
        "99999999999999999999 path=x\n",
        "-5 path=x\n",
        "0 path=x\n",
        "11 path=x\n11 size=-1\n",
        "nonsense",
    ] {
        let mut head = Vec::new();
        tar::pax(&mut head, lie.as_bytes());
        tar::append(&mut head, &Member::file("x", b"y"));
        attacks.push(layer(gzip(rig, &head, 1024)?));
    }
    let mut wide = Member::file("x", b"y");
    wide.xattrs
        .insert("user.wide".to_owned(), vec![b'w'; 10_000_000]);
    attacks.push(layer(gzip(rig, &tar::write(&[wide]), 0)?));
    // A file that is said to be larger than all disks, one that is cut, bytes that are no tar, no gzip.
    let mut head = Vec::new();
    tar::block(&mut head, &Member::new(b'0', "large"), 0o77_777_777_777);
    attacks.push(layer(gzip(rig, &head, 4096)?));
    attacks.push(layer(gzip(rig, &[b'n'; 5000], 0)?));
    attacks.push(layer(b"\x1f\x8b\x08\x00garbage that is no stream".to_vec()));
    let mut cut = gzip(rig, &tar::write(&[Member::file("x", &[b'r'; 4000])]), 0)?;
    cut.truncate(cut.len() / 2);
    attacks.push(layer(cut));
    // Folders below folders until no path holds them.
    let deep: Vec<Member> = (1..400)
        .map(|n| Member::new(b'5', &"d".repeat(20).add_levels(n)))
        .collect();
    attacks.push(Layer::tar(tar::write(&deep)));

    let count = attacks.len();
    let mut attack = Attack::new(rig, |_| {
        attacks.into_iter().map(|layer| vec![layer]).collect()
    })?;
    for number in 0..count {
        let built = attack.build(
            number,
            "FROM IMAGE AS attack\nFROM busybox\nCOPY --from=attack / /attack/\n",
        )?;
        // The deep folders alone are a right image.
        ensure(
            built.ok() == (number == count - 1) || number == count - 1,
            || format!("attack {number} was taken for an image: {}", built.tail()),
        )?;
        attack
            .daemon
            .memory_below(600_000_000)
            .map_err(|trouble| trouble.about(&format!("attack {number}")))?;
    }
    attack.daemon.goes_on()
}

/// Repeats a name as a path of folders.
trait Levels {
    fn add_levels(&self, levels: usize) -> String;
}

impl Levels for String {
    fn add_levels(&self, levels: usize) -> String {
        vec![self.as_str(); levels].join("/")
    }
}

fn whiteouts(rig: &Rig<'_>) -> Verdict {
    let mut attack = Attack::new(rig, |_| {
        let base = tar::write(&[
            Member::new(b'5', "d"),
            Member::file("d/shown", b"shown\n"),
            Member::file("hidden", b"hidden\n"),
        ]);
        let mut redirect = Member::new(b'5', "d");
        redirect
            .xattrs
            .insert("trusted.overlay.opaque".to_owned(), b"y".to_vec());
        redirect.xattrs.insert(
            "trusted.overlay.redirect".to_owned(),
            b"/../../etc".to_vec(),
        );
        redirect
            .xattrs
            .insert("user.overlay.opaque".to_owned(), b"y".to_vec());
        let mut device = Member::new(b'3', "d/shown-too").device(0, 0);
        device.mode = 0;
        vec![
            vec![
                Layer::tar(base.clone()),
                Layer::tar(tar::write(&[redirect])),
            ],
            // The device that overlay takes for a whiteout, as a member of its own.
            vec![
                Layer::tar(base),
                Layer::tar(tar::write(&[device, Member::new(b'0', ".wh.hidden")])),
            ],
        ]
    })?;
    let text = "FROM IMAGE AS attack\nFROM busybox\nCOPY --from=attack / /a/\nRUN --mount=from=attack,target=/m cat /a/d/shown /m/d/shown; ls -R /a /m\n";
    for number in 0..2 {
        let built = attack.build(number, text)?;
        // Refusing such a layer is as good as reading it right.
        let shown = built.progress.logs.matches("shown\n").count() >= 2;
        ensure(!built.ok() || shown, || {
            format!("attack {number} hides a file:\n{}", built.tail())
        })?;
        let hidden = number == 1 && built.progress.logs.contains("hidden\n");
        ensure(!hidden, || {
            format!(
                "attack {number} shows a file that was removed:\n{}",
                built.tail()
            )
        })?;
    }
    attack.daemon.goes_on()
}
