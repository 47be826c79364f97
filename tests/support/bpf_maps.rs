//! The BPF maps of a process, as bpftool sees them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A map.
#[derive(Clone, Debug)]
pub struct BpfMap {
    /// Its name; the kernel keeps 15 letters of it.
    pub name: String,
    /// Its type, e.g. `hash`.
    pub kind: String,
    /// Its elements: of an array, those with a value that is not zero.
    pub elements: Vec<Value>,
}

/// All hash maps and arrays of which a process holds a descriptor.
///
/// # Errors
/// When the process is gone, or bpftool is not there or not permitted.
pub fn bpf_maps(pid: u32) -> Result<Vec<BpfMap>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        numbers.extend(text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok()));
    }
    ensure!(!numbers.is_empty(), "process {pid} has no BPF maps");
    numbers.into_iter().filter_map(|number| map(number).transpose()).collect()
}

fn map(number: u32) -> Result<Option<BpfMap>> {
    let shown = bpftool(&["map", "show", "id", &number.to_string()])?;
    let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
    let (name, kind) = (text("name"), text("type"));
    if !["hash", "lru_hash", "percpu_hash", "array"].contains(&kind.as_str()) || name.starts_with('.') {
        return Ok(None);
    }
    let dumped = bpftool(&["map", "dump", "id", &number.to_string()])?;
    let elements = dumped.as_array().with_context(|| format!("no list of elements of {name}"))?.iter();
    let is_set = |element: &&Value| kind != "array" || !is_zero(element);
    let elements = elements.filter(is_set).cloned().collect();
    Ok(Some(BpfMap { name, kind, elements }))
}

fn is_zero(element: &Value) -> bool {
    let bytes = element["value"].as_array();
    bytes.is_some_and(|bytes| bytes.iter().all(|byte| byte == "0x00"))
}

fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("-j").args(arguments).output().context("bpftool")?;
    ensure!(output.status.success(), "bpftool {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(serde_json::from_slice(&output.stdout)?)
}
