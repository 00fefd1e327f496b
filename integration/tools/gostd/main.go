// Command gostd records what Go answers, for the tests of the crate gostd:
//
//	cd integration/tools && go run ./gostd ../../crates/gostd
//
// It writes tests/vectors.json, a list of {func, in, out, error}, and src/strconv/print.rs, the characters that Go
// prints as they are. Both stay the same as long as Go does.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tonistiigi/go-csvvalue"
)

type vector struct {
	Func  string `json:"func"`
	In    any    `json:"in"`
	Out   any    `json:"out,omitempty"`
	Error string `json:"error,omitempty"`
}

var vectors []vector

func record(name string, in, out any, err error) {
	v := vector{Func: name, In: in, Out: out}
	if err != nil {
		v.Out, v.Error = nil, err.Error()
	}
	vectors = append(vectors, v)
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: gostd CRATE"))
	}
	booleans()
	quotes()
	paths()
	durations()
	timestamps()
	escapes()
	csv()
	documents()

	var out bytes.Buffer
	out.WriteString("[\n")
	for i, v := range vectors {
		line, err := json.Marshal(v)
		fail(err)
		out.Write(line)
		if i < len(vectors)-1 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
	}
	out.WriteString("]\n")
	fail(os.WriteFile(filepath.Join(os.Args[1], "tests/vectors.json"), out.Bytes(), 0o644))
	fail(os.WriteFile(filepath.Join(os.Args[1], "src/strconv/print.rs"), printable(), 0o644))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gostd:", err)
		os.Exit(1)
	}
}

func booleans() {
	for _, in := range []string{
		"1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False",
		"", "yes", "no", "on", "tRUE", "TRue", " true", "true ", "2", "01", "a\"b", "\u00e9",
	} {
		out, err := strconv.ParseBool(in)
		record("strconv.ParseBool", in, out, err)
	}
}

func quotes() {
	for _, in := range []string{
		"", "plain", "two words", `"`, `\`, "'", "`", "\a\b\f\n\r\t\v", "\x00\x01\x1f\x7f", "\u0080\u009f\u00a0\u00ad",
		"é", "日本", "\u200b\u2028\u2029\ufeff\ufffd", "\U0001f600", "\ue000\uf8ff", "\u0378", "\U00010fff", "\U000e0001",
		"\U0010fffd", "\u3000", "a\u0301",
	} {
		record("strconv.Quote", in, strconv.Quote(in), nil)
	}
	for _, in := range [][]string{{}, {"a"}, {"a b", "c\"", "\n"}} {
		record("%q", in, fmt.Sprintf("%q", in), nil)
	}
}

func paths() {
	all := []string{
		"", ".", "..", "/", "//", "///", "./", "../", "/.", "/..", "/./", "/../", "a", "a/", "/a", "/a/", "a//b", "//a//b//",
		"a/./b", "a/../b", "a/..", "a/../..", "a/../../b", "../a", "../../a", "/../a", "/../../a", "/a/..", "/a/../..",
		"/a/b/../../..", "./a/./b/.", "abc/def/../ghi", "...", "/...", "..a/b", "a../b", "!./a/", "a/b/../../..", "./..",
		".././../x", "/a b/c\n", "é/../ü",
	}
	for _, in := range all {
		record("path.Clean", in, path.Clean(in), nil)
		record("path.Base", in, path.Base(in), nil)
		record("path.Dir", in, path.Dir(in), nil)
		record("path.IsAbs", in, path.IsAbs(in), nil)
		record("path.Join", []string{"/", in}, path.Join("/", in), nil)
		record("path.Join", []string{in, "x/../y"}, path.Join(in, "x/../y"), nil)
	}
	for _, in := range [][]string{{}, {""}, {"", ""}, {"a", "", "b"}, {"", "a"}, {"/", "", "../b/"}, {"a", "/b"}} {
		record("path.Join", in, path.Join(in...), nil)
	}
}

func durations() {
	for _, in := range []string{
		"0", "+0", "-0", "0s", "5s", "30s", "1478s", "-5s", "+5s", "5.0s", "5.6s", "5.s", ".5s", "1.0s", "1.00s", "1.004s",
		"1.0040s", "100.00100s", "10ns", "11us", "12µs", "12μs", "13ms", "14s", "15m", "16h", "3h30m", "10.5s4m",
		"-2m3.4s", "1h2m3s4ms5us6ns", "39h9m14.425s", "52763797000ns", "0.3333333333333333333h", "9007199254740993ns",
		"9223372036854775807ns", "9223372036854775.807us", "9223372036s854ms775us807ns", "-9223372036854775808ns",
		"-9223372036854775.808us", "-9223372036s854ms775us808ns", "0.100000000000000000000h",
		"0.830103483285477580700h", "0.7ms", "1.1ns", "0.9ns", "2562047h47m16.854775807s",
		"", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", "7d", "1w", "1 s", " 1s", "1s ", "1h 30m", "1H", "\x01s", "é1s", "1é",
		"9223372036854775808ns", "9223372036854775.808us", "9223372036854ms775us808ns", "-9223372036854775809ns",
		"3000000h", "99999999999999999999h", "99999999999999999999", "1e3s", "0x10s", "1..5s", "1.5", "1h30", "--1s", "+-1s",
		"1s-1s", "nans", "infs",
	} {
		out, err := time.ParseDuration(in)
		record("time.ParseDuration", in, int64(out), err)
	}
	for _, in := range []int64{
		0, 1, 100, 999, 1000, 1100, 1_234_000, 2_200_000, 3_300_000_000, 20_000_000, 999_999_999, 1_000_000_000, 1_500_000_000,
		30_000_000_000, 90_000_000_000, 245_000_000_000, 245_001_000_000, 3_600_000_000_000, 18_367_001_000_000,
		480_000_000_001, 1<<63 - 1, -1 << 63, -1, -1_500_000_000,
	} {
		// As text: a double does not hold them all.
		record("time.Duration.String", strconv.FormatInt(in, 10), time.Duration(in).String(), nil)
	}
}

func timestamps() {
	for _, in := range []string{
		"1970-01-01T00:00:00Z", "2024-02-29T23:59:59.120000000Z", "2023-11-05T01:02:03.000000001+00:00",
		"2023-11-05T01:02:03+05:30", "2023-11-05T01:02:03-08:00", "0001-01-01T00:00:00Z", "2100-03-01T00:00:00.0Z",
		"9999-12-31T23:59:59Z", "1969-12-31T23:59:59.5Z", "2000-02-29T00:00:00Z", "1900-02-28T12:00:00Z",
		"2026-01-02T03:04:05.000000006Z", "0000-01-01T00:00:00Z", "1600-02-29T00:00:00Z", "2023-12-31T24:00:00Z",
		"", "2024-02-30T00:00:00Z", "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2024-13-01T00:00:00Z",
		"2024-00-01T00:00:00Z", "2024-01-00T00:00:00Z", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00",
		"2024-01-01T00:00:00.Z", "2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z", "2024-01-01T00:00:60Z",
		"2024-01-01t00:00:00z", "2024-1-1T00:00:00Z", "2024-01-01T00:00:00+0100", "2024-01-01T00:00:00+01",
		"24-01-01T00:00:00Z", "2024-01-01T00:00:00Z ", "+2024-01-01T00:00:00Z",
	} {
		at, err := time.Parse(time.RFC3339, in)
		if err != nil {
			// The words are not kept: nobody is shown them.
			err = fmt.Errorf("no time")
		}
		record("time.Parse", in, []string{at.Format(time.RFC3339Nano), strconv.FormatInt(at.Unix(), 10)}, err)
	}
	for _, seconds := range []int64{
		0, 1, -1, 1_234_567_890, 951_782_400, 951_868_799, 951_868_800, 4_107_542_400, -2_208_988_800, -62_135_596_800,
		253_402_300_799, 1_700_000_001,
	} {
		record("time.Unix", strconv.FormatInt(seconds, 10), time.Unix(seconds, 0).UTC().Format(time.RFC3339), nil)
	}
}

func escapes() {
	for _, in := range []string{"", "plain", "a b", "a+b", "ünïcode/%+&", "tab\there", "-_.~", "!*'();:@&=$,/?#[]", "\x00\x7f"} {
		record("url.QueryEscape", in, url.QueryEscape(in), nil)
	}
	for _, in := range []string{
		"", "plain", "a+b", "a%20b", "%C3%A4", "%c3%a4", "%2B+%2b", "100%", "%", "%2", "%zz", "%2g", "a%2", "%%20", "é%20", "%C3", "%é",
	} {
		out, err := url.QueryUnescape(in)
		record("url.QueryUnescape", in, []byte(out), err)
		out, err = url.PathUnescape(in)
		record("url.PathUnescape", in, []byte(out), err)
	}
}

func csv() {
	for _, in := range []string{
		"", "a", "a,b", "a,", ",", ",,", "type=local,dest=out", `"a,b",c`, `"a,b",c"`, `"a,""b",c`, `"a`, `a"b`, `a,b"c`, `"a"b`,
		`"a",`, `""`, `"",""`, `"a" ,b`, ` "a"`, "a\n", "a\r\n", "\n", "a b, c", `"name=x,y",push=true`, `é,"`, "a\rb",
	} {
		out, err := csvvalue.Fields(in, nil)
		if out == nil {
			out = []string{}
		}
		record("csvvalue.Fields", in, out, err)
	}
}

func documents() {
	for _, in := range []string{"a<b>&\u2028\u2029\n\b\f\x01\x1f\u00e9\u007f\"\\/", "", "日本", "\U0001f600"} {
		out, err := json.Marshal(in)
		record("json.Marshal", in, string(out), err)
	}
	for _, in := range []string{
		`{}`, ` { "a" : [ 1 , 2 ] } `, `{"a":}`, `{"a":1,}`, `[1,]`, `tru`, `nul`, `"`, `"\x"`, `01`, `1.`, `-`, `1e`, `{"a" 1}`, `{a:1}`,
		`[1 2]`, `{}x`, ``, `"\ud800"`, "\"\t\"", `{"a":1}{`, `"\`, `"\u00`, `"a`, `[`, `{"a"`, `{"a":`, `t`,
	} {
		var value any
		err := json.Unmarshal([]byte(in), &value)
		out, _ := json.Marshal(value)
		record("json.Unmarshal", in, string(out), err)
	}
}

// printable writes the first character of each range that Go prints, and the first one after it.
func printable() []byte {
	var bounds []string
	printed := false
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if is := strconv.IsPrint(r); is != printed {
			printed = is
			bounds = append(bounds, fmt.Sprintf("%#x", r))
		}
	}
	if printed {
		bounds = append(bounds, fmt.Sprintf("%#x", utf8.MaxRune+1))
	}
	var out bytes.Buffer
	out.WriteString("//! The characters that Go prints as they are; written by integration/tools/gostd.\n\n")
	out.WriteString("/// Where ranges of such characters begin and where they have ended, in turn.\n")
	out.WriteString("#[rustfmt::skip]\n")
	out.WriteString("pub(super) const BOUNDS: &[u32] = &[\n")
	for len(bounds) > 0 {
		line := bounds[:min(12, len(bounds))]
		bounds = bounds[len(line):]
		out.WriteString("    " + strings.Join(line, ", ") + ",\n")
	}
	out.WriteString("];\n")
	return out.Bytes()
}
