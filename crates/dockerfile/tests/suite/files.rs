//! Every file that BuildKit's parser read (`tests/data/files.json`, written by `integration/tools/buildkit`) is read alike.

use dockerfile::instruction;
use dockerfile::lint::Linter;
use dockerfile::syntax;
use gostd::strconv::quote;
use serde_json::{Value, json};

/// The stages and instructions, one line each, or why there are none.
fn instructions(root: &syntax::Node) -> Result<Vec<String>, String> {
    let (stages, args) =
        instruction::parse(root, &Linter::silent()).map_err(|error| error.to_string())?;
    let mut names = vec!["ARG".to_owned(); args.len()];
    for stage in stages {
        let (name, platform) = (quote(&stage.name), quote(&stage.platform));
        names.push(format!("FROM {} AS {name} ON {platform}", stage.base_name));
        let commands = stage.commands.iter();
        names.extend(commands.map(|command| command.command.name().to_uppercase()));
    }
    Ok(names)
}

/// What our parser says in the form of the recording.
fn answer(text: &str) -> Result<Value, String> {
    let tree = syntax::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    let nodes = &tree.root.children;
    let heredocs = nodes.iter().flat_map(|node| &node.heredocs).map(|doc| {
        format!(
            "{} {} {} {} {}",
            doc.name, doc.file_descriptor, doc.expand, doc.chomp, doc.content
        )
    });
    let mut answer = json!({
        "tree": tree.root.dump(),
        "escape": tree.escape.to_string(),
        "warnings": tree.warnings.iter().map(|warning| warning.short()).collect::<Vec<_>>(),
        "lines": nodes.iter().map(|node| [node.start_line, node.end_line]).collect::<Vec<_>>(),
        "heredocs": heredocs.collect::<Vec<_>>(),
    });
    match instructions(&tree.root) {
        Ok(names) => answer["instructions"] = names.into(),
        Err(error) => answer["refused"] = error.into(),
    }
    Ok(answer)
}

#[test]
fn every_file_is_read_as_buildkits_parser_reads_it() {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../data/files.json")).expect("the vectors are JSON");
    assert!(vectors.len() > 200, "{}", vectors.len());
    let mut differences = Vec::new();
    // Deliberate: heredocs of a file with Windows' line ends lose them, and an ONBUILD in an ONBUILD, which is refused, is not read on.
    let differs = [
        "FROM a\nRUN <<E\r\nx\r\nE\r\n",
        "FROM a\nONBUILD ONBUILD RUN b",
    ];
    for vector in &vectors {
        let text = vector["in"].as_str().expect("a text");
        let expected = match vector["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(vector["out"].clone()),
        };
        let actual = answer(text);
        if differs.contains(&text) {
            assert_ne!(actual, expected, "{text:?} is no difference any more");
        } else if actual != expected {
            differences.push(format!(
                "{text:?}:\n  {actual:?}\n  BuildKit says\n  {expected:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
