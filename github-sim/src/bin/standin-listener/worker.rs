//! The worker: a process that runs the hooks and steps of one job.
//!
//! It reads its order from standard input and reports the result by its exit code, 100 + result.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use github_sim::{job_message::JobMessage, wire::JobResult};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    Environment,
    broker::architecture,
    clocks::{Clocks, UNTIL_SIGKILL, UNTIL_SIGTERM},
    code, signals,
};

/// Interval between checks of a step.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// A part of `.setup_info`.
#[derive(Deserialize)]
struct SetupGroup {
    group: String,
    detail: String,
}

/// Order of the listener to its worker.
#[derive(Serialize, Deserialize)]
pub(crate) struct WorkerOrder {
    pub(crate) job: JobMessage,
    pub(crate) root: PathBuf,
    pub(crate) work_folder: PathBuf,
    pub(crate) runner_name: String,
    pub(crate) log: PathBuf,
}

/// Runs the order on standard input, and returns the exit code.
pub(crate) fn main() -> u8 {
    // First, because a signal for the group must not end the worker itself.
    let cancelled = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&cancelled);
    if signals::forward(move |_| told.store(true, Ordering::SeqCst)).is_err() {
        return code::RETRYABLE;
    }
    let worker = serde_json::from_reader(std::io::stdin())
        .map_err(std::io::Error::from)
        .and_then(|order| JobWorker::prepare(order, cancelled));
    match worker {
        Ok(mut worker) => worker.run().exit_code(),
        Err(error) => {
            stdio::error(format_args!("cannot start the worker: {error}"));
            JobResult::Failed.exit_code()
        }
    }
}

struct JobWorker {
    order: WorkerOrder,
    cancelled: Arc<AtomicBool>,
    log: File,
    workspace: PathBuf,
    temp: PathBuf,
    clocks: Clocks,
    /// Environment of hooks, and of steps together with `workflow`.
    env: Environment,
    /// Variables of the workflow, which hooks do not get.
    workflow: Environment,
    /// Lines of `GITHUB_PATH`, latest first.
    path: Vec<String>,
    steps_run: u32,
}

impl JobWorker {
    fn prepare(order: WorkerOrder, cancelled: Arc<AtomicBool>) -> std::io::Result<Self> {
        let repository = order
            .job
            .github
            .get("repository")
            .cloned()
            .unwrap_or_default();
        let name = repository.rsplit('/').next().unwrap_or("repository");
        let runner_workspace = order.work_folder.join(name);
        let workspace = runner_workspace.join(name);
        let temp = order.work_folder.join("_temp");
        // Files that an earlier job left in the temporary directory do not reach this one.
        let _ = fs::remove_dir_all(&temp);
        for directory in [
            "_actions",
            "_temp/_runner_file_commands",
            "_temp/_github_workflow",
        ] {
            fs::create_dir_all(order.work_folder.join(directory))?;
        }
        fs::create_dir_all(&workspace)?;
        // The listener's environment moves it (`GetDirectory` in HostContext.cs of actions/runner).
        let tools = std::env::var_os("RUNNER_TOOL_CACHE")
            .map_or_else(|| order.work_folder.join("_tool"), PathBuf::from);
        fs::create_dir_all(&tools)?;
        fs::write(temp.join("_github_workflow/event.json"), "{}")?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&order.log)?;
        let mut env: Environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        for (key, value) in &order.job.github {
            env.insert(format!("GITHUB_{}", key.to_uppercase()), value.clone());
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let own = [
            ("CI", "true".into()),
            ("GITHUB_ACTIONS", "true".into()),
            ("GITHUB_BASE_REF", String::new()),
            (
                "GITHUB_EVENT_PATH",
                text(&temp.join("_github_workflow/event.json")),
            ),
            ("GITHUB_HEAD_REF", String::new()),
            ("GITHUB_WORKSPACE", text(&workspace)),
            ("RUNNER_ARCH", architecture().into()),
            ("RUNNER_ENVIRONMENT", "self-hosted".into()),
            ("RUNNER_NAME", order.runner_name.clone()),
            ("RUNNER_OS", "Linux".into()),
            ("RUNNER_TEMP", text(&temp)),
            ("RUNNER_TOOL_CACHE", text(&tools)),
            ("RUNNER_TRACKING_ID", tracking_id(&order.job.job_id)),
            ("RUNNER_WORKSPACE", text(&runner_workspace)),
        ];
        env.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let workflow = order
            .job
            .environment_variables
            .clone()
            .into_iter()
            .collect();
        Ok(Self {
            clocks: Clocks::of(&env),
            workflow,
            order,
            cancelled,
            log,
            workspace,
            temp,
            env,
            path: vec![],
            steps_run: 0,
        })
    }

    fn run(&mut self) -> JobResult {
        if self.order.job.needs_containers {
            self.say("##[error]the stand-in listener does not run containers");
            return JobResult::Failed;
        }
        let mut result = JobResult::Succeeded;
        self.show_setup_info();
        if let Some(hook) = self.hook("ACTIONS_RUNNER_HOOK_JOB_STARTED") {
            result = self.run_hook("Set up runner", &hook);
        }
        for step in self.order.job.steps.clone() {
            if result != JobResult::Succeeded {
                break;
            }
            let script = self.temp.join(format!("{}.sh", self.steps_run));
            result = match fs::write(&script, &step.run) {
                Ok(()) => {
                    let script = script.to_string_lossy().into_owned();
                    self.step(&step.name, &script, Shell::Step)
                }
                Err(error) => {
                    self.say(&format!("##[error]{}: {error}", script.display()));
                    JobResult::Failed
                }
            };
        }
        if let Some(hook) = self.hook("ACTIONS_RUNNER_HOOK_JOB_COMPLETED") {
            let hook_result = self.run_hook("Complete runner", &hook);
            if result == JobResult::Succeeded {
                result = hook_result;
            }
        }
        end_orphans(&tracking_id(&self.order.job.job_id));
        if self.cancelled.load(Ordering::SeqCst) {
            JobResult::Canceled
        } else {
            result
        }
    }

    /// Runs a hook, which has no timeout and which a cancellation does not end.
    fn run_hook(&mut self, name: &str, path: &str) -> JobResult {
        if Path::new(path).extension().is_some_and(|end| end == "sh") {
            return self.step(name, path, Shell::Hook);
        }
        self.say(&format!("##[error]{path} is not a valid path to a script"));
        JobResult::Failed
    }

    fn hook(&self, variable: &str) -> Option<String> {
        self.env
            .get(variable)
            .filter(|path| !path.is_empty())
            .cloned()
    }

    /// Runs a script with bash, and reads the command files that it wrote.
    fn step(&mut self, name: &str, script: &str, shell: Shell) -> JobResult {
        if shell == Shell::Step && self.cancelled.load(Ordering::SeqCst) {
            return JobResult::Canceled;
        }
        self.say(&format!("##[group]{name}"));
        let number = self.steps_run;
        self.steps_run += 1;
        let ended = self
            .spawn(number, script, shell)
            .and_then(|child| self.wait(child, shell));
        let result = match ended {
            Ok(Some(0)) => JobResult::Succeeded,
            _ if self.cancelled.load(Ordering::SeqCst) => {
                self.say("##[error]The operation was canceled.");
                JobResult::Canceled
            }
            Ok(code) => {
                let code = code.map_or_else(|| "none".into(), |code| code.to_string());
                self.say(&format!(
                    "##[error]Process completed with exit code {code}."
                ));
                JobResult::Failed
            }
            Err(error) => {
                self.say(&format!("##[error]bash: {error}"));
                JobResult::Failed
            }
        };
        self.take_over(number);
        self.say("##[endgroup]");
        result
    }

    fn spawn(&self, number: u32, script: &str, shell: Shell) -> std::io::Result<Child> {
        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc", "-e", "-o", "pipefail", script])
            .current_dir(&self.workspace)
            .env_clear()
            .envs(&self.env);
        if shell == Shell::Step {
            command.envs(&self.workflow);
        }
        if !self.path.is_empty() {
            let inherited = self.env.get("PATH").cloned().unwrap_or_default();
            command.env("PATH", format!("{}:{inherited}", self.path.join(":")));
        }
        for file in COMMAND_FILES {
            let path = self.command_file(file, number);
            fs::write(&path, "")?;
            command.env(file, path);
        }
        command.env("GITHUB_ACTION", format!("__run_{number}"));
        command
            .stdin(Stdio::null())
            .stdout(self.log.try_clone()?)
            .stderr(self.log.try_clone()?);
        command.spawn()
    }

    /// Waits for a script. The first process of a cancelled step gets SIGINT, SIGTERM, then SIGKILL. Its
    /// children get none of them.
    fn wait(&self, mut child: Child, shell: Shell) -> std::io::Result<Option<i32>> {
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let mut due = vec![
            (UNTIL_SIGKILL, Signal::SIGKILL),
            (UNTIL_SIGTERM, Signal::SIGTERM),
            (Duration::ZERO, Signal::SIGINT),
        ];
        let mut since = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.code());
            }
            if shell == Shell::Step && self.cancelled.load(Ordering::SeqCst) {
                let waited = since.get_or_insert_with(Instant::now).elapsed();
                while let Some((_, signal)) =
                    due.pop_if(|(after, _)| waited >= self.clocks.scaled(*after))
                {
                    let _ = kill(id, signal);
                }
            }
            std::thread::sleep(CHECK_EVERY);
        }
    }

    fn take_over(&mut self, number: u32) {
        let read = |file| fs::read_to_string(self.command_file(file, number)).unwrap_or_default();
        let (env, path) = (read("GITHUB_ENV"), read("GITHUB_PATH"));
        match parse_assignments(&env) {
            Ok(pairs) => {
                for (key, _) in &pairs {
                    self.workflow.remove(key);
                }
                self.env.extend(pairs);
            }
            Err(line) => self.say(&format!("##[error]Invalid format '{line}'")),
        }
        for line in path.lines().filter(|line| !line.is_empty()) {
            self.path.insert(0, line.into());
        }
    }

    fn command_file(&self, variable: &str, number: u32) -> PathBuf {
        let name = format!("{}_{number}", variable.to_lowercase());
        self.temp.join("_runner_file_commands").join(name)
    }

    /// Writes a line to the job's log, which is in `_diag`.
    fn say(&mut self, text: &str) {
        if let Err(error) = writeln!(self.log, "{text}") {
            crate::log::abort(&error);
        }
    }

    /// Shows the groups of `.setup_info`, as GitHub's worker does in "Set up job".
    fn show_setup_info(&mut self) {
        let text = fs::read(self.order.root.join(".setup_info")).unwrap_or_default();
        let groups: Vec<SetupGroup> = serde_json::from_slice(&text).unwrap_or_default();
        for SetupGroup { group, detail } in groups {
            self.say(&format!("##[group]{group}"));
            self.say(&detail);
            self.say("##[endgroup]");
        }
    }
}

/// A script's place in the job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shell {
    Hook,
    Step,
}

fn tracking_id(job: &str) -> String {
    format!("github_{job}")
}

/// Kills the processes that the job left running, which have its tracking id in their environment. A
/// process that removed the id stays.
fn end_orphans(id: &str) {
    let variable = format!("RUNNER_TRACKING_ID={id}");
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // The processes of other users cannot be read.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|pair| pair == variable.as_bytes())
        {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

const COMMAND_FILES: [&str; 5] = [
    "GITHUB_ENV",
    "GITHUB_OUTPUT",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
];

/// Reads `KEY=VALUE` lines and `KEY<<END … END` blocks. The error is a line that is neither.
fn parse_assignments(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let block = line.split_once("<<").filter(|(key, _)| !key.contains('='));
        if let Some((key, end)) = block {
            let mut value = vec![];
            loop {
                match lines.next() {
                    Some(line) if line == end => break,
                    Some(line) => value.push(line),
                    None => return Err(line.into()),
                }
            }
            pairs.push((key.into(), value.join("\n")));
        } else if let Some((key, value)) = line.split_once('=') {
            pairs.push((key.into(), value.into()));
        } else {
            return Err(line.into());
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::parse_assignments;

    #[test]
    fn assignments_are_lines_or_blocks() {
        let pairs = parse_assignments("A=1=2\n\nB<<END\nx\ny\nEND\nC=\n").unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, [("A", "1=2"), ("B", "x\ny"), ("C", "")]);
        assert_eq!(parse_assignments("nothing"), Err("nothing".into()));
        assert_eq!(parse_assignments("A<<END\nx"), Err("A<<END".into()));
    }
}
