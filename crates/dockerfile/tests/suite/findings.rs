//! Lint rules: when each is told, where, and how it is kept quiet.

use crate::world::check;

#[test]
fn names_of_stages() {
    check(&[
        (
            "warnings only",
            r"
FROM alpine AS Base
",
            r"
StageNameCasing: Stage name 'Base' should be lowercase (line 1)
",
        ),
        (
            "warnings only",
            r"
FROM alpine AS base
",
            "",
        ),
        (
            "warnings only",
            r"
FROM alpine as base
",
            r"
FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)
",
        ),
        (
            "warnings only",
            r"
from alpine AS base
",
            r"
FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)
",
        ),
        (
            "warnings only",
            r"
from alpine as base
",
            "",
        ),
        (
            "warnings only",
            r"
FROM alpine AS a
FROM alpine AS a
",
            r#"
DuplicateStageName: Duplicate stage name "a", stage names should be unique (line 2)
"#,
        ),
        (
            "warnings only",
            r"
FROM alpine AS scratch
FROM alpine AS context
",
            r#"
ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 1)
ReservedStageName: Stage name should not use the same name as reserved stage "context" (line 2)
"#,
        ),
        (
            "warnings only check=skip=StageNameCasing",
            r"
FROM alpine AS Base
",
            "",
        ),
        (
            "warnings only",
            r"
# check=skip=StageNameCasing
FROM alpine AS Base
",
            "",
        ),
        (
            "warnings only",
            r"
FROM scratch

# check=skip=StageNameCasing
FROM alpine AS Base
",
            "",
        ),
    ]);
}

#[test]
fn casing_and_continuations() {
    check(&[
        (
            "warnings only",
            r"
FROM alpine
run x
RUN y
",
            r"
ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 2)
",
        ),
        (
            "warnings only",
            r"
from alpine
run x
RUN y
",
            r"
ConsistentInstructionCasing: Command 'RUN' should match the case of the command majority (lowercase) (line 3)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
Run x
",
            r"
ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 2)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
RUN x \

  y
",
            r"
NoEmptyContinuation: Empty continuation line (line 4)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
RUN x \
# comment
  y
",
            "",
        ),
        (
            "warnings only",
            r"
# check=skip=ConsistentInstructionCasing,NoEmptyContinuation
FROM alpine
run x \

  y
",
            "",
        ),
    ]);
}

#[test]
fn forms_of_commands() {
    check(&[
        (
            "warnings only",
            r"
FROM alpine
CMD x
ENTRYPOINT y
",
            r"
JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)
JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals (line 3)
",
        ),
        (
            "warnings only",
            r#"
FROM alpine
CMD ["x"]
ENTRYPOINT ["y"]
"#,
            "",
        ),
        (
            "warnings only",
            r#"
FROM alpine
SHELL ["sh", "-c"]
CMD x
"#,
            "",
        ),
        (
            "warnings only",
            r"
FROM alpine
MAINTAINER me
",
            r"
MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
ENV a b
ENV c=d
LABEL e f
",
            r#"
LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)
LegacyKeyValueFormat: "LABEL key=value" should be used instead of legacy "LABEL key value" format (line 4)
"#,
        ),
        (
            "warnings only",
            r#"
FROM alpine
CMD ["a"]
CMD ["b"]
ENTRYPOINT ["c"]
ENTRYPOINT ["d"]
HEALTHCHECK NONE
HEALTHCHECK CMD x
"#,
            r"
MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)
MultipleInstructionsDisallowed: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used (line 4)
MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used (line 6)
",
        ),
        (
            "warnings only",
            r#"
FROM alpine AS a
CMD ["a"]
FROM a
CMD ["b"]
"#,
            "",
        ),
    ]);
}

#[test]
fn variables() {
    check(&[
        (
            "warnings only",
            r"
FROM alpine
COPY $x /y
",
            r"
UndefinedVar: Usage of undefined variable '$x' (line 2)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
ARG FOO=1
COPY $FO /y
",
            r"
UndefinedVar: Usage of undefined variable '$FO' (did you mean $FOO?) (line 3)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
COPY ${x:-y} /y
",
            r"
UndefinedVar: Usage of undefined variable '$x' (line 2)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
RUN echo $x
",
            "",
        ),
        (
            "warnings only",
            r"
FROM alpine:$TAG
",
            r#"
error: failed to parse stage name "alpine:": invalid reference format [1]
InvalidDefaultArgInFrom: Default value for ARG alpine:$TAG results in empty or invalid base image name (line 1)
UndefinedArgInFrom: FROM argument 'TAG' is not declared (line 1)
"#,
        ),
        (
            "warnings only",
            r"
ARG TAG
FROM alpine:$TAG
",
            r#"
error: failed to parse stage name "alpine:": invalid reference format [2]
InvalidDefaultArgInFrom: Default value for ARG alpine:$TAG results in empty or invalid base image name (line 2)
"#,
        ),
        (
            "warnings only",
            r"
ARG VERSION=3
FROM alpine:${VERSIO:-2}
",
            r"
UndefinedArgInFrom: FROM argument 'VERSIO' is not declared (did you mean VERSION?) (line 2)
",
        ),
        (
            "warnings only",
            r"
ARG BASE
FROM $BASE
",
            r"
error: base name ($BASE) should not be blank [2]
InvalidDefaultArgInFrom: Default value for ARG $BASE results in empty or invalid base image name (line 2)
",
        ),
        (
            "warnings only arg:BASE=alpine",
            r"
ARG BASE
FROM $BASE
",
            r"
InvalidDefaultArgInFrom: Default value for ARG $BASE results in empty or invalid base image name (line 2)
",
        ),
        (
            "warnings only",
            r"
FROM alpine
ARG TARGETPLATFORM
COPY $TARGETPLATFORM /x
",
            "",
        ),
        (
            "warnings only",
            r"
FROM alpine
ENV A=$A
",
            r"
UndefinedVar: Usage of undefined variable '$A' (line 2)
",
        ),
    ]);
}

#[test]
fn secrets_in_names() {
    check(&[
        (
            "warnings only",
            r"
FROM alpine
ARG TOKEN
ENV API_KEY=x
ENV PASSWORD=y
ARG GITHUB_TOKEN=z
",
            r#"
SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "TOKEN") (line 2)
SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "API_KEY") (line 3)
SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "PASSWORD") (line 4)
SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "GITHUB_TOKEN") (line 5)
"#,
        ),
        (
            "warnings only",
            r"
FROM alpine
ARG KEYBOARD
ENV TOKENS=x
ENV PUBLIC_KEY=y
ENV KEY_FILE=z
ENV SECRET_VERSION=1
",
            "",
        ),
        (
            "warnings only",
            r"
FROM alpine
# check=skip=SecretsUsedInArgOrEnv
ARG TOKEN
ARG SECRET
",
            r#"
SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "SECRET") (line 4)
"#,
        ),
    ]);
}

#[test]
fn platforms() {
    check(&[
        (
            "warnings only",
            r"
FROM --platform=linux/arm64 alpine
",
            r#"
FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/arm64" (line 1)
"#,
        ),
        (
            "warnings only",
            r"
FROM --platform=linux/arm64 alpine AS build_arm64
",
            "",
        ),
        (
            "warnings only",
            r"
FROM --platform=$BUILDPLATFORM alpine
",
            "",
        ),
        (
            "warnings only",
            r"
FROM --platform=$TARGETPLATFORM alpine
",
            r"
RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)
",
        ),
        (
            "warnings only",
            r"
ARG P=linux/arm64
FROM --platform=$P alpine
",
            "",
        ),
    ]);
}

#[test]
fn directories() {
    check(&[
        (
            "warnings only",
            r"
FROM alpine
WORKDIR app
",
            r#"
WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes (line 2)
"#,
        ),
        (
            "warnings only",
            r"
FROM alpine
WORKDIR /app
WORKDIR sub
",
            "",
        ),
        (
            "warnings only",
            r"
FROM full
WORKDIR sub
",
            r#"
WorkdirRelativePath: Relative workdir "sub" can have unexpected results if the base image changes (line 2)
"#,
        ),
        (
            "warnings only",
            r"
FROM scratch
WORKDIR app
WORKDIR more
",
            r#"
WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes (line 2)
"#,
        ),
    ]);
}

#[test]
fn ignored_files() {
    check(&[
        (
            "warnings only ignore=*.log",
            r"
FROM alpine
COPY a.log /b
ADD c.log /d
COPY e /f
",
            r#"
CopyIgnoredFile: Attempting to Copy file "a.log" that is excluded by .dockerignore (line 2)
CopyIgnoredFile: Attempting to Add file "c.log" that is excluded by .dockerignore (line 3)
"#,
        ),
        (
            "warnings only ignore=*.log,!keep.log",
            r"
FROM alpine
COPY a.log /b
",
            "",
        ),
        (
            "warnings only ignore=dir",
            r"
FROM alpine
COPY dir/x /b
COPY . /c
",
            r#"
CopyIgnoredFile: Attempting to Copy file "dir/x" that is excluded by .dockerignore (line 2)
"#,
        ),
        (
            "warnings only ignore=**",
            r"
FROM alpine
COPY . /c
",
            r#"
CopyIgnoredFile: Attempting to Copy file "." that is excluded by .dockerignore (line 2)
"#,
        ),
        (
            "warnings only ignore=x",
            r"
FROM alpine AS a
FROM alpine
COPY --from=a x /b
",
            "",
        ),
        (
            "warnings only ignore=[",
            r"
FROM alpine
",
            r"
error: syntax error in pattern []
",
        ),
    ]);
}

#[test]
fn comments_that_describe() {
    check(&[
        (
            "warnings only check=experimental=all",
            r"
# nothing
FROM alpine AS base
# foo sets x
ARG foo
# wrong
ARG bar
# base is it
FROM alpine AS base2
",
            r"
InvalidDefinitionDescription: Comment for FROM should follow the format: `# base <description>` (line 2)
InvalidDefinitionDescription: Comment for ARG should follow the format: `# bar <description>` (line 6)
InvalidDefinitionDescription: Comment for FROM should follow the format: `# base2 <description>` (line 8)
",
        ),
        (
            "warnings only",
            r"
# nothing
FROM alpine AS base
",
            "",
        ),
        (
            "warnings only check=experimental=InvalidDefinitionDescription",
            r"
# base is the start
FROM alpine AS base
",
            "",
        ),
    ]);
}

#[test]
fn findings_can_fail_a_build() {
    check(&[
        (
            "warnings check=error=true",
            r"
FROM alpine AS Base
MAINTAINER me
",
            r"
error: lint violation found for rules: MaintainerDeprecated, StageNameCasing []
StageNameCasing: Stage name 'Base' should be lowercase (line 1)
MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)
",
        ),
        (
            "warnings check=error=true",
            r"
FROM alpine AS base
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/1] FROM docker.io/library/alpine:latest
",
        ),
        (
            "warnings",
            r"
# check=error=true
FROM alpine AS Base
",
            r"
error: lint violation found for rules: StageNameCasing []
StageNameCasing: Stage name 'Base' should be lowercase (line 2)
",
        ),
        (
            "warnings",
            r"
# check=skip=all;error=true
FROM alpine AS Base
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/1] FROM docker.io/library/alpine:latest
",
        ),
        (
            "warnings",
            r"
# check=nope=1
FROM alpine
",
            r#"
error: failed to parse check options: invalid check option "nope" []
"#,
        ),
        (
            "warnings",
            r"
# check=error=perhaps
FROM alpine
",
            r#"
error: failed to parse check options: failed to parse check option "error=perhaps": strconv.ParseBool: parsing "perhaps": invalid syntax []
"#,
        ),
    ]);
}
