package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// Where the ids of a pod with a user namespace lie on the host, and how many it has.
const (
	userIDs     = 100000
	userIDCount = 65536
)

// An image, unpacked once for the host's ids and once for those of user namespaces.
type image struct {
	dir    string
	mu     sync.Mutex
	config imageConfig
}

type imageConfig struct {
	Entrypoint, Cmd, Env []string
	WorkingDir, User     string
	Volumes              map[string]struct{}
}

func openImage(dir, archive string) (*image, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	layout := "oci:" + filepath.Join(dir, "layout") + ":image"
	if err := runProgram("skopeo", "copy", "-q", "docker-archive:"+archive, layout); err != nil {
		return nil, err
	}
	output, err := exec.Command("skopeo", "inspect", "--config", layout).Output()
	if err != nil {
		return nil, err
	}
	var document struct{ Config imageConfig }
	if err := json.Unmarshal(output, &document); err != nil {
		return nil, err
	}
	return &image{dir: dir, config: document.Config}, nil
}

// The files of the image, for the host's ids or for those of a user namespace.
func (i *image) rootfs(mapped bool) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	bundle, arguments := filepath.Join(i.dir, "host"), []string{"unpack", "--image", filepath.Join(i.dir, "layout") + ":image"}
	if mapped {
		bundle = filepath.Join(i.dir, "mapped")
		mapping := fmt.Sprintf("0:%d:%d", userIDs, userIDCount)
		arguments = append(arguments, "--uid-map", mapping, "--gid-map", mapping)
	}
	rootfs := filepath.Join(bundle, "rootfs")
	if _, err := os.Stat(rootfs); err == nil {
		return rootfs, nil
	}
	return rootfs, runProgram("umoci", append(arguments, bundle)...)
}

// Makes the bundle of a pod and starts its process.
func (p *pod) start() error {
	pod := p.spec.Spec
	container := &pod.Containers[0]
	if len(pod.Containers) != 1 || len(pod.InitContainers) > 0 {
		return errors.New("one container is all that a pod may have here")
	}
	image := p.cluster.kubelet.images[container.Image]
	if image == nil {
		return fmt.Errorf("there is no image %s", container.Image)
	}
	mapped := pod.HostUsers != nil && !*pod.HostUsers
	lower, err := image.rootfs(mapped)
	if err != nil {
		return err
	}
	for _, name := range []string{"upper", "work", "rootfs", "volumes"} {
		if err := os.MkdirAll(p.file(name), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, p.file("upper"), p.file("work"))
	if mapped {
		if err := os.Chown(p.file("upper"), userIDs, userIDs); err != nil {
			return err
		}
	}
	if err := syscall.Mount("overlay", p.file("rootfs"), "overlay", 0, options); err != nil {
		return fmt.Errorf("mounting the root of the pod: %w", err)
	}
	spec, err := p.bundle(container, image.config, mapped)
	if err != nil {
		return err
	}
	document, err := json.MarshalIndent(spec, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.file("config.json"), document, 0o644); err != nil {
		return err
	}
	output, err := os.OpenFile(p.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	create := exec.Command(p.cluster.kubelet.runtime, "create", "--bundle", p.dir, "--pid-file", p.file("pid"), p.id())
	create.Stdout, create.Stderr = output, output
	if err := create.Run(); err != nil {
		said, _ := os.ReadFile(p.file("log"))
		return fmt.Errorf("the runtime cannot create the container: %w: %s", err, said)
	}
	text, err := os.ReadFile(p.file("pid"))
	if err != nil {
		return err
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return err
	}
	return runProgram(p.cluster.kubelet.runtime, "start", p.id())
}

func (p *pod) bundle(container *corev1.Container, config imageConfig, mapped bool) (*specs.Spec, error) {
	command, args := container.Command, container.Args
	if len(command) == 0 {
		command = config.Entrypoint
		if len(args) == 0 {
			args = config.Cmd
		}
	}
	env := config.Env
	for _, variable := range container.Env {
		env = append(env, variable.Name+"="+p.value(variable))
	}
	context := container.SecurityContext
	if context == nil {
		context = &corev1.SecurityContext{}
	}
	privileged := context.Privileged != nil && *context.Privileged
	uid, gid := number(config.User, context.RunAsUser), number(config.User, context.RunAsGroup)
	capabilities := defaultCapabilities
	if privileged {
		capabilities = allCapabilities
	}
	// An ordinary user has none, but its programs with the bit for it may get them.
	held := capabilities
	if uid != 0 {
		held = nil
	}
	cwd := container.WorkingDir
	if cwd == "" {
		cwd = config.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	mounts, err := p.mounts(container, config, privileged, mapped)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version:  "1.0.2",
		Hostname: p.spec.Name,
		Root:     &specs.Root{Path: p.file("rootfs"), Readonly: context.ReadOnlyRootFilesystem != nil && *context.ReadOnlyRootFilesystem},
		Process: &specs.Process{
			Args: append(append([]string{}, command...), args...), Env: env, Cwd: cwd,
			User:            specs.User{UID: uid, GID: gid},
			NoNewPrivileges: context.AllowPrivilegeEscalation != nil && !*context.AllowPrivilegeEscalation,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: held, Permitted: held,
			},
		},
		Mounts: mounts,
		Linux: &specs.Linux{
			CgroupsPath: "/" + p.id(),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
				{Type: specs.CgroupNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: privileged, Access: "rwm"}}},
		},
	}
	if privileged {
		spec.Linux.Devices = hostDevices()
	} else {
		spec.Linux.MaskedPaths = []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"}
		spec.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	}
	if mapped {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: userIDs, Size: userIDCount}}
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
		spec.Linux.Namespaces = append(spec.Linux.Namespaces,
			specs.LinuxNamespace{Type: specs.UserNamespace}, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	return spec, nil
}

// The value of a variable, which may be a field of the pod.
func (p *pod) value(variable corev1.EnvVar) string {
	if from := variable.ValueFrom; from != nil && from.FieldRef != nil {
		switch from.FieldRef.FieldPath {
		case "metadata.name":
			return p.spec.Name
		case "metadata.namespace":
			return p.spec.Namespace
		}
	}
	return variable.Value
}

func number(image string, given *int64) uint32 {
	if given != nil {
		return uint32(*given)
	}
	user, _, _ := strings.Cut(image, ":")
	id, _ := strconv.ParseUint(user, 10, 32)
	return uint32(id)
}

func (p *pod) mounts(container *corev1.Container, config imageConfig, privileged, mapped bool) ([]specs.Mount, error) {
	access := "ro"
	if privileged {
		access = "rw"
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", access}},
	}
	for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if _, err := os.Stat(file); err == nil && !mapped {
			mounts = append(mounts, bind(file, file, true))
		}
	}
	covered := map[string]bool{}
	for _, mount := range container.VolumeMounts {
		source, err := p.volume(mount.Name, mapped)
		if err != nil {
			return nil, err
		}
		covered[mount.MountPath] = true
		mounts = append(mounts, bind(filepath.Join(source, mount.SubPath), mount.MountPath, mount.ReadOnly))
	}
	for path := range config.Volumes {
		if !covered[path] {
			source, err := p.folder("image"+strings.ReplaceAll(path, "/", "-"), mapped)
			if err != nil {
				return nil, err
			}
			mounts = append(mounts, bind(source, path, false))
		}
	}
	return mounts, nil
}

func bind(source, destination string, readOnly bool) specs.Mount {
	options := []string{"rbind", "rprivate", "rw"}
	if readOnly {
		options[2] = "ro"
	}
	return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: options}
}

// A folder of the pod's own.
func (p *pod) folder(name string, mapped bool) (string, error) {
	return folder(p.file("volumes/"+name), mapped)
}

func folder(dir string, mapped bool) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if mapped {
		if err := os.Chown(dir, userIDs, userIDs); err != nil {
			return "", err
		}
	}
	// As a kubelet makes them, whatever the mask of this process.
	return dir, os.Chmod(dir, 0o777)
}

// The folder of a volume: config maps and secrets are written into it, claims outlive their pod.
func (p *pod) volume(name string, mapped bool) (string, error) {
	for _, volume := range p.spec.Spec.Volumes {
		switch {
		case volume.Name != name:
		case volume.EmptyDir != nil:
			return p.folder(name, mapped)
		case volume.HostPath != nil:
			return volume.HostPath.Path, nil
		case volume.PersistentVolumeClaim != nil:
			return folder(filepath.Join(p.cluster.kubelet.state, "claims", volume.PersistentVolumeClaim.ClaimName), mapped)
		case volume.ConfigMap != nil:
			return p.files(name, "configmaps", volume.ConfigMap.Name, volume.ConfigMap.Items, mapped)
		case volume.Secret != nil:
			return p.files(name, "secrets", volume.Secret.SecretName, volume.Secret.Items, mapped)
		}
	}
	return "", fmt.Errorf("volume %q is not there or of a kind that is not built", name)
}

func (p *pod) files(volume, resource, name string, items []corev1.KeyToPath, mapped bool) (string, error) {
	dir, err := p.folder(volume, mapped)
	if err != nil {
		return "", err
	}
	p.cluster.mu.Lock()
	source := p.cluster.objects[resource][p.spec.Namespace+"/"+name]
	p.cluster.mu.Unlock()
	contents := map[string][]byte{}
	switch source := source.(type) {
	case *corev1.ConfigMap:
		for key, text := range source.Data {
			contents[key] = []byte(text)
		}
	case *corev1.Secret:
		for key, bytes := range source.Data {
			contents[key] = bytes
		}
		for key, text := range source.StringData {
			contents[key] = []byte(text)
		}
	default:
		return "", fmt.Errorf("there is no %q in %s", name, resource)
	}
	if len(items) > 0 {
		chosen := map[string][]byte{}
		for _, item := range items {
			chosen[item.Path] = contents[item.Key]
		}
		contents = chosen
	}
	for file, bytes := range contents {
		if err := os.WriteFile(filepath.Join(dir, file), bytes, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Removes the container and its root; claims and the log stay.
func (p *pod) remove() {
	exec.Command(p.cluster.kubelet.runtime, "delete", "--force", p.id()).Run()
	p.pid = 0
	if err := syscall.Unmount(p.file("rootfs"), 0); err != nil && !errors.Is(err, syscall.EINVAL) {
		syscall.Unmount(p.file("rootfs"), syscall.MNT_DETACH)
	}
	for _, name := range []string{"upper", "work", "rootfs", "volumes"} {
		os.RemoveAll(p.file(name))
	}
}

// The devices of the host, which a privileged container has.
func hostDevices() (devices []specs.LinuxDevice) {
	entries, _ := os.ReadDir("/dev")
	for _, entry := range entries {
		path := "/dev/" + entry.Name()
		var stat syscall.Stat_t
		if entry.Name() == "console" || entry.Name() == "ptmx" || syscall.Lstat(path, &stat) != nil {
			continue
		}
		kind := map[uint32]string{syscall.S_IFCHR: "c", syscall.S_IFBLK: "b"}[stat.Mode&syscall.S_IFMT]
		if kind == "" {
			continue
		}
		mode := os.FileMode(stat.Mode & 0o777)
		devices = append(devices, specs.LinuxDevice{
			Path: path, Type: kind, FileMode: &mode,
			Major: int64(stat.Rdev>>8&0xfff | stat.Rdev>>32&^0xfff), Minor: int64(stat.Rdev&0xff | stat.Rdev>>12&^0xff&0xffffffff),
			UID: &stat.Uid, GID: &stat.Gid,
		})
	}
	return devices
}

// Runs a program, whose words are the error when it fails.
func runProgram(program string, arguments ...string) error {
	output, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, output)
	}
	return nil
}

func capabilities(names string) (list []string) {
	for _, name := range strings.Fields(names) {
		list = append(list, "CAP_"+name)
	}
	return list
}

var (
	defaultCapabilities = capabilities("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE " +
		"SYS_CHROOT KILL AUDIT_WRITE")
	allCapabilities = append(capabilities("DAC_READ_SEARCH LINUX_IMMUTABLE NET_BROADCAST NET_ADMIN IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "+
		"SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG LEASE AUDIT_CONTROL MAC_OVERRIDE MAC_ADMIN "+
		"SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"), defaultCapabilities...)
)
