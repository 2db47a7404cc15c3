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
# up: what Restart=on-failure does.
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
    "@OTAD@" launch "$name" --config "$dir/otad.toml" </dev/null >>"$dir/$name.out" 2>>"$dir/$name.log" &
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
