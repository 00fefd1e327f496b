//! A container's control group: one directory of the v2 hierarchy, and of v1 controllers where those hold the limits.
//!
//! On a hybrid host the v2 group carries the device program and the processes, and v1 groups are made only for limits that are asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::bpf::{self, DeviceProgram, DeviceRule};

use crate::error::ExecError;
use crate::resources::{IoLimits, Resources};
use crate::spec::ContainerId;

/// What a confined container may open: null, zero, full, random, urandom; tty, ptmx; terminals.
const BASIC_DEVICES: [DeviceRule; 8] = [
    DeviceRule::character(1, Some(3)),
    DeviceRule::character(1, Some(5)),
    DeviceRule::character(1, Some(7)),
    DeviceRule::character(1, Some(8)),
    DeviceRule::character(1, Some(9)),
    DeviceRule::character(5, Some(0)),
    DeviceRule::character(5, Some(2)),
    DeviceRule::character(136, None),
];

/// A rule in the words of the v1 controller.
fn v1_rule(rule: &DeviceRule) -> String {
    let minor = rule.minor.map_or("*".to_owned(), |minor| minor.to_string());
    format!(
        "{} {}:{minor} {}{}m",
        if rule.block { 'b' } else { 'c' },
        rule.major,
        if rule.read { "r" } else { "" },
        if rule.write { "w" } else { "" },
    )
}

/// The hierarchies of control groups on this host.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    v2: Option<PathBuf>,
    v1: BTreeMap<String, PathBuf>,
    program: Option<DeviceProgram>,
    /// Whether the v2 hierarchy is the only one, and mounted at `/sys/fs/cgroup`.
    unified: bool,
}

/// A container's groups. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Group {
    v2: Option<PathBuf>,
    v1: Vec<PathBuf>,
    /// The v2 directory, for the clone.
    pub(crate) fd: Option<OwnedFd>,
    /// The `cgroup.procs` files of v1 groups, into which a process writes itself.
    pub(crate) procs: Vec<OwnedFd>,
    /// Whether a device program or the v1 controller limits which devices can be opened.
    pub(crate) limits_devices: bool,
    /// Groups that the container sees, by the names that their hierarchies have below /sys/fs/cgroup.
    pub(crate) shown: Vec<(String, PathBuf)>,
    oom_before: u64,
}

impl Group {
    /// Its directories on the host.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        self.v2.iter().chain(&self.v1).cloned().collect()
    }
}

/// The group of this process's own below the delegated one.
const OWN_GROUP: &str = "init";

/// The group that was handed to this process, whose own is `path`. A process that has made room before is one below it: a daemon that was
/// started again where its predecessor ended, or one with a launcher for each tenant.
fn delegated(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some((above, OWN_GROUP)) => above,
        None if path == OWN_GROUP => "",
        _ => path,
    }
}

impl Groups {
    /// Looks the hierarchies up in procfs. A host without any runs containers that have no limits.
    pub(crate) fn find() -> Self {
        let mut groups =
            Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        if sys::userns::is_nested() {
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            groups.keep_delegated(&own);
            if groups.v2.is_none() {
                tracing::info!(
                    "steps have no control groups and no limits: none is delegated to this user (`rbuild doctor` says how)"
                );
            }
            return groups;
        }
        if groups.v2.is_some() {
            groups.program = bpf::load_device_program(&BASIC_DEVICES)
                .inspect_err(|error| tracing::warn!(%error, "no device program; devices do not work in containers but for the basic ones"))
                .ok();
        }
        groups
    }

    fn parse(mountinfo: &str) -> Self {
        let mut groups = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(place) = left.split(' ').nth(4) else {
                continue;
            };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) if groups.v2.is_none() => groups.v2 = Some(place.into()),
                (Some("cgroup"), Some(options)) => {
                    for option in options
                        .split(',')
                        .filter(|option| !matches!(*option, "rw" | "ro"))
                    {
                        groups
                            .v1
                            .entry(option.to_owned())
                            .or_insert_with(|| place.into());
                    }
                }
                _ => {}
            }
        }
        groups.unified = groups.v2.as_deref() == Some(Path::new("/sys/fs/cgroup"));
        groups
    }

    /// Keeps what root of a user namespace may use: the part of the v2 hierarchy that somebody handed to it, below the group it is in.
    /// `own` is `/proc/self/cgroup`.
    fn keep_delegated(&mut self, own: &str) {
        self.v1.clear();
        let Some(root) = self.v2.take() else { return };
        let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return;
        };
        let path = path.trim_end_matches('/');
        let mut candidates = vec![delegated(path), path];
        candidates.dedup();
        for group in candidates.into_iter().map(|path| root.join(path)) {
            match Self::make_room(&group) {
                Ok(()) => {
                    self.v2 = Some(group);
                    return;
                }
                Err(error) => tracing::debug!(%error, group = %group.display(), "not delegated"),
            }
        }
    }

    /// Makes a group one that others can be made in: controllers are handed down only by groups without processes.
    fn make_room(group: &Path) -> io::Result<()> {
        // Before anything is made: the group around one that was handed over is somebody else's.
        fs::File::options()
            .write(true)
            .open(group.join("cgroup.procs"))?;
        let init = group.join(OWN_GROUP);
        match fs::create_dir(&init) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let procs = fs::read_to_string(group.join("cgroup.procs"))?;
        for process in procs.lines() {
            if let Err(error) = fs::write(init.join("cgroup.procs"), process) {
                // The process has ended meanwhile, or it is somebody else's and keeps controllers from being handed down.
                tracing::debug!(%error, process, "stays in its control group");
            }
        }
        Ok(())
    }

    /// The roots of all hierarchies, the v2 one first.
    fn places(self) -> impl Iterator<Item = PathBuf> {
        let mut v1: Vec<PathBuf> = self.v1.into_values().collect();
        v1.sort();
        v1.dedup();
        self.v2.into_iter().chain(v1)
    }

    /// Whether containers get a cgroup namespace of their own.
    pub(crate) fn unified(&self) -> bool {
        self.unified
    }

    /// Whether the container in `group` is shown the hierarchy: outside of user namespaces always.
    pub(crate) fn shows(&self, group: &Group) -> bool {
        self.unified && (group.fd.is_some() || !sys::userns::is_nested())
    }

    /// Makes the groups of a container. `devices`: what it may open beside the basic ones; `None` for everything.
    pub(crate) fn make(
        &self,
        parent: &str,
        id: &ContainerId,
        limits: &Resources,
        devices: Option<&[DeviceRule]>,
    ) -> Result<Group, ExecError> {
        let confined = devices.is_some();
        let requested = devices.unwrap_or_default();
        let path = relative(parent, id)?;
        let mut group = Group {
            v2: None,
            v1: Vec::new(),
            fd: None,
            procs: Vec::new(),
            limits_devices: false,
            shown: Vec::new(),
            oom_before: 0,
        };
        if let Some(root) = &self.v2 {
            match self.make_v2(root, &path, limits) {
                Ok(dir) => {
                    group.fd = Some(sys::path::open_dir(&dir).map_err(failed(&dir))?);
                    group.v2 = Some(dir);
                }
                // A daemon without rights to its groups still runs containers, unless limits were asked for.
                Err(error) if limits.is_empty() && parent.is_empty() => {
                    tracing::debug!(%error, "no control group")
                }
                Err(error) => return Err(error),
            }
        }
        if let (Some(program), Some(fd), true) = (&self.program, &group.fd, confined) {
            let with_devices;
            let program = if requested.is_empty() {
                program
            } else {
                let rules: Vec<DeviceRule> =
                    BASIC_DEVICES.iter().chain(requested).copied().collect();
                with_devices =
                    bpf::load_device_program(&rules).map_err(failed("device program"))?;
                &with_devices
            };
            bpf::attach_device_program(program, fd).map_err(failed("device program"))?;
            group.limits_devices = true;
        }
        self.limit(&mut group, &path, limits)?;
        if confined && !group.limits_devices && self.v1.contains_key("devices") {
            let dir = self.v1_dir(&mut group, "devices", &path)?;
            write(&dir.join("devices.deny"), "a")?;
            for rule in ["c *:* m".to_owned(), "b *:* m".to_owned()]
                .into_iter()
                .chain(BASIC_DEVICES.iter().chain(requested).map(v1_rule))
            {
                write(&dir.join("devices.allow"), &rule)?;
            }
            group.limits_devices = true;
        }
        if !confined {
            self.make_shown(&mut group, &path);
        }
        group.oom_before = group.oom_kills();
        Ok(group)
    }

    /// Makes groups in all v1 hierarchies, for a container that sees them. It does without those that cannot be made.
    fn make_shown(&self, group: &mut Group, path: &Path) {
        if self.unified || sys::userns::is_nested() {
            return;
        }
        for (controller, root) in &self.v1 {
            let Some(name) = root.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if group.shown.iter().any(|(shown, _)| shown == name) {
                continue;
            }
            match self.v1_dir(group, controller, path) {
                Ok(dir) => group.shown.push((name.to_owned(), dir)),
                Err(error) => {
                    tracing::debug!(%error, controller, "a privileged container has no group of this controller");
                }
            }
        }
    }

    fn make_v2(&self, root: &Path, path: &Path, limits: &Resources) -> Result<PathBuf, ExecError> {
        let dir = root.join(path);
        let parent = dir.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(failed(parent))?;
        // Controllers must be handed down from every group above; the memory one also counts kills.
        let controllers = ["memory", "pids", "cpu", "cpuset", "io"];
        let mut above = Some(parent);
        let mut chain = Vec::new();
        while let Some(group) = above.filter(|group| group.starts_with(root)) {
            chain.push(group);
            above = group.parent();
        }
        for group in chain.into_iter().rev() {
            let available =
                fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
            let handed_down =
                fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
            for controller in controllers {
                let lists_controller =
                    |list: &str| list.split_whitespace().any(|name| name == controller);
                if lists_controller(&available) && !lists_controller(&handed_down) {
                    let result = fs::write(
                        group.join("cgroup.subtree_control"),
                        format!("+{controller}"),
                    );
                    if let (Err(error), false) = (result, limits.is_empty()) {
                        tracing::warn!(%error, group = %group.display(), controller, "controller cannot be handed down");
                    }
                }
            }
        }
        fs::create_dir(&dir).map_err(failed(&dir))?;
        Ok(dir)
    }

    fn v1_dir(
        &self,
        group: &mut Group,
        controller: &str,
        path: &Path,
    ) -> Result<PathBuf, ExecError> {
        let root = self
            .v1
            .get(controller)
            .ok_or_else(|| failed(controller)(io::ErrorKind::NotFound.into()))?;
        let dir = root.join(path);
        if !group.v1.contains(&dir) {
            fs::create_dir_all(&dir).map_err(failed(&dir))?;
            group.v1.push(dir.clone());
            if controller == "cpuset" {
                inherit_cpuset(root, path)?;
            }
            let file = dir.join("cgroup.procs");
            group.procs.push(
                fs::OpenOptions::new()
                    .write(true)
                    .open(&file)
                    .map_err(failed(&file))?
                    .into(),
            );
        }
        Ok(dir)
    }

    /// Writes each limit where this host has its controller.
    fn limit(&self, group: &mut Group, path: &Path, limits: &Resources) -> Result<(), ExecError> {
        let swap = |limits: &Resources| {
            (limits.memory_swap > 0)
                .then(|| (limits.memory_swap - limits.memory).max(0).to_string())
        };
        let number = |value: i64| {
            if value < 0 {
                "max".to_owned()
            } else {
                value.to_string()
            }
        };
        if limits.memory != 0 {
            self.set(
                group,
                path,
                "memory",
                ("memory.max", &number(limits.memory)),
                ("memory.limit_in_bytes", &limits.memory.to_string()),
            )?;
        }
        if limits.memory_swap != 0 {
            let v2 = swap(limits).unwrap_or_else(|| "max".to_owned());
            let v1 = limits.memory_swap.to_string();
            self.set(
                group,
                path,
                "memory",
                ("memory.swap.max", &v2),
                ("memory.memsw.limit_in_bytes", &v1),
            )?;
        }
        if limits.cpu_shares != 0 {
            let shares = limits.cpu_shares.clamp(2, 262_144);
            let weight = 1 + (shares - 2) * 9999 / 262_142;
            self.set(
                group,
                path,
                "cpu",
                ("cpu.weight", &weight.to_string()),
                ("cpu.shares", &shares.to_string()),
            )?;
        }
        if limits.cpu_period != 0 || limits.cpu_quota != 0 {
            let period = if limits.cpu_period == 0 {
                100_000
            } else {
                limits.cpu_period
            };
            let quota = if limits.cpu_quota <= 0 {
                "max".to_owned()
            } else {
                limits.cpu_quota.to_string()
            };
            let (v2, v1_quota) = (
                format!("{quota} {period}"),
                if limits.cpu_quota == 0 {
                    -1
                } else {
                    limits.cpu_quota
                },
            );
            self.set(
                group,
                path,
                "cpu",
                ("cpu.max", &v2),
                ("cpu.cfs_period_us", &period.to_string()),
            )?;
            if !self.on_v2(group, "cpu") {
                self.set(
                    group,
                    path,
                    "cpu",
                    ("cpu.max", &v2),
                    ("cpu.cfs_quota_us", &v1_quota.to_string()),
                )?;
            }
        }
        for (value, file) in [
            (&limits.cpuset_cpus, "cpuset.cpus"),
            (&limits.cpuset_mems, "cpuset.mems"),
        ] {
            if !value.is_empty() {
                self.set(group, path, "cpuset", (file, value), (file, value))?;
            }
        }
        if limits.pids != 0 {
            let value = number(limits.pids);
            self.set(
                group,
                path,
                "pids",
                ("pids.max", &value),
                ("pids.max", &value),
            )?;
        }
        if let Some(io) = &limits.io {
            self.limit_io(group, path, io)?;
        }
        Ok(())
    }

    fn limit_io(&self, group: &mut Group, path: &Path, io: &IoLimits) -> Result<(), ExecError> {
        let (major, minor) = io.device;
        let rate = |rate: u64| match rate {
            0 => "max".to_owned(),
            rate => rate.to_string(),
        };
        let (reads, writes) = (rate(io.read), rate(io.write));
        if self.on_v2(group, "io")
            && let Some(dir) = &group.v2
        {
            let line = format!("{major}:{minor} rbps={reads} wbps={writes}");
            return write(&dir.join("io.max"), &line);
        }
        if !self.v1.contains_key("blkio") {
            return Err(ExecError::NoController {
                what: "io",
                controller: "io",
            });
        }
        let dir = self.v1_dir(group, "blkio", path)?;
        for (file, rate) in [
            ("blkio.throttle.read_bps_device", io.read),
            ("blkio.throttle.write_bps_device", io.write),
        ] {
            if rate != 0 {
                write(&dir.join(file), &format!("{major}:{minor} {rate}"))?;
            }
        }
        Ok(())
    }

    fn on_v2(&self, group: &Group, controller: &str) -> bool {
        let Some(dir) = &group.v2 else { return false };
        fs::read_to_string(dir.join("cgroup.controllers"))
            .is_ok_and(|list| list.split_whitespace().any(|name| name == controller))
    }

    fn set(
        &self,
        group: &mut Group,
        path: &Path,
        controller: &'static str,
        v2: (&str, &str),
        v1: (&str, &str),
    ) -> Result<(), ExecError> {
        if let (true, Some(dir)) = (self.on_v2(group, controller), &group.v2) {
            return write(&dir.join(v2.0), v2.1);
        }
        if !self.v1.contains_key(controller) {
            return Err(ExecError::NoController {
                what: controller,
                controller,
            });
        }
        let dir = self.v1_dir(group, controller, path)?;
        write(&dir.join(v1.0), v1.1)
    }
}

/// A v1 cpuset takes no process before it has cores and nodes; a new one starts with those of the group above.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<(), ExecError> {
    let mut dir = root.to_owned();
    for name in path {
        let above = dir.clone();
        dir.push(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let value = fs::read_to_string(dir.join(file)).map_err(failed(dir.join(file)))?;
            if value.trim().is_empty() {
                write(
                    &dir.join(file),
                    fs::read_to_string(above.join(file))
                        .map_err(failed(above.join(file)))?
                        .trim(),
                )?;
            }
        }
    }
    Ok(())
}

/// Where a container's groups are, below a hierarchy's root. `..` in the parent leads nowhere.
fn relative(parent: &str, id: &ContainerId) -> Result<PathBuf, ExecError> {
    if parent.len() > 4096 || parent.contains('\0') {
        return Err(ExecError::Invalid {
            what: "cgroup parent",
            value: parent.to_owned(),
        });
    }
    let mut path: PathBuf = gostd::path::names_below_root(parent).into_iter().collect();
    path.push("buildkit");
    path.push(id.as_str());
    Ok(path)
}

/// Where the groups of a container would be that somebody else makes: in each hierarchy, the v2 one first.
pub(crate) fn dirs_of(parent: &str, id: &ContainerId) -> Vec<PathBuf> {
    let Ok(path) = relative(parent, id) else {
        return Vec::new();
    };
    let groups = Groups::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    groups.places().map(|place| place.join(&path)).collect()
}

fn failed(file: impl AsRef<Path>) -> impl FnOnce(io::Error) -> ExecError {
    let file = file.as_ref().display().to_string();
    move |source| ExecError::Cgroup { file, source }
}

fn write(file: &Path, value: &str) -> Result<(), ExecError> {
    fs::write(file, value).map_err(failed(file))
}

impl Group {
    /// Whether the kernel killed something in it for want of memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        self.oom_kills() > self.oom_before
    }

    fn oom_kills(&self) -> u64 {
        let files = self
            .v2
            .iter()
            .map(|dir| dir.join("memory.events"))
            .chain(self.v1.iter().map(|dir| dir.join("memory.oom_control")));
        files
            .filter_map(|file| counter(&fs::read_to_string(file).ok()?, "oom_kill"))
            .sum()
    }

    /// The most memory it ever used.
    pub(crate) fn memory_peak(&self) -> u64 {
        let files = self.v2.iter().map(|dir| dir.join("memory.peak")).chain(
            self.v1
                .iter()
                .map(|dir| dir.join("memory.max_usage_in_bytes")),
        );
        files
            .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
            .max()
            .unwrap_or(0)
    }
}

fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

impl Drop for Group {
    fn drop(&mut self) {
        self.fd = None;
        for dir in self.v2.iter().chain(&self.v1) {
            match remove_left(|| remove_groups(dir)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%error, group = %dir.display(), "control group stays");
                }
                _ => {}
            }
        }
    }
}

/// Removes a group and those that a privileged container made in it, the innermost first.
fn remove_groups(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        // A group with groups in it is busy, as one with processes is.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
            ) => {}
        result => return result,
    }
    let mut pending = vec![dir.to_owned()];
    while let Some(innermost) = pending.last() {
        let mut below = Vec::new();
        for entry in fs::read_dir(innermost)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                below.push(entry.path());
            }
        }
        if below.is_empty() {
            fs::remove_dir(innermost)?;
            pending.pop();
        }
        pending.append(&mut below);
    }
    Ok(())
}

/// Removes a group that is being left: the last process may still be in it when its parent learns that it ended.
fn remove_left(remove: impl Fn() -> io::Result<()>) -> io::Result<()> {
    for wait in [0, 1, 2, 4, 8, 16] {
        match remove() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                task::clock::sleep_thread(Duration::from_millis(wait));
            }
            result => return result,
        }
    }
    remove()
}

/// Ways to the control groups for a process that will not see them mounted any more.
#[derive(Debug)]
pub(crate) struct Hierarchies(Vec<(PathBuf, OwnedFd)>);

impl Hierarchies {
    /// Opens what is mounted.
    pub(crate) fn open() -> Self {
        let groups = Groups::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        let mut places: Vec<PathBuf> = groups
            .v2
            .into_iter()
            .chain(groups.v1.into_values())
            .collect();
        places.sort();
        places.dedup();
        let open = |place: PathBuf| Some((place.clone(), sys::path::open_dir(&place).ok()?));
        Self(places.into_iter().filter_map(open).collect())
    }

    /// Removes a group that nobody is in any more. Best effort.
    pub(crate) fn remove(&self, group: &Path) {
        for (place, dir) in &self.0 {
            if let Ok(below) = group.strip_prefix(place) {
                drop(remove_left(|| sys::file::rmdirat(dir, below)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
