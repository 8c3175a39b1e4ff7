//! Child processes, folders and ports that don't outlive their owner.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::root;

/// A folder under `.run/tmp`, removed on drop unless the test failed.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: OnceLock<()> = OnceLock::new();
        let tmp = root().join(".run/tmp");
        fs::create_dir_all(&tmp).unwrap();
        SWEPT.get_or_init(|| sweep(&tmp));
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = tmp.join(format!("{}-{n}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("CAUSEWAY_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("not removed: {}: {error}", self.0.display());
        }
    }
}

/// Removes folders of runs whose process is gone, an hour after their last change.
fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.split('-').next().unwrap_or_default();
        let old = entry
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 3600));
        if old
            && !Path::new("/proc").join(pid).exists()
            && fs::remove_dir_all(entry.path()).is_err()
        {
            eprintln!("not removed: {name}");
        }
    }
}

/// A port that nothing listens on, below the range of outgoing connections, so that a
/// server that is restarted finds its port free. It belongs to this process until that
/// ends: a name in the machine's abstract sockets keeps others from taking it between
/// a server's end and its next start.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static OURS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let base = u16::try_from(std::process::id() * 61 % 12_000).unwrap();
    for _ in 0..12_000 {
        let port = 20_000 + (base + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let name = SocketAddr::from_abstract_name(format!("causeway-port-{port}")).unwrap();
        let Ok(ours) = UnixListener::bind_addr(&name) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            OURS.lock().unwrap().push(ours);
            return port;
        }
    }
    panic!("no free port");
}

/// Who runs this.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Copies a folder's content, sharing blocks where the file system can.
pub fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    cp.args(["-a", "--reflink=auto"]).arg(format!("{}/.", from.display())).arg(to);
    let done = spawn_apart(&mut cp).wait().unwrap();
    assert!(done.success(), "no {}: run scripts/setup first", from.display());
}

/// Starts it in a process group of its own: Ctrl-C in a terminal goes to a whole group,
/// and whoever started this ends it. Until it has left our group such a signal ends it
/// too, before it has become another program; then it is started again.
fn spawn_apart(command: &mut Command) -> Child {
    let ours = std::env::current_exe().unwrap();
    loop {
        let mut child = command.process_group(0).spawn().unwrap();
        let program = fs::read_link(format!("/proc/{}/exe", child.id()));
        let runs = program.is_ok_and(|program| program != ours);
        if runs || child.wait().unwrap().signal().is_none() {
            return child;
        }
    }
}

/// How agents and Kafkas run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// For tests: soon, and small.
    Lean,
    /// As in the field, beside a database that goes first: each thread has a third of the
    /// weight of a database's. (conf/causeway.service gives the agent that as a whole.)
    Field,
}

impl Run {
    /// What to start so that a program runs like this.
    pub fn command(
        self,
        program: &str,
        args: impl IntoIterator<Item = String>,
    ) -> (String, Vec<String>) {
        let nice: &[&str] = if self == Self::Field { &["nice", "-n", "5"] } else { &[] };
        let mut words = nice.iter().copied().chain([program]).map(str::to_owned);
        (words.next().unwrap(), words.chain(args).collect())
    }
}

/// A program that can be killed and started again.
pub struct Proc {
    name: String,
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Proc {
    /// Starts it; what it prints goes to `log`.
    pub fn start(name: &str, log: &Path, program: &str, args: Vec<String>) -> Self {
        Self::start_with(name, log, program, args, Vec::new())
    }

    /// The same, with further environment.
    pub fn start_with(
        name: &str,
        log: &Path,
        program: &str,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Self {
        let mut proc = Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            env,
            log: log.to_owned(),
            child: None,
        };
        proc.again();
        proc
    }

    /// Starts it again with the same arguments.
    pub fn again(&mut self) {
        assert!(!self.alive(), "{} runs", self.name);
        let log = File::options().append(true).create(true).open(&self.log).unwrap();
        let mut setpriv = Command::new("setpriv");
        setpriv
            .args(["--pdeathsig", "KILL", "--", &self.program])
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .current_dir(self.log.parent().unwrap())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(spawn_apart(&mut setpriv));
    }

    /// Sets an environment variable for the next start, or removes it.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.env.retain(|(n, _)| n != name);
        self.env.extend(value.map(|v| (name.to_owned(), v.to_owned())));
    }

    /// Options for its next start.
    pub fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
    }

    /// Whether it runs.
    pub fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Its exit status, once it has ended.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.as_mut()?.try_wait().unwrap()?.code()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            let done = Command::new("kill")
                .args([format!("-{signal}"), child.id().to_string()])
                .status()
                .unwrap();
            assert!(done.success(), "{} is gone", self.name);
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap_or_default();
        text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Stops the test if it has ended by itself.
    pub fn expect_alive(&mut self) {
        assert!(self.alive(), "{} has ended:\n{}", self.name, self.tail());
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let state = if self.alive() { "runs" } else { "does not run" };
            eprintln!(
                "--- {} {state}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.tail()
            );
        }
        self.kill();
    }
}
