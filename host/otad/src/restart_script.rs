//! A stand-in for a service manager: the script that `otad thing create` and the demo give as `restart` of a target.
//!
//! It starts the target's program through `otad launch`, detached, and starts it again while it does not stay up. On a
//! real gateway the service manager does this; the configuration says how.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Arguments: target.
const RESTART: &str = r#"#!/bin/sh
# Ends the old program of a target, starts the new one through the launcher, and starts it again while it does not stay
# up: what Restart=on-failure does. The program gets a session of its own: it is not ended with this script, should otad
# have to kill that, nor with the terminal.
set -u
dir=$(dirname "$0")
name=$1
if [ -f "$dir/$name.pid" ]; then
    old=$(cat "$dir/$name.pid")
    kill "$old" 2>/dev/null
    while kill -0 "$old" 2>/dev/null; do sleep 0.05; done
fi
attempt=0
while [ "$attempt" -lt 6 ]; do
    attempt=$((attempt + 1))
    : >"$dir/$name.out"
    setsid "@OTAD@" launch "$name" --config "$dir/otad.toml" </dev/null >>"$dir/$name.out" 2>>"$dir/$name.log" &
    pid=$!
    echo "$pid" >"$dir/$name.pid"
    # It is up when it has said something and is still there.
    wait_ms=0
    while kill -0 "$pid" 2>/dev/null && [ ! -s "$dir/$name.out" ] && [ "$wait_ms" -lt 5000 ]; do
        sleep 0.05
        wait_ms=$((wait_ms + 50))
    done
    sleep 0.1
    if kill -0 "$pid" 2>/dev/null; then exit 0; fi
done
echo "$name does not stay up" >&2
exit 1
"#;

/// Write `restart.sh` into a directory that has an `otad.toml`; it calls this `otad`.
pub(crate) fn write(dir: &Path, otad: &Path) -> io::Result<()> {
    let text = RESTART.replace("@OTAD@", &otad.display().to_string());
    write_executable(dir, "restart.sh", &text)
}

/// Write a script with mode 0755.
pub(crate) fn write_executable(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = dir.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use rustix::process::{Pid, Signal, getsid, kill_process, kill_process_group};

    use super::*;

    #[test]
    fn the_program_lives_on_when_the_script_is_killed_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        // It stands in for the launcher and for the program.
        let program = "#!/bin/sh\necho up\nexec tail -f /dev/null\n";
        write_executable(dir.path(), "program", program).unwrap();
        write(dir.path(), &dir.path().join("program")).unwrap();
        let mut script = Command::new(dir.path().join("restart.sh"))
            .arg("main")
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Pid::from_child(&script);
        assert!(script.wait().unwrap().success());
        let pid = fs::read_to_string(dir.path().join("main.pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let session = getsid(Some(pid));
        // Nobody is left in it, as it should be.
        let killed = kill_process_group(group, Signal::KILL);
        let ended = kill_process(pid, Signal::KILL);
        assert_eq!(session, Ok(pid));
        assert!(killed.is_err(), "somebody was left in the script's group");
        assert_eq!(ended, Ok(()));
    }
}
