//! The program under test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

/// Longest run of a command that is not a service.
const COMMAND: Duration = Duration::from_secs(60);

/// The `nova` binary. Building it is the caller's matter.
#[derive(Clone, Debug)]
pub struct Nova {
    path: PathBuf,
}

impl Nova {
    /// The binary named by `NOVA_BIN`, else the one in the target directory of the running program.
    ///
    /// # Errors
    /// [`Error::NoBinary`] with where it was looked for.
    pub fn binary() -> Result<Self> {
        if let Some(path) = std::env::var_os("NOVA_BIN") {
            return Self::at(PathBuf::from(path));
        }
        // Programs are beside it, tests are one folder deeper, in deps/.
        let own = std::env::current_exe().map_err(Error::file("find", "the running program"))?;
        let looked: Vec<_> = own.ancestors().skip(1).take(2).map(|folder| folder.join("nova")).collect();
        let found = looked.iter().find(|path| path.is_file()).cloned();
        found.map(|path| Self { path }).ok_or(Error::NoBinary { looked })
    }

    /// The binary at `path`.
    ///
    /// # Errors
    /// [`Error::NoBinary`] when there is no such file.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match path.canonicalize() {
            Ok(whole) if whole.is_file() => Ok(Self { path: whole }),
            _ => Err(Error::NoBinary { looked: vec![path] }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a command that ends by itself, such as `admin topics`, and gives what it printed.
    ///
    /// # Errors
    /// When it fails or takes longer than a minute.
    pub async fn run<I, S>(&self, args: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        run(&self.path, args.into_iter().map(Into::into).collect(), &[], COMMAND).await
    }
}

/// Runs a command to its end, or kills it at the deadline.
pub(crate) async fn run(
    program: &Path,
    args: Vec<OsString>,
    env: &[(&'static str, String)],
    within: Duration,
) -> Result<String> {
    let what = || {
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        format!("{} {}", program.display(), args.join(" "))
    };
    let mut command = tokio::process::Command::new(program);
    command.args(&args).envs(env.iter().map(|(name, value)| (name, value)));
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let running = command.output();
    let output = match tokio::time::timeout(within, running).await {
        Ok(output) => output.map_err(|source| Error::Spawn { name: what(), source })?,
        Err(_) => return Err(Error::Deadline { what: what(), within, last: "it still runs".into() }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let output_tail = crate::process::tail_of(&String::from_utf8_lossy(&said), 25);
    Err(Error::Command { what: what(), status: output.status.to_string(), output: output_tail })
}
