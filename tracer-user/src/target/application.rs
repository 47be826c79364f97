//! What a process calls itself: what its environment says to OpenTelemetry, and the application that its command line names.

use std::path::Path;

use procfs::process::Process;

use crate::model::Service;

/// Parents asked for an application in the place of a worker that names none: a worker of a reloader of a shell.
const MOST_PARENTS: usize = 3;

/// Servers that are told the application as `module:attribute`, or by an option.
const SERVERS: [&str; 10] = [
    "uvicorn",
    "gunicorn",
    "hypercorn",
    "daphne",
    "granian",
    "waitress-serve",
    "celery",
    "flask",
    "bentoml",
    "_bentoml_impl.worker.service",
];

/// Where some of them are told it.
const APPLICATION_OPTIONS: [&str; 2] = ["-A", "--app"];

/// What a process says of itself. Reads nothing of it but its environment and command line, and those of its parents.
pub fn service_of(process: &Process, command_line: &[String]) -> Service {
    let environment = process.environ().unwrap_or_default();
    let variable = |name: &str| {
        let value = environment.iter().find(|(known, _)| known.as_os_str() == name)?.1.to_str()?;
        Some(value.to_owned()).filter(|value| !value.is_empty())
    };
    Service {
        name: variable("OTEL_SERVICE_NAME"),
        resource_attributes: variable("OTEL_RESOURCE_ATTRIBUTES"),
        application: application_with_parents(process, command_line),
    }
}

fn application_with_parents(process: &Process, command_line: &[String]) -> Option<String> {
    let mut named = application(command_line);
    let mut parent = process.stat().ok()?.ppid;
    for _ in 0..MOST_PARENTS {
        if named != Named::ByParent {
            break;
        }
        let above = Process::new(parent).ok()?;
        named = application(&above.cmdline().ok()?);
        parent = above.stat().ok()?.ppid;
    }
    match named {
        Named::Application(name) => Some(name),
        Named::ByParent | Named::Nowhere => None,
    }
}

/// The application that a command line names, if it names one itself.
#[must_use]
pub fn application_of(command_line: &[String]) -> Option<String> {
    match application(command_line) {
        Named::Application(name) => Some(name),
        Named::ByParent | Named::Nowhere => None,
    }
}

/// What people may call a process, as far as its command line tells: its first word, the script or module that an interpreter
/// runs, the application.
pub fn names_of(command_line: &[String]) -> Vec<String> {
    let Some((first, rest)) = command_line.split_first() else { return Vec::new() };
    let file_name = |path: &str| Some(Path::new(path).file_name()?.to_str()?.to_owned());
    let runs = match program(rest).filter(|_| is_interpreter(first)) {
        Some((Program::Module(module), _)) => Some(module.to_owned()),
        Some((Program::Script(path), _)) => file_name(path),
        Some((Program::Code(_), _)) | None => None,
    };
    [file_name(first), runs, application_of(command_line)].into_iter().flatten().collect()
}

/// Who names the application of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// Its own command line.
    Application(String),
    /// The process that has started it: its own command line is about being a worker.
    ByParent,
    /// Nobody: it is no Python program, or one typed in.
    Nowhere,
}

fn application(command_line: &[String]) -> Named {
    let Some((first, rest)) = command_line.split_first() else { return Named::Nowhere };
    if let Some(named) = of_title(first) {
        return Named::Application(named);
    }
    if !is_interpreter(first) {
        return Named::Nowhere;
    }
    match program(rest) {
        Some((Program::Code(code), _)) if code.contains("multiprocessing") => Named::ByParent,
        Some((Program::Module(module), _)) if module.starts_with("joblib.externals.loky") => Named::ByParent,
        Some((Program::Code(_), _)) | None => Named::Nowhere,
        Some((Program::Module(module), arguments)) => Named::Application(served(module, arguments)),
        Some((Program::Script(path), arguments)) => {
            script_name(path).map_or(Named::Nowhere, |name| Named::Application(served(&name, arguments)))
        }
    }
}

/// `gunicorn: worker [shop]`, `ray::ServeReplica:shop:Prices`: the title that a server gives to its processes.
fn of_title(first: &str) -> Option<String> {
    if let Some(replica) = first.strip_prefix("ray::ServeReplica:") {
        return Some(replica.to_owned());
    }
    let (server, rest) = first.split_once(": ")?;
    let name = rest.split_once('[')?.1.strip_suffix(']')?;
    (SERVERS.contains(&server) && !name.is_empty()).then(|| name.to_owned())
}

fn is_interpreter(path: &str) -> bool {
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("python") || name.starts_with("pypy")
}

/// What an interpreter runs.
enum Program<'line> {
    Code(&'line str),
    Module(&'line str),
    Script(&'line str),
}

/// What an interpreter is told to run, and the arguments of that. Source of the options: CPython 3.14, `python --help`.
fn program(arguments: &[String]) -> Option<(Program<'_>, &[String])> {
    let mut rest = arguments;
    while let Some((argument, after)) = rest.split_first() {
        rest = after;
        let Some(flags) = argument.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
            return (argument != "-").then_some((Program::Script(argument), rest));
        };
        if flags == "-check-hash-based-pycs" {
            rest = rest.get(1..)?;
        }
        if flags.starts_with('-') {
            continue;
        }
        let Some(place) = flags.find(['c', 'm', 'W', 'X']) else { continue };
        let (flag, inside) = flags[place..].split_at(1);
        let value = if inside.is_empty() {
            let (value, after) = rest.split_first()?;
            rest = after;
            value
        } else {
            inside
        };
        match flag {
            "c" => return Some((Program::Code(value), rest)),
            "m" => return Some((Program::Module(value), rest)),
            _ => {}
        }
    }
    None
}

/// A script's name without its ending; of a package's `__main__.py` the package's.
fn script_name(path: &str) -> Option<String> {
    let path = Path::new(path);
    let stem = path.file_stem()?;
    let name = if stem == "__main__" { path.parent()?.file_name()? } else { stem };
    Some(name.to_str()?.to_owned())
}

/// The application that a program was told to serve, or the program itself.
fn served(program: &str, arguments: &[String]) -> String {
    if !SERVERS.contains(&program) {
        return program.to_owned();
    }
    let by_option = APPLICATION_OPTIONS.iter().find_map(|option| {
        let mut words = arguments.iter();
        words
            .by_ref()
            .find_map(|word| match word.strip_prefix(option) {
                Some("") => Some(None),
                Some(value) => value.strip_prefix('=').map(Some),
                None => None,
            })?
            .or_else(|| words.next().map(String::as_str))
    });
    let named = by_option.or_else(|| arguments.iter().map(String::as_str).find(|word| is_application(word)));
    named.map_or_else(|| program.to_owned(), str::to_owned)
}

/// `module:attribute` or `path.py:attribute`, with a call of it or without; an address and a port are none.
fn is_application(word: &str) -> bool {
    let Some((module, attribute)) = word.split_once(':') else { return false };
    let attribute = attribute.split_once('(').map_or(attribute, |(name, _)| name);
    let is_dotted = |path: &str| {
        path.split('.').all(|name| {
            name.starts_with(|first: char| first.is_alphabetic() || first == '_')
                && name.chars().all(|other| other.is_alphanumeric() || other == '_')
        })
    };
    let module = module.strip_suffix(".py").map_or(module, |path| path.rsplit('/').next().unwrap_or(path));
    is_dotted(module) && is_dotted(attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Named {
        application(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_application_is_what_a_server_was_told_to_serve() {
        for (line, expected) in [
            ("/usr/bin/python3.12 /usr/local/bin/uvicorn app:main --port 8000", "app:main"),
            ("python3 -m uvicorn --host localhost:8000 shop.api:create_app() --factory", "shop.api:create_app()"),
            (
                "python /venv/bin/gunicorn -w 2 -b 0.0.0.0:80 -k uvicorn.workers.UvicornWorker shop.wsgi:app",
                "shop.wsgi:app",
            ),
            ("python -m celery -A prices worker", "prices"),
            ("python /bin/flask --app=hello run", "hello"),
            ("python /bin/gunicorn -c conf.py", "gunicorn"),
            ("python3.11 -u -W ignore -X dev serve.py --token=secret", "serve"),
            ("python -Wd -OO /srv/prices/__main__.py", "prices"),
            ("python -um mlserver start .", "mlserver"),
            ("python /bin/bentoml serve prices/service.py:Prices -p 80", "prices/service.py:Prices"),
            ("python -m _bentoml_impl.worker.service service:Prices --service-name Prices", "service:Prices"),
            ("/opt/pypy3.10/bin/pypy3 --check-hash-based-pycs never train.py", "train"),
        ] {
            assert_eq!(named(line), Named::Application(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_title_that_a_server_gives_itself_is_one_word() {
        let titled = |title: &str| application(&[title.to_owned()]);
        assert_eq!(titled("gunicorn: worker [shop]"), Named::Application("shop".to_owned()));
        assert_eq!(titled("ray::ServeReplica:shop:Prices"), Named::Application("shop:Prices".to_owned()));
        assert_eq!(titled("nginx: worker process"), Named::Nowhere);
    }

    #[test]
    fn a_process_has_the_names_of_all_that_it_runs() {
        let names = |line: &str| names_of(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(names("/usr/bin/python3 /venv/bin/gunicorn -w 2 shop:app"), ["python3", "gunicorn", "shop:app"]);
        assert_eq!(names("python -m mlserver start ."), ["python", "mlserver", "mlserver"]);
        assert_eq!(names("/srv/model-server --port 80"), ["model-server"]);
    }

    #[test]
    fn a_worker_is_named_by_its_parent() {
        assert_eq!(
            application(&["python".into(), "-c".into(), "from multiprocessing.spawn import spawn_main".into()]),
            Named::ByParent
        );
        assert_eq!(named("python -m joblib.externals.loky.backend.popen_loky_posix --pipe 3"), Named::ByParent);
    }

    #[test]
    fn what_is_typed_in_or_is_no_python_has_no_application() {
        for line in [
            "python",
            "python -",
            "python -c print()",
            "python -i",
            "/srv/model-server --port 80",
            "nginx: worker process",
            "",
        ] {
            assert_eq!(named(line), Named::Nowhere, "{line}");
        }
    }

    #[test]
    fn addresses_are_no_applications() {
        for word in ["localhost:8000", "0.0.0.0:80", "[::1]:80", ":80", "a:", "http://a:b", "unix:/run/a.sock"] {
            assert!(!is_application(word), "{word}");
        }
    }
}
