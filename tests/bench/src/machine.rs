//! What a measurement was made on, and what processes used.

use std::fs;
use std::process::Command;
use std::time::Instant;

use catchment_harness::{Cluster, Failure, Result, paths};

/// Linux says CPU times in these.
const TICKS_PER_S: f64 = 100.0;

/// What figures mean nothing without.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) workerd: String,
    pub(crate) load_1m: f64,
}

impl Machine {
    /// Looks.
    pub(crate) fn here() -> Machine {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            cpu: cpu.unwrap_or("an unknown CPU").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            rustc: said(Command::new("rustc").arg("--version")),
            workerd: paths::workerd().map(|path| said(Command::new(path).arg("--version"))).unwrap_or_default(),
            load_1m: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN),
        }
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// Refuses where fewer files may be open than are needed.
pub(crate) fn open_files(needed: u64) -> Result<()> {
    let limits = fs::read_to_string("/proc/self/limits").map_err(Failure::at("reading limits"))?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match soft.and_then(|text| text.parse::<u64>().ok()) {
        Some(limit) if limit < needed => {
            Err(Failure(format!("{limit} files may be open here, {needed} are needed: run ulimit -n {needed} first.")))
        }
        _ => Ok(()),
    }
}

/// What a process had used at an instant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    at: Instant,
    cpu_s: f64,
    /// Memory that it holds now, in MiB.
    pub(crate) memory_mib: f64,
}

impl Usage {
    /// Looks at a process.
    pub(crate) fn of(pid: u32) -> Result<Usage> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(Failure::at("reading /proc"));
        let (stat, status) = (read("stat")?, read("status")?);
        // The name before them may hold anything, but ends with the last parenthesis: 14th and 15th field are user's and system's.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Ok(Usage {
            at: Instant::now(),
            cpu_s: (ticks(11) + ticks(12)) / TICKS_PER_S,
            memory_mib: kib.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0,
        })
    }

    /// CPU since an earlier look, in seconds.
    pub(crate) fn cpu_s_since(&self, earlier: &Usage) -> f64 {
        self.cpu_s - earlier.cpu_s
    }

    /// Of one core, in percent, since an earlier look.
    pub(crate) fn cpu_percent_since(&self, earlier: &Usage) -> f64 {
        100.0 * self.cpu_s_since(earlier) / self.at.duration_since(earlier.at).as_secs_f64().max(1e-3)
    }
}

/// Looks at the processes of one region, and at this one, by their names.
pub(crate) fn usages(cluster: &Cluster, this: &'static str) -> Result<Vec<(&'static str, Usage)>> {
    let region = &cluster.regions[0];
    let processes = [
        ("edge", cluster.edge.pid()),
        ("relay", region.relay.pid()),
        ("aggregator", region.aggregator.pid()),
        (this, Some(std::process::id())),
    ];
    let running = processes.into_iter().filter_map(|(name, pid)| Some((name, pid?)));
    running.map(|(name, pid)| Ok((name, Usage::of(pid)?))).collect()
}

/// How long something has waited for a CPU since the machine started, in seconds; none where the kernel doesn't say.
pub(crate) fn waited_for_cpu_s() -> f64 {
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total =
        pressure.lines().find_map(|line| line.strip_prefix("some ")?.rsplit_once("total=")?.1.parse::<f64>().ok());
    total.map_or(f64::NAN, |us| us / 1e6)
}
