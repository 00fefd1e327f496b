// What a build step tries in vain. Prints a line for each attempt that worked.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int tried;

static void must_fail(const char *what, long result) {
  tried++;
  if (result >= 0) printf("BROKE OUT: %s gave %ld\n", what, result);
}

static long writes(const char *file, const char *text) {
  int fd = open(file, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  long n = write(fd, text, strlen(text));
  close(fd);
  return n;
}

static long reads(const char *file) {
  char byte;
  int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -1;
  long n = read(fd, &byte, 1);
  close(fd);
  return n > 0 ? n : -1;
}

static long reads_device(mode_t kind, unsigned major, unsigned minor) {
  const char *name = "/probe-device";
  unlink(name);
  if (mknod(name, kind | 0600, makedev(major, minor)) < 0) return -1;
  long n = reads(name);
  unlink(name);
  return n;
}

static long creates(const char *name) {
  int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  return fd;
}

int main(int argc, char **argv) {
  char buffer[4096] = {0};
  mkdir("/probe-dir", 0755);
  must_fail("mount tmpfs", mount("none", "/probe-dir", "tmpfs", 0, ""));
  must_fail("mount proc", mount("proc", "/probe-dir", "proc", 0, ""));
  must_fail("bind mount", mount("/", "/probe-dir", NULL, MS_BIND | MS_REC, NULL));
  must_fail("remount /sys", mount(NULL, "/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
  must_fail("remount /proc/sys", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
  must_fail("umount /proc", umount2("/proc", MNT_DETACH));
  must_fail("umount a masked file", umount2("/proc/kcore", MNT_DETACH));
  must_fail("unshare of mounts", syscall(SYS_unshare, CLONE_NEWNS));
  must_fail("unshare of users", syscall(SYS_unshare, CLONE_NEWUSER));
  must_fail("unshare of pids", syscall(SYS_unshare, CLONE_NEWPID));
  must_fail("unshare of cgroups", syscall(SYS_unshare, CLONE_NEWCGROUP));
  int ns = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
  must_fail("setns", ns < 0 ? -1 : syscall(SYS_setns, ns, 0));
  must_fail("pivot_root", syscall(SYS_pivot_root, "/probe-dir", "/probe-dir"));
  must_fail("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
  must_fail("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
  must_fail("init_module", syscall(SYS_init_module, buffer, sizeof buffer, ""));
  must_fail("finit_module", syscall(SYS_finit_module, 0, "", 0));
  must_fail("delete_module", syscall(SYS_delete_module, "none", 0));
  must_fail("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
  must_fail("bpf", syscall(SYS_bpf, 0, buffer, 64));
  must_fail("perf_event_open", syscall(SYS_perf_event_open, buffer, -1, 0, -1, 0));
  must_fail("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0));
  must_fail("keyctl", syscall(SYS_keyctl, 0, -3, 1));
  must_fail("add_key", syscall(SYS_add_key, "user", "probe", "x", 1, -3));
  must_fail("request_key", syscall(SYS_request_key, "user", "probe", NULL, 0));
  must_fail("userfaultfd", syscall(SYS_userfaultfd, 0));
  must_fail("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL));
  must_fail("swapon", swapon("/probe", 0));
  struct timeval now = {0, 0};
  gettimeofday(&now, NULL);
  must_fail("settimeofday", settimeofday(&now, NULL));
  struct timespec clock = {now.tv_sec, 0};
  must_fail("clock_settime", clock_settime(CLOCK_REALTIME, &clock));
  must_fail("sethostname", sethostname("probe", 5));
  must_fail("setdomainname", setdomainname("probe", 5));
  must_fail("syslog", syscall(SYS_syslog, 3, buffer, sizeof buffer));
  must_fail("acct", syscall(SYS_acct, "/probe-acct"));
  must_fail("quotactl", syscall(SYS_quotactl, 0x800001 << 8, NULL, 0, buffer));
#ifdef SYS_iopl
  must_fail("iopl", syscall(SYS_iopl, 3));
  must_fail("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
#endif
  must_fail("ptrace outside", argc > 1 ? ptrace(PTRACE_ATTACH, atoi(argv[1]), NULL, NULL) : -1);
  must_fail("kill outside", argc > 1 ? kill(atoi(argv[1]), 0) : -1);
  must_fail("vsock", socket(40, SOCK_STREAM, 0));
  must_fail("write to /proc/sys", writes("/proc/sys/kernel/hostname", "probe"));
  must_fail("write to core_pattern", writes("/proc/sys/kernel/core_pattern", "|/probe"));
  must_fail("write to ip_forward", writes("/proc/sys/net/ipv4/ip_forward", "1"));
  must_fail("write to sysrq-trigger", writes("/proc/sysrq-trigger", "h"));
  must_fail("write to the kernel's parameters", writes("/sys/kernel/uevent_helper", "/probe"));
  must_fail("write to a cgroup", creates("/sys/fs/cgroup/probe"));
  must_fail("a folder in a cgroup", mkdir("/sys/fs/cgroup/probe-dir", 0755));
  must_fail("a release agent", writes("/sys/fs/cgroup/release_agent", "/probe"));
  must_fail("read of /proc/kcore", reads("/proc/kcore"));
  must_fail("read of /proc/keys", reads("/proc/keys"));
  must_fail("read of /proc/timer_list", reads("/proc/timer_list"));
  must_fail("read of /dev/mem", reads("/dev/mem"));
  must_fail("read of /dev/kmsg", reads("/dev/kmsg"));
  must_fail("read of made /dev/mem", reads_device(S_IFCHR, 1, 1));
  must_fail("read of made /dev/kmsg", reads_device(S_IFCHR, 1, 11));
  // The disks of common machines and of this one.
  static const unsigned majors[] = {7, 8, 202, 252, 253, 254, 259};
  for (unsigned i = 0; i < sizeof majors / sizeof *majors; i++)
    for (unsigned minor = 0; minor < 2; minor++) must_fail("read of a disk", reads_device(S_IFBLK, majors[i], minor));
  if (argc > 3) must_fail("read of the host's disk", reads_device(S_IFBLK, atoi(argv[2]), atoi(argv[3])));
  rmdir("/probe-dir");
  FILE *status = fopen("/proc/self/status", "r");
  char line[512];
  while (status && fgets(line, sizeof line, status))
    if (!strncmp(line, "Cap", 3) || !strncmp(line, "Seccomp:", 8) || !strncmp(line, "NoNewPrivs", 10)) printf("%s", line);
  printf("TRIED %d\n", tried);
  return 0;
}
