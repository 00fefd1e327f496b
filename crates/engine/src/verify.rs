//! Compares the platforms of a result with those of the request. Differences are warnings of the build.

use std::collections::{BTreeMap, BTreeSet};

use exporter::{ExportSource, PlatformEntry, platforms_of};
use oci::Platform;

/// Compares a result with the options of its frontend; returns one sentence for each difference.
pub(crate) fn platforms(opts: &BTreeMap<String, String>, result: &ExportSource) -> Vec<String> {
    if opts.get("requestid").is_some_and(|id| !id.is_empty()) {
        return Vec::new();
    }
    if !result.metadata.contains_key("refs.platforms")
        && (!result.refs.is_empty() || result.single.is_none())
    {
        return Vec::new();
    }
    let Ok(results) = platforms_of(&result.metadata) else {
        return Vec::new();
    };
    let texts: Vec<String> = match opts.get("platform") {
        Some(list) => list.split(',').map(str::to_owned).collect(),
        None => vec![Platform::host().normalize().format()],
    };
    compare(&texts, &results, !result.refs.is_empty())
}

fn compare(texts: &[String], results: &[PlatformEntry], is_map: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut requested: Vec<Platform> = Vec::new();
    let mut names = BTreeSet::new();
    for text in texts {
        match Platform::parse(text) {
            Ok(platform) => {
                let platform = platform.normalize();
                if !names.insert(platform.format_all()) {
                    warnings.push(format!("Duplicate platform result requested {text:?}"));
                }
                requested.push(platform);
            }
            Err(error) => warnings.push(format!(
                "Invalid platform result requested {text:?}: {error}"
            )),
        }
    }
    if !warnings.is_empty() {
        return warnings;
    }
    if let ([requested_platform], [single]) = (requested.as_slice(), results) {
        let mut platform = single.platform.normalize();
        // A request seldom names a version of the system, a result may have one.
        if requested_platform.os_version.is_empty() {
            platform.os_version.clear();
        }
        if !names.contains(&platform.format_all()) {
            let text = texts.first().map(String::as_str).unwrap_or_default();
            let result_platform = single.platform.normalize().format_all();
            warnings.push(format!(
                "Requested platform {text:?} does not match result platform {result_platform:?}"
            ));
        }
        return warnings;
    }
    if !is_map && names.len() > 1 {
        return vec!["Multiple platforms requested but result is not multi-platform".into()];
    }
    let fits = |entry: &PlatformEntry| {
        let platform = entry.platform.normalize();
        names.contains(&platform.format_all())
            || requested.iter().any(|w| w.matcher().matches(&platform))
    };
    if names.len() != results.len() || !results.iter().all(fits) {
        let list = |platforms: &mut dyn Iterator<Item = Platform>| {
            let mut texts: Vec<String> = platforms.map(|p| p.normalize().format_all()).collect();
            texts.sort();
            texts.join(",")
        };
        warnings.push(format!(
            "Requested platforms {} do not match result platforms {}",
            list(&mut requested.iter().cloned()),
            list(&mut results.iter().map(|e| e.platform.clone()))
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_for_other_platforms_than_requested_is_warned_of() {
        let results = |list: &[&str]| {
            let entry = |id: &&str| PlatformEntry {
                id: (*id).to_owned(),
                platform: Platform::parse(id).unwrap(),
            };
            list.iter().map(entry).collect::<Vec<_>>()
        };
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let (amd, both) = (["linux/amd64"], ["linux/amd64", "linux/arm64"]);
        assert!(compare(&texts(&amd), &results(&amd), false).is_empty());
        assert!(compare(&texts(&both), &results(&both), true).is_empty());
        assert_eq!(
            compare(&texts(&both), &results(&amd), false),
            ["Multiple platforms requested but result is not multi-platform"]
        );
        assert!(
            compare(&texts(&amd), &results(&both), true)[0]
                .ends_with("do not match result platforms linux/amd64,linux/arm64")
        );
    }
    /// The warnings of a result that has these platforms, for options.
    fn warnings(opts: &[(&str, &str)], ids: &[&str], is_map: bool) -> Vec<String> {
        let opts = opts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let mut result = ExportSource::default();
        let entry = |id: &&str| {
            let platform = Platform::parse(id).unwrap();
            serde_json::json!({ "ID": id, "Platform": {
                "os": platform.os, "architecture": platform.architecture,
                "variant": platform.variant, "os.version": platform.os_version,
            } })
        };
        let document =
            serde_json::json!({ "Platforms": ids.iter().map(entry).collect::<Vec<_>>() });
        if !ids.is_empty() {
            let document = document.to_string().into_bytes();
            result.metadata.insert("refs.platforms".into(), document);
        }
        if is_map {
            result.refs = ids.iter().map(|id| ((*id).to_owned(), None)).collect();
        }
        platforms(&opts, &result)
    }

    #[test]
    fn a_result_is_compared_with_the_platforms_of_the_request() {
        let (amd, arm, v7) = ("linux/amd64", "linux/arm64", "linux/arm/v7");
        let risc = "linux/riscv64";
        let none: [&str; 0] = [];
        for (opts, ids, is_map, want) in [
            (vec![("platform", amd)], vec![amd], false, none.to_vec()),
            (vec![("platform", "linux/x86_64")], vec![amd], false, vec![]),
            (vec![("platform", "linux/arm")], vec![v7], false, vec![]),
            (
                vec![("platform", "linux/amd64,linux/arm64")],
                vec![arm, amd],
                true,
                vec![],
            ),
            (
                vec![("platform", arm)],
                vec![amd],
                false,
                vec![
                    "Requested platform \"linux/arm64\" does not match result platform \"linux/amd64\"",
                ],
            ),
            (
                vec![("platform", "linux/amd64,linux/arm64")],
                vec![amd],
                false,
                vec!["Multiple platforms requested but result is not multi-platform"],
            ),
            (
                vec![("platform", "linux/amd64,linux/arm64")],
                vec![amd, risc],
                true,
                vec![
                    "Requested platforms linux/amd64,linux/arm64 do not match result platforms linux/amd64,linux/riscv64",
                ],
            ),
            (
                vec![("platform", "linux/amd64,linux/x86_64")],
                vec![amd],
                true,
                vec!["Duplicate platform result requested \"linux/x86_64\""],
            ),
            // Answers to subrequests, and results without platforms, are not checked.
            (
                vec![("platform", arm), ("requestid", "frontend.outline")],
                vec![amd],
                false,
                vec![],
            ),
            (
                vec![("platform", arm), ("requestid", "")],
                vec![amd],
                false,
                vec![
                    "Requested platform \"linux/arm64\" does not match result platform \"linux/amd64\"",
                ],
            ),
            (vec![("platform", arm)], vec![], true, vec![]),
        ] {
            assert_eq!(warnings(&opts, &ids, is_map), want, "{opts:?} {ids:?}");
        }
        let odd = warnings(&[("platform", "a/b/c/d")], &[amd], false);
        assert!(
            odd[0].starts_with("Invalid platform result requested \"a/b/c/d\": "),
            "{odd:?}"
        );
    }
}
