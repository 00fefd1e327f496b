//! Every text that `containerd/platforms` read (`tests/data/platforms.json`, written by `integration/tools/buildkit`) is read alike,
//! and every choice among images is the same.

use oci::Platform;
use serde_json::{Value, json};

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../data/platforms.json")).expect("the vectors are JSON")
}

/// What our parser says in the form of the recording.
fn parsed(text: &str) -> Result<Value, String> {
    let platform = Platform::parse(text).map_err(|error| error.to_string())?;
    Ok(json!({
        "os": platform.os,
        "arch": platform.architecture,
        "variant": platform.variant,
        "version": platform.os_version,
        "features": platform.os_features.join("+"),
        "format": platform.format(),
        "all": platform.format_all(),
        "normal": platform.normalize().format_all(),
    }))
}

/// The images that run on a platform, best first.
fn chosen(want: &str, have: &[&str]) -> Vec<String> {
    let matcher = Platform::parse(want).expect("a platform").matcher();
    let mut ranked: Vec<(usize, &str)> = have
        .iter()
        .filter_map(|text| Some((matcher.rank(&Platform::parse(text).ok()?)?, *text)))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
        .into_iter()
        .map(|(_, text)| text.to_owned())
        .collect()
}

#[test]
fn every_text_is_read_and_every_choice_made_as_containerd_does_it() {
    let mut differences = Vec::new();
    for vector in vectors() {
        let input = &vector["in"];
        let want = match vector["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(vector["out"].clone()),
        };
        let actual = match input.as_str() {
            Some(text) => parsed(text),
            None => {
                let have = input["have"].as_array().expect("a list").iter();
                let have: Vec<&str> = have.filter_map(Value::as_str).collect();
                Ok(chosen(input["want"].as_str().expect("a text"), &have).into())
            }
        };
        if actual != want {
            differences.push(format!(
                "{input}:\n  {actual:?}\n  containerd says\n  {want:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_platform_is_what_its_text_says() {
    let mut read = 0;
    for vector in vectors() {
        let Some(Ok(platform)) = vector["in"].as_str().map(Platform::parse) else {
            continue;
        };
        read += 1;
        let again = Platform::parse(&platform.format_all()).expect("what is written can be read");
        assert_eq!(again.normalize(), platform.normalize(), "{}", vector["in"]);
        let twice = platform.normalize().normalize();
        assert_eq!(twice, platform.normalize(), "{}", vector["in"]);
        assert_eq!(platform.to_string(), platform.format(), "{}", vector["in"]);
    }
    assert!(read > 30, "{read}");
}

#[test]
fn windows_versions_decide_what_runs() {
    let runs = |host: &str, image: &str| {
        let [host, image] = [host, image].map(|text| Platform::parse(text).expect("a platform"));
        host.matcher().matches(&image)
    };
    for (host, image, want) in [
        (
            "windows(10.0.17763.100)/amd64",
            "windows(10.0.17763.5)/amd64",
            true,
        ),
        (
            "windows(10.0.17763.100)/amd64",
            "windows(10.0.14393.5)/amd64",
            false,
        ),
        (
            "windows(10.0.17763.100)/amd64",
            "windows(10.0.17763+win32k)/amd64",
            true,
        ),
        ("windows(10.0.17763)/amd64", "linux/amd64", false),
        ("linux/amd64", "windows(10.0.17763)/amd64", false),
    ] {
        assert_eq!(runs(host, image), want, "{image} on {host}");
    }
}

#[test]
fn what_runs_on_a_platform_comes_best_first() {
    let runs = |text: &str| -> Vec<String> {
        let platform = Platform::parse(text).expect("a platform");
        platform.runs().iter().map(Platform::format_all).collect()
    };
    for (text, want) in [
        ("linux/amd64", &["linux/amd64", "linux/386"][..]),
        ("linux/386", &["linux/386"]),
        ("linux/arm/v6", &["linux/arm/v6", "linux/arm/v5"]),
        (
            "linux/arm/v7",
            &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
        ),
        ("linux/ppc64le", &["linux/ppc64le"]),
        ("linux/s390x", &["linux/s390x"]),
    ] {
        assert_eq!(runs(text), want, "{text}");
    }
    assert_eq!(
        runs("linux/arm64").first().map(String::as_str),
        Some("linux/arm64/v8")
    );
}

#[test]
fn documents_have_platforms_as_go_writes_them() {
    let text = r#"{"architecture":"arm","os":"linux","variant":"v7"}"#;
    let platform: Platform = gostd::json::from_slice(text.as_bytes()).expect("it is a platform");
    assert_eq!(platform, Platform::new("linux", "arm", "v7"));
    assert_eq!(gostd::json::to_vec(&platform), text.as_bytes());
    let text =
        r#"{"architecture":"amd64","os":"windows","os.version":"10.0.1","os.features":["win32k"]}"#;
    let platform: Platform = gostd::json::from_slice(text.as_bytes()).expect("it is a platform");
    assert_eq!(gostd::json::to_vec(&platform), text.as_bytes());
    assert_eq!(platform.format_all(), "windows(10.0.1+win32k)/amd64");
}
