//! `otad demo`.

use super::args::{CarrierArg, DemoArgs};
use crate::demo::{self, Options};
use crate::exit::{Exit, Failed, Verb};

pub(super) fn follow(args: &DemoArgs) -> Verb {
    if args.list {
        demo::list();
        return Ok(Exit::Done);
    }
    let options = Options {
        scenario: args.scenario.clone(),
        carrier: match args.carrier {
            CarrierArg::Component => "component",
            CarrierArg::Native => "native",
        },
        dir: args.dir.clone(),
        keep: args.keep,
        verbose: args.verbose,
        broker: super::cloud::broker(&args.broker)?,
    };
    tokio::runtime::Runtime::new()
        .map_err(|e| Failed::chain(Exit::Failed, "starting the runtime", &e))?
        .block_on(demo::run(options))
}
