use super::*;

fn attrs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

#[test]
fn docker_types_have_no_image_manifest_unless_it_is_requested() {
    for (pairs, media_types, root) in [
        (&[][..], MediaTypes::Oci, RootKind::Manifest),
        (
            &[("oci-mediatypes", "false")],
            MediaTypes::Docker,
            RootKind::Index,
        ),
        (
            &[("image-manifest", "false")],
            MediaTypes::Oci,
            RootKind::Index,
        ),
        (
            &[("oci-mediatypes", "false"), ("image-manifest", "true")],
            MediaTypes::Docker,
            RootKind::Manifest,
        ),
    ] {
        let map = attrs(pairs);
        let documents = Attrs::new(&map).documents().unwrap();
        assert_eq!(documents, Documents { media_types, root }, "{pairs:?}");
    }
}

#[test]
fn an_unknown_mode_falls_back_to_min_and_a_bad_reference_is_refused() {
    let of = |pairs: &[(&str, &str)]| {
        let map = attrs(pairs);
        let read = Attrs::new(&map);
        let reference = read.reference().map(|r| r.to_string());
        (read.mode(), reference.map_err(|e| e.to_string()))
    };
    assert_eq!(
        of(&[("mode", "most"), ("ref", "a/b")]),
        (ExportMode::Min, Ok("docker.io/a/b:latest".into()))
    );
    assert_eq!(
        of(&[("mode", "max")]),
        (ExportMode::Max, Err("missing ref".into()))
    );
    for (text, full) in [
        ("a/b:c", "docker.io/a/b:c"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
    ] {
        assert_eq!(of(&[("ref", text)]).1.unwrap(), full);
    }
    for bad in ["A/B", "a b", ":tag", "a/b:", "-/x"] {
        assert!(of(&[("ref", bad)]).1.is_err(), "{bad:?}");
    }
}

#[test]
fn flags_are_read_as_go_reads_them_and_the_error_names_the_flag() {
    for (value, read) in [
        ("1", Ok(Some(true))),
        ("False", Ok(Some(false))),
        ("", Err(())),
        ("yes", Err(())),
    ] {
        let map = attrs(&[("registry.insecure", value)]);
        let flag = Attrs::new(&map).flag("registry.insecure");
        if let Err(reason) = flag.as_ref().map_err(ToString::to_string) {
            let start = "failed to parse registry.insecure: strconv.ParseBool: parsing ";
            assert!(reason.starts_with(start), "{reason}");
        }
        assert_eq!(flag.map_err(drop), read, "{value:?}");
    }
    let map = attrs(&[]);
    assert_eq!(Attrs::new(&map).flag("registry.insecure").unwrap(), None);
}

#[test]
fn errors_are_ignored_only_with_a_true_value_of_ignore_error() {
    for (value, ignores) in [
        ("true", true),
        ("1", true),
        ("false", false),
        ("", false),
        ("perhaps", false),
    ] {
        let map = attrs(&[("ignore-error", value)]);
        assert_eq!(Attrs::new(&map).ignores_errors(), ignores, "{value:?}");
    }
}

#[test]
fn an_empty_attribute_is_as_good_as_none() {
    let map = attrs(&[("dest", ""), ("src", "x")]);
    assert_eq!(Attrs::new(&map).text("dest"), None);
    assert_eq!(Attrs::new(&map).text("src"), Some("x"));
    assert_eq!(Attrs::new(&map).text("digest"), None);
}
