//! A container's first process, from the clone to the exec: one straight function. A failure is reported and ends it.
//!
//! Order matters (P6): the root, /proc, /sys, /dev and what is masked in them stand before the first mount that another step can write to
//! is attached; after that nothing of the set-up is looked up by a name such a mount could redirect out of the root.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FileType, OFlags};
use sys::mount::{self, AttrChange, Attrs};
use sys::process::{self, Namespaces};
use sys::{caps, file, landlock, netns, notify, path, pty, seccomp, socket, userns};
use task::clock;

use super::filesystem;
use super::message::{GO_ON, MAX_MESSAGE_BYTES, Opening, Plan, ProcessPlan, Report};
use super::setup::Prepared;
use crate::error::{StartError, errno};
use crate::injection::HookPlan;
use crate::stubs::{self, Kind, Stubs};

/// The pause before it is looked again whether a hook has ended.
const HOOK_POLL_PAUSE: Duration = Duration::from_millis(5);

/// The plan's descriptors, each taken once.
pub(super) struct ReceivedFds(Vec<Option<OwnedFd>>);

impl ReceivedFds {
    pub(super) fn take(&mut self, index: usize) -> Result<OwnedFd, StartError> {
        self.0
            .get_mut(index)
            .and_then(Option::take)
            .ok_or_else(|| step("descriptors")(io::Error::from_raw_os_error(libc::EBADF)))
    }
}

/// An error of a step that has a name and nothing more to say.
pub(super) fn step(name: &str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Step {
        step: name.to_owned(),
        errno: errno(&error),
    }
}

/// Becomes a new container; `seq` is the launcher's number for it, `network` a namespace that has been made for it.
pub(super) fn run(prepared: &Prepared, control: OwnedFd, seq: u64, network: Option<OwnedFd>) -> ! {
    // Not the launcher: without the machine's root it could not come back from there.
    let entered = network.map_or(Ok(()), netns::enter);
    let result = entered
        .map_err(step("join the network of a step"))
        .and_then(|()| start(prepared, &control, seq, None));
    finish(&control, result)
}

/// Becomes a further process of the container whose first process `target` is.
pub(super) fn join(prepared: &Prepared, control: OwnedFd, seq: u64, target: &OwnedFd) -> ! {
    finish(&control, start(prepared, &control, seq, Some(target)))
}

fn finish(control: &OwnedFd, result: Result<Infallible, StartError>) -> ! {
    let Err(error) = result;
    report(control, &Report::Failed(error), &[]);
    process::exit_now(255)
}

fn report(control: &OwnedFd, report: &Report, fds: &[std::os::fd::BorrowedFd<'_>]) {
    let too_long = || {
        let error = step("a report of its failure")(io::Error::from_raw_os_error(libc::E2BIG));
        serde_json::to_vec(&Report::Failed(error))
    };
    let bytes = match serde_json::to_vec(report) {
        Ok(bytes) if bytes.len() > MAX_MESSAGE_BYTES => too_long(),
        bytes => bytes,
    };
    if let Ok(bytes) = bytes {
        drop(socket::send(control, &bytes, fds));
    }
}

/// Tells the daemon which mount points were made, in as many messages as it takes.
fn report_stubs(control: &OwnedFd, stubs: Vec<Stubs>) {
    let (mut batch, mut size) = (Vec::new(), 0);
    for stubs in stubs {
        let bytes = stubs.message_size();
        if size + bytes > MAX_MESSAGE_BYTES / 2 && !batch.is_empty() {
            report(control, &Report::Stubs(std::mem::take(&mut batch)), &[]);
            size = 0;
        }
        size += bytes;
        batch.push(stubs);
    }
    if !batch.is_empty() {
        report(control, &Report::Stubs(batch), &[]);
    }
}

fn start(
    prepared: &Prepared,
    control: &OwnedFd,
    seq: u64,
    target: Option<&OwnedFd>,
) -> Result<Infallible, StartError> {
    process::die_with_parent().map_err(step("prctl"))?;
    process::set_undumpable().map_err(step("prctl"))?;
    process::reset_signals();
    let (plan, mut fds) = receive(control).map_err(step("receive plan"))?;
    let mut groups = Vec::new();
    for index in &plan.cgroup_procs {
        let procs = fds.take(*index)?;
        rustix::io::write(&procs, b"0")
            .map_err(|errno| step("join control group")(errno.into()))?;
        groups.push(procs);
    }
    if let Some(target) = target {
        let joined_namespaces = Namespaces {
            pid: false,
            mount: true,
            ipc: true,
            uts: true,
            net: plan.joined.network,
            cgroup: plan.joined.cgroups,
            user: false,
        };
        process::setns(&prepared.alone, target, joined_namespaces)
            .map_err(step("join namespaces"))?;
        rustix::process::chdir("/").map_err(|errno| step("chdir")(errno.into()))?;
    }
    let process = &plan.process;
    if let Some(root) = process.namespace_root {
        // What is made from here on belongs to the container's root.
        userns::set_file_owner(root).map_err(step("owner of new files"))?;
        // A change of ids clears the signal that is sent when the parent dies.
        process::die_with_parent().map_err(step("prctl"))?;
    }
    if let Some(container) = &plan.container {
        let mut stubs = Vec::new();
        let result = filesystem::build(
            container,
            &process.cwd,
            process.owner,
            &mut fds,
            &mut stubs,
            || wait_until_ready(control),
        );
        // The daemon removes the mount points of a failed start as well.
        report_stubs(control, stubs);
        result?;
    }
    let streams = streams(process, control, &mut fds)?;
    let _ = rustix::process::setsid();
    if process.tty {
        let [terminal, ..] = &streams;
        pty::make_controlling(terminal).map_err(step("controlling terminal"))?;
        if plan.container.is_some() {
            filesystem::console(terminal).map_err(step("/dev/console"))?;
        }
    }
    for (number, soft, hard) in &process.rlimits {
        process::set_rlimit(*number, *soft, *hard).map_err(step("setrlimit"))?;
    }
    enter(process)?;
    process::set_stdio(streams.each_ref().map(AsFd::as_fd)).map_err(step("standard streams"))?;
    confine(prepared, process, seq, &groups)?;
    // Everything but the standard streams goes at exec, whatever was inherited from wherever (P5).
    process::close_on_exec_from(3).map_err(step("close_range"))?;
    for hook in &plan.hooks {
        run_hook(hook).map_err(|reason| StartError::Hook {
            path: hook.path.clone(),
            reason,
        })?;
    }
    execute(process)
}

/// Tells the daemon that the tree stands, and waits until it has done what it has to do for it.
fn wait_until_ready(control: &OwnedFd) -> Result<(), StartError> {
    report(control, &Report::Built, &[]);
    let mut answer = [0; GO_ON.len()];
    let (length, _) = socket::receive(control, &mut answer).map_err(step("hooks"))?;
    if answer.get(..length) == Some(GO_ON) {
        return Ok(());
    }
    Err(step("hooks")(io::Error::from_raw_os_error(libc::ECANCELED)))
}

/// Runs a program of the container to its end, with the rights of the process that is to come.
fn run_hook(hook: &HookPlan) -> Result<(), String> {
    let not_started = |error: io::Error| format!("cannot start it: {error}");
    let (first, rest) = match hook.args.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => (hook.path.as_str(), &[][..]),
    };
    let mut command = Command::new(&hook.path);
    command
        .arg0(first)
        .args(rest)
        .env_clear()
        .envs(hook.env.iter().filter_map(|entry| entry.split_once('=')))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(not_started)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it. It is shorter than a pipe.
        drop(stdin.write_all(hook.state.as_bytes()));
    }
    let deadline = clock::monotonic() + Duration::from_secs(hook.seconds);
    loop {
        match child.try_wait().map_err(not_started)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(status.to_string()),
            None if clock::monotonic() >= deadline => {
                drop(child.kill());
                drop(child.wait());
                return Err(format!("it did not end within {} s", hook.seconds));
            }
            None => clock::sleep_thread(HOOK_POLL_PAUSE),
        }
    }
}

/// Takes the plan and its descriptors from the socket.
fn receive(control: &OwnedFd) -> io::Result<(Plan, ReceivedFds)> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let (length, mut fds) = socket::receive(control, &mut buffer)?;
    let opening: Opening = serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
    while fds.len() < opening.descriptors {
        match socket::receive(control, &mut buffer)? {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (_, more) => fds.extend(more),
        }
    }
    let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
    let plan = fds
        .first_mut()
        .and_then(Option::take)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut bytes = Vec::new();
    File::from(plan).read_to_end(&mut bytes)?;
    Ok((serde_json::from_slice(&bytes)?, ReceivedFds(fds)))
}

/// The three standard streams; with a terminal its one end thrice, the other going to the daemon.
fn streams(
    plan: &ProcessPlan,
    control: &OwnedFd,
    fds: &mut ReceivedFds,
) -> Result<[OwnedFd; 3], StartError> {
    let Some([input, output, errors]) = plan.stdio else {
        let terminal = terminal(plan, control).map_err(step("terminal"))?;
        let copy = || terminal.try_clone().map_err(step("terminal"));
        return Ok([copy()?, copy()?, terminal]);
    };
    let streams = [fds.take(input)?, fds.take(output)?, fds.take(errors)?];
    for stream in &streams {
        // So that the process can open /dev/stdout also when it is not root. Not /dev/null, which is everyone's.
        let pipe = rustix::fs::fstat(stream)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if pipe && plan.owner.0 != 0 {
            file::chown_fd(stream, plan.owner.0, u32::MAX)
                .map_err(step("owner of standard streams"))?;
        }
    }
    Ok(streams)
}

fn terminal(plan: &ProcessPlan, control: &OwnedFd) -> io::Result<OwnedFd> {
    let root = path::open_host_path("/")?;
    let devpts = path::open_no_symlinks(&root, "dev/pts", OFlags::PATH | OFlags::DIRECTORY, 0)?;
    if filesystem::filesystem_type(&devpts)? != filesystem::DEVPTS_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    let master = pty::open_master(&devpts)?;
    let peer = pty::open_peer(&master)?;
    if plan.owner.0 != 0 && plan.owner.0 != u32::MAX {
        rustix::fs::fchown(&peer, Some(rustix::fs::Uid::from_raw(plan.owner.0)), None)?;
    }
    report(control, &Report::Terminal, &[master.as_fd()]);
    Ok(peer)
}

/// Enters the working directory, and makes sure that it is inside the root (P5).
fn enter(plan: &ProcessPlan) -> Result<(), StartError> {
    let failed = |error: io::Error| StartError::WorkingDir {
        path: plan.cwd.clone(),
        errno: errno(&error),
    };
    let root = path::open_host_path("/").map_err(failed)?;
    let place =
        stubs::find_or_make(&root, &plan.cwd, Kind::Directory, Some(plan.owner)).map_err(failed)?;
    rustix::process::fchdir(&place.fd).map_err(|errno| failed(errno.into()))?;
    let inside = rustix::process::getcwd(Vec::new()).map_err(|errno| failed(errno.into()))?;
    if !inside.to_bytes().starts_with(b"/") {
        return Err(failed(io::Error::from_raw_os_error(libc::ENOENT)));
    }
    Ok(())
}

/// Gives up what the process may not have. The filter goes first, while installing one without no_new_privs is still allowed.
fn confine(
    prepared: &Prepared,
    plan: &ProcessPlan,
    seq: u64,
    groups: &[OwnedFd],
) -> Result<(), StartError> {
    if plan.namespace_root.is_some() {
        let missing_namespace =
            || step("user namespace")(io::Error::from_raw_os_error(libc::ENOENT));
        let user_namespace = Namespaces {
            user: true,
            ..Namespaces::default()
        };
        // All capabilities from here on are over what belongs to this namespace; the rest of the world was made outside of it.
        process::setns(
            &prepared.alone,
            &prepared
                .users
                .as_ref()
                .ok_or_else(missing_namespace)?
                .namespace,
            user_namespace,
        )
        .map_err(step("user namespace"))?;
        process::die_with_parent().map_err(step("prctl"))?;
    }
    // DIFFERS: BuildKit's steps on the host's network reach its abstract sockets.
    if let (true, Some(scope)) = (plan.scoped, &prepared.scope) {
        landlock::restrict_self(scope).map_err(step("landlock"))?;
    }
    if plan.seccomp {
        let unsupported =
            || step("seccomp on this architecture")(io::Error::from_raw_os_error(libc::ENOSYS));
        match &prepared.users {
            Some(users) if plan.namespace_root.is_some() => {
                let listener = notify::install(&users.filter).map_err(step("seccomp"))?;
                let fds: Vec<_> = std::iter::once(listener.as_fd())
                    .chain(groups.iter().map(AsFd::as_fd))
                    .collect();
                socket::send(&users.listeners, &seq.to_ne_bytes(), &fds)
                    .map_err(step("supervisor"))?;
            }
            _ => seccomp::install(prepared.filter.as_deref().ok_or_else(unsupported)?)
                .map_err(step("seccomp"))?,
        }
    }
    let (set, ambient) = (caps::Set(plan.capabilities), caps::Set(plan.ambient));
    caps::keep_in_bounding_set(set).map_err(step("bounding set"))?;
    caps::keep_across_setuid(true).map_err(step("keep capabilities"))?;
    process::become_user(&prepared.alone, plan.uid, plan.gid, &plan.groups)
        .map_err(step("change user"))?;
    caps::keep_across_setuid(false).map_err(step("keep capabilities"))?;
    caps::set(set, set, ambient).map_err(step("capset"))?;
    caps::set_ambient(ambient).map_err(step("ambient set"))?;
    // Changing the user clears the signal that is sent when the parent dies.
    process::die_with_parent().map_err(step("prctl"))
}

/// Finds the program where PATH leads, and becomes it.
fn execute(plan: &ProcessPlan) -> Result<Infallible, StartError> {
    let name = plan.args.first().ok_or(StartError::NoCommand)?;
    let program = find_program(name, &plan.env)?;
    let text = |list: &[String]| {
        list.iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<Vec<_>, _>>()
    };
    let invalid = |_| StartError::Exec {
        path: name.clone(),
        errno: libc::EINVAL,
    };
    let path = CString::new(program.as_str()).map_err(invalid)?;
    let (args, env) = (
        text(&plan.args).map_err(invalid)?,
        text(&plan.env).map_err(invalid)?,
    );
    process::execve(&path, &args, &env).map_err(|error| StartError::Exec {
        path: program,
        errno: errno(&error),
    })
}

fn find_program(name: &str, env: &[String]) -> Result<String, StartError> {
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => Err(StartError::Lookup {
                path: name.to_owned(),
                errno: errno(&error),
            }),
        };
    }
    let search = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    search
        .split(':')
        // DIFFERS: an empty or relative entry of PATH is not searched; Go, and so runc, finds the program there and then refuses it.
        .filter(|dir| dir.starts_with('/') && !name.is_empty())
        .map(|dir| format!("{}/{name}", dir.trim_end_matches('/')))
        .find(|path| executable(path).is_ok())
        .ok_or_else(|| StartError::NotInPath {
            name: name.to_owned(),
        })
}

fn executable(path: &str) -> io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    Ok(rustix::fs::accessat(
        rustix::fs::CWD,
        path,
        rustix::fs::Access::EXEC_OK,
        rustix::fs::AtFlags::EACCESS,
    )?)
}

/// The attributes of the mounts that every container has: no set-user-id programs, no devices, no execution.
pub(super) const RESTRICTED_ATTRS: Attrs = Attrs {
    readonly: false,
    nosuid: true,
    nodev: true,
    noexec: true,
};

/// Makes the mount at `fd` read-only, with all below it.
pub(super) fn make_readonly(fd: impl AsFd, recursive: bool) -> io::Result<()> {
    let set = Attrs {
        readonly: true,
        ..Attrs::default()
    };
    mount::mount_setattr(
        fd,
        AttrChange {
            set,
            recursive,
            ..AttrChange::default()
        },
    )
}
