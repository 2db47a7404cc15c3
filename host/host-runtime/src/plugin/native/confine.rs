//! The child locks itself in before it loads a stranger's library: limits of memory and files, landlock for what it may
//! open, seccomp for what it may ask of the kernel. None of it can be undone by the process itself.
//!
//! A system call that is not in the list fails with EPERM, so that a library which only tries something (libcrypto looks
//! for a random device, a C library for a faster call) goes on without it. What the plugin is lent comes over the
//! channel and needs none of this. Nothing here stops a library from computing for ever; the host's deadline does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::wire::Confinement;

/// Address space that the library may take beside what the program has already: a cryptographic library with its data
/// is 10 MiB, a block 128 KiB; the rest is a thread's stack of 8 MiB a few times.
pub const MEMORY_MAX_BYTES: u64 = 128 * 1024 * 1024;

/// Open files: the channel, a file or two of the target's, and room for a library's own.
pub(super) const FILES_MAX: u64 = 64;

/// Largest file that it may write in a directory of its own: the largest size of a FreeRTOS file context.
const FILE_MAX_BYTES: u64 = u32::MAX as u64;

/// What a library needs to be loaded: other libraries, and where they are. Read only; what is not there is left out.
/// Of what a cryptographic library looks for, not the directory of private keys beside it.
const READABLE: [&str; 10] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/dev/urandom",
    "/dev/random",
];

/// Files that anybody may read and write.
const WRITABLE: [&str; 2] = ["/dev/null", "/dev/zero"];

/// The landlock that is asked for; an older kernel gives less of it. 5: files, renames, truncation, TCP, ioctl on devices;
/// 6: abstract sockets and signals.
const LANDLOCK: ABI = ABI::V6;

/// Lock this process in. What the kernel cannot do is named, and only allowed where the operator allows it.
///
/// # Errors
/// A grant that is not there, a kernel that lacks something and no permission to go without, in words.
pub(super) fn confine(confinement: &Confinement) -> Result<Vec<String>, String> {
    limit(confinement.memory_max_bytes.unwrap_or(MEMORY_MAX_BYTES))?;
    if let Some(home) = confinement.directories.first() {
        std::env::set_current_dir(home).map_err(|e| format!("{}: {e}", home.display()))?;
    }
    lacking(
        files(confinement)?,
        system_calls().err(),
        confinement.allow_unconfined,
    )
}

/// What this kernel cannot do, where the plugin may run all the same. An older landlock still keeps it from files that it
/// was not given; that it does less is said, and needs no leave.
fn lacking(
    landlock: RulesetStatus,
    no_seccomp: Option<String>,
    allow_unconfined: bool,
) -> Result<Vec<String>, String> {
    let mut lacking = Vec::new();
    if landlock == RulesetStatus::NotEnforced {
        lacking.push("landlock".to_owned());
    }
    lacking.extend(no_seccomp.map(|reason| format!("seccomp ({reason})")));
    if lacking.is_empty() || allow_unconfined {
        if landlock == RulesetStatus::PartiallyEnforced {
            lacking.push("complete landlock (Linux 6.12 has it)".to_owned());
        }
        return Ok(lacking);
    }
    Err(format!(
        "this kernel has no {}; `allow_unconfined = true` runs the plugin without",
        lacking.join(" and no ")
    ))
}

/// Limits of the process itself.
fn limit(memory_bytes: u64) -> Result<(), String> {
    let used = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .ok_or("/proc/self/status does not say how large this process is")?;
    for (resource, max) in [
        (Resource::As, used * 1024 + memory_bytes),
        (Resource::Nofile, FILES_MAX),
        (Resource::Fsize, FILE_MAX_BYTES),
        (Resource::Core, 0),
    ] {
        let both = Rlimit {
            current: Some(max),
            maximum: Some(max),
        };
        setrlimit(resource, both).map_err(|e| format!("limit {resource:?} to {max}: {e}"))?;
    }
    Ok(())
}

/// Landlock: nothing may be opened but what is named here.
fn files(confinement: &Confinement) -> Result<RulesetStatus, String> {
    let words = |e: landlock::RulesetError| format!("landlock: {e}");
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let all = AccessFs::from_all(LANDLOCK) & !BitFlags::from(AccessFs::Execute);
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(LANDLOCK)))
        .and_then(|rules| rules.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create)
        .map_err(words)?;
    for path in READABLE.iter().map(Path::new) {
        if path.exists() {
            rules = allow(rules, path, read)?;
        }
    }
    for path in WRITABLE.iter().map(Path::new) {
        if path.exists() {
            rules = allow(rules, path, all)?;
        }
    }
    for path in confinement.directories.iter().chain(&confinement.devices) {
        rules = allow(rules, path, all)?;
    }
    let status = rules.restrict_self().map_err(words)?;
    Ok(status.ruleset)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let place = PathFd::new(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(LANDLOCK)
    };
    rules
        .add_rule(PathBeneath::new(place, access))
        .map_err(|e| format!("landlock: {}: {e}", path.display()))
}

/// Seccomp: what is not in the list is refused. No sockets, no programs, no other processes, no rights.
fn system_calls() -> Result<(), String> {
    let words = |e: seccompiler::Error| e.to_string();
    let backend = |e: seccompiler::BackendError| e.to_string();
    let architecture = std::env::consts::ARCH.try_into().map_err(backend)?;
    let apply = |rules, otherwise, listed| {
        let filter = SeccompFilter::new(rules, otherwise, listed, architecture).map_err(backend)?;
        let program: BpfProgram = filter.try_into().map_err(backend)?;
        apply_filter(&program).map_err(words)
    };
    // Its flags lie in memory, where no filter can look; the C library then uses `clone`, whose flags can be looked at.
    apply(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
    )?;
    apply(
        rules().map_err(backend)?,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
    )
}

/// What a process may ask of the kernel, with what conditions.
fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    let argument = |number, operator, value| {
        SeccompCondition::new(number, SeccompCmpArgLen::Qword, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    // A thread of this process, no process.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let clone = argument(0, SeccompCmpOp::MaskedEq(thread), thread)?;
    rules.insert(libc::SYS_clone, vec![clone]);
    // Signals to itself, which is how `abort` ends.
    let me = u64::from(std::process::id());
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![argument(0, SeccompCmpOp::Eq, me)?]);
    }
    // The name of a thread.
    let name = u64::from(libc::PR_SET_NAME.unsigned_abs());
    rules.insert(libc::SYS_prctl, vec![argument(0, SeccompCmpOp::Eq, name)?]);
    // Look at a limit, set none: root could raise it again.
    rules.insert(libc::SYS_prlimit64, vec![argument(2, SeccompCmpOp::Eq, 0)?]);
    // Everything but who gets the signals of a file: that could be the host, and the signal SIGKILL. The kernel looks at
    // the lower 32 bits.
    for (call, [one, other]) in [
        (libc::SYS_fcntl, SET_OWNER),
        (libc::SYS_ioctl, SET_OWNER_OF_SOCKET),
    ] {
        let differs =
            |from| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, from);
        let neither = SeccompRule::new(vec![differs(one)?, differs(other)?])?;
        rules.insert(call, vec![neither]);
    }
    Ok(rules)
}

/// F_SETOWN and F_SETOWN_EX of `fcntl`.
const SET_OWNER: [u64; 2] = [8, 15];

/// FIOSETOWN and SIOCSPGRP of `ioctl`.
const SET_OWNER_OF_SOCKET: [u64; 2] = [0x8901, 0x8902];

/// System calls that need no condition: memory, time, threads of its own, and files, which landlock judges. Not `truncate`,
/// which landlock lets pass before Linux 6.2; a file that could be opened can be cut by `ftruncate`.
const PLAIN: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Refused by the filter before this one, and of two refusals the later filter's would count.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_chdir,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getdents,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_confines_less_is_told_of_and_one_that_does_not_takes_leave() {
        use RulesetStatus::{FullyEnforced, NotEnforced, PartiallyEnforced};
        assert_eq!(lacking(FullyEnforced, None, false), Ok(vec![]));
        let partly = vec!["complete landlock (Linux 6.12 has it)".to_owned()];
        assert_eq!(lacking(PartiallyEnforced, None, false), Ok(partly));
        let refused = lacking(NotEnforced, None, false).unwrap_err();
        assert!(
            refused.contains("no landlock; `allow_unconfined = true`"),
            "{refused}"
        );
        let no_seccomp = Some("no filter".to_owned());
        let refused = lacking(PartiallyEnforced, no_seccomp.clone(), false).unwrap_err();
        assert!(refused.contains("no seccomp (no filter)"), "{refused}");
        let allowed = lacking(PartiallyEnforced, no_seccomp, true).unwrap();
        assert_eq!(allowed.len(), 2, "{allowed:?}");
        assert_eq!(lacking(NotEnforced, None, true).unwrap(), ["landlock"]);
    }
}
