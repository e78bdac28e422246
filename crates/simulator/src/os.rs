//! System calls of simulated processes: clocks, randomness, and waiting.
//!
//! The functions below have the names of functions of the C library, so the linker binds all calls of this program to
//! them. On a thread that simulates they answer for the process that runs at the moment; on all others they do what they
//! always do. So tokio, std and every library keep their own code, and yet see simulated time:
//!
//! * `clock_gettime` reads the clock of the process.
//! * `getrandom` draws from the generator of the run, so hash maps and ids are the same each time.
//! * `epoll_wait` is where a runtime sleeps. Here it says until when, and returns at once: the world goes on with whoever
//!   is next.
//! * `write` to the file descriptor by which a runtime is woken says that it has something to do.
//! * Calls that change files and directories are made, and [`disk`](crate::disk) notes what a failure of power would take
//!   back; or they fail, where a disk has trouble.
//!
//! Only x86-64 Linux is supported, and one runtime thread for each process.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::task::Waker;
use std::time::Duration;

use nova_host::blocking;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::disk::{Disks, Refused};

/// Simulated wall time at the beginning: 2026-01-01T00:00:00Z, in nanoseconds.
const BEGIN_NS: i64 = 1_767_225_600_000_000_000;
/// Time since boot at the beginning: nothing may rely on it being small.
const BOOT_NS: i64 = 1_000_000_000_000;

/// Clocks of a process, as they differ from those of the world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skew {
    /// What its wall clock is ahead, in nanoseconds.
    pub wall_ns: i64,
    /// How much faster all its clocks run, in millionths.
    pub drift_ppm: i64,
}

struct Thread {
    now_ns: i64,
    skew: Skew,
    random: SmallRng,
    /// The process that runs.
    current: usize,
    /// Until when the runtime that runs sleeps, once it does.
    sleeps: Option<Sleep>,
    /// Ends the turn of the runtime that runs.
    turn: Option<Waker>,
    /// By file descriptor: whose runtime is woken by it.
    wakers: BTreeMap<i32, usize>,
    /// Processes that were woken.
    woken: Vec<usize>,
    disks: Disks,
}

impl Thread {
    /// The disks, which are told the time.
    fn disks(&mut self) -> &mut Disks {
        let owed = blocking::owed().as_nanos() as i64;
        self.disks.time(self.now_ns, Duration::from_nanos(world(self.skew, owed).unsigned_abs()));
        &mut self.disks
    }
}

/// What a runtime that has nothing to do waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// World time, in nanoseconds.
    Until(i64),
    /// Only for somebody to wake it.
    ForEver,
}

thread_local! {
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    static THREAD: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Thread) -> T) -> Option<T> {
    // A thread that ends, and one inside of these functions, is left to the system.
    if !SIMULATES.try_with(Cell::get).unwrap_or(false) {
        return None;
    }
    THREAD.with(|thread| thread.try_borrow_mut().ok().and_then(|mut thread| thread.as_mut().map(act)))
}

/// Simulates on this thread from now on, until the guard is dropped.
pub(crate) struct Simulates(());

pub(crate) fn simulate(seed: u64) -> Simulates {
    let thread = Thread {
        now_ns: 0,
        skew: Skew::default(),
        random: SmallRng::seed_from_u64(seed),
        current: 0,
        sleeps: None,
        turn: None,
        wakers: BTreeMap::new(),
        woken: Vec::new(),
        disks: Disks::new(seed),
    };
    THREAD.with(|own| *own.borrow_mut() = Some(thread));
    SIMULATES.set(true);
    Simulates(())
}

impl Drop for Simulates {
    fn drop(&mut self) {
        SIMULATES.set(false);
        let thread = THREAD.with(|own| own.borrow_mut().take());
        drop(thread);
    }
}

/// Time of the world since the beginning, in nanoseconds.
pub(crate) fn now_ns() -> i64 {
    with(|thread| thread.now_ns).unwrap_or_default()
}

/// Does something with the disks.
pub(crate) fn disks<T>(act: impl FnOnce(&mut Disks) -> T) -> Option<T> {
    with(|thread| act(thread.disks()))
}

/// The world's wall clock, in milliseconds since the Unix epoch.
pub(crate) fn wall_ms() -> u64 {
    ((BEGIN_NS + now_ns()) / 1_000_000).unsigned_abs()
}

pub(crate) fn set_now(now_ns: i64) {
    with(|thread| thread.now_ns = thread.now_ns.max(now_ns));
}

/// From now on this process runs.
pub(crate) fn enter(process: usize, skew: Skew) {
    with(|thread| (thread.current, thread.skew, thread.sleeps) = (process, skew, None));
}

/// Whether the runtime that runs sleeps, and until when; else `turn` is woken when it does.
pub(crate) fn sleeps(turn: &Waker) -> Option<Sleep> {
    with(|thread| {
        let sleeps = thread.sleeps.take();
        if sleeps.is_none() {
            thread.turn = Some(turn.clone());
        }
        sleeps
    })
    .flatten()
}

/// Processes that were woken since this was asked before.
pub(crate) fn take_woken() -> Vec<usize> {
    with(|thread| std::mem::take(&mut thread.woken)).unwrap_or_default()
}

/// The wakers of a process that ended are others' from now on.
pub(crate) fn forget(process: usize) {
    with(|thread| thread.wakers.retain(|_, own| *own != process));
}

/// Nanoseconds that the clock of a process shows for a span of the world's time.
fn shown(skew: Skew, span_ns: i64) -> i64 {
    span_ns + (i128::from(span_ns) * i128::from(skew.drift_ppm) / 1_000_000) as i64
}

/// The world's time for what the clock of a process shows, rounded up.
fn world(skew: Skew, shown_ns: i64) -> i64 {
    let (shown_ns, rate) = (i128::from(shown_ns) * 1_000_000, i128::from(1_000_000 + skew.drift_ppm));
    (shown_ns.div_euclid(rate) + i128::from(shown_ns.rem_euclid(rate) != 0)) as i64
}

/// Reads a clock.
///
/// # Safety
/// As of the C library's: `time` points to a `timespec`.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let simulated = with(|thread| {
        let since = shown(thread.skew, thread.now_ns);
        match clock {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(BEGIN_NS + since + thread.skew.wall_ns),
            libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
                Some(BOOT_NS + since)
            }
            // Time of the processor is real.
            _ => None,
        }
    });
    match simulated.flatten() {
        Some(ns) => {
            // SAFETY: the caller's.
            unsafe {
                *time = libc::timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
            };
            0
        }
        // SAFETY: the arguments are the caller's.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}

/// Fills a buffer with random bytes.
///
/// # Safety
/// As of the C library's: `buffer` has `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if buffer.is_null() || length == 0 {
        // Some ask so whether there is this call.
        return 0;
    }
    let simulated = with(|thread| {
        // SAFETY: the caller's, and it is not null.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        thread.random.fill_bytes(bytes);
        length as libc::ssize_t
    });
    // SAFETY: the arguments are the caller's.
    simulated.unwrap_or_else(|| unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t })
}

/// Waits for events, in the simulation for none: there are no file descriptors to wait for.
///
/// # Safety
/// As of the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: libc::c_int,
    events: *mut libc::epoll_event,
    most: libc::c_int,
    timeout_ms: libc::c_int,
) -> libc::c_int {
    let turn = with(|thread| {
        if timeout_ms == 0 {
            return None;
        }
        thread.sleeps = Some(if timeout_ms < 0 {
            Sleep::ForEver
        } else {
            let shown_ns = shown(thread.skew, thread.now_ns) + i64::from(timeout_ms) * 1_000_000;
            Sleep::Until(world(thread.skew, shown_ns))
        });
        thread.turn.take()
    });
    match turn {
        Some(turn) => {
            // It wakes the runtime that runs, which calls `write` below.
            if let Some(turn) = turn {
                turn.wake();
            }
            0
        }
        // SAFETY: the arguments are the caller's.
        None => unsafe { libc::syscall(libc::SYS_epoll_wait, epoll, events, most, timeout_ms) as libc::c_int },
    }
}

/// Makes a file descriptor by which a runtime is woken.
///
/// # Safety
/// As of the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn eventfd(initial: libc::c_uint, flags: libc::c_int) -> libc::c_int {
    // SAFETY: the arguments are the caller's.
    let fd = unsafe { libc::syscall(libc::SYS_eventfd2, initial, flags) as libc::c_int };
    if fd >= 0 {
        with(|thread| thread.wakers.insert(fd, thread.current));
    }
    fd
}

/// What a call that changes an open file comes to: `act` on it, with what is known of it, unless it is no file.
///
/// # Safety
/// `fd` is open for as long as this takes.
unsafe fn on_file(fd: libc::c_int, act: impl FnOnce(&mut Disks, &File, &libc::stat64) -> Refused) -> Refused {
    with(|thread| {
        // SAFETY: the caller's; what is known of a file is plain data.
        let (about, known) = unsafe {
            let mut about = std::mem::zeroed::<libc::stat64>();
            let known = libc::fstat64(fd, &mut about) == 0;
            (about, known)
        };
        if !known || about.st_mode & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        // SAFETY: the caller's, and it is not closed here.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        act(thread.disks(), &file, &about)
    })
    .flatten()
}

/// Fails a call.
fn fail<T: From<i8>>(errno: i32) -> T {
    // SAFETY: each thread has its own.
    unsafe { *libc::__errno_location() = errno };
    T::from(-1)
}

fn size(about: &libc::stat64) -> u64 {
    about.st_size.unsigned_abs()
}

/// Where the next byte is written.
///
/// # Safety
/// `fd` is open for as long as this takes.
unsafe fn place(fd: libc::c_int, about: &libc::stat64) -> u64 {
    // SAFETY: both only ask.
    let (flags, place) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek64(fd, 0, libc::SEEK_CUR)) };
    if flags & libc::O_APPEND != 0 { size(about) } else { place.unsigned_abs() }
}

/// Writes to a file, or wakes a runtime.
///
/// # Safety
/// As of the C library's: `buffer` has `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: libc::c_int, buffer: *const libc::c_void, length: libc::size_t) -> libc::ssize_t {
    let woken = with(|thread| {
        let process = *thread.wakers.get(&fd)?;
        if process != thread.current && !thread.woken.contains(&process) {
            thread.woken.push(process);
        }
        Some(length as libc::ssize_t)
    });
    if let Some(written) = woken.flatten() {
        return written;
    }
    // SAFETY: the caller's.
    let refused = unsafe {
        on_file(fd, |disks, file, about| disks.writes(file, about.st_ino, size(about), place(fd, about), length as u64))
    };
    match refused {
        Some(errno) => fail(errno),
        // SAFETY: the arguments are the caller's.
        None => unsafe { libc::syscall(libc::SYS_write, fd, buffer, length) as libc::ssize_t },
    }
}

/// Writes at a place of a file.
///
/// # Safety
/// As of the C library's: `buffer` has `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    fd: libc::c_int,
    buffer: *const libc::c_void,
    length: libc::size_t,
    at: libc::off64_t,
) -> libc::ssize_t {
    // SAFETY: the caller's.
    let refused = unsafe {
        on_file(fd, |disks, file, about| {
            disks.writes(file, about.st_ino, size(about), at.unsigned_abs(), length as u64)
        })
    };
    match refused {
        Some(errno) => fail(errno),
        // SAFETY: the arguments are the caller's.
        None => unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, length, at) as libc::ssize_t },
    }
}

/// Writes several buffers at a place of a file.
///
/// # Safety
/// As of the C library's: `buffers` has `count` of them.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(
    fd: libc::c_int,
    buffers: *const libc::iovec,
    count: libc::c_int,
    at: libc::off64_t,
) -> libc::ssize_t {
    // SAFETY: the caller's.
    let refused = unsafe {
        on_file(fd, |disks, file, about| {
            let length = (0..count as usize).map(|n| (*buffers.add(n)).iov_len as u64).sum();
            disks.writes(file, about.st_ino, size(about), at.unsigned_abs(), length)
        })
    };
    match refused {
        Some(errno) => fail(errno),
        // SAFETY: the arguments are the caller's; the place is in one register, and the other half of it is none.
        None => unsafe { libc::syscall(libc::SYS_pwritev, fd, buffers, count, at, 0) as libc::ssize_t },
    }
}

/// Makes data durable.
///
/// # Safety
/// As of the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: libc::c_int) -> libc::c_int {
    // SAFETY: the argument is the caller's.
    unsafe { sync(fd, libc::SYS_fdatasync) }
}

/// Makes a file durable, as [`fdatasync`].
///
/// # Safety
/// As of the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: libc::c_int) -> libc::c_int {
    // SAFETY: the argument is the caller's.
    unsafe { sync(fd, libc::SYS_fsync) }
}

/// # Safety
/// As of the C library's `fsync`.
unsafe fn sync(fd: libc::c_int, call: libc::c_long) -> libc::c_int {
    let simulated = with(|thread| {
        // SAFETY: it only asks.
        let (about, known) = unsafe {
            let mut about = std::mem::zeroed::<libc::stat64>();
            let known = libc::fstat64(fd, &mut about) == 0;
            (about, known)
        };
        let is_folder = about.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let skew = thread.skew;
        let synced = known.then(|| thread.disks().syncs(about.st_ino, is_folder))?;
        // It is waited for by the clock of the process, and not one nanosecond less.
        Some(synced.map(|time| Duration::from_nanos(shown(skew, time.as_nanos() as i64).unsigned_abs() + 2)))
    });
    match simulated.flatten() {
        Some(Ok(time)) => {
            blocking::owe(time);
            0
        }
        Some(Err(errno)) => fail(errno),
        // SAFETY: the argument is the caller's.
        None => unsafe { libc::syscall(call, fd) as libc::c_int },
    }
}

/// Gives a file another length.
///
/// # Safety
/// As of the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: libc::c_int, length: libc::off64_t) -> libc::c_int {
    // SAFETY: the caller's.
    let refused = unsafe {
        on_file(fd, |disks, file, about| disks.resizes(file, about.st_ino, size(about), length.unsigned_abs()))
    };
    match refused {
        Some(errno) => fail(errno),
        // SAFETY: the arguments are the caller's.
        None => unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) as libc::c_int },
    }
}

/// Takes space for a file. In the simulation it is a hole: files are many, and short-lived.
///
/// # Safety
/// As of the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate64(
    fd: libc::c_int,
    mode: libc::c_int,
    from: libc::off64_t,
    length: libc::off64_t,
) -> libc::c_int {
    if with(|_| ()).is_none() {
        // SAFETY: the arguments are the caller's.
        return unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, from, length) as libc::c_int };
    }
    let mut end = 0;
    // SAFETY: the caller's.
    let refused = unsafe {
        on_file(fd, |disks, file, about| {
            end = about.st_size;
            let grows = mode == 0 && end < from + length;
            if grows { disks.resizes(file, about.st_ino, size(about), (from + length).unsigned_abs()) } else { None }
        })
    };
    match refused {
        Some(errno) => fail(errno),
        None if mode != 0 || end >= from + length => 0,
        // SAFETY: the file only grows.
        None => unsafe { libc::syscall(libc::SYS_ftruncate, fd, from + length) as libc::c_int },
    }
}

/// Opens a file.
///
/// # Safety
/// As of the C library's: `path` ends with a zero. There the last argument is left out where nothing is made; here it is
/// then whatever stands in its register, and nobody looks at it.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const libc::c_char, flags: libc::c_int, mode: libc::mode_t) -> libc::c_int {
    // SAFETY: the caller's.
    let name = unsafe { CStr::from_ptr(path) };
    let (makes, empties) = (flags & libc::O_CREAT != 0, flags & libc::O_TRUNC != 0);
    let changes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let was =
        changes.then(|| with(|thread| (thread.disks().is_there(name), thread.disks().opens(name, makes, empties))));
    let was = match was.flatten() {
        Some((_, Some(errno))) => return fail(errno),
        Some((was, None)) => Some(was),
        None => None,
    };
    // SAFETY: the arguments are the caller's.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as libc::c_int };
    if let Some(was) = was.filter(|_| fd >= 0) {
        // SAFETY: it only asks.
        let inode = unsafe {
            let mut about = std::mem::zeroed::<libc::stat64>();
            (libc::fstat64(fd, &mut about) == 0).then_some(about.st_ino)
        };
        with(|thread| inode.map(|inode| thread.disks().opened(name, was, inode)));
    }
    fd
}

/// Gives a file another name.
///
/// # Safety
/// As of the C library's: both end with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const libc::c_char, to: *const libc::c_char) -> libc::c_int {
    // SAFETY: the caller's.
    let (old, new) = unsafe { (CStr::from_ptr(from), CStr::from_ptr(to)) };
    with(|thread| thread.disks().renames(old, new));
    // SAFETY: the arguments are the caller's.
    unsafe { libc::syscall(libc::SYS_rename, from, to) as libc::c_int }
}

/// Removes a file.
///
/// # Safety
/// As of the C library's: `path` ends with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const libc::c_char) -> libc::c_int {
    // SAFETY: the caller's.
    let name = unsafe { CStr::from_ptr(path) };
    with(|thread| thread.disks().removes(name));
    // SAFETY: the argument is the caller's.
    unsafe { libc::syscall(libc::SYS_unlink, path) as libc::c_int }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_shows_what_it_should_and_back() {
        for drift_ppm in [-500, -1, 0, 1, 200] {
            let skew = Skew { wall_ns: 0, drift_ppm };
            for span in [0, 1, 999_999, 3_600_000_000_000] {
                let back = world(skew, shown(skew, span));
                assert!((back - span).abs() <= 1, "{drift_ppm} {span}: {back}");
                assert!(shown(skew, world(skew, span)) >= span, "{drift_ppm} {span}");
            }
        }
    }
}
