//! The name a downloaded file gets, which is never a path (P11).

use gostd::url::unescape_lossy;

/// Chooses the name: the attribute's, else that of `Content-Disposition`, else the last part of the address, else `download`.
pub(crate) fn file_name(url: &str, attribute: &str, disposition: Option<&str>) -> String {
    if !attribute.is_empty() {
        return safe(attribute);
    }
    if let Some(name) = disposition
        .and_then(disposition_name)
        .filter(|n| !n.is_empty() && !n.ends_with('/'))
    {
        return safe(&name);
    }
    let path = reqwest::Url::parse(url)
        .map(|u| percent_decode(u.path()))
        .unwrap_or_default();
    let base = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    safe(base)
}

/// The last part of a path, or `download` where that is no usable name.
pub(crate) fn safe(text: &str) -> String {
    let name = text
        .trim()
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    if matches!(name, "" | "." | "..") || name.chars().any(char::is_control) || name.len() > 255 {
        return "download".to_owned();
    }
    name.to_owned()
}

fn disposition_name(header: &str) -> Option<String> {
    let mut plain = None;
    let mut params = header.split_once(';')?.1;
    while let Some((key, tail)) = params.split_once('=') {
        let key = key.trim_matches([' ', '\t', ';']).to_ascii_lowercase();
        let (value, tail) = value(tail.trim_start())?;
        match key.as_str() {
            "filename" => plain = Some(value),
            // RFC 5987: charset'language'percent-encoded; it wins over `filename`.
            "filename*" => {
                let mut parts = value.splitn(3, '\'');
                let charset = parts.next()?.to_ascii_lowercase();
                let text = parts.nth(1)?;
                if charset == "utf-8" || charset == "us-ascii" {
                    return Some(percent_decode(text));
                }
            }
            _ => {}
        }
        params = tail;
    }
    plain
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.trim().to_owned(), rest));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

fn percent_decode(text: &str) -> String {
    String::from_utf8(unescape_lossy(text).into_owned()).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn names_are_names_and_never_paths() {
        let url = "https://example.com/a/b%20c.tar?x=1";
        for (attribute, disposition, name) in [
            ("", None, "b c.tar"),
            ("given.txt", Some("attachment; filename=\"x\""), "given.txt"),
            ("../../etc/passwd", None, "passwd"),
            ("..", None, "download"),
            ("a\nb", None, "download"),
            (
                "",
                Some("attachment; filename=\"../../x y.zip\""),
                "x y.zip",
            ),
            ("", Some("attachment; size=3; filename=plain"), "plain"),
            ("", Some("attachment; filename=\"dir/\""), "b c.tar"),
            (
                "",
                Some("attachment; filename=fallback; filename*=UTF-8''%e2%82%ac.txt"),
                "€.txt",
            ),
            ("", Some("attachment; filename=\"unterminated"), "b c.tar"),
        ] {
            assert_eq!(
                file_name(url, attribute, disposition),
                name,
                "{attribute:?} {disposition:?}"
            );
        }
        assert_eq!(file_name("https://example.com/", "", None), "download");
        assert_eq!(file_name("https://example.com/%2e%2e%2fx", "", None), "x");
    }
}
