package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

var attacks = []attack{
	{"nested folders of a failing step", refused, time.Minute, nestedFolders},
	{"an archive deeper than any path", either, time.Minute, archive("deep")},
	{"an archive whose extended headers add up", either, time.Minute, archive("pax")},
	{"a working folder of 5,000 parts", refused, time.Minute, longCwd},
	{"a policy of many expressions", refused, 20 * time.Second, manyExpressions},
	{"an upload that stalls", refused, 500 * time.Millisecond, upload(stalls)},
	{"an upload of a gigabyte of attributes", refused, time.Minute, upload(wideAttributes)},
	{"an upload that sends more than it listed", either, time.Minute, upload(sendsMore)},
	{"an upload with names that lead out", refused, time.Minute, upload(leadsOut)},
	{"an upload that lists without end", refused, 1500 * time.Millisecond, upload(listsWithoutEnd)},
	{"a request of 10 MB", refused, time.Minute, largeRequest},
	{"compressed headers", either, time.Minute, compressedHeaders},
	{"long strings in a question", either, time.Minute, longStrings},
	{"an image with a layer of garbage", refused, time.Minute, image("image:garbage")},
	{"an image whose registry stalls", refused, 500 * time.Millisecond, image("stall/image:latest")},
	{"an image that ends too early", refused, time.Minute, image("image:short")},
	{"a client that leaves its step", refused, 400 * time.Millisecond, leaves},
	{"a step that writes and fails", refused, time.Minute, writesAndFails},
	{"a step that shouts", either, 3 * time.Second, shouts},
	{"a secret with a zero byte", refused, time.Minute, secretWithZero},
	{"a definition of garbage", refused, time.Minute, garbage},
	{"questions to a build of somebody else", refused, time.Minute, foreignBuild},
}

const busybox = "docker.io/library/busybox:latest"

// solve sends a definition and follows the build to its end.
func solve(ctx context.Context, t target, state llb.State, opt client.SolveOpt) error {
	def, err := state.Marshal(ctx, llb.LinuxAmd64)
	if err != nil {
		return err
	}
	_, err = t.c.Solve(ctx, def, opt, nil)
	return err
}

// sh is a step whose words differ from those of every other build.
func sh(t target, script string) llb.State {
	args := []string{"sh", "-c", fmt.Sprintf(": %d %d; %s", t.number, time.Now().UnixNano(), script)}
	return llb.Image(busybox).Run(llb.Args(args), llb.IgnoreCache).Root()
}

func nestedFolders(ctx context.Context, t target) error {
	script := `p=$(printf 'd/%.0s' $(seq 1000)); for i in 1 2 3 4 5 6; do mkdir -p $p; cd $p; done; exit 1`
	return solve(ctx, t, sh(t, script), client.SolveOpt{})
}

func longCwd(ctx context.Context, t target) error {
	step := llb.Image(busybox).Run(llb.Args([]string{"true"}), llb.Dir("/"+strings.Repeat("d/", 5000)))
	return solve(ctx, t, step.Root(), client.SolveOpt{})
}

func leaves(ctx context.Context, t target) error {
	return solve(ctx, t, sh(t, "(setsid sleep 1000 &) ; sleep 1000"), client.SolveOpt{})
}

func writesAndFails(ctx context.Context, t target) error {
	return solve(ctx, t, sh(t, "head -c 20000000 /dev/urandom > /large; exit 1"), client.SolveOpt{})
}

func shouts(ctx context.Context, t target) error {
	return solve(ctx, t, sh(t, "yes | head -c 20000000; yes | head -c 20000000 >&2"), client.SolveOpt{})
}

// archive builds the Dockerfile of an archive: `ADD` of it into an empty image.
func archive(name string) func(context.Context, target) error {
	return func(ctx context.Context, t target) error {
		folder, err := fsutil.NewFS(filepath.Join(t.files, name))
		if err != nil {
			return err
		}
		_, err = t.c.Solve(ctx, nil, client.SolveOpt{
			Frontend:      "dockerfile.v0",
			FrontendAttrs: map[string]string{"no-cache": ""},
			LocalMounts:   map[string]fsutil.FS{"context": folder, "dockerfile": folder},
		}, nil)
		return err
	}
}

func image(name string) func(context.Context, target) error {
	return func(ctx context.Context, t target) error {
		ref := fmt.Sprintf("localhost:%d/attack/%s", t.port, name)
		step := llb.Image(ref).Run(llb.Args([]string{"true", fmt.Sprint(t.number)}))
		return solve(ctx, t, step.Root(), client.SolveOpt{})
	}
}

func manyExpressions(ctx context.Context, t target) error {
	var constraints []*spb.AttrConstraint
	for n := range 2000 {
		constraints = append(constraints, &spb.AttrConstraint{
			Key: "git.fullurl", Value: fmt.Sprintf("(a{1,50}b{1,50}){1,9}%d", n), Condition: spb.AttrMatch_MATCHES,
		})
	}
	policy := &spb.Policy{Version: 1, Rules: []*spb.Rule{{
		Action:   spb.PolicyAction_DENY,
		Selector: &spb.Selector{Identifier: "*", MatchType: spb.MatchType_WILDCARD, Constraints: constraints},
	}}}
	var all []llb.State
	for n := range 500 {
		all = append(all, llb.Git(fmt.Sprintf("http://localhost:1/%d-%d.git", t.number, n), "main"))
	}
	return solve(ctx, t, llb.Merge(all), client.SolveOpt{SourcePolicy: policy})
}

func largeRequest(ctx context.Context, t target) error {
	random := make([]byte, 5<<20)
	_, _ = rand.Read(random)
	_, err := t.c.Solve(ctx, nil, client.SolveOpt{
		Frontend:      "gateway.v0",
		FrontendAttrs: map[string]string{"source": "localhost:1/none", "build-arg:LARGE": hex.EncodeToString(random)},
	}, nil)
	return err
}

func compressedHeaders(ctx context.Context, t target) error {
	// As large as a server takes them; after the first call each is sent as a number.
	var pairs []string
	for n := range 110 {
		pairs = append(pairs, fmt.Sprintf("x-%d", n), strings.Repeat("a", 500))
	}
	ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	var group errgroup.Group
	for range 100 {
		group.Go(func() error {
			_, err := t.c.ControlClient().ListWorkers(ctx, &controlapi.ListWorkersRequest{})
			return err
		})
	}
	return group.Wait()
}

func longStrings(ctx context.Context, t target) error {
	long := strings.Repeat("s", 12<<20)
	_, err := t.c.ControlClient().DiskUsage(ctx, &controlapi.DiskUsageRequest{Filter: []string{"id==" + long}})
	return err
}

func secretWithZero(ctx context.Context, t target) error {
	secret := secretsprovider.FromMap(map[string][]byte{"token": []byte("canary\x00canary")})
	step := llb.Image(busybox).Run(llb.Args([]string{"true"}), llb.AddSecret("TOKEN", llb.SecretID("token"), llb.SecretAsEnv(true)))
	err := solve(ctx, t, step.Root(), client.SolveOpt{Session: []session.Attachable{secret}})
	if err != nil && strings.Contains(err.Error(), "canary") {
		fmt.Println("LEAK: the secret stands in the error")
	}
	return err
}

func garbage(ctx context.Context, t target) error {
	def := &pb.Definition{}
	for range 200 {
		bytes := make([]byte, 64)
		_, _ = rand.Read(bytes)
		def.Def = append(def.Def, bytes)
	}
	_, err := t.c.ControlClient().Solve(ctx, &controlapi.SolveRequest{Ref: identity.NewID(), Definition: def})
	return err
}

func foreignBuild(ctx context.Context, t target) error {
	conn, err := grpc.NewClient(t.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	gateway := gatewaypb.NewLLBBridgeClient(conn)
	for range 10 {
		call := metadata.AppendToOutgoingContext(ctx, "buildkit-controlapi-buildid", identity.NewID())
		// Calls of builds that do not exist wait a while for them; nobody stays for that.
		call, cancel := context.WithTimeout(call, 20*time.Millisecond)
		_, err := gateway.Solve(call, &gatewaypb.SolveRequest{Frontend: "dockerfile.v0"})
		cancel()
		if err == nil {
			return nil
		}
	}
	return errors.New("no build answered")
}
