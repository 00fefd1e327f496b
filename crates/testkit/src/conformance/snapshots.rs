//! The snapshot seam: layers that lie on each other, and the trees that they show.

use std::io::Write as _;
use std::path::Path;

use fstree::walk::{Filter, Walk};
use fstree::{Kind, Owner, Root};

/// What makes layers, as a test of its crate calls it.
pub trait Layers {
    /// A layer that does not change any more.
    type Layer;

    /// Makes a layer on another, or on nothing, with what `work` does in its tree.
    fn commit(&self, below: Option<&Self::Layer>, work: &dyn Fn(&Root)) -> Self::Layer;

    /// Begins a layer as [`commit`](Self::commit) does, and gives it up after `work`.
    fn abandon(&self, below: Option<&Self::Layer>, work: &dyn Fn(&Root));

    /// The tree of a layer.
    fn view(&self, layer: &Self::Layer) -> Root;

    /// How many layers there are, in whatever state.
    fn count(&self) -> usize;
}

/// Runs every case, each over something that `open` has just made. Needs root.
pub fn all<L: Layers>(open: impl Fn() -> L) {
    for case in [
        a_tree_is_what_all_layers_left,
        what_is_deleted_is_gone_above_and_there_below,
        a_directory_that_was_made_again_hides_what_was_in_it,
        files_and_directories_take_each_others_place,
        a_renamed_directory_keeps_what_is_in_it,
        metadata_is_that_of_the_last_who_set_it,
        names_of_one_file_stay_names_of_one_file,
        special_files_and_links_are_shown_as_they_are,
        a_view_cannot_be_written_to,
        siblings_do_not_see_each_other,
        what_is_given_up_leaves_nothing,
        many_layers_lie_on_each_other,
    ] {
        case(&open());
    }
}

fn put(root: &Root, path: &str, text: &str) {
    if root.lstat_opt(path).unwrap().is_some() {
        root.remove_all(path).unwrap();
    }
    let mut file = root.create(path, 0o644).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn folder(root: &Root, path: &str) {
    root.mkdir_all(path, 0o755, None, None).unwrap();
}

/// All of a tree in one line: `path=contents`, `path/`, `path@target`, `path:Kind`.
fn shown(root: &Root) -> String {
    let mut out = Vec::new();
    for stat in Walk::new(root, &Filter::default()).unwrap() {
        let stat = stat.unwrap();
        let path = stat.path.display();
        out.push(match stat.kind() {
            Kind::Dir => format!("{path}/"),
            Kind::Symlink => format!("{path}@{}", stat.linkname.display()),
            Kind::File => {
                let bytes = root.read(&stat.path, 1 << 20).unwrap();
                format!("{path}={}", String::from_utf8_lossy(&bytes))
            }
            kind @ (Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket) => {
                format!("{path}:{kind:?}")
            }
        });
    }
    out.join(" ")
}

fn a_tree_is_what_all_layers_left<L: Layers>(layers: &L) {
    let empty = layers.commit(None, &|_| {});
    assert_eq!(shown(&layers.view(&empty)), "");
    let base = layers.commit(Some(&empty), &|root| {
        folder(root, "d");
        put(root, "d/a", "1");
        put(root, "f", "1");
    });
    let top = layers.commit(Some(&base), &|root| {
        assert_eq!(shown(root), "d/ d/a=1 f=1", "a step sees what is below");
        put(root, "f", "2");
        put(root, "d/b", "2");
    });
    assert_eq!(shown(&layers.view(&base)), "d/ d/a=1 f=1");
    assert_eq!(shown(&layers.view(&top)), "d/ d/a=1 d/b=2 f=2");
    let same = layers.commit(Some(&top), &|_| {});
    assert_eq!(shown(&layers.view(&same)), "d/ d/a=1 d/b=2 f=2");
}

fn what_is_deleted_is_gone_above_and_there_below<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| {
        folder(root, "d/sub");
        put(root, "d/sub/x", "1");
        put(root, "f", "1");
        put(root, "kept", "1");
    });
    let top = layers.commit(Some(&base), &|root| {
        root.remove_all("d").unwrap();
        root.remove_all("f").unwrap();
        root.remove_all("never/there").unwrap();
    });
    let again = layers.commit(Some(&top), &|root| put(root, "f", "2"));
    assert_eq!(shown(&layers.view(&base)), "d/ d/sub/ d/sub/x=1 f=1 kept=1");
    assert_eq!(shown(&layers.view(&top)), "kept=1");
    assert_eq!(shown(&layers.view(&again)), "f=2 kept=1");
}

fn a_directory_that_was_made_again_hides_what_was_in_it<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| {
        folder(root, "d/sub");
        put(root, "d/old", "1");
        put(root, "d/sub/old", "1");
    });
    let top = layers.commit(Some(&base), &|root| {
        root.remove_all("d").unwrap();
        folder(root, "d/sub");
        put(root, "d/new", "2");
    });
    let above = layers.commit(Some(&top), &|root| put(root, "d/sub/above", "3"));
    assert_eq!(shown(&layers.view(&top)), "d/ d/new=2 d/sub/");
    assert_eq!(
        shown(&layers.view(&above)),
        "d/ d/new=2 d/sub/ d/sub/above=3"
    );
}

fn files_and_directories_take_each_others_place<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| {
        folder(root, "was-dir");
        put(root, "was-dir/x", "1");
        put(root, "was-file", "1");
        root.symlink("was-file", "was-link").unwrap();
    });
    let top = layers.commit(Some(&base), &|root| {
        for path in ["was-dir", "was-file", "was-link"] {
            root.remove_all(path).unwrap();
        }
        put(root, "was-dir", "2");
        folder(root, "was-file");
        put(root, "was-file/y", "2");
        folder(root, "was-link");
    });
    let want = "was-dir=2 was-file/ was-file/y=2 was-link/";
    assert_eq!(shown(&layers.view(&top)), want);
    let back = layers.commit(Some(&top), &|root| {
        root.remove_all("was-dir").unwrap();
        folder(root, "was-dir");
    });
    let want = "was-dir/ was-file/ was-file/y=2 was-link/";
    assert_eq!(shown(&layers.view(&back)), want);
}

fn a_renamed_directory_keeps_what_is_in_it<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| {
        folder(root, "mine");
        put(root, "f", "1");
    });
    let top = layers.commit(Some(&base), &|root| {
        folder(root, "new");
        put(root, "new/x", "2");
        root.rename("new", "moved").unwrap();
        root.rename("f", "g").unwrap();
    });
    assert_eq!(shown(&layers.view(&top)), "g=1 mine/ moved/ moved/x=2");
}

fn metadata_is_that_of_the_last_who_set_it<L: Layers>(layers: &L) {
    let owner = |uid, gid| Some(Owner { uid, gid });
    let base = layers.commit(None, &|root| {
        root.mkdir_all("d", 0o750, owner(1, 2), None).unwrap();
        put(root, "d/f", "1");
        let dir = root.dir("d").unwrap();
        dir.chown("f".as_ref(), 3, 4).unwrap();
        dir.set_xattr("f".as_ref(), "user.k", b"v").unwrap();
    });
    let top = layers.commit(Some(&base), &|root| {
        let dir = root.dir("d").unwrap();
        dir.chmod("f".as_ref(), 0o4711).unwrap();
        dir.set_own_owner(5, 6).unwrap();
    });
    let facts = |layer: &L::Layer| {
        let root = layers.view(layer);
        let (dir, file) = (root.lstat("d").unwrap(), root.lstat("d/f").unwrap());
        let value = root
            .dir("d")
            .unwrap()
            .xattr("f".as_ref(), "user.k")
            .unwrap();
        assert_eq!(value.as_deref(), Some(b"v".as_slice()));
        assert_eq!((file.uid, file.gid), (3, 4));
        (dir.uid, dir.gid, dir.mode & 0o7777, file.mode & 0o7777)
    };
    assert_eq!(facts(&base), (1, 2, 0o750, 0o644));
    assert_eq!(facts(&top), (5, 6, 0o750, 0o4711));
}

fn names_of_one_file_stay_names_of_one_file<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| {
        put(root, "a", "1");
        root.link("a", "b").unwrap();
    });
    let top = layers.commit(Some(&base), &|root| {
        root.remove_all("a").unwrap();
        put(root, "c", "2");
        root.link("c", "d").unwrap();
    });
    let is_one = |layer: &L::Layer, a: &str, b: &str| {
        let root = layers.view(layer);
        root.lstat(a).unwrap().ino == root.lstat(b).unwrap().ino
    };
    assert!(is_one(&base, "a", "b"));
    assert!(is_one(&top, "c", "d"));
    assert_eq!(shown(&layers.view(&top)), "b=1 c=2 d=2");
}

fn special_files_and_links_are_shown_as_they_are<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| {
        let dir = root.dir("/").unwrap();
        dir.mknod("fifo".as_ref(), Kind::Fifo, 0o600, (0, 0))
            .unwrap();
        dir.mknod("null".as_ref(), Kind::Char, 0o666, (1, 3))
            .unwrap();
        dir.mknod("disk".as_ref(), Kind::Block, 0o600, (7, 1))
            .unwrap();
        root.symlink("/outside/../..", "away").unwrap();
    });
    let top = layers.commit(Some(&base), &|root| root.remove_all("disk").unwrap());
    let root = layers.view(&top);
    assert_eq!(shown(&root), "away@/outside/../.. fifo:Fifo null:Char");
    assert_eq!(root.lstat("null").unwrap().rdev, (1, 3));
}

fn a_view_cannot_be_written_to<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| put(root, "f", "1"));
    let top = layers.commit(Some(&base), &|root| put(root, "g", "2"));
    for layer in [&base, &top] {
        let root = layers.view(layer);
        assert!(root.create("new", 0o644).is_err());
        assert!(root.remove_all("f").is_err());
        assert!(root.rename("f", "other").is_err());
        assert!(root.dir("/").unwrap().chmod("f".as_ref(), 0o777).is_err());
        assert!(root.symlink("f", "link").is_err());
    }
    assert_eq!(shown(&layers.view(&top)), "f=1 g=2");
}

fn siblings_do_not_see_each_other<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| put(root, "f", "base"));
    let one = layers.commit(Some(&base), &|root| put(root, "f", "one"));
    let two = layers.commit(Some(&base), &|root| {
        assert_eq!(shown(root), "f=base");
        root.remove_all("f").unwrap();
    });
    let (view_one, view_two) = (layers.view(&one), layers.view(&two));
    assert_eq!(shown(&view_one), "f=one");
    assert_eq!(shown(&view_two), "");
    assert_eq!(
        shown(&layers.view(&one)),
        "f=one",
        "a second view of one layer"
    );
}

fn what_is_given_up_leaves_nothing<L: Layers>(layers: &L) {
    let base = layers.commit(None, &|root| put(root, "f", "1"));
    let before = layers.count();
    for below in [None, Some(&base)] {
        layers.abandon(below, &|root| {
            folder(root, "d");
            put(root, "d/x", "1");
        });
    }
    assert_eq!(layers.count(), before);
    assert_eq!(shown(&layers.view(&base)), "f=1");
}

fn many_layers_lie_on_each_other<L: Layers>(layers: &L) {
    const LAYERS: usize = 60;
    let mut top = layers.commit(None, &|root| put(root, "f", "0"));
    for number in 1..LAYERS {
        let text = number.to_string();
        top = layers.commit(Some(&top), &|root| {
            put(root, "f", &text);
            put(root, &format!("own{number:02}"), &text);
        });
    }
    let root = layers.view(&top);
    assert_eq!(root.read(Path::new("f"), 10).unwrap(), b"59");
    assert_eq!(root.dir("/").unwrap().entries().unwrap().len(), LAYERS);
}
