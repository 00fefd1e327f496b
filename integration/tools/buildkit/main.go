// Command buildkit records what BuildKit and the libraries below it answer, for tests of crates that must answer alike:
//
//	cd integration/tools && go run ./buildkit ../../crates
//
// It writes lists of {in, out, error} into the folders tests/data of the crates. They stay the same as long as BuildKit does.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/moby/patternmatcher"
)

type vector struct {
	In    any    `json:"in"`
	Out   any    `json:"out,omitempty"`
	Error string `json:"error,omitempty"`
}

func record(list *[]vector, in, out any, err error) {
	v := vector{In: in, Out: out}
	if err != nil {
		v.Out, v.Error = nil, err.Error()
	}
	*list = append(*list, v)
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: buildkit CRATES"))
	}
	for file, list := range map[string][]vector{
		"dockerfile/tests/data/words.json":       words(),
		"dockerfile/tests/data/files.json":       files(),
		"llb/tests/data/git.json":                gitAddresses(),
		"llb/tests/data/states.json":             states(),
		"oci/tests/data/platforms.json":          platformTexts(),
		"oci/tests/data/references.json":         references(),
		"pattern/tests/data/patternmatcher.json": patterns(),
	} {
		write(filepath.Join(os.Args[1], file), list)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "buildkit:", err)
		os.Exit(1)
	}
}

func write(path string, list []vector) {
	var out bytes.Buffer
	out.WriteString("[\n")
	for i, v := range list {
		line, err := json.Marshal(v)
		fail(err)
		out.Write(line)
		if i < len(list)-1 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
	}
	out.WriteString("]\n")
	fail(os.MkdirAll(filepath.Dir(path), 0o755))
	fail(os.WriteFile(path, out.Bytes(), 0o644))
}

type env map[string]string

func (e env) Get(key string) (string, bool) {
	value, ok := e[key]
	return value, ok
}

func (e env) Keys() []string {
	var keys []string
	for key := range e {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// words expands words with every setting of the lexer; the table of variables is part of the test.
func words() []vector {
	vars := env{
		"A": "alpha", "E": "", "PATH": "/usr/local/bin:/usr/bin", "F": "archive.tar.gz", "S": "a b  c", "STAR": "a*b?c", "U": "größe",
		"Q": `it's "q"`, "B": `c:\dir\sub`, "REP": "aXbXc", "NUM": "12", "SLASH": "a/b/c",
	}
	var out []vector
	add := func(escape rune, flags string, word string) {
		lex := shell.NewLex(escape)
		lex.RawQuotes = strings.Contains(flags, "q")
		lex.RawEscapes = strings.Contains(flags, "e")
		lex.SkipProcessQuotes = strings.Contains(flags, "p")
		lex.SkipUnsetEnv = strings.Contains(flags, "u")
		in := map[string]string{"escape": string(escape), "flags": flags, "word": word}
		result, err := lex.ProcessWordWithMatches(word, vars)
		if err != nil {
			record(&out, in, nil, err)
			return
		}
		list, err := lex.ProcessWords(word, vars)
		sorted := func(set map[string]struct{}) []string {
			names := []string{}
			for name := range set {
				names = append(names, name)
			}
			sort.Strings(names)
			return names
		}
		if list == nil {
			list = []string{}
		}
		record(&out, in, map[string]any{
			"result": result.Result, "words": list, "matched": sorted(result.Matched), "unmatched": sorted(result.Unmatched),
		}, err)
	}
	names := []string{"A", "E", "N"}
	for _, name := range names {
		for _, form := range []string{
			"$%s", "${%s}", "x${%s}y", "${%s:-d}", "${%s-d}", "${%s:+d}", "${%s+d}", "${%s:-}", "${%s:-$A}", "${%s:-${N:-deep}}",
			"${%s:+$A$E}", "${%s:-'quoted }'}", "${%s:-\"a b\"}", "${%s:-a b}", "'${%s}'", "\"${%s}\"", "\\$%s", "${%s:?}", "${%s?}",
			"${%s:?gone}", "${%s?gone $A}", "${%s#al}", "${%s##*}", "${%s%%pha}", "${%s%%%%*}", "${%s/a/b}", "${%s//a/b}", "${%s:#x}",
			"${%s:%%x}", "${%s:}", "${%s:=x}", "${%s=x}", "${%s^}", "${%s,}", "${%s@x}", "${%s", "${%s:", "${%s:-", "${%s/a", "${%s/a/",
			"${%s/a/b", "${%s#", "$%s$%s", "$%s-x", "$%s.x", "$%s_x", "${%s }", "${ %s}",
		} {
			word := strings.ReplaceAll(form, "%s", name)
			word = strings.ReplaceAll(word, "%%", "%")
			for _, flags := range []string{"", "u"} {
				add('\\', flags, word)
			}
		}
	}
	globs := []string{
		"${PATH#*:}", "${PATH##*:}", "${PATH#*/}", "${PATH##*/}", "${PATH%:*}", "${PATH%%:*}", "${PATH%/*}", "${PATH%%/*}",
		"${F%.*}", "${F%%.*}", "${F#*.}", "${F##*.}", "${F%.tar.gz}", "${F#archive}", "${F#x}", "${F%x}", "${F#?}", "${F%?}", "${F##?*}",
		"${F#}", "${F%}", "${F##}", "${F%%}", "${F/./-}", "${F//./-}", "${F//[abc]/x}", "${F/ar*/x}", "${F//?/x}", "${F/}", "${F//}", "${F/./}",
		"${F//./}", "${F/\\./x}", "${STAR#a\\*}", "${STAR%\\?c}", "${STAR//\\*/x}", "${STAR/'*'/x}", "${STAR/\"?\"/x}", "${STAR//'*b'/x}",
		"${B##*\\\\}", "${B%\\\\*}", "${B//\\\\/\\/}", "${B//\\\\//}", "${SLASH//\\//-}", "${SLASH/\\//-}", "${SLASH%/*}", "${SLASH##*/}",
		"${REP/X/$A}", "${REP//X/$A}", "${REP//X/${N:-y}}", "${REP/$N/x}", "${REP//X/\\}}", "${REP/X/$0}", "${REP//X/$0}", "${REP/X/\\$A}",
		"${U#gr}", "${U%?}", "${U/ö/oe}", "${U//ß/ss}", "${U#*ö}", "${F#$N*}", "${F%$E}", "${F#'*'}", "${F#\"$N\"archive}", "${F#\\a}", "${F#a\\z}",
		"${F/(/x}", "${F/[/x}", "${F/+/x}", "${F/^a/x}", "${F/z$/x}", "${F/|/x}", "${NUM/1/9}", "${NUM#1}", "${S/ /_}", "${S// /_}", "${S%% *}",
	}
	for _, word := range globs {
		for _, flags := range []string{"", "u", "q", "e"} {
			add('\\', flags, word)
		}
	}
	quotes := []string{
		"", " ", "a", "a b", "  a  b ", "'a b'", "\"a b\"", "'a'b", "a'b c'd", "a\"b c\"d", "''", "\"\"", "'' a", "a '' b", "\"\" \"\"", "'\"'", "\"'\"", "\\'",
		"\\\"", "\\\\", "\\", "a\\", "\\a", "\\ a", "a\\ b", "'a\\'b'", "'a\\", "\"a\\\"b\"", "\"a\\b\"", "\"a\\$A\"", "\"a\\\\b\"", "\"\\", "'", "\"", "'a", "\"a",
		"$", "$$", "$ ", "a$", "\"$\"", "$'a'", "$\"a\"", "$1", "$12", "$1a", "$@", "$*", "$#", "$?", "$-", "$!", "$$A", "${1}", "${@}", "${#}", "${}", "${{}", "${:}",
		"${:-a}", "${A", "${A}}", "{A}", "$A$A", "$A'$A'\"$A\"", "$S", "'$S'", "\"$S\"", "x$S", "$S$S", "$Q", "\"$Q\"", "$B", "\\$A\\\\$A", "é", "é ü", "日本 語",
		"\u00a0a\u00a0", "a\tb", "a\nb", "a\rb", "\ufeffa", "<a", "<<a", "<< a b", "a<<b", "<<-a", "<<'a b'", "<<\"a\" c", "< <a", "<<", "<<<a", "3<<a b",
		"a;b", "a|b", "a&b", "`a`", "`$A`", "a=b", "a=\"b c\" d='e f'", "#a", "~", "*", "[a]", "$U", "$GRÖSSE", "${GRÖSSE:-g}", "$A_", "$A1", "$A-1",
	}
	for _, word := range quotes {
		for _, flags := range []string{"", "q", "e", "qe", "p", "u", "qeu"} {
			add('\\', flags, word)
		}
		add('`', "", word)
		add('`', "qe", word)
	}
	for _, word := range []string{"`$A", "a`b", "``", "`", "\"`$A\"", "\"`\"\"", "\"a`b\"", "'`'", "c:\\dir\\$A", "${N:-c:\\x}", "${N:-a`}b}", "${B#c:\\}", "${B##*\\}", "${B//\\//}"} {
		for _, flags := range []string{"", "e", "u"} {
			add('`', flags, word)
		}
	}
	return out
}

// files parses whole Dockerfiles: the tree, the warnings, and what the instructions say.
func files() []vector {
	var out []vector
	for _, text := range dockerfiles {
		tree, err := parser.Parse(strings.NewReader(text))
		if err != nil {
			record(&out, text, nil, err)
			continue
		}
		warnings := []string{}
		for _, w := range tree.Warnings {
			warnings = append(warnings, w.Short)
		}
		lines := [][]int{}
		for _, node := range tree.AST.Children {
			lines = append(lines, []int{node.StartLine, node.EndLine})
		}
		docs := []string{}
		for _, node := range tree.AST.Children {
			for _, doc := range node.Heredocs {
				docs = append(docs, fmt.Sprintf("%s %d %t %t %s", doc.Name, doc.FileDescriptor, doc.Expand, doc.Chomp, doc.Content))
			}
		}
		answer := map[string]any{
			"tree": tree.AST.Dump(), "escape": string(tree.EscapeToken), "warnings": warnings, "lines": lines, "heredocs": docs,
		}
		stages, args, err := instructions.Parse(tree.AST, nil)
		if err != nil {
			answer["refused"] = err.Error()
		} else {
			names := []string{}
			for range args {
				names = append(names, "ARG")
			}
			for _, stage := range stages {
				names = append(names, fmt.Sprintf("FROM %s AS %q ON %q", stage.BaseName, stage.Name, stage.Platform))
				for _, command := range stage.Commands {
					names = append(names, strings.ToUpper(command.Name()))
				}
			}
			answer["instructions"] = names
		}
		record(&out, text, answer, nil)
	}
	return out
}

func gitAddresses() []vector {
	var out []vector
	for _, text := range addresses {
		answer := map[string]any{"transport": gitutil.IsGitTransport(text)}
		if u, err := gitutil.ParseURL(text); err == nil {
			opts := gitutil.GitURLOpts{}
			if u.Opts != nil {
				opts = *u.Opts
			}
			user := ""
			if u.User != nil {
				user = u.User.String()
			}
			answer["url"] = map[string]any{
				"scheme": u.Scheme, "host": u.Host, "path": u.Path, "user": user, "remote": u.Remote, "ref": opts.Ref, "subdir": opts.Subdir,
			}
		} else {
			answer["refused"] = true
		}
		ref, is, err := dfgitutil.ParseGitRef(text)
		switch {
		case is && err != nil:
			answer["query"] = err.Error()
		case err == nil:
			flag := func(b *bool) string {
				if b == nil {
					return ""
				}
				return fmt.Sprint(*b)
			}
			answer["gitref"] = map[string]any{
				"remote": ref.Remote, "ref": ref.Ref, "subdir": ref.SubDir, "checksum": ref.Checksum, "local": ref.IndistinguishableFromLocal,
				"keep": flag(ref.KeepGitDir), "submodules": flag(ref.Submodules), "mtime": ref.MTime, "bycommit": ref.FetchByCommit,
			}
		}
		record(&out, text, answer, nil)
	}
	return out
}

func platformTexts() []vector {
	var out []vector
	for _, text := range []string{
		"linux/amd64", "linux/amd64/v1", "linux/amd64/v2", "linux/x86_64", "linux/x86-64", "linux/AMD64", "LINUX/amd64", "linux/arm64", "linux/arm64/v8", "linux/arm64/8",
		"linux/aarch64", "linux/arm64/v9", "linux/arm", "linux/arm/v7", "linux/arm/7", "linux/arm/v6", "linux/arm/5", "linux/armhf", "linux/armel", "linux/arm/v8",
		"linux/386", "linux/i386", "linux/ppc64le", "linux/s390x", "linux/riscv64", "linux/mips64le", "linux/loong64", "windows/amd64", "windows(10.0.17763)/amd64",
		"windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+b+a)/amd64", "windows(10%2E0)/amd64", "windows(%zz)/amd64", "windows(10.0+%z)/amd64", "windows()/amd64",
		"darwin/arm64", "macos/amd64", "freebsd/amd64", "wasip1/wasm", "js/wasm", "linux/amd64/v3/x", "a/b/c/d", "linux/", "/amd64", "linux//v7", "", "linux/amd 64",
		"li nux/amd64", "linux/amd64/v 1", "*", "linux/*", "linux/amd64*", "nope", "nope/nope", "unknown/unknown", "linux/arm/v7/extra", "linux(1.0/amd64", "linux)/amd64",
		"linux(1.0)", "windows(10.0.1)(x)/amd64", "ü/amd64", "linux/ü", "linux\n/amd64", "linux/arm/v7\x00",
	} {
		p, err := platforms.Parse(text)
		record(&out, text, map[string]string{
			"os": p.OS, "arch": p.Architecture, "variant": p.Variant, "version": p.OSVersion, "features": strings.Join(p.OSFeatures, "+"),
			"format": platforms.Format(p), "all": platforms.FormatAll(p), "normal": platforms.FormatAll(platforms.Normalize(p)),
		}, err)
	}
	// Which images a builder may take, best first.
	have := []string{
		"linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386", "linux/arm64", "linux/arm64/v9", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8",
		"linux/ppc64le", "windows/amd64", "windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64", "darwin/arm64", "unknown/unknown",
	}
	for _, want := range []string{"linux/amd64", "linux/amd64/v2", "linux/arm64", "linux/arm64/v9", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8", "linux/386", "linux/ppc64le", "darwin/arm64"} {
		matcher := platforms.Only(platforms.MustParse(want))
		matches := []string{}
		for _, text := range have {
			if matcher.Match(platforms.MustParse(text)) {
				matches = append(matches, text)
			}
		}
		sort.SliceStable(matches, func(i, j int) bool {
			return matcher.Less(platforms.MustParse(matches[i]), platforms.MustParse(matches[j]))
		})
		record(&out, map[string]any{"want": want, "have": have}, matches, nil)
	}
	return out
}

func references() []vector {
	const hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	var out []vector
	for _, text := range []string{
		"alpine", "alpine:3", "library/alpine", "docker.io/alpine", "docker.io/library/alpine:latest", "index.docker.io/alpine", "index.docker.io/library/alpine:3",
		"user/image", "user/image:tag", "docker.io/user/image", "ghcr.io/a/b/c:tag", "localhost/x", "localhost:5000/x", "localhost:5000/x:tag", "LOCALHOST/x", "host.tld/x",
		"host.tld:443/x:y", "[::1]/x", "[::1]:5000/x:y", "[2001:db8::1]/a/b", "127.0.0.1/x", "127.0.0.1:80/x", "Host/x", "HOST/x", "HOST.TLD/x", "a.b", "a.b/c", "a:5000", "a:5000/b",
		"alpine@sha256:" + hex, "alpine:3@sha256:" + hex, "docker.io/library/alpine:3@sha256:" + hex, "host/x@sha256:" + hex, "alpine@sha256:" + hex[:60], "alpine@md5:" + hex[:32],
		"alpine@sha512:" + hex, "alpine@sha256:" + strings.ToUpper(hex), "sha256:" + hex, hex, "@sha256:" + hex, "alpine@", "alpine:", "alpine:@sha256:" + hex, "", " ", "a b", "alpine ", " alpine",
		"Alpine", "user/Image", "a//b", "/a", "a/", "a..b", "a.-b", "a__b", "a___b", "a--b", "a---b", "-a", "a-", "_a", "a_", ".a", "a.", "a:.tag", "a:-tag", "a:_tag", "a:Tag.1-x_y", "a:tag:tag",
		"a:tag/x", "a:" + strings.Repeat("t", 128), "a:" + strings.Repeat("t", 129), strings.Repeat("n", 255), strings.Repeat("n", 256), "library/" + strings.Repeat("n", 247),
		"http://a/b", "a/b?c", "a/b#c", "é/x", "ä", "scratch", "a\n", "a\x00", "docker.io/", "docker.io", "docker.io:443/x", "[::1", "[fe80::1%eth0]/x", "a/" + strings.Repeat("b/", 100) + "c",
	} {
		ref, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			record(&out, text, nil, err)
			continue
		}
		tagged := reference.TagNameOnly(ref)
		record(&out, text, map[string]string{
			"name": ref.Name(), "domain": reference.Domain(ref), "path": reference.Path(ref), "familiar": reference.FamiliarString(ref), "text": ref.String(), "tagged": tagged.String(),
		}, nil)
	}
	return out
}

func patterns() []vector {
	paths := []string{
		"a", "b", "a/b", "a/b/c", "b/a", "a.txt", "dir/a.txt", "dir/sub/a.txt", "dir", "dir/sub", "dir/sub/x.go", "x.go", ".git", ".git/config", "sub/.git", "node_modules/x", "p/node_modules/x",
		"a b", "[a]", "a*b", "a?b", "a\\b", "é", "é/x", "aa", "ab", "abc", "Makefile", "..a", "foo-bar", "foo/bar-baz/x",
	}
	var out []vector
	for _, list := range [][]string{
		{"a"}, {"a/b"}, {"a/"}, {"/a"}, {"./a"}, {"a/../b"}, {"*"}, {"**"}, {"*/*"}, {"**/a"}, {"**/*.txt"}, {"*.txt"}, {"dir/*"}, {"dir/**"}, {"dir/**/a.txt"}, {"dir/**/*.go"}, {"**/sub"},
		{"**/sub/**"}, {"a?"}, {"a*"}, {"?"}, {"??"}, {"[ab]"}, {"[a-c]"}, {"[^a]"}, {"[!a]"}, {"a[b]"}, {"\\[a\\]"}, {"a\\*b"}, {"a\\?b"}, {"a\\\\b"}, {"é"}, {"é/*"}, {"?/x"}, {".git"}, {"**/.git"},
		{"**/node_modules"}, {"node_modules"}, {"dir", "!dir/sub"}, {"dir", "!dir/sub", "dir/sub/x.go"}, {"*", "!a"}, {"**", "!a/b"}, {"!a"}, {"a", "!a", "a"}, {"*", "!*.txt"}, {"**", "!**/*.txt"},
		{"dir/*", "!dir/a.txt"}, {"a.txt", "!a.txt"}, {"foo-*"}, {"foo/bar-*"}, {"f*/b*-baz"}, {"**/**"}, {"**/**/a"}, {"a/**/b"}, {"a/**"}, {"**a"}, {"a**"}, {"a**/c"}, {"d**r"}, {"Make*"}, {"make*"}, {"..a"}, {"."}, {""}, {" a "}, {"a", ""},
		{"["}, {"[]"}, {"[a"}, {"[a-"}, {"a\\"}, {"[z-a]"}, {"!"}, {"a", "!"}, {"[^"}, {"!["}, {"a\\[b"}, {"(a|b)"}, {"a.b"}, {"a+"}, {"^a"}, {"a$"}, {"{a,b}"},
	} {
		matcher, err := patternmatcher.New(list)
		if err != nil {
			record(&out, list, nil, err)
			continue
		}
		answer := map[string]any{"exclusions": matcher.Exclusions()}
		parents, whole := []string{}, []string{}
		for _, path := range paths {
			if yes, err := matcher.MatchesOrParentMatches(path); err == nil && yes {
				parents = append(parents, path)
			}
			if yes, _, err := matcher.MatchesUsingParentResults(path, patternmatcher.MatchInfo{}); err == nil && yes {
				whole = append(whole, path)
			}
		}
		answer["with_parents"], answer["alone"] = parents, whole
		record(&out, map[string]any{"patterns": list, "paths": paths}, answer, nil)
	}
	return out
}
