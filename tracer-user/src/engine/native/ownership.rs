//! Whose a library is, as far as its place tells: what a distribution or a package brings has functions of the common names that have
//! nothing to do with a model (`OGRPoint.transform`, `KalmanFilter.predict`).

use std::ffi::OsStr;
use std::path::Path;

use crate::model::{LibraryOwner, ModuleFile};

/// Folders that a distribution installs libraries to, at the root and in `usr`, wherever that is: an unpacked root has one of its own.
/// `/usr/local` and `/opt` are not among them.
const OF_DISTRIBUTION: [&str; 3] = ["lib", "lib32", "lib64"];

/// Folders that Python packages are installed to.
const OF_PACKAGES: [&str; 2] = ["site-packages", "dist-packages"];

/// Who has brought a library; `None`: it is the program itself or belongs to it.
pub(super) fn owner_of(module: &ModuleFile) -> Option<LibraryOwner> {
    if module.is_program {
        return None;
    }
    owner_by_place(&module.path)
}

fn owner_by_place(path: &Path) -> Option<LibraryOwner> {
    let is_package = path.components().any(|part| OF_PACKAGES.iter().any(|folder| part.as_os_str() == *folder));
    if is_package {
        return Some(LibraryOwner::Package);
    }
    let parts: Vec<&OsStr> = path.components().map(|part| part.as_os_str()).collect();
    let is_library_folder = |part: &OsStr| OF_DISTRIBUTION.iter().any(|folder| part == *folder);
    let is_distribution = |pair: &[&OsStr]| matches!(pair, [before, folder] if (*before == "/" || *before == "usr") && is_library_folder(folder));
    parts.windows(2).any(is_distribution).then_some(LibraryOwner::Distribution)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FileNumber, ProcessId};

    #[test]
    fn the_place_of_a_library_tells_whose_it_is() {
        for (path, owner) in [
            ("/usr/lib/x86_64-linux-gnu/libgdal.so.32", Some(LibraryOwner::Distribution)),
            ("/lib64/libstdc++.so.6", Some(LibraryOwner::Distribution)),
            ("/srv/venv/lib/python3.12/site-packages/cv2/cv2.abi3.so", Some(LibraryOwner::Package)),
            ("/usr/lib/python3/dist-packages/torch/lib/libtorch_python.so", Some(LibraryOwner::Package)),
            ("/srv/root/usr/lib/x86_64-linux-gnu/libgdal.so.32", Some(LibraryOwner::Distribution)),
            ("/usr/local/lib/libmodels.so", None),
            ("/srv/lib/libmodels.so", None),
            ("/opt/server/lib/libmodels.so", None),
            ("/home/me/build/libmodels.so", None),
            ("/libmodels.so", None),
        ] {
            assert_eq!(owner_by_place(Path::new(path)), owner, "{path}");
            let module = ModuleFile {
                process: ProcessId { pid: 7, start_time: 1 },
                path: path.into(),
                access_path: path.into(),
                number: FileNumber::default(),
                mappings: Vec::new(),
                is_program: true,
            };
            assert_eq!(owner_of(&module), None, "{path} as a program");
        }
    }
}
