use fstree::action::{
    self, Copy, DestParents, DirCopy, Existing, Missing, Mkdir, Mkfile, Remove, SourceLink,
    Symlink, Wildcards,
};
use fstree::{Kind, Owner};

use testkit::requires;

use crate::support::{Tree, show, tree};

const SOURCE: &str = "dir dir 755 1 2\nfile dir/a.txt 4755 3 4 A\nfile dir/b.md 644 0 0 B\ndir dir/sub 700 0 0\n\
                      file dir/sub/c.txt 644 0 0 C\nhard dir/sub/again dir/a.txt\nlink dir/link sub/c.txt\nlink abs /dir\n\
                      fifo dir/pipe 600 0 0\nchar dir/null 666 0 0 1 3\nblock dir/blk 600 0 0 7 1\n\
                      file one 640 0 0 1\nxattr one user.note n\ntime one 1234567890\ntime dir 77000000000\n";

fn request(src: &str, dest: &str) -> Copy {
    Copy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        parents: DestParents::Create,
        wildcards: Wildcards::Match,
        ..Copy::default()
    }
}

fn copied(source: &Tree, dest: &str, copy: &Copy) -> Result<Tree, String> {
    let to = tree(dest);
    match action::copy(&source.root, &to.root, copy, None) {
        Ok(()) => Ok(to),
        Err(e) => Err(e.to_string()),
    }
}

#[test]
fn a_copy_lands_where_docker_puts_it() {
    requires!(root);
    let source = tree("dir d 755 0 0\nfile d/f 644 0 0 f\nfile g 644 0 0 g\nlink l /d\n");
    let contents = |c: Copy| Copy {
        dir: DirCopy::Contents,
        ..c
    };
    let follow = |c: Copy| Copy {
        link: SourceLink::Follow,
        ..c
    };
    for (copy, before, want) in [
        (request("g", "x"), "", "x: g\n"),
        (request("g", "x/"), "", "x/\nx/g: g\n"),
        (request("g", "a/b/x"), "", "a/\na/b/\na/b/x: g\n"),
        (request("g", "x"), "dir x 755 0 0\n", "x/\nx/g: g\n"),
        (request("g", "/"), "", "g: g\n"),
        (request("d", "x"), "", "x/\nx/f: f\n"),
        (request("d", "x/"), "", "x/\nx/d/\nx/d/f: f\n"),
        (request("d", "x"), "dir x 755 0 0\n", "x/\nx/d/\nx/d/f: f\n"),
        (
            contents(request("d", "x")),
            "dir x 755 0 0\n",
            "x/\nx/f: f\n",
        ),
        (
            contents(request("d", "/")),
            "file f 644 0 0 old\n",
            "f: f\n",
        ),
        (
            contents(request("/", "/")),
            "",
            "d/\nd/f: f\ng: g\nl -> /d\n",
        ),
        (request("*", "/"), "", "d/\nd/f: f\ng: g\nl -> /d\n"),
        (request("d/*", "/to/"), "", "to/\nto/f: f\n"),
        (request("l", "/"), "", "l -> /d\n"),
        (follow(request("l", "/x")), "", "x/\nx/f: f\n"),
        (request("l/f", "/x"), "", "x: f\n"),
        (
            request("g", "/in/x"),
            "dir real 755 0 0\nlink in /real\n",
            "in -> /real\nreal/\nreal/x: g\n",
        ),
        (
            request("g", "/in"),
            "file t 644 0 0 t\nlink in t\n",
            "in -> t\nt: g\n",
        ),
    ] {
        let to = copied(&source, before, &copy).unwrap();
        assert_eq!(show(&to.root), want, "{} to {}", copy.src, copy.dest);
    }
}

#[test]
fn what_cannot_be_copied_is_an_error_that_says_so() {
    requires!(root);
    let source = tree("dir d 755 0 0\nfile d/f 644 0 0 f\nfile g 644 0 0 g\n");
    let without_parents = |c: Copy| Copy {
        parents: DestParents::Require,
        ..c
    };
    for (copy, before, want) in [
        (
            request("missing", "x"),
            "",
            "lstat /missing: no such file or directory",
        ),
        (request("no*", "x"), "", "/no* not found"),
        (
            without_parents(request("g", "/no/x")),
            "",
            "failed to stat /no/x: lstat /no: no such file or directory",
        ),
        (
            request("d", "/"),
            "file d 644 0 0\n",
            "cannot copy to non-directory: /d",
        ),
        (
            request("g", "/"),
            "dir g 755 0 0\n",
            "cannot replace to directory /g with file",
        ),
    ] {
        assert_eq!(copied(&source, before, &copy).err().as_deref(), Some(want));
    }
    let empty = Copy {
        missing: Missing::Allow,
        ..request("no*", "x")
    };
    assert!(copied(&source, "", &empty).is_ok());
    let replace = |c: Copy| Copy {
        existing: Existing::Replace,
        ..c
    };
    let to = copied(&source, "file d 644 0 0\n", &replace(request("d", "/"))).unwrap();
    assert_eq!(show(&to.root), "d/\nd/f: f\n");
    let to = copied(
        &source,
        "dir g 755 0 0\nfile g/x 644 0 0\n",
        &replace(request("g", "/")),
    )
    .unwrap();
    assert_eq!(show(&to.root), "g: g\n");
}

#[test]
fn metadata_links_and_special_files_are_kept_unless_asked_otherwise() {
    requires!(root);
    let source = tree(SOURCE);
    let to = copied(&source, "", &request("*", "/")).unwrap();
    let stat = |path: &str| to.root.lstat(path).unwrap();
    assert_eq!(stat("dir/a.txt").mode & 0o7777, 0o4755);
    assert_eq!((stat("dir/a.txt").uid, stat("dir/a.txt").gid), (3, 4));
    assert_eq!(stat("dir/a.txt").ino, stat("dir/sub/again").ino);
    assert_eq!(
        (stat("dir").uid, stat("dir").gid, stat("dir").mtime),
        (1, 2, 77_000_000_000)
    );
    assert_eq!(stat("one").mtime, 1_234_567_890);
    assert_eq!(
        (stat("dir/null").kind(), stat("dir/null").rdev),
        (Kind::Char, (1, 3))
    );
    assert_eq!(
        (stat("dir/blk").kind(), stat("dir/blk").rdev),
        (Kind::Block, (7, 1))
    );
    assert_eq!(stat("dir/pipe").kind(), Kind::Fifo);
    let (dir, name) = to.root.named("test", "one".as_ref()).unwrap();
    assert_eq!(dir.xattr(&name, "user.note").unwrap().unwrap(), b"n");

    let other = Copy {
        owner: Some(Owner { uid: 8, gid: 9 }),
        mode_str: "u=rwX,go=rX".to_owned(),
        timestamp: Some(42_000_000_000),
        ..request("dir", "/new/deep")
    };
    let to = copied(&source, "", &other).unwrap();
    let stat = |path: &str| to.root.lstat(path).unwrap();
    for path in [
        "new",
        "new/deep",
        "new/deep/a.txt",
        "new/deep/link",
        "new/deep/sub/c.txt",
    ] {
        assert_eq!(
            (stat(path).uid, stat(path).gid, stat(path).mtime),
            (8, 9, 42_000_000_000),
            "{path}"
        );
    }
    assert_eq!(stat("new/deep/sub").mode & 0o7777, 0o755);
    assert_eq!(stat("new/deep/b.md").mode & 0o7777, 0o644);
    let octal = Copy {
        mode: Some(0o751),
        ..request("dir/b.md", "/x/y")
    };
    let to = copied(&source, "", &octal).unwrap();
    assert_eq!(to.root.lstat("x/y").unwrap().mode & 0o7777, 0o751);
    assert_eq!(to.root.lstat("x").unwrap().mode & 0o7777, 0o751);
}

#[test]
fn patterns_choose_and_directories_come_only_with_something_in_them() {
    requires!(root);
    let source = tree(SOURCE);
    let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    for (include, exclude, want) in [
        (
            &["**/*.txt"][..],
            &[][..],
            "x/\nx/a.txt: A\nx/sub/\nx/sub/c.txt: C\n",
        ),
        (&["*.md"], &[], "x/\nx/b.md: B\n"),
        (
            &[],
            &["sub", "pipe", "null", "blk", "link"],
            "x/\nx/a.txt: A\nx/b.md: B\n",
        ),
        (&[], &["*", "!sub/c.txt"], "x/\nx/sub/\nx/sub/c.txt: C\n"),
        (&["sub/c*"], &["**/again"], "x/\nx/sub/\nx/sub/c.txt: C\n"),
    ] {
        let copy = Copy {
            include: list(include),
            exclude: list(exclude),
            ..request("dir", "/x")
        };
        assert_eq!(
            show(&copied(&source, "", &copy).unwrap().root),
            want,
            "{include:?} {exclude:?}"
        );
    }
}

#[test]
fn small_actions_stay_in_the_root_and_replace_rather_than_write_through() {
    requires!(root);
    let t =
        tree("file target 644 0 0 t\nlink l target\nchar dev 644 0 0 1 3\nlink etc /outer/etc\n");
    let mkfile = |path: &str| Mkfile {
        path: path.to_owned(),
        mode: 0o7640,
        data: b"new".to_vec(),
        owner: Some(Owner { uid: 5, gid: 6 }),
        timestamp: Some(1_000_000_000),
    };
    action::mkfile(&t.root, &mkfile("dev")).unwrap();
    let dev = t.root.lstat("dev").unwrap();
    assert_eq!(
        (dev.kind(), dev.mode & 0o7777, dev.uid, dev.gid, dev.mtime),
        (Kind::File, 0o640, 5, 6, 1_000_000_000)
    );
    assert_eq!(
        action::mkfile(&t.root, &mkfile("/"))
            .unwrap_err()
            .to_string(),
        "mkfile /: is a directory"
    );
    let error = action::mkfile(&t.root, &mkfile("/etc/passwd"))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "open /outer/etc/passwd: no such file or directory");

    let mkdir = |path: &str, make_parents| Mkdir {
        path: path.to_owned(),
        mode: 0o711,
        make_parents,
        owner: None,
        timestamp: None,
    };
    let error = action::mkdir(&t.root, &mkdir("/a/b", false))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "mkdir /a/b: no such file or directory");
    action::mkdir(&t.root, &mkdir("/a/b", true)).unwrap();
    action::mkdir(&t.root, &mkdir("/a", false)).unwrap();
    assert_eq!(t.root.lstat("a").unwrap().mode & 0o7777, 0o711);
    assert_eq!(
        action::mkdir(&t.root, &mkdir("/target", true))
            .unwrap_err()
            .to_string(),
        "mkdir /target: not a directory"
    );

    let link = Symlink {
        oldpath: "../x".into(),
        newpath: "/a/s".into(),
        owner: None,
        timestamp: None,
    };
    action::symlink(&t.root, &link).unwrap();
    assert_eq!(
        action::symlink(
            &t.root,
            &Symlink {
                newpath: "/dev".into(),
                ..link
            }
        )
        .unwrap_err()
        .to_string(),
        "symlink /dev: file exists"
    );

    let remove = |path: &str, missing, wildcards| {
        action::remove(
            &t.root,
            &Remove {
                path: path.to_owned(),
                missing,
                wildcards,
            },
        )
    };
    assert_eq!(
        remove("/nope", Missing::Refuse, Wildcards::Literal)
            .unwrap_err()
            .to_string(),
        "stat /nope: no such file or directory"
    );
    remove("/nope", Missing::Allow, Wildcards::Literal).unwrap();
    assert_eq!(
        remove("/", Missing::Allow, Wildcards::Literal)
            .unwrap_err()
            .to_string(),
        "rmPath: invalid empty path"
    );
    remove("/a/s", Missing::Refuse, Wildcards::Literal).unwrap();
    remove("/etc/../../../etc", Missing::Refuse, Wildcards::Literal).unwrap();
    remove("/*", Missing::Refuse, Wildcards::Match).unwrap();
    assert_eq!(show(&t.root), "");
}
