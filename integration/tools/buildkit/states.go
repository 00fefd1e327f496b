package main

import (
	"context"
	"net"
	"os"
	"sort"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

// states are built and written for linux/amd64; the digest of the last op and the capabilities that it needs are kept. The test builds
// the same states under the same names.
func states() []vector {
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	base := llb.Image("docker.io/library/alpine:latest")
	other := llb.Image("docker.io/library/busybox:1")
	local := llb.Local("context")
	when := time.Unix(1, 5)
	run := func(opts ...llb.RunOption) llb.State {
		return base.Run(append([]llb.RunOption{llb.Args([]string{"/bin/true"})}, opts...)...).Root()
	}
	copy := func(info *llb.CopyInfo, opts ...llb.CopyOption) llb.State {
		return base.File(llb.Copy(other, "/a", "/b", append([]llb.CopyOption{info}, opts...)...))
	}
	named := []struct {
		name  string
		state llb.State
	}{
		{"image", base},
		{"image pull", llb.Image("alpine", llb.ResolveModeForcePull)},
		{"image local", llb.Image("alpine", llb.ResolveModePreferLocal)},
		{"image arm", llb.Image("alpine", llb.LinuxArm)},
		{"image internal", llb.Image("alpine", llb.MarkImageInternal)},
		{"local", local},
		{"local include", llb.Local("context", llb.IncludePatterns([]string{"a", "<b>"}))},
		{"local exclude", llb.Local("context", llb.ExcludePatterns([]string{"*.log", "!x"}))},
		{"local follow", llb.Local("context", llb.FollowPaths([]string{"b", "a"}))},
		{"local hint", llb.Local("context", llb.SharedKeyHint("hint"), llb.SessionID("session"))},
		{"local differ", llb.Local("context", llb.Differ(llb.DiffNone, false))},
		{"http", llb.HTTP("https://h/x")},
		{"http named", llb.HTTP("https://h/x", llb.Filename("y"), llb.Checksum(digest.Digest(sum)))},
		{"git", llb.Git("https://github.com/a/b.git", "main")},
		{"git dir", llb.Git("https://github.com/a/b.git", "main", llb.KeepGitDir())},
		{"git ssh", llb.Git("git@github.com:a/b.git", "v1", llb.KnownSSHHosts("hosts"))},
		{"git checksum", llb.Git("https://github.com/a/b.git", "", llb.GitChecksum("abc"))},
		{"git subdir", llb.Git("https://github.com/a/b.git", "main", llb.GitSubDir("sub"))},
		{"git modules", llb.Git("https://github.com/a/b.git", "main", llb.GitSkipSubmodules())},
		{"oci layout", llb.OCILayout("docker.io/library/x@"+sum, llb.OCIStore("session", "store"), llb.OCILayerLimit(3))},

		{"run", run()},
		{"run args", base.Run(llb.Args([]string{"sh", "-c", "echo é <b>"})).Root()},
		{"run env", run(llb.AddEnv("A", "b"), llb.AddEnv("PATH", "/x"))},
		{"run dir", run(llb.Dir("/w"))},
		{"run user", run(llb.User("u:g"))},
		{"run hostname", base.Hostname("h").Run(llb.Args([]string{"/bin/true"})).Root()},
		{"run network", run(llb.Network(pb.NetMode_HOST))},
		{"run no network", run(llb.Network(pb.NetMode_NONE))},
		{"run security", run(llb.Security(pb.SecurityMode_INSECURE))},
		{"run hosts", run(llb.AddExtraHost("a", net.ParseIP("1.2.3.4")), llb.AddExtraHost("b", net.ParseIP("::1")))},
		{"run ulimit", run(llb.AddUlimit(llb.UlimitNofile, 10, 20))},
		{"run cgroup", run(llb.WithCgroupParent("/c"))},
		{"run readonly", base.Run(llb.Args([]string{"/bin/true"}), llb.ReadonlyRootFS()).AddMount("/out", llb.Scratch())},
		{"run proxy", run(llb.WithProxy(llb.ProxyEnv{HTTPProxy: "http://p", NoProxy: "x"}))},
		{"run exit codes", run(llb.ValidExitCodes(0, 3))},
		{"run device", run(llb.AddCDIDevice(llb.CDIDeviceName("v.com/c=n"), llb.CDIDeviceOptional))},
		{"run bind", run(llb.AddMount("/m", other))},
		{"run bind ro", run(llb.AddMount("/m", other, llb.Readonly, llb.SourcePath("/sub")))},
		{"run bind no output", run(llb.AddMount("/m", other, llb.ForceNoOutput))},
		{"run bind same", run(llb.AddMount("/m", base), llb.AddMount("/l", other), llb.AddMount("/k", other))},
		{"run cache", run(llb.AddMount("/c", llb.Scratch(), llb.AsPersistentCacheDir("id", llb.CacheMountShared)))},
		{"run cache locked", run(llb.AddMount("/c", other, llb.AsPersistentCacheDir("id", llb.CacheMountLocked)))},
		{"run cache private", run(llb.AddMount("/c", llb.Scratch(), llb.AsPersistentCacheDir("id", llb.CacheMountPrivate), llb.Readonly))},
		{"run tmpfs", run(llb.AddMount("/t", llb.Scratch(), llb.Tmpfs()))},
		{"run tmpfs size", run(llb.AddMount("/t", llb.Scratch(), llb.Tmpfs(llb.TmpfsSize(1024))))},
		{"run secret", run(llb.AddSecret("/s", llb.SecretID("id"), llb.SecretFileOpt(1, 2, 0o440)))},
		{"run secret optional", run(llb.AddSecret("/s", llb.SecretID("id"), llb.SecretFileOpt(0, 0, 0o400), llb.SecretOptional))},
		{"run secret env", run(llb.AddSecretWithDest("id", nil, llb.SecretAsEnvName("E")))},
		{"run ssh", run(llb.AddSSHSocket(llb.SSHID("k"), llb.SSHSocketTarget("/s"), llb.SSHSocketOpt("/s", 1, 2, 0o600)))},
		{"run mount output", base.Run(llb.Args([]string{"/bin/true"})).AddMount("/out", other)},

		{"mkdir", base.File(llb.Mkdir("/d", 0o755))},
		{"mkdir parents", base.File(llb.Mkdir("/d/e", 0o700, llb.WithParents(true), llb.WithUIDGID(1, 2)))},
		{"mkdir time", base.File(llb.Mkdir("/d", 0o755, llb.WithCreatedTime(when)))},
		{"mkdir user", base.File(llb.Mkdir("/d", 0o755, llb.WithUser("u:g")))},
		{"mkdir relative", base.Dir("/w").File(llb.Mkdir("d", 0o755))},
		{"mkfile", base.File(llb.Mkfile("/f", 0o644, []byte("data")))},
		{"mkfile scratch", llb.Scratch().File(llb.Mkfile("/f", os.FileMode(0o600), []byte("")))},
		{"rm", base.File(llb.Rm("/f"))},
		{"rm wild", base.File(llb.Rm("/f*", llb.WithAllowWildcard(true), llb.WithAllowNotFound(true)))},
		{"symlink", base.File(llb.Symlink("/a", "/b"))},
		{"chain", base.File(llb.Mkdir("/d", 0o755).Mkfile("/d/f", 0o644, []byte("x")).Rm("/d/f"))},
		{"copy", copy(&llb.CopyInfo{})},
		{"copy flags", copy(&llb.CopyInfo{FollowSymlinks: true, CopyDirContentsOnly: true, AttemptUnpack: true, CreateDestPath: true, AllowWildcard: true, AllowEmptyWildcard: true})},
		{"copy patterns", copy(&llb.CopyInfo{IncludePatterns: []string{"a"}, ExcludePatterns: []string{"b"}})},
		{"copy required", copy(&llb.CopyInfo{RequiredPaths: []string{"/r"}})},
		{"copy mode", copy(&llb.CopyInfo{Mode: &llb.ChmodOpt{Mode: 0o755}})},
		{"copy symbolic mode", copy(&llb.CopyInfo{Mode: &llb.ChmodOpt{ModeStr: "u+x"}})},
		{"copy owner", copy(&llb.CopyInfo{}, llb.WithUser("u:5"))},
		{"copy replace", copy(&llb.CopyInfo{AlwaysReplaceExistingDestPaths: true})},
		{"copy time", copy(&llb.CopyInfo{}, llb.WithCreatedTime(when))},
		{"copy scratch", llb.Scratch().File(llb.Copy(other, "a", "b"))},
		{"copy itself", base.File(llb.Copy(base, "a", "b"))},
		{"copy twice", base.File(llb.Copy(other, "a", "b").Copy(local, "c", "d").Copy(other, "e", "f"))},

		{"merge", llb.Merge([]llb.State{base, other})},
		{"merge of one", llb.Merge([]llb.State{base})},
		{"merge with scratch", llb.Merge([]llb.State{base, llb.Scratch(), other})},
		{"diff", llb.Diff(base, run())},
		{"diff of nothing", llb.Diff(llb.Scratch(), other)},
		{"diff to nothing", llb.Diff(base, llb.Scratch())},
	}
	var out []vector
	for _, n := range named {
		def, err := n.state.Marshal(context.Background(), llb.LinuxAmd64, llb.LocalUniqueID("unique"))
		if err != nil {
			record(&out, n.name, nil, err)
			continue
		}
		message := def.ToPB()
		if len(message.Def) == 0 {
			record(&out, n.name, map[string]any{"ops": 0}, nil)
			continue
		}
		var last pb.Op
		fail(last.Unmarshal(message.Def[len(message.Def)-1]))
		root := last.Inputs[0]
		caps := []string{}
		for name := range def.Metadata[digest.Digest(root.Digest)].Caps {
			caps = append(caps, string(name))
		}
		sort.Strings(caps)
		record(&out, n.name, map[string]any{"ops": len(message.Def) - 1, "digest": root.Digest, "index": root.Index, "caps": caps}, nil)
	}
	return out
}
