use crate::host::{Host, lowered};

/// Dockerfiles that are refused; below the wrong line the carets that people are to see. No carets where nothing can be pointed at.
const REFUSED: &[&str] = &[
    "
FROM alpine
COPY --form=x a b
     ^^^^^^
",
    "
FROM alpine
RUM x
^^^
",
    "
FROM alpine
COPY --chown=1 --chown=2 a b
               ^^^^^^^
",
    "
FROM alpine
COPY --link=maybe a b
     ^^^^^^^^^^^^
",
    "
FROM alpine
COPY --chmod=99 a b
             ^^
",
    "
FROM alpine AS later
COPY --from=new a new
            ^^^
FROM alpine AS new
FROM later
",
    "
FROM alpine
RUN true && \\
  x
RUN --mount=type=cach,target=/x \\
                 ^^^^
  make
",
    "
FROM alpine
RUN --mount=type=cache,target=/x,shared=1 make
                                 ^^^^^^^^
",
    "
FROM --platform=linux/amd64/v1/x alpine
                ^^^^^^^^^^^^^^^^
",
    "
FROM alpine
ENV é=\"${x:y}\"
      ^^^^^^^^
",
    "
FROM alpine
STOPSIGNAL NONE
           ^^^^
",
    "
FROM alpine
HEALTHCHECK CURL x
            ^^^^
",
    "
FROM alpine AS 9lives
               ^^^^^^
",
    "
FROM alpine
COPY a
",
];

#[test]
fn an_error_points_at_the_word_that_is_wrong() {
    for marked in REFUSED {
        let is_mark = |line: &&str| line.contains('^') && line.trim_matches([' ', '^']).is_empty();
        let text: Vec<&str> = marked
            .lines()
            .skip(1)
            .filter(|line| !is_mark(line))
            .collect();
        let error = lowered(&Host::default(), text.join("\n").as_bytes(), "")
            .expect_err("the file is refused");
        let mut annotated = String::new();
        for (number, line) in text.iter().enumerate() {
            annotated.push_str(&format!("\n{line}"));
            // An error may name the same place twice, as the reference's do.
            let mut here: Vec<_> = error.locations.iter().flatten().collect();
            here.dedup();
            for range in here
                .into_iter()
                .filter(|range| range.start.line == number + 1)
            {
                let (start, end) = (range.start.character, range.end.character);
                if start < end {
                    annotated.push_str(&format!(
                        "\n{}{}",
                        " ".repeat(start),
                        "^".repeat(end - start)
                    ));
                }
            }
        }
        assert_eq!(format!("{annotated}\n"), *marked, "{error}");
    }
}
