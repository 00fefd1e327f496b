use fstree::diff::{ChangeKind, overlay_changes, tree_changes};

use testkit::requires;

use crate::support::tree;

fn show(changes: Vec<fstree::diff::Change>) -> String {
    let mark = |kind| match kind {
        ChangeKind::Add => '+',
        ChangeKind::Modify => '~',
        ChangeKind::Delete => '-',
        ChangeKind::Unmodified => '=',
    };
    changes
        .iter()
        .map(|c| format!("{}{}", mark(c.kind), c.path.display()))
        .collect::<Vec<_>>()
        .join(" ")
}

const LOWER: &str = "dir d 755 0 0\nfile d/keep 644 0 0 1\nfile d/old 644 0 0 1\ndir gone 755 0 0\nfile gone/x 644 0 0\n\
                     dir op 755 0 0\nfile op/a 644 0 0 a\nfile op/b 644 0 0 b\ndir op/sub 755 0 0\nfile op/sub/s 644 0 0 s\n\
                     file same 644 0 0 12\nfile touched 644 0 0 12\nfile file2dir 644 0 0 x\n\
                     time same 1000000000\ntime touched 1000000000\ntime op/a 5000000000\n";

#[test]
fn an_upper_directory_says_what_changed() {
    requires!(root);
    let lower = tree(LOWER);
    let upper = tree(
        "dir d 755 0 0\nwhiteout d/old\nwhiteout d/never\nfile d/new 644 0 0 n\nwhiteout gone\n\
         dir op 755 0 0\nopaque op\nfile op/a 644 0 0 a\nfile op/c 644 0 0 c\nwhiteout op/b\ntime op/a 5000000000\n\
         file same 644 0 0 12\nfile touched 644 0 0 13\ntime same 1000000000\ntime touched 1000000000\n\
         dir fresh 700 0 0\nopaque fresh\nfile fresh/f 644 0 0 f\ndir file2dir 755 0 0\nfile file2dir/in 644 0 0 i\n",
    );
    assert_eq!(
        show(overlay_changes(&upper.root, Some(&lower.root)).unwrap()),
        "+d/new -d/old ~file2dir +file2dir/in +fresh +fresh/f -gone -op/b +op/c -op/sub ~touched"
    );
    assert_eq!(
        show(overlay_changes(&upper.root, None).unwrap()),
        "+d +d/new +file2dir +file2dir/in +fresh +fresh/f +op +op/a +op/c +same +touched"
    );
    crate::support::add(&upper.root, "xattr d trusted.overlay.redirect /elsewhere\n");
    assert!(
        overlay_changes(&upper.root, Some(&lower.root))
            .unwrap_err()
            .to_string()
            .contains("redirect_dir")
    );
}

#[test]
fn two_trees_differ_name_by_name() {
    requires!(root);
    let a = tree(
        "dir d 755 0 0\ndir d/sub 755 0 0\nfile d/sub/x 644 0 0\nfile f 644 0 0 1\nfile l1 644 0 0 x\ntime l1 7000000000\n",
    );
    let b = tree(
        "dir e 755 0 0\nfile e/y 644 0 0\nfile f 600 0 0 1\nfile l1 644 0 0 x\ntime l1 7000000000\nhard l2 l1\n",
    );
    assert_eq!(
        show(tree_changes(Some(&a.root), &b.root).unwrap()),
        "-d +e +e/y ~f =l1 +l2"
    );
    assert_eq!(
        show(tree_changes(None, &b.root).unwrap()),
        "+e +e/y +f +l1 +l2"
    );
}
