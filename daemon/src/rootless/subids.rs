//! Subordinate ids: the lines of `/etc/subuid` and `/etc/subgid`, subuid(5).

use sys::userns::MapLine;

/// A line of an id map: ids inside, ids outside, and how many.
pub type IdLine = MapLine;

/// The most lines that the kernel takes in one map, user_namespaces(7).
const MAX_LINES: usize = 340;

/// The user whose ranges are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The name, if the user has one.
    pub name: Option<String>,
}

/// The name of a user in the text of `/etc/passwd`.
#[must_use]
pub fn name_of(passwd: &[u8], uid: u32) -> Option<String> {
    let text = String::from_utf8_lossy(passwd);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

/// The ranges that belong to the user: first id and how many, in the order of the file. A line begins with a name or a number; lines
/// that are none, empty ranges and such that go past the last id are left out.
#[must_use]
pub fn ranges(text: &str, user: &User) -> Vec<(u32, u32)> {
    let number = user.uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().splitn(3, ':');
        let owner = fields.next()?;
        if Some(owner) != user.name.as_deref() && owner != number {
            return None;
        }
        let first: u32 = fields.next()?.trim().parse().ok()?;
        let count: u32 = fields.next()?.trim().parse().ok()?;
        (count > 0 && first.checked_add(count).is_some()).then_some((first, count))
    };
    text.lines().filter_map(line).collect()
}

/// The map of a namespace whose root is `own_id`: the subordinate ids follow it without a gap.
#[must_use]
pub fn map(own_id: u32, ranges: &[(u32, u32)]) -> Vec<IdLine> {
    let mut lines = vec![IdLine {
        inside: 0,
        outside: own_id,
        count: 1,
    }];
    let mut next = 1u32;
    for (first, count) in ranges.iter().copied().take(MAX_LINES - 1) {
        let Some(after) = next.checked_add(count) else {
            break;
        };
        lines.push(IdLine {
            inside: next,
            outside: first,
            count,
        });
        next = after;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_user_are_found_by_name_and_by_number() {
        let eve = User {
            uid: 1000,
            name: Some("eve".to_owned()),
        };
        for (text, expected) in [
            ("", vec![]),
            ("eve:100000:65536\n", vec![(100_000, 65536)]),
            ("1000:100000:65536", vec![(100_000, 65536)]),
            (
                "bob:100000:65536\neve:165536:10\n1000:7:1\n",
                vec![(165_536, 10), (7, 1)],
            ),
            ("evelyn:1:1\n# eve:1:1\neve:x:1\neve:1\neve\n", vec![]),
            ("eve:1:0\neve:4294967295:2\n", vec![]),
            ("  eve:5:6  \r\n", vec![(5, 6)]),
        ] {
            assert_eq!(ranges(text, &eve), expected, "{text:?}");
        }
        let nameless = User { uid: 7, name: None };
        assert_eq!(ranges("eve:1:1\n7:2:3\n:9:9\n", &nameless), [(2, 3)]);
    }

    #[test]
    fn the_first_id_is_the_users_own_and_the_others_follow() {
        let lines = map(1000, &[(100_000, 65536), (5, 10)]);
        let numbers: Vec<_> = lines
            .iter()
            .map(|l| (l.inside, l.outside, l.count))
            .collect();
        assert_eq!(numbers, [(0, 1000, 1), (1, 100_000, 65536), (65537, 5, 10)]);
        assert_eq!(map(1000, &[]).len(), 1);
        assert_eq!(map(0, &vec![(1, 1); 1000]).len(), MAX_LINES);
        assert_eq!(
            map(0, &[(1, u32::MAX), (1, 1)]).len(),
            1,
            "more ids than there are"
        );
    }

    #[test]
    fn names_come_from_the_password_file() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\nbad\n:x:5:5\neve:x:1000:1000::/:\n\xff:x:9:9\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("eve"));
        assert_eq!(name_of(passwd, 5), None);
        assert_eq!(name_of(passwd, 6), None);
    }
}
