//! What the booted systems said, as a table.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::archive::DebianKernel;

/// Begins the lines that tell how something ended.
pub const MARK: &str = "@@ ";

/// What is tried, as the guest names it and as the table does.
const TRIED: [(&str, &str); 6] = [
    ("doctor", "`doctor`"),
    ("native", "native functions"),
    ("watch", "Python, watch mode"),
    ("frames", "Python, frames mode"),
    ("requests", "requests"),
    ("three", "native, three capabilities"),
];

/// One kernel.
pub struct Row {
    kernel: DebianKernel,
    release: String,
    outcomes: HashMap<String, Outcome>,
    took: Duration,
    said: String,
}

/// How something ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    exit: i32,
    /// Spans that were made.
    spans: u64,
    /// Exit code of the target.
    target: i32,
    /// What the tracer said last.
    words: String,
}

impl Row {
    /// Reads what a booted system said.
    ///
    /// # Errors
    /// When it did not come to its end.
    pub fn read(kernel: DebianKernel, said: &str, took: Duration) -> Result<Self> {
        let lines = || said.lines().filter_map(|line| line.split_once(MARK)).map(|(_, line)| line.trim());
        let release = lines()
            .find_map(|line| line.strip_prefix("kernel "))
            .with_context(|| format!("Debian {} did not boot; it said:\n{said}", kernel.suite))?;
        lines()
            .find(|line| *line == "end")
            .with_context(|| format!("Linux {release} stopped midway; it said:\n{said}"))?;
        let outcomes = lines().filter_map(Outcome::parse).collect();
        Ok(Self { kernel, release: release.to_owned(), outcomes, took, said: said.to_owned() })
    }

    /// Major and minor version.
    fn version(&self) -> (u32, u32) {
        let mut parts = self.release.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// What is not as it is said to be, if anything.
    pub fn problem(&self) -> Option<String> {
        let wrong =
            TRIED.iter().find(|(name, _)| !self.outcomes.get(*name).is_some_and(|it| self.is_right(name, it)))?;
        Some(format!("Linux {}: {} is not as it should be; the machine said:\n{}", self.release, wrong.0, self.said))
    }

    fn is_right(&self, name: &str, outcome: &Outcome) -> bool {
        let unharmed = outcome.target == 0;
        if self.kernel.is_refused {
            return outcome.exit == 3 && unharmed && (name == "doctor" || outcome.words.contains("too old"));
        }
        // Where probes are placed one by one, the kernel wants more.
        if name == "three" && self.version() < (6, 6) {
            return outcome.exit == 3 && unharmed && outcome.words.contains("CAP_SYS_ADMIN");
        }
        outcome.exit == 0 && unharmed && (name == "doctor" || outcome.spans > 0)
    }
}

impl Outcome {
    /// Reads `native exit=0 spans=12 target=0 words`.
    fn parse(line: &str) -> Option<(String, Self)> {
        let mut words = line.splitn(5, ' ');
        let name = words.next()?.to_owned();
        let mut number = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=')?.parse::<i64>().ok();
        let (exit, spans, target) = (number("exit")?, number("spans")?, number("target")?);
        let words = words.next().unwrap_or_default().to_owned();
        let outcome = Self { exit: exit as i32, spans: spans.unsigned_abs(), target: target as i32, words };
        Some((name, outcome))
    }

    fn cell(&self) -> String {
        match (self.exit, self.spans) {
            (0, 0) => "good, exit 0".to_owned(),
            (0, spans) => format!("{spans} spans, exit 0"),
            (code, _) => format!("refused, exit {code}"),
        }
    }
}

/// A table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| kernel |");
    for (_, heading) in TRIED {
        text.push_str(&format!(" {heading} |"));
    }
    text.push_str(" boot and all, emulated |\n|---|");
    text.push_str(&"---|".repeat(TRIED.len() + 1));
    for row in rows {
        text.push_str(&format!("\n| {} (Debian {}) |", row.release, row.kernel.suite));
        for (name, _) in TRIED {
            let cell = row.outcomes.get(name).map_or_else(|| "not tried".to_owned(), Outcome::cell);
            text.push_str(&format!(" {cell} |"));
        }
        text.push_str(&format!(" {:.0} s |", row.took.as_secs_f64()));
    }
    text
}

/// The page with the table.
pub fn page(table: &str) -> String {
    format!(
        "# Kernels\n\nWritten by `cargo xtask kernels`, which boots Debian's kernels in QEMU (emulated in software) and tries \
         there what the\nREADME says: each kind of tracing attached for four seconds to a program that predicts every five \
         milliseconds. The target\nhas to go on as if nothing had been. `cargo xtask test` boots the oldest one that is \
         supported.\n\n{table}\n\n- Linux 5.10 has no attach cookies for probes, which came with 5.15; `doctor` and `attach` say so and end with exit \
         code 3.\n  Between 5.15 and 6.1 nothing was tried.\n- Before Linux 6.6 there are no `uprobe_multi` links: probes are placed and taken away one by one, \
         and the kernel wants\n  `CAP_SYS_ADMIN` for that. From 6.6 on `CAP_BPF`, `CAP_PERFMON` and `CAP_SYS_PTRACE` are enough.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKS: DebianKernel = DebianKernel { suite: "bookworm", is_refused: false };

    fn row(kernel: DebianKernel, lines: &[&str]) -> Row {
        let said: Vec<String> = lines.iter().map(|line| format!("{MARK}{line}\r\n")).collect();
        Row::read(kernel, &format!("noise\n{}", said.concat()), Duration::from_secs(40)).expect("a whole run")
    }

    #[test]
    fn a_run_is_held_against_what_is_said() {
        let lines = [
            "kernel 6.1.0-50-cloud-amd64",
            "doctor exit=0 spans=0 target=0",
            "native exit=0 spans=7 target=0",
            "watch exit=0 spans=7 target=0",
            "frames exit=0 spans=7 target=0",
            "requests exit=0 spans=7 target=0",
            "three exit=3 spans=0 target=0 this kernel wants CAP_SYS_ADMIN for it",
            "end",
        ];
        assert_eq!(row(WORKS, &lines).problem(), None);
        assert!(
            table(&[row(WORKS, &lines)]).contains("| 6.1.0-50-cloud-amd64 (Debian bookworm) | good, exit 0 | 7 spans")
        );
        let harmed = lines.map(|line| line.replace("watch exit=0 spans=7 target=0", "watch exit=0 spans=7 target=139"));
        assert!(row(WORKS, &harmed.each_ref().map(String::as_str)).problem().is_some_and(|it| it.contains("watch")));
        let silent = lines.map(|line| line.replace("frames exit=0 spans=7", "frames exit=0 spans=0"));
        assert!(row(WORKS, &silent.each_ref().map(String::as_str)).problem().is_some());
        let refused = DebianKernel { suite: "bullseye", is_refused: true };
        assert!(row(refused, &lines).problem().is_some());
    }

    #[test]
    fn a_run_that_stops_midway_is_none() {
        assert!(Row::read(WORKS, "@@ kernel 6.1\n@@ doctor exit=0 spans=0 target=0\n", Duration::ZERO).is_err());
        assert!(Row::read(WORKS, "no kernel", Duration::ZERO).is_err());
    }
}
