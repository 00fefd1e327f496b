//! Go's ways of writing values, where histories and names show them.

/// `[a b]`, Go's `%v` of a list.
pub(crate) fn plain_list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// The first word in upper case.
pub(crate) fn uppercase_command(text: &str) -> String {
    match text.split_once(' ') {
        Some((first, rest)) => format!("{} {rest}", first.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// The first line of a heredoc, with `...` when there are more.
pub(crate) fn summarize_heredoc(text: &str) -> String {
    let text = text.trim().replace("\r\n", "\n");
    match text.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heredoc_is_told_by_its_first_line() {
        assert_eq!(summarize_heredoc("\n echo 1\r\necho 2\n"), "echo 1...");
    }
}
