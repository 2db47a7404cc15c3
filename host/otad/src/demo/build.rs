//! A build of the agent as the image of a job: the shipped one again under another digest, signed by `otad sign` as a vendor
//! would.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::stage::failed;
use crate::code::{BUNDLE, beside};
use crate::exit::{Exit, Failed};

/// Name of the target that takes builds of the agent.
pub(super) const AGENT: &str = "agent";

/// A custom section of a component: its number, its length, the length of its name, and `demo`.
const MARK: [u8; 7] = [0, 5, 4, b'd', b'e', b'm', b'o'];

/// Lines of the target.
pub(super) fn configuration(file_id: usize) -> String {
    // The same code says the same version.
    format!(
        "\n[[device.target]]\nname = \"{AGENT}\"\nfile_id = {file_id}\nplugin = \"build\"\nallow_downgrade = true\n"
    )
}

/// The bundle, signed with this key.
pub(super) fn bundle(dir: &Path, key: &Path) -> Result<Vec<u8>, Failed> {
    let file = dir.join("agent.wasm");
    let component = [guest_artifacts::AGENT, &MARK].concat();
    fs::write(&file, component).map_err(|e| failed("writing the agent", &e))?;
    let otad =
        std::env::current_exe().map_err(|e| failed("finding this program's own file", &e))?;
    let output = Command::new(otad)
        .arg("sign")
        .arg(&file)
        .arg("--key")
        .arg(key)
        .arg("--bundle")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed("signing the agent", &e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failed::new(
            Exit::Failed,
            format!("signing the agent: {}", said.trim()),
        ));
    }
    fs::read(beside(&file, BUNDLE)).map_err(|e| failed("reading the bundle", &e))
}
