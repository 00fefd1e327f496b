use std::path::Path;

use dockerfile::lint::rule;

#[test]
fn each_rule_is_explained() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lint-rules.md");
    let text = std::fs::read_to_string(&page).expect("the page is there");
    let titles: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let names: Vec<&str> = rule::ALL.iter().map(|rule| rule.name).collect();
    assert_eq!(titles, names, "{} and the table differ", page.display());
}
