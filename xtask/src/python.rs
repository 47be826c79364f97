//! Python for the suites: finds interpreters of a version, and makes environments that hold pinned packages.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::provision::{output_of, run, system_packages};
use crate::{source_hash, workspace};

/// Oldest version that the pinned packages of the models are made for.
const OLDEST: &str = "3.11";

/// Which interpreter an environment is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Python {
    /// Any from [`OLDEST`] on; installed if there is none.
    Any,
    /// The system's own, which distributions build statically and strip.
    System,
    /// The same, which also sees what the distribution has installed for it.
    SystemWithItsPackages,
    /// This version, e.g. `3.9`, wherever it is.
    Version(&'static str),
}

/// Variable that names a folder for environments, which several checkouts may share. Without it each has its own.
const STORE: &str = "ML_TRACER_ENVIRONMENTS";

/// An environment under `target/venv/<name>` that holds the packages of a requirements file. It is made once for each content
/// of that file, and what is there is a link to it: going back to another content takes no time. Gives the folder; its
/// interpreter is `bin/python`. `None` if this machine has no such interpreter, which is said on the terminal.
///
/// # Errors
/// When the environment cannot be made or `pip` fails.
pub fn environment(name: &str, requirements: &Path, interpreter: Python) -> Result<Option<PathBuf>> {
    let wanted = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let fingerprint = source_hash::hash(&wanted);
    let link = workspace::root().join("target/venv").join(name);
    if is_of(&link, &fingerprint) {
        return Ok(Some(link));
    }
    let store = std::env::var_os(STORE).map_or_else(|| workspace::root().join("target/environments"), PathBuf::from);
    let folder = store.join(format!("{name}-{}", fingerprint.get(..16).unwrap_or(&fingerprint)));
    if !is_of(&folder, &fingerprint) {
        let Some(python) = interpreter.find()? else {
            eprintln!("==> no python environment {name}: {}", interpreter.absence());
            return Ok(None);
        };
        let options: &[&str] =
            if interpreter == Python::SystemWithItsPackages { &["--system-site-packages"] } else { &[] };
        make(name, &folder, (&python, options), requirements, &fingerprint)?;
    }
    remove(&link)?;
    fs::create_dir_all(workspace::root().join("target/venv")).context("cannot make target/venv")?;
    symlink(&folder, &link).with_context(|| format!("cannot link {}", link.display()))?;
    Ok(Some(link))
}

/// Variable by which a requirements file names what lies beside it, with its whole path.
const BESIDE: &str = "ML_TRACER_REQUIREMENTS";

/// Written into an environment when everything is in place.
const MARK: &str = "requirements.sha256";

/// Whether an environment is there and has what it is to have.
fn is_of(folder: &Path, fingerprint: &str) -> bool {
    fs::read_to_string(folder.join(MARK)).is_ok_and(|found| found == fingerprint) && folder.join("bin/python").exists()
}

/// Makes an environment, in the place of what is there.
fn make(
    name: &str,
    folder: &Path,
    (python, options): (&Path, &[&str]),
    requirements: &Path,
    fingerprint: &str,
) -> Result<()> {
    remove(folder)?;
    let mut venv = Command::new(python);
    run(&format!("python environment {name}"), venv.args(["-m", "venv"]).args(options).arg(folder))?;
    // What is imported is compiled then: that is a tenth of what there is.
    run(
        &format!("pip install -r {}", requirements.display()),
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--requirement"])
            .arg(requirements)
            .env(BESIDE, requirements.parent().unwrap_or(requirements)),
    )?;
    fs::write(folder.join(MARK), fingerprint).with_context(|| format!("cannot write to {}", folder.display()))
}

/// Removes a folder or a link to one, if it is there.
fn remove(place: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(place) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_symlink() => fs::remove_file(place),
        Ok(_) => fs::remove_dir_all(place),
    };
    removed.with_context(|| format!("cannot remove the old {}", place.display()))
}

/// The requirements file of this name.
pub fn requirements(name: &str) -> PathBuf {
    workspace::root().join(format!("tests/requirements/{name}.txt"))
}

/// The environment of the model programs, as [`environment`] makes it with any interpreter.
///
/// # Errors
/// When the environment cannot be made or `pip` fails.
pub fn models() -> Result<PathBuf> {
    environment("models", &requirements("models"), Python::Any)?.context("an interpreter was found or installed")
}

/// An interpreter with scikit-learn and OpenTelemetry's SDK, in an environment as the tests make them: CPython 3.12 if it is
/// here, else 3.11.
///
/// # Errors
/// When there is none.
pub fn scikit_learn() -> Result<PathBuf> {
    let environments = [
        ("sklearn-3.12", Python::Version("3.12")),
        ("sklearn-3.11", Python::Version("3.11")),
        ("sklearn-system", Python::System),
    ];
    let first = with_scikit_learn(&environments).next();
    first.context("neither CPython 3.12 nor 3.11 with venv is here")?
}

/// All interpreters from 3.11 on that are here, with the same.
///
/// # Errors
/// When an environment cannot be made.
pub fn all_scikit_learn() -> Result<Vec<PathBuf>> {
    let environments = [
        ("sklearn-3.11", Python::Version("3.11")),
        ("sklearn-3.12", Python::Version("3.12")),
        ("sklearn-3.13", Python::Version("3.13")),
    ];
    with_scikit_learn(&environments).collect()
}

fn with_scikit_learn(environments: &[(&'static str, Python)]) -> impl Iterator<Item = Result<PathBuf>> {
    let requirements = requirements("sklearn");
    environments.iter().filter_map(move |(name, interpreter)| {
        let folder = environment(name, &requirements, *interpreter).transpose()?;
        Some(folder.map(|folder| folder.join("bin/python")))
    })
}

impl Python {
    /// The first one here that can make an environment.
    fn find(self) -> Result<Option<PathBuf>> {
        match self {
            Self::Any => {
                let names = ["python3", "/usr/bin/python3", "python3.13", "python3.12", "python3.11"];
                let find = || names.map(PathBuf::from).into_iter().find(|it| can_make(it, OLDEST));
                if find().is_none() {
                    system_packages("making Python environments", &["python3", "python3-venv"])?;
                }
                if find().is_none() {
                    // Ubuntu 22.04 has it beside its own 3.10.
                    system_packages("an environment for the models", &["python3.11", "python3.11-venv"])?;
                }
                let absence = || format!("no python3 here is from {OLDEST} on and can make an environment (`-m venv`)");
                find().map(Some).with_context(absence)
            }
            Self::System | Self::SystemWithItsPackages => {
                let find = || Some(PathBuf::from("/usr/bin/python3")).filter(|it| can_make(it, OLDEST));
                if let (None, Err(error)) =
                    (find(), system_packages("the system's own Python", &["python3", "python3-venv"]))
                {
                    eprintln!("    {error:#}");
                }
                Ok(find())
            }
            Self::Version(version) => {
                let name = format!("python{version}");
                let on_path = std::env::var_os("PATH");
                let on_path = on_path.iter().flat_map(std::env::split_paths).map(|folder| folder.join(&name));
                let found = on_path.chain(of_pyenv(version)).find(|it| it.is_file() && is_version(it, version));
                Ok(found)
            }
        }
    }

    fn absence(self) -> String {
        match self {
            Self::Any => format!("there is no python3 from {OLDEST} on"),
            Self::System | Self::SystemWithItsPackages => {
                "there is no /usr/bin/python3 from 3.11 on with venv (Debian: python3 and python3-venv)".to_owned()
            }
            Self::Version(version) => {
                format!("there is no python{version} with venv on the path or in ~/.pyenv (`pyenv install {version}`)")
            }
        }
    }
}

/// Whether an interpreter is at least of this version and can make environments.
fn can_make(python: &Path, at_least: &str) -> bool {
    version_of(python).is_some_and(|found| found >= number(at_least).unwrap_or_default())
}

fn is_version(python: &Path, version: &str) -> bool {
    version_of(python) == number(version)
}

/// The version of an interpreter that can make environments. One that does not start has none: pyenv puts programs on the
/// path that only say that their version is not chosen.
fn version_of(python: &Path) -> Option<(u32, u32)> {
    let program = "import venv, ensurepip, sys; print('%d.%d' % sys.version_info[:2])";
    number(&output_of(Command::new(python).args(["-c", program])).ok()?)
}

/// `3.9` as numbers, which compare as versions do.
fn number(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Interpreters of a version that pyenv has built, the newest release first.
fn of_pyenv(version: &str) -> Vec<PathBuf> {
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| std::env::home_dir().map(|home| home.join(".pyenv")));
    let entries = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let mut found: Vec<(u32, PathBuf)> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let release = release_of(folder.file_name()?, version)?;
            Some((release, folder.join("bin").join(format!("python{version}"))))
        })
        .collect();
    found.sort_by(|left, right| right.cmp(left));
    found.into_iter().map(|(_, python)| python).collect()
}

/// 18 for the folder `3.9.18` and version `3.9`.
fn release_of(folder: &OsStr, version: &str) -> Option<u32> {
    folder.to_str()?.strip_prefix(version)?.strip_prefix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(number("3.11") > number("3.9"));
        assert_eq!(number("3"), None);
        assert_eq!(number("3.x"), None);
    }

    #[test]
    fn folders_of_pyenv_are_told_apart() {
        let release = |folder: &str, version| release_of(OsStr::new(folder), version);
        assert_eq!(release("3.9.18", "3.9"), Some(18));
        assert_eq!(release("3.19.1", "3.1"), None);
        assert_eq!(release("3.9-dev", "3.9"), None);
        assert_eq!(release("pypy3.9.1", "3.9"), None);
    }
}
