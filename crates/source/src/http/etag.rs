//! Compares ETags, which proxies change.

/// Suffixes that proxies add to an ETag when they compress the content.
const COMPRESSION_SUFFIXES: [&str; 7] = ["-gzip", "--gzip", ";gzip", "-br", ";br", "-zstd", "-df"];

/// Whether two ETags differ at most in the mark of weakness and in a proxy's suffix.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    without_marks(a) == without_marks(b)
}

fn without_marks(etag: &str) -> &str {
    let text = etag.strip_prefix("W/").unwrap_or(etag);
    let text = text.strip_prefix('"').unwrap_or(text);
    let text = text.strip_suffix('"').unwrap_or(text);
    // Some proxies add the suffix after the closing quote.
    let text = COMPRESSION_SUFFIXES
        .iter()
        .filter_map(|suffix| text.strip_suffix(suffix))
        .min_by_key(|stem| stem.len())
        .unwrap_or(text);
    text.strip_suffix('"').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn weakness_and_a_proxys_suffix_make_no_other_etag() {
        for (a, b, same) in [
            ("\"x\"", "\"x\"", true),
            ("\"x\"", "W/\"x\"", true),
            ("\"x\"", "\"x-gzip\"", true),
            ("\"x-gzip\"", "\"x\"", true),
            ("\"x\"", "\"x\"-gzip", true),
            ("\"x\"", "W/\"x--gzip\"", true),
            ("\"x\"", "\"x;br\"", true),
            ("\"x\"", "x", true),
            ("\"x\"", "\"y\"", false),
            ("\"x\"", "\"x-1\"", false),
            ("\"x\"", "\"-gzip\"", false),
        ] {
            assert_eq!(is_same(a, b), same, "{a} {b}");
        }
    }
}
