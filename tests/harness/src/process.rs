//! One child process that can be killed and started again on the same ports.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Failure, Result};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
const LOG_LINES_SHOWN: usize = 15;

/// How a process says that it can be used.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    /// A first line on stdout with `"ready":true`.
    Line,
    /// Its `/healthz` answers 200.
    Healthz(String),
}

/// A program with its arguments, running or not. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    log: PathBuf,
    stdout: PathBuf,
    ready: Ready,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn new(name: &str, program: PathBuf, args: Vec<String>, ready: Ready, logs: &std::path::Path) -> Self {
        Process {
            name: name.into(),
            program,
            args,
            env: BTreeMap::new(),
            log: logs.join(format!("{name}.log")),
            stdout: logs.join(format!("{name}.out")),
            ready,
            child: None,
        }
    }

    /// Sets an environment variable from the next start on; `None` takes it away.
    pub fn env(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => _ = self.env.insert(name.into(), value.into()),
            None => _ = self.env.remove(name),
        }
    }

    /// Starts it and waits until it says that it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_ready().await {
            if let Some(status) = self.exited()? {
                return Err(Failure(format!("{} ended with {status}: {}", self.name, self.log_tail())));
            }
            if Instant::now() > deadline {
                return Err(Failure(format!(
                    "{} is not ready after {START_TIMEOUT:?}: {}",
                    self.name,
                    self.log_tail()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts it and doesn't wait: for one that is to die on its way up.
    pub fn spawn(&mut self) -> Result<()> {
        self.kill();
        let at = || format!("starting {}", self.name);
        let log = File::options().create(true).append(true).open(&self.log).map_err(Failure::at(at()))?;
        let stdout = File::create(&self.stdout).map_err(Failure::at(at()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(&self.env).stdin(Stdio::null()).stdout(stdout).stderr(log);
        self.child = Some(command.spawn().map_err(Failure::at(at()))?);
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// kill -9, then starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.start().await
    }

    /// SIGTERM, and how it ended; an error if it did not within `timeout`.
    pub async fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(child) = &self.child {
            let pid = child.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status().map_err(Failure::at("running kill"))?;
        }
        self.wait(timeout).await
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exited()? {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Failure(format!("{} still runs after {timeout:?}", self.name)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its id, where it was started and has not been killed or waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its log since the first start.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Its name: `edge`, `relay-eu`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Err(Failure(format!("{} was not started", self.name))) };
        child.try_wait().map_err(Failure::at(&self.name))
    }

    async fn is_ready(&self) -> bool {
        match &self.ready {
            Ready::Line => fs::read_to_string(&self.stdout).is_ok_and(|out| out.contains("\"ready\":true")),
            Ready::Healthz(url) => reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
