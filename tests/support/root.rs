//! Programs inside a root directory: another system than the one around, on its kernel.

use std::path::Path;
use std::process::Command;

/// Where a folder of the outside is to be seen inside.
pub const FOLDER: &str = "/mnt";

/// Mounts what the kernel shows, and the folder, and becomes the program. All of it goes with the mount namespace, which is that
/// program's own.
const SCRIPT: &str = r#"
root=$1 folder=$2
shift 2
for place in proc sys dev; do
    mount --rbind "/$place" "$root/$place" || exit
done
mount --bind "$folder" "$root/mnt" || exit
exec chroot "$root" "$@"
"#;

/// What a root directory needs to have for this.
pub const PLACES: [&str; 4] = ["proc", "sys", "dev", "mnt"];

/// The beginning of a command whose next word is a program of the root directory. It sees `folder` as [`FOLDER`].
#[must_use]
pub fn inside(root: &Path, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", SCRIPT, "sh"]).arg(root).arg(folder);
    command
}
