use std::collections::BTreeSet;
use std::sync::Arc;

use oci::platform::Platform;
use parking_lot::Mutex;
use pattern::PatternMatcher;

use crate::lint::{Finding, LintConfig, Linter, Warning, rule};
use crate::shell::{EnvList, Lexer};
use crate::syntax::{self, Range};
use crate::{check, instruction};

/// A linter and what it said.
fn listening(config: &str) -> (Linter, Arc<Mutex<Vec<Warning>>>) {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&warnings);
    (
        Linter::new(
            LintConfig::parse(config).expect("the configuration is well formed"),
            move |warning| sink.lock().push(warning),
        ),
        warnings,
    )
}

fn shorts(warnings: &Mutex<Vec<Warning>>) -> Vec<String> {
    warnings.lock().iter().map(Warning::short).collect()
}

/// Lints what can be linted without lowering.
fn lint(config: &str, text: &str) -> Vec<String> {
    let (linter, warnings) = listening(config);
    let tree = syntax::parse(text.as_bytes()).expect("the file is well formed");
    check::empty_continuations(&tree.warnings, &linter);
    let (stages, _) = instruction::parse(&tree.root, &linter).expect("the file is well formed");
    check::stage_names(&stages, &linter);
    check::instruction_casing(&stages, &linter);
    shorts(&warnings)
}

#[test]
fn files_are_linted_in_the_words_of_the_rules() {
    let cases: [(&str, &str, &[&str]); 13] = [
        (
            "FROM a AS Base",
            "",
            &["StageNameCasing: Stage name 'Base' should be lowercase (line 1)"],
        ),
        (
            "FROM a as base\nRUN x",
            "",
            &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"],
        ),
        (
            "from a AS base\nrun x",
            "",
            &["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"],
        ),
        (
            "FROM a\nMAINTAINER me",
            "",
            &[
                "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
            ],
        ),
        (
            "FROM a\nRUN x \\\n\n y",
            "",
            &["NoEmptyContinuation: Empty continuation line (line 4)"],
        ),
        (
            "FROM a\nRun x\nRUN y",
            "",
            &[
                "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 2)",
            ],
        ),
        (
            "from a\nrun x\nRUN y",
            "",
            &[
                "ConsistentInstructionCasing: Command 'RUN' should match the case of the command majority (lowercase) (line 3)",
            ],
        ),
        (
            "FROM a AS scratch",
            "",
            &[
                "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
            ],
        ),
        (
            "FROM a AS b\nFROM c AS b",
            "",
            &[
                "DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)",
            ],
        ),
        ("# wrong text\nFROM a AS b\n# b\nARG c d", "", &[]),
        (
            "# wrong text\nFROM a AS b\n# b\nARG c d\n# d is right\nARG d",
            "experimental=InvalidDefinitionDescription",
            &[
                "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 2)",
                "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 4)",
            ],
        ),
        (
            "# check=skip=StageNameCasing\n\n# check=skip=MaintainerDeprecated\nFROM a AS Base\n# check=skip=all\nMAINTAINER x",
            "",
            &["StageNameCasing: Stage name 'Base' should be lowercase (line 4)"],
        ),
        ("FROM a AS Base\nMAINTAINER x", "skip=all", &[]),
    ];
    for (text, config, want) in cases {
        assert_eq!(lint(config, text), want, "{text}");
    }
}

#[test]
fn configurations_are_read_and_merged() {
    let config = LintConfig::parse(" skip=A, B ;error=true;experimental=all")
        .expect("the configuration is well formed");
    assert_eq!(
        (
            config.skip.len(),
            config.skip_all,
            config.error,
            config.experimental_all
        ),
        (2, false, true, true)
    );
    let refused = [
        ("skip", "invalid check option \"skip\""),
        ("foo=bar", "invalid check option \"foo\""),
        (
            "error=maybe",
            "failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
    ];
    for (text, want) in refused {
        assert_eq!(
            LintConfig::parse(text).map_err(|error| error.to_string()),
            Err(want.to_owned())
        );
    }
    let (linter, _) = listening("error=true");
    assert_eq!(linter.error(), None);
    linter
        .with_comments(&["check=skip=StageNameCasing".to_owned()])
        .report(Finding::StageNameCasing { name: "A".into() }, &[]);
    assert_eq!(linter.error(), None, "a skipped rule is not broken");
    linter.report(Finding::MaintainerDeprecated, &[]);
    linter.report(Finding::StageNameCasing { name: "A".into() }, &[]);
    assert_eq!(
        linter.error().map(|error| error.to_string()).as_deref(),
        Some("lint violation found for rules: MaintainerDeprecated, StageNameCasing")
    );
}

#[test]
fn the_rules_are_complete() {
    assert_eq!(rule::ALL.len(), 23, "22 of BuildKit and one of ours");
    assert_eq!(
        rule::ALL
            .iter()
            .filter(|rule| rule.experimental)
            .map(|rule| rule.name)
            .collect::<Vec<_>>(),
        ["InvalidDefinitionDescription"]
    );
    for rule in rule::ALL.iter().filter(|rule| !rule.url.is_empty()) {
        let slug: String = rule
            .url
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .split('-')
            .collect();
        assert_eq!(slug, rule.name.to_lowercase());
    }
}

#[test]
fn secrets_are_told_by_their_names() {
    for name in [
        "apikey",
        "AUTH",
        "git_key",
        "DATABASE_PASSWORD",
        "GITHUB_TOKEN",
        "secret_MESSAGE",
        "super_Secret",
        "password",
    ] {
        assert!(check::is_secret_name(name), "{name}");
    }
    for name in [
        "PUBLIC_TOKEN",
        "SECRET_FILE",
        "KEY_VERSION",
        "monkey",
        "passwordless",
        "authors",
    ] {
        assert!(!check::is_secret_name(name), "{name}");
    }
}

#[test]
fn checks_of_lowering_speak_in_known_words() {
    let (linter, said) = listening("");
    let ranges = [Range::line(3)];
    let env = EnvList::from_strings(["FOO=1", "TARGETPLATFORM=linux/amd64"]);
    let word = |text| {
        Lexer::new('\\')
            .process(text, &env)
            .expect("the word is well formed")
    };
    check::undefined_vars(
        &word("$FO $http_proxy $ZZZZZ").unmatched,
        &env,
        |name| name == "http_proxy",
        &ranges,
        &linter,
    );
    let declared = BTreeSet::from(["VERSION".to_owned()]);
    check::undefined_from_args(&declared, &word("a:$VERSIO").unmatched, &ranges, &linter);
    check::redundant_platform(
        "$TARGETPLATFORM",
        &word("$TARGETPLATFORM"),
        &env,
        &ranges,
        &linter,
    );
    check::redundant_platform("linux", &word("linux"), &env, &ranges, &linter);
    check::constant_platform("base", &word("linux/arm64"), &ranges, &linter);
    check::constant_platform("base-arm64", &word("linux/arm64"), &ranges, &linter);
    check::base_image_platform(
        "a",
        &Platform::new("linux", "arm64", ""),
        &Platform::new("linux", "amd64", ""),
        &ranges,
        &linter,
    );
    check::secret_name("ARG", "TOKEN", &ranges, &linter);
    let ignore = PatternMatcher::new(["dir"]).expect("the patterns are well formed");
    check::ignored_source("Copy", "./dir/x", Some(&ignore), &ranges, &linter);
    check::ignored_source("Add", ".", Some(&ignore), &ranges, &linter);
    let all = PatternMatcher::new(["*"]).expect("the patterns are well formed");
    check::ignored_source("Add", ".", Some(&all), &ranges, &linter);
    assert_eq!(
        shorts(&said),
        [
            "UndefinedVar: Usage of undefined variable '$FO' (did you mean $FOO?) (line 3)",
            "UndefinedVar: Usage of undefined variable '$ZZZZZ' (line 3)",
            "UndefinedArgInFrom: FROM argument 'VERSIO' is not declared (did you mean VERSION?) (line 3)",
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 3)",
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\" (line 3)",
            "InvalidBaseImagePlatform: Base image a was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build (line 3)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"TOKEN\") (line 3)",
            "CopyIgnoredFile: Attempting to Copy file \"dir/x\" that is excluded by .dockerignore (line 3)",
            "CopyIgnoredFile: Attempting to Add file \".\" that is excluded by .dockerignore (line 3)",
        ]
    );
}
