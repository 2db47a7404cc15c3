//! `otad group`: groups of things, for updates that are for many.

use host_cloud::service::{GroupName, GroupView, NameError, ThingName};

use super::args::{AskArgs, GroupVerb};
use super::cloud_client::{connect, refused_by_name};
use super::thing::{said_deleted, thing_name};
use crate::exit::{Exit, Failed, Verb};
use crate::progress::say;

pub(super) async fn follow(verb: &GroupVerb) -> Verb {
    match verb {
        GroupVerb::Create {
            name,
            ask,
            description,
        } => {
            let name = group_name(name)?;
            let mut client = connect(&ask.cloud).await?;
            let made = client.group_create(name, description.clone()).await;
            show(&made.map_err(refused_by_name)?, ask)
        }
        GroupVerb::List { ask } => list(ask).await,
        GroupVerb::Show { name, ask } => {
            let name = group_name(name)?;
            let found = connect(&ask.cloud).await?.group_describe(name).await;
            show(&found.map_err(refused_by_name)?, ask)
        }
        GroupVerb::Add { name, things, ask } => {
            let (name, things) = (group_name(name)?, thing_names(things)?);
            let joined = connect(&ask.cloud).await?.group_add(name, things).await;
            show(&joined.map_err(refused_by_name)?, ask)
        }
        GroupVerb::Remove { name, things, ask } => {
            let (name, things) = (group_name(name)?, thing_names(things)?);
            let left = connect(&ask.cloud).await?.group_remove(name, things).await;
            show(&left.map_err(refused_by_name)?, ask)
        }
        GroupVerb::Delete { name, ask } => {
            let name = group_name(name)?;
            let deleted = connect(&ask.cloud).await?.group_delete(name.clone()).await;
            said_deleted(
                "group",
                name.as_str(),
                &deleted.map_err(refused_by_name)?,
                ask,
            )
        }
    }
}

fn group_name(text: &str) -> Result<GroupName, Failed> {
    text.parse()
        .map_err(|e: NameError| Failed::new(Exit::Usage, e.to_string()))
}

fn thing_names(texts: &[String]) -> Result<Vec<ThingName>, Failed> {
    texts.iter().map(|text| thing_name(text)).collect()
}

async fn list(ask: &AskArgs) -> Verb {
    let groups = connect(&ask.cloud).await?.group_list().await;
    let groups = groups.map_err(refused_by_name)?;
    if ask.json {
        say(&serde_json::json!(groups).to_string());
    } else {
        for group in &groups {
            let line = format!(
                "{}  {} thing(s)  {}",
                group.name,
                group.things.len(),
                group.description
            );
            say(line.trim_end());
        }
    }
    Ok(if groups.is_empty() {
        Exit::Nothing
    } else {
        Exit::Done
    })
}

fn show(group: &GroupView, ask: &AskArgs) -> Verb {
    if ask.json {
        say(&serde_json::json!(group).to_string());
        return Ok(Exit::Done);
    }
    say(format!("group  {}  {}", group.name, group.description).trim_end());
    for thing in &group.things {
        say(&format!("thing  {thing}"));
    }
    for job in &group.jobs {
        say(&format!("job    {job}  continuous"));
    }
    Ok(Exit::Done)
}
