use std::path::{Path, PathBuf};

use fstree::hash::{FileHasher, Options, TreeHashes, empty_tree_checksum};
use fstree::walk::{Filter, Walk};
use oci::Digest;

use testkit::requires;

use crate::support::{add, tree};

const VECTORS: &str = include_str!("data/contenthash.txt");

fn options(flags: &str, include: &str, exclude: &str) -> Options {
    let list = |text: &str| match text {
        "-" => Vec::new(),
        text => text.split(',').map(str::to_owned).collect(),
    };
    Options {
        follow_links: flags.contains('f'),
        wildcard: flags.contains('w'),
        include: list(include),
        exclude: list(exclude),
        required_paths: Vec::new(),
    }
}

#[test]
fn digests_are_those_of_buildkit_asked_alone_together_and_after_storing() {
    requires!(root);
    let (listing, queries) = VECTORS.split_once("[queries]\n").unwrap();
    let tree = tree(listing.split_once("[tree]\n").unwrap().1);
    let shared = TreeHashes::new();
    let mut wrong = Vec::new();
    for line in queries.lines() {
        let (query, want) = line.split_once(" => ").unwrap();
        let q: Vec<&str> = query.split(' ').collect();
        let options = options(q[1], q[2], q[3]);
        let stored = TreeHashes::decode(&shared.encode()).unwrap();
        for hashes in [&TreeHashes::new(), &shared, &stored] {
            let actual = match hashes.checksum(&tree.root, q[0], &options) {
                Ok(digest) => digest.to_string(),
                Err(e) => format!("error {e}"),
            };
            if actual != want {
                wrong.push(format!("{query}: {actual}, not {want}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn receive(tree: &crate::support::Tree, hashes: &TreeHashes) {
    for stat in Walk::new(&tree.root, &Filter::default()).unwrap() {
        let stat = stat.unwrap();
        let mut hasher = FileHasher::new(&stat);
        if stat.is_file() && stat.size > 0 {
            hasher.update(&tree.root.read(&stat.path, 1 << 20).unwrap());
        }
        hashes.insert(&stat, &hasher.finish());
    }
}

#[test]
fn what_arrives_hashes_as_what_is_on_disk_but_for_the_root_itself() {
    let listing = "dir a 755 0 0\nfile a/x 644 0 0 one\nfile a/y 644 0 0 two\nlink l a\ndir b 755 0 0\nfile b/z 600 0 0 z\n";
    let listing = if rustix::process::geteuid().is_root() {
        listing
    } else {
        return;
    };
    let tree = tree(listing);
    let hashes = TreeHashes::new();
    receive(&tree, &hashes);
    let disk = TreeHashes::new();
    for path in ["/a", "/l", "/a/x", "/b"] {
        let options = Options::default();
        assert_eq!(
            hashes.checksum(&tree.root, path, &options).unwrap(),
            disk.checksum(&tree.root, path, &options).unwrap(),
            "{path}"
        );
    }
    let before = hashes
        .checksum(&tree.root, "/", &Options::default())
        .unwrap();
    assert_ne!(
        before,
        disk.checksum(&tree.root, "/", &Options::default()).unwrap()
    );

    // What is not noted does not exist, whatever the disk has.
    add(&tree.root, "file new 644 0 0 new\n");
    assert_eq!(
        hashes
            .checksum(&tree.root, "/new", &Options::default())
            .unwrap_err()
            .to_string(),
        "\"/new\": not found"
    );

    // A change below is seen above, and taking it back gives the old digest.
    let stat = fstree::Stat {
        path: PathBuf::from("a/x"),
        mode: 0o644,
        size: 5,
        ..fstree::Stat::default()
    };
    let old = disk
        .checksum(&tree.root, "/a/x", &Options::default())
        .unwrap();
    hashes.insert(&stat, &Digest::sha256(b"changed"));
    assert_ne!(
        hashes
            .checksum(&tree.root, "/", &Options::default())
            .unwrap(),
        before
    );
    hashes.insert(&stat, &old);
    assert_eq!(
        hashes
            .checksum(&tree.root, "/", &Options::default())
            .unwrap(),
        before
    );
    hashes.remove(Path::new("b"));
    assert_ne!(
        hashes
            .checksum(&tree.root, "/", &Options::default())
            .unwrap(),
        before
    );
}

#[test]
fn a_later_name_has_the_digest_of_the_first_whenever_that_arrives() {
    let hashes = TreeHashes::new();
    let tree = tree("");
    let stat = |path: &str, link: &str| fstree::Stat {
        path: PathBuf::from(path),
        linkname: PathBuf::from(link),
        mode: 0o644,
        ..fstree::Stat::default()
    };
    let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
    hashes.insert(&stat("a-link", "b"), &one);
    hashes.insert(&stat("b", ""), &two);
    hashes.insert(&stat("c-link", "b"), &one);
    for path in ["/a-link", "/b", "/c-link"] {
        assert_eq!(
            hashes
                .checksum(&tree.root, path, &Options::default())
                .unwrap(),
            two,
            "{path}"
        );
    }
}

#[test]
fn many_files_hash_the_same_on_any_number_of_threads_and_nothing_is_read_twice() {
    let tree = tree("");
    for i in 0..300 {
        std::fs::write(
            tree.dir.path().join(format!("f{i}")),
            format!("contents {i}"),
        )
        .unwrap();
    }
    let hashes = TreeHashes::new();
    let all = hashes
        .checksum(&tree.root, "/", &Options::default())
        .unwrap();
    assert_eq!(
        all,
        TreeHashes::new()
            .checksum(&tree.root, "/", &Options::default())
            .unwrap()
    );
    std::fs::write(tree.dir.path().join("f7"), "other").unwrap();
    assert_eq!(
        all,
        hashes
            .checksum(&tree.root, "/", &Options::default())
            .unwrap()
    );
    assert_ne!(
        all,
        TreeHashes::new()
            .checksum(&tree.root, "/", &Options::default())
            .unwrap()
    );
}

#[test]
fn stored_digests_that_were_cut_or_bent_are_refused() {
    let tree = tree("");
    std::fs::write(tree.dir.path().join("f"), "f").unwrap();
    let hashes = TreeHashes::new();
    hashes
        .checksum(&tree.root, "/", &Options::default())
        .unwrap();
    let stored = hashes.encode();
    for cut in 0..stored.len() {
        assert!(TreeHashes::decode(&stored[..cut]).is_err(), "{cut}");
    }
    assert!(TreeHashes::decode(&[&stored[..], b"x"].concat()).is_err());
}

#[test]
fn a_required_path_that_is_not_selected_is_an_error() {
    let tree = tree("");
    std::fs::write(tree.dir.path().join("f"), "f").unwrap();
    let options = |required: &str| Options {
        include: vec!["f".to_owned()],
        required_paths: vec![required.to_owned()],
        ..Options::default()
    };
    assert!(
        TreeHashes::new()
            .checksum(&tree.root, "/", &options("/f"))
            .is_ok()
    );
    let error = TreeHashes::new()
        .checksum(&tree.root, "/", &options("/g"))
        .unwrap_err();
    assert_eq!(error.to_string(), "\"/g\": not found");
    assert_eq!(empty_tree_checksum("/").unwrap(), Digest::sha256(b""));
    assert!(
        empty_tree_checksum("/a")
            .unwrap_err()
            .to_string()
            .ends_with("/a: no such file or directory")
    );
}
