//! A change that has ended, as `lbguard apply --json` told it.

use std::process::Child;
use std::time::Instant;

use serde_json::Value;

/// A change that is followed.
pub struct Applying {
    pub began: Instant,
    pub child: Child,
}

impl Applying {
    /// Follows it to its end.
    pub fn wait(self) -> Applied {
        let output = self.child.wait_with_output().unwrap();
        Applied {
            began: self.began,
            code: output.status.code().unwrap_or(-1),
            events: String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

#[derive(Debug)]
pub struct Applied {
    pub began: Instant,
    pub code: i32,
    pub events: Vec<Value>,
    pub errors: String,
}

impl Applied {
    /// The end of what was printed.
    pub fn text(&self) -> String {
        let last = self.events.iter().rev().take(6).rev();
        let lines: Vec<String> = last.map(ToString::to_string).collect();
        format!("exit {}: {} {}", self.code, lines.join("\n"), self.errors)
    }

    /// The last progress event.
    fn end(&self) -> &Value {
        let progress = |event: &&Value| event["event"] == "progress";
        self.events
            .iter()
            .rev()
            .find(progress)
            .unwrap_or_else(|| panic!("{}", self.text()))
    }

    pub fn generation(&self) -> u64 {
        self.end()["generation"].as_u64().unwrap()
    }

    /// Why it did not commit, in one word: the agent's, or the kernel's if the agent was gone.
    pub fn cause(&self) -> &str {
        let by_kernel = |event: &&Value| event["event"] == "kernel";
        let end = self.events.iter().find(by_kernel);
        end.unwrap_or(self.end())["cause"]
            .as_str()
            .unwrap_or("none")
    }

    /// Whether the evidence put it back, by the agent's judgement or by the kernel's, whichever
    /// came first.
    pub fn is_put_back(&self) -> bool {
        self.code == 4 && ["verdict", "breaker"].contains(&self.cause())
    }

    /// Whether time ran out with nothing proven.
    pub fn is_inconclusive(&self) -> bool {
        self.code == 5 && self.cause() == "inconclusive"
    }

    /// The verdict that ended it, from the last round of judgement.
    pub fn finding(&self) -> &Value {
        let judged = |event: &&Value| event["event"] == "evidence";
        let last = self.events.iter().rev().find(judged);
        last.map_or(&Value::Null, |event| &event["finding"])
    }
}
