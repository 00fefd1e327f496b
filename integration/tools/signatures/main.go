// Command signatures records what BuildKit says of the keys and signatures of the crate signature:
//
//	cd integration/tools && go run ./signatures ../../crates/signature/tests/data
//
// It writes verdicts-buildkit, a line for each pair of a key and a signature or signed git object: good or bad, the key, the signature, and
// the error. Keys must be good when they signed.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/buildkit/util/gitutil/gitobject"
	"github.com/moby/buildkit/util/gitutil/gitsign"
	"github.com/moby/buildkit/util/pgpsign"
)

var out bytes.Buffer

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: signatures FOLDER"))
	}
	fail(os.Chdir(os.Args[1]))
	message := read("message")
	keys := list("openpgp/*.pub", "ssh/*.pub")
	for _, key := range keys {
		for _, file := range list("openpgp/*.asc", "ssh/*.sig") {
			if filepath.Dir(key) != filepath.Dir(file) {
				continue
			}
			if filepath.Dir(file) == "openpgp" {
				record(key, file, pgpsign.VerifyArmoredDetachedSignature(bytes.NewReader(message), read(file), read(key), nil))
				continue
			}
			signed := &gitobject.GitObject{Signature: string(read(file)), SignedData: string(message)}
			record(key, file, gitsign.VerifySignature(signed, read(key), nil))
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(string(read("git/ids"))), "\n") {
		words := strings.Fields(line)
		object, err := gitobject.Parse(read("git/" + words[0]))
		fail(err)
		fail(object.VerifyChecksum(words[2]))
		for _, key := range []string{"openpgp/rsa2048.pub", "ssh/ed25519.pub"} {
			record(key, "git/"+words[0], gitsign.VerifySignature(object, read(key), nil))
		}
	}
	fail(os.WriteFile("verdicts-buildkit", out.Bytes(), 0o644))
}

func record(key, file string, err error) {
	if err == nil {
		fmt.Fprintf(&out, "good %s %s\n", key, file)
		return
	}
	fmt.Fprintf(&out, "bad %s %s %s\n", key, file, strings.ReplaceAll(err.Error(), "\n", " "))
}

func list(patterns ...string) []string {
	var all []string
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		fail(err)
		all = append(all, files...)
	}
	sort.Strings(all)
	return all
}

func read(file string) []byte {
	content, err := os.ReadFile(file)
	fail(err)
	return content
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
