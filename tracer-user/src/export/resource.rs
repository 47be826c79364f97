//! Who made the spans: one resource for each traced process.

use std::sync::Arc;

use super::attribute_limits::shorten_name;
use super::environment::{Environment, parse_pairs, set};
use crate::model::{AttributeValue, ProcessId, Target};

/// A traced process, described by OpenTelemetry resource attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The process.
    pub process: ProcessId,
    /// Name for people: the service's, by default that of the executable.
    pub service_name: Arc<str>,
    /// All attributes, `service.name` included, each name once.
    pub attributes: Vec<(Arc<str>, AttributeValue)>,
}

/// Name of the instrumentation scope and of the distribution.
pub const TRACER_NAME: &str = "ml-tracer";
/// Version of the instrumentation scope and of the distribution.
pub const TRACER_VERSION: &str = env!("CARGO_PKG_VERSION");

impl Resource {
    /// Resource of a process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` of the tracer win over those of the process,
    /// and these over what was found, except for `process.*` and `telemetry.*`. Arguments of the command line are left out:
    /// they may hold secrets.
    #[must_use]
    pub fn new(target: &Target, environment: Environment<'_>) -> Self {
        let executable = target.executable.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut found = vec![
            ("process.executable.path", Some(target.executable.to_string_lossy().into_owned())),
            ("process.command", target.command_line.first().cloned()),
            ("container.id", target.container_id.clone()),
            ("host.name", rustix::system::uname().nodename().to_str().ok().map(str::to_owned)),
        ];
        found.push(("process.executable.name", executable.clone()));
        let service = &target.service;
        let name = service.application.clone().or_else(|| executable.map(without_version));
        Self::build(target.process, name, found, &[environment, &|name| service.variable(name)])
    }

    /// Resource of a process of which only the number is known.
    #[must_use]
    pub fn unknown(process: ProcessId, environment: Environment<'_>) -> Self {
        Self::build(process, None, Vec::new(), &[environment])
    }

    fn build(
        process: ProcessId,
        name: Option<String>,
        found: Vec<(&'static str, Option<String>)>,
        environments: &[Environment<'_>],
    ) -> Self {
        let mut attributes: Vec<(Arc<str>, AttributeValue)> = Vec::new();
        let mut add = |name: &str, value: AttributeValue| {
            if !attributes.iter().any(|(known, _)| &**known == name) {
                attributes.push((name.into(), value));
            }
        };
        for environment in environments {
            if let Some(name) = set(environment, "OTEL_SERVICE_NAME") {
                add("service.name", text(name));
            }
            // The OpenTelemetry SDK specification asks to discard a list with an error in it as a whole.
            let given = parse_pairs(&set(environment, "OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
            if given.is_none() {
                tracing::warn!(%process, "OTEL_RESOURCE_ATTRIBUTES is not of the form key=value,key=value and is ignored");
            }
            for (name, value) in given.unwrap_or_default() {
                if !name.starts_with("process.") && !name.starts_with("telemetry.") {
                    add(&name, text(value));
                }
            }
        }
        // Source of the fallback's form: OpenTelemetry semantic conventions, `service.name`.
        add("service.name", text(name.unwrap_or_else(|| "unknown_service".to_owned())));
        add("process.pid", AttributeValue::Integer(i64::from(process.pid)));
        for (name, value) in found {
            if let Some(value) = value {
                add(name, text(value));
            }
        }
        for (name, value) in [
            ("telemetry.sdk.name", TRACER_NAME),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", TRACER_VERSION),
            ("telemetry.distro.name", TRACER_NAME),
            ("telemetry.distro.version", TRACER_VERSION),
        ] {
            add(name, AttributeValue::Text(value.into()));
        }
        let service_name = attributes.iter().find_map(|(name, value)| match value {
            AttributeValue::Text(value) if &**name == "service.name" => Some(Arc::clone(value)),
            _ => None,
        });
        Self { process, service_name: service_name.unwrap_or_default(), attributes }
    }
}

/// `python` for `python3.12`: which version serves a model is no part of the service's name.
fn without_version(executable: String) -> String {
    let bare = executable.trim_end_matches(|last: char| last.is_ascii_digit() || last == '.');
    if matches!(bare, "python" | "pypy") { bare.to_owned() } else { executable }
}

fn text(value: String) -> AttributeValue {
    AttributeValue::Text(shorten_name(&value).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            process: ProcessId { pid: 42, start_time: 7 },
            command_line: vec!["python".into(), "serve.py".into(), "--token=secret".into()],
            executable: "/usr/bin/python3.11".into(),
            modules: Vec::new(),
            container_id: Some("abc".into()),
            image: crate::model::ProgramImage::default(),
            service: crate::model::Service::default(),
        }
    }

    fn value(resource: &Resource, name: &str) -> Option<String> {
        let mut found = resource.attributes.iter().filter(|(known, _)| &**known == name);
        let value = found.next().map(|(_, value)| match value {
            AttributeValue::Text(text) => text.to_string(),
            other => format!("{other:?}"),
        });
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    #[test]
    fn the_process_is_described_without_its_arguments() {
        let resource = Resource::new(&target(), &|_| None);
        assert_eq!(&*resource.service_name, "python");
        assert_eq!(value(&resource, "process.pid").as_deref(), Some("Integer(42)"));
        assert_eq!(value(&resource, "process.command").as_deref(), Some("python"));
        assert_eq!(value(&resource, "process.executable.path").as_deref(), Some("/usr/bin/python3.11"));
        assert_eq!(value(&resource, "container.id").as_deref(), Some("abc"));
        assert_eq!(value(&resource, "telemetry.distro.name").as_deref(), Some("ml-tracer"));
        assert!(!format!("{resource:?}").contains("secret"));
    }

    #[test]
    fn the_environment_wins_except_over_the_process() {
        let attributes = "service.name=other, deployment.environment.name=a%20b%2Cc,process.pid=1,host.name=h";
        let environment = |name: &str| match name {
            "OTEL_SERVICE_NAME" => Some("prices".to_owned()),
            "OTEL_RESOURCE_ATTRIBUTES" => Some(attributes.to_owned()),
            _ => None,
        };
        let resource = Resource::new(&target(), &environment);
        assert_eq!(&*resource.service_name, "prices");
        assert_eq!(value(&resource, "service.name").as_deref(), Some("prices"));
        assert_eq!(value(&resource, "deployment.environment.name").as_deref(), Some("a b,c"));
        assert_eq!(value(&resource, "process.pid").as_deref(), Some("Integer(42)"));
        assert_eq!(value(&resource, "host.name").as_deref(), Some("h"));
    }

    #[test]
    fn the_tracers_environment_wins_over_that_of_the_process_and_both_over_the_application() {
        let mut target = target();
        target.service.application = Some("app:main".into());
        assert_eq!(&*Resource::new(&target, &|_| None).service_name, "app:main");
        target.service.resource_attributes = Some("service.name=listed,service.version=7,process.pid=1".into());
        let resource = Resource::new(&target, &|_| None);
        assert_eq!(&*resource.service_name, "listed");
        assert_eq!(value(&resource, "service.version").as_deref(), Some("7"));
        assert_eq!(value(&resource, "process.pid").as_deref(), Some("Integer(42)"));
        target.service.name = Some("named".into());
        assert_eq!(&*Resource::new(&target, &|_| None).service_name, "named");
        let tracer = |name: &str| (name == "OTEL_SERVICE_NAME").then(|| "ours".to_owned());
        assert_eq!(&*Resource::new(&target, &tracer).service_name, "ours");
    }

    #[test]
    fn a_list_with_an_error_is_ignored_as_a_whole() {
        for list in ["a=1,b", "a=%zz", "a=1,=2", "a=%ff"] {
            let environment = |name: &str| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| list.to_owned());
            let resource = Resource::unknown(ProcessId { pid: 1, start_time: 0 }, &environment);
            assert_eq!(value(&resource, "a"), None, "{list}");
            assert_eq!(&*resource.service_name, "unknown_service");
        }
    }
}
