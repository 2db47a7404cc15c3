//! `otad thing`: the devices that a cloud knows, and the certificates that speak for them.

mod create;

use std::fs;
use std::path::Path;

use host_cloud::operator::wire::Deleted;
use host_cloud::service::{NameError, ThingDescription, ThingName};

use super::args::{AskArgs, ThingVerb};
use super::cloud_client::{connect, refused_by_name};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) async fn follow(verb: &ThingVerb) -> Verb {
    match verb {
        ThingVerb::Create {
            name,
            ask,
            out,
            force,
        } => create::follow(thing_name(name)?, ask, out, *force).await,
        ThingVerb::List { ask } => list(ask).await,
        ThingVerb::Show { name, ask } => {
            let name = thing_name(name)?;
            let described = connect(&ask.cloud).await?.thing_describe(name).await;
            show(&described.map_err(refused_by_name)?, ask)
        }
        ThingVerb::Delete { name, ask, force } => {
            let name = thing_name(name)?;
            let deleted = connect(&ask.cloud)
                .await?
                .thing_delete(name.clone(), *force)
                .await;
            said_deleted(
                "thing",
                name.as_str(),
                &deleted.map_err(refused_by_name)?,
                ask,
            )
        }
        ThingVerb::Attach {
            name,
            ask,
            certificate,
            root,
        } => {
            let name = thing_name(name)?;
            let certificate = read(certificate)?;
            let root = root.as_deref().map(read).transpose()?;
            let mut client = connect(&ask.cloud).await?;
            let attached = client.thing_attach(name, certificate, root).await;
            show(&attached.map_err(refused_by_name)?, ask)
        }
        ThingVerb::Detach {
            name,
            fingerprint,
            ask,
        } => {
            let name = thing_name(name)?;
            let mut client = connect(&ask.cloud).await?;
            let detached = client
                .thing_detach(name, fingerprint.to_ascii_lowercase())
                .await;
            show(&detached.map_err(refused_by_name)?, ask)
        }
    }
}

/// A thing's name from the command line.
pub(super) fn thing_name(text: &str) -> Result<ThingName, Failed> {
    text.parse()
        .map_err(|e: NameError| Failed::new(Exit::Usage, e.to_string()))
}

fn read(path: &Path) -> Result<String, Failed> {
    fs::read_to_string(path)
        .map_err(|e| Failed::chain(Exit::Usage, &path.display().to_string(), &e))
}

async fn list(ask: &AskArgs) -> Verb {
    let things = connect(&ask.cloud).await?.thing_list().await;
    let things = things.map_err(refused_by_name)?;
    if ask.json {
        say(&serde_json::json!(things).to_string());
    } else {
        for thing in &things {
            let line = format!(
                "{}  {}  {}",
                thing.name,
                words(&thing.groups, "group "),
                words(&thing.pending, "job ")
            );
            say(line.trim_end());
        }
    }
    Ok(if things.is_empty() {
        Exit::Nothing
    } else {
        Exit::Done
    })
}

/// What there is of a kind, each with a word before it.
fn words(items: &[impl std::fmt::Display], word: &str) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{word}{item}")).collect();
    items.join(" ")
}

fn show(description: &ThingDescription, ask: &AskArgs) -> Verb {
    if ask.json {
        say(&serde_json::json!(description).to_string());
        return Ok(Exit::Done);
    }
    let thing = &description.thing;
    say(&format!("thing        {}", thing.name));
    for certificate in &thing.certificates {
        say(&format!("certificate  {certificate}"));
    }
    for group in &thing.groups {
        say(&format!("group        {group}"));
    }
    for job in &description.jobs {
        say(&format!(
            "job          {}  {}",
            job.job_id,
            job.execution.status.as_str()
        ));
    }
    Ok(Exit::Done)
}

/// What went with something that was forgotten.
pub(super) fn said_deleted(what: &str, name: &str, deleted: &Deleted, ask: &AskArgs) -> Verb {
    if ask.json {
        let said = serde_json::json!({ "deleted": name, "executions": deleted.executions });
        say(&said.to_string());
    } else if deleted.executions > 0 {
        let count = deleted.executions;
        say(&format!(
            "deleted the {what} {name}; {count} job(s) had not ended on it"
        ));
    } else {
        say(&format!("deleted the {what} {name}"));
    }
    Ok(Exit::Done)
}
