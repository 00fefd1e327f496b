//! Every word that BuildKit's lexer expanded (`tests/data/words.json`, written by `integration/tools/buildkit`) expands alike.

use dockerfile::shell::{EnvList, Lexer};
use serde_json::{Value, json};

/// The variables of the recording.
fn variables() -> EnvList {
    EnvList::from_strings([
        "A=alpha",
        "E=",
        "PATH=/usr/local/bin:/usr/bin",
        "F=archive.tar.gz",
        "S=a b  c",
        "STAR=a*b?c",
        "U=größe",
        r#"Q=it's "q""#,
        r"B=c:\dir\sub",
        "REP=aXbXc",
        "NUM=12",
        "SLASH=a/b/c",
    ])
}

/// A lexer with the recorded settings: `q` raw quotes, `e` raw escapes, `p` quotes are plain, `u` unset variables stay.
fn lexer(input: &Value) -> Lexer {
    let flags = input["flags"].as_str().expect("a text");
    let escape = input["escape"]
        .as_str()
        .and_then(|text| text.chars().next());
    let mut lexer = Lexer::new(escape.expect("a character"));
    lexer.raw_quotes = flags.contains('q');
    lexer.raw_escapes = flags.contains('e');
    lexer.skip_process_quotes = flags.contains('p');
    lexer.skip_unset_env = flags.contains('u');
    lexer
}

/// What our lexer says in the form of the recording.
fn answer(input: &Value) -> Result<Value, String> {
    let word = input["word"].as_str().expect("a text");
    let word = lexer(input)
        .process(word, &variables())
        .map_err(|error| error.to_string())?;
    Ok(json!({
        "result": word.result,
        "words": word.words,
        "matched": word.matched,
        "unmatched": word.unmatched,
    }))
}

#[test]
fn every_word_expands_as_buildkits_lexer_expands_it() {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../data/words.json")).expect("the vectors are JSON");
    assert!(vectors.len() > 1_000, "{}", vectors.len());
    let mut differences = Vec::new();
    for vector in &vectors {
        let expected = match vector["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(vector["out"].clone()),
        };
        let actual = answer(&vector["in"]);
        if actual != expected {
            differences.push(format!(
                "{}: {actual:?}, BuildKit says {expected:?}",
                vector["in"]
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
