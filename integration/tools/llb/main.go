// Command llb asks a daemon what its Dockerfile frontend makes of Dockerfiles, without running any of it.
//
// It reads cases as JSON from its input and writes, for each, the steps of the definitions, the metadata of the result,
// the warnings and the error. What differs from one client to the next (the id of the session) is replaced by a fixed
// text of the same length, and the digests that follow from it are made anew, so that two answers can be compared.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/protobuf/encoding/protojson"
)

type testCase struct {
	Name  string            `json:"name"`
	Opts  map[string]string `json:"opts"`
	Files map[string]string `json:"files"`
}

type step struct {
	Digest string          `json:"digest"`
	Name   string          `json:"name"`
	Op     json.RawMessage `json:"op"`
	More   string          `json:"more"`
}

type answer struct {
	Name     string            `json:"name"`
	Error    string            `json:"error"`
	Marked   []string          `json:"marked"`
	Warnings []string          `json:"warnings"`
	Metadata map[string]string `json:"metadata"`
	Refs     map[string][]step `json:"refs"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "llb:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: llb ADDRESS < cases.json")
	}
	var cases []testCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		return err
	}
	ctx := context.Background()
	c, err := client.New(ctx, os.Args[1])
	if err != nil {
		return err
	}
	defer c.Close()
	// The daemon may have been started a moment ago.
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.Wait(patience); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, tc := range cases {
		a, err := ask(ctx, c, tc)
		if err != nil {
			return fmt.Errorf("%s: %w", tc.Name, err)
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

func ask(ctx context.Context, c *client.Client, tc testCase) (*answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("no answer within a minute"))
	defer cancel()
	dir, err := os.MkdirTemp("", "llb")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range tc.Files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, err
	}
	a := &answer{Name: tc.Name, Metadata: map[string]string{}, Refs: map[string][]step{}}
	status := make(chan *client.SolveStatus)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for s := range status {
			for _, w := range s.Warnings {
				a.Warnings = append(a.Warnings, warning(w))
			}
		}
	}()
	_, err = c.Build(ctx, client.SolveOpt{
		LocalMounts:   map[string]fsutil.FS{"context": fs, "dockerfile": fs, "other": fs},
		FrontendAttrs: tc.Opts,
	}, "", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		session := g.BuildOpts().SessionID
		res, err := g.Solve(ctx, gateway.SolveRequest{Frontend: "dockerfile.v0", FrontendOpt: tc.Opts})
		if err != nil {
			return nil, err
		}
		for key, value := range res.Metadata {
			a.Metadata[key] = string(value)
		}
		refs := map[string]gateway.Reference{}
		for key, ref := range res.Refs {
			refs[key] = ref
		}
		if res.Ref != nil {
			refs[""] = res.Ref
		}
		for key, ref := range refs {
			if ref == nil {
				a.Refs[key] = []step{}
				continue
			}
			steps, err := steps(ctx, ref, session)
			if err != nil {
				return nil, err
			}
			a.Refs[key] = steps
		}
		return gateway.NewResult(), nil
	}, status)
	<-told
	sort.Strings(a.Warnings)
	if err != nil {
		a.Error = err.Error()
		for _, s := range errdefs.Sources(err) {
			a.Marked = append(a.Marked, fmt.Sprintf("%s %s", s.GetInfo().GetFilename(), lines(s.Ranges)))
		}
	}
	return a, nil
}

func warning(w *client.VertexWarning) string {
	detail := make([]string, 0, len(w.Detail))
	for _, d := range w.Detail {
		detail = append(detail, string(d))
	}
	return fmt.Sprintf("%d %s | %s | %s | %s %s", w.Level, w.Short, strings.Join(detail, " / "), w.URL, w.SourceInfo.GetFilename(), ranges(w.Range))
}

// lines tells which lines an error is about; ours adds columns, which the reference has none of.
func lines(all []*pb.Range) string {
	var out []string
	for _, r := range all {
		out = append(out, fmt.Sprintf("%d-%d", r.GetStart().GetLine(), r.GetEnd().GetLine()))
	}
	return strings.Join(out, ",")
}

func ranges(all []*pb.Range) string {
	var out []string
	for _, r := range all {
		out = append(out, fmt.Sprintf("%d:%d-%d:%d", r.GetStart().GetLine(), r.GetStart().GetCharacter(), r.GetEnd().GetLine(), r.GetEnd().GetCharacter()))
	}
	return strings.Join(out, ",")
}

// steps tells the definition of a reference, inputs first.
func steps(ctx context.Context, ref gateway.Reference, session string) ([]step, error) {
	state, err := ref.ToState()
	if err != nil {
		return nil, err
	}
	def, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	return normal(def, session)
}

func normal(def *llb.Definition, session string) ([]step, error) {
	plain := strings.Repeat("s", len(session))
	raw := map[string][]byte{}
	inputs := map[string][]string{}
	for _, dt := range def.Def {
		var op pb.Op
		if err := op.Unmarshal(dt); err != nil {
			return nil, err
		}
		dgst := digest.FromBytes(dt).String()
		raw[dgst] = dt
		for _, input := range op.Inputs {
			inputs[dgst] = append(inputs[dgst], input.Digest)
		}
	}
	// All replacements keep the length, so the encoding stays as it was sent.
	renamed := map[string]string{}
	bytesOf := map[string][]byte{}
	var visit func(string) error
	visit = func(dgst string) error {
		if _, done := renamed[dgst]; done {
			return nil
		}
		dt, ok := raw[dgst]
		if !ok {
			return fmt.Errorf("the definition lacks %s", dgst)
		}
		dt = bytes.ReplaceAll(dt, []byte(session), []byte(plain))
		for _, input := range inputs[dgst] {
			if err := visit(input); err != nil {
				return err
			}
			dt = bytes.ReplaceAll(dt, []byte(input), []byte(renamed[input]))
		}
		renamed[dgst] = digest.FromBytes(dt).String()
		bytesOf[dgst] = dt
		return nil
	}
	var out []step
	for _, dt := range def.Def {
		dgst := digest.FromBytes(dt).String()
		if err := visit(dgst); err != nil {
			return nil, err
		}
		var op pb.Op
		if err := op.Unmarshal(bytesOf[dgst]); err != nil {
			return nil, err
		}
		text, err := protojson.Marshal(&op)
		if err != nil {
			return nil, err
		}
		// Its authors add spaces at random, so that no one compares its text.
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			return nil, err
		}
		s := step{Digest: renamed[dgst], Op: compact.Bytes()}
		if meta, ok := def.Metadata[digest.Digest(dgst)]; ok {
			s.Name = meta.Description["llb.customname"]
			s.More = more(meta)
		}
		if def.Source != nil {
			if locations, ok := def.Source.Locations[dgst]; ok {
				for _, l := range locations.Locations {
					s.More += " at " + ranges(l.Ranges)
				}
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func more(meta llb.OpMetadata) string {
	var words []string
	for key, value := range meta.Description {
		if key != "llb.customname" {
			words = append(words, key+"="+value)
		}
	}
	for c, on := range meta.Caps {
		if on {
			words = append(words, string(c))
		}
	}
	sort.Strings(words)
	if meta.IgnoreCache {
		words = append(words, "ignore-cache")
	}
	if meta.ExportCache != nil {
		words = append(words, fmt.Sprintf("export-cache=%v", meta.ExportCache.Value))
	}
	if g := meta.ProgressGroup; g != nil {
		words = append(words, fmt.Sprintf("group=%s weak=%v", g.Name, g.Weak))
	}
	return strings.Join(words, " ")
}
