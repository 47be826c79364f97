//! Processes in which native probes cannot work, by what they have mapped.

use crate::model::{Module, Target};

/// Why no native function of a process can be probed: what runs is not the code of its files.
#[must_use]
pub fn native_obstacle(target: &Target) -> Option<&'static str> {
    target.modules.iter().find_map(of_module)
}

fn of_module(module: &Module) -> Option<&'static str> {
    const VALGRIND: &str = "it runs under valgrind, which runs a translation of the code: probes would not be hit, and what is \
                            translated later would contain them";
    const DYNAMORIO: &str = "it runs under DynamoRIO, which runs a copy of the code: probes would not be hit, and what is copied \
                             later would contain them";
    const PIN: &str = "it runs under Pin, which runs a copy of the code: probes would not be hit, and what is copied later \
                       would contain them";
    const LARGE_PAGES: &str = "it has loaded a library that moves the code of programs to large pages: probes would be copied \
                               with it and end the program";
    let name = module.file_name();
    let is_in = |folder: &str| {
        module.path.parent().is_some_and(|parent| parent.components().any(|part| part.as_os_str() == folder))
    };
    if name.starts_with("vgpreload_") || (is_in("valgrind") && !name.contains(".so")) {
        return Some(VALGRIND);
    }
    match name.as_str() {
        "libdynamorio.so" => Some(DYNAMORIO),
        "pinbin" => Some(PIN),
        "liblppreload.so" => Some(LARGE_PAGES),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::look_at;

    #[test]
    fn valgrind_is_told_from_programs_that_lie_near_it() {
        let here = look_at(std::process::id()).expect("this process can be looked at");
        assert_eq!(native_obstacle(&here), None);
        let with = |path: &str| {
            let module = Module { path: path.into(), ..here.modules[0].clone() };
            native_obstacle(&Target { modules: vec![module], ..here.clone() })
        };
        assert!(with("/usr/libexec/valgrind/memcheck-amd64-linux").is_some_and(|why| why.contains("valgrind")));
        assert!(with("/usr/libexec/valgrind/vgpreload_core-amd64-linux.so").is_some());
        assert!(with("/opt/iodlr/liblppreload.so").is_some());
        assert_eq!(with("/home/me/valgrind-tests/server"), None);
        assert_eq!(with("/usr/lib/valgrind/libmodel.so"), None);
    }
}
