//! Another process for a test: the test binary again, running one test that plays a part.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Names the directory that the part is played in.
const DIRECTORY: &str = "LB_TEST_PART";
/// Starts the lines that are for the parent.
const MARK: &str = "part: ";

/// A process that plays a part; killed when dropped.
pub struct Part {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Part {
    /// Starts this test binary again, to run the test `name` alone, in `directory`.
    pub fn start(name: &str, directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start this binary again");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("its output");
        Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// The next line that it tells.
    pub fn hear(&mut self) -> String {
        loop {
            let line = self
                .lines
                .next()
                .expect("the part ended early")
                .expect("read its output");
            // libtest writes its own beginning of the line.
            if let Some((_, told)) = line.split_once(MARK) {
                return told.to_owned();
            }
        }
    }

    /// Kills it by SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("wait");
    }

    /// Lets it end by itself.
    pub fn end(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "the part failed: {status}");
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory that this process plays its part in; `None` in the parent, whose run of the same
/// test has nothing to do.
pub fn part() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Tells the parent.
pub fn tell(line: &str) {
    println!("\n{MARK}{line}");
}

/// Waits until the parent ends this part or is gone.
pub fn wait() {
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}
