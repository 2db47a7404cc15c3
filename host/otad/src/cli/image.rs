//! `otad image pack` and `otad image show`.

use std::path::{Path, PathBuf};

use super::args::{ImageVerb, PackArgs};
use crate::exit::{Exit, Failed, Verb};
use crate::image::{self, Facts};
use crate::progress::say;

pub(super) fn follow(verb: &ImageVerb) -> Verb {
    match verb {
        ImageVerb::Pack(args) => pack(args),
        ImageVerb::Show { file, json } => {
            let facts = image::facts(file).map_err(|failed| {
                let advice = "name an image, such as `otad image pack` writes";
                Failed::new(failed.exit, format!("{}; {advice}", failed.text))
            })?;
            print(file, &facts, *json);
            Ok(Exit::Done)
        }
    }
}

fn pack(args: &PackArgs) -> Verb {
    let version = image::parse_version(&args.image_version)
        .map_err(|text| Failed::new(Exit::Usage, format!("--version: {text}")))?;
    let to = args.output.clone().unwrap_or_else(|| {
        let mut name = args.file.clone().into_os_string();
        name.push(".img");
        PathBuf::from(name)
    });
    let facts = image::pack(&args.file, &to, version, &args.product, &args.hardware)?;
    print(&to, &facts, false);
    Ok(Exit::Done)
}

fn print(file: &Path, facts: &Facts, json: bool) {
    let digest = host_crypto::hex(&facts.sha256);
    let trailer = facts.trailer.as_ref();
    if json {
        let value = serde_json::json!({
            "file": file.display().to_string(),
            "size": facts.size,
            "sha256": digest,
            "version": trailer.map(|t| t.version.to_string()),
            "product": trailer.map(|t| &t.product),
            "hardware": trailer.map(|t| &t.hardware),
        });
        say(&value.to_string());
        return;
    }
    say(&format!("file      {}", file.display()));
    say(&format!("size      {} bytes", facts.size));
    say(&format!("sha256    {digest}"));
    match trailer {
        Some(t) => {
            say(&format!("version   {}", t.version));
            say(&format!("product   {}", or_none(&t.product)));
            say(&format!("hardware  {}", or_none(&t.hardware)));
        }
        None => say("version   not known: no otad trailer; add one with `otad image pack`"),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}
