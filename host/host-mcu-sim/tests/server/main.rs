//! smp-core's client against SMP servers behind real ports: upload, interruption, power cut, test, revert, test again,
//! confirm, and back to where it began. It runs against simulated MCUs, or against the server that the environment names:
//!
//! | variable | |
//! | --- | --- |
//! | `OTAD_SMP_DEVICE` | terminal device of the server |
//! | `OTAD_SMP_TCP` | or its `host:port` |
//! | `OTAD_SMP_IMAGE` | image that its bootloader takes, not the one that runs; without it a damaged one is sent, which has to be refused at the start |
//! | `OTAD_SMP_BAUD`, `OTAD_SMP_RAW=1` | rate (115200) and framing (console) of the line |
//! | `OTAD_SMP_POWER_CUT` | shell command that cuts its power and gives it again; without it a reset stands for the cut |
//!
//! `OTAD_SMP_TCP=127.0.0.1:4001 OTAD_SMP_IMAGE=new.signed.bin cargo test -p host-mcu-sim --test server -- --nocapture`

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

mod bench;
mod story;

use std::path::PathBuf;

use bench::{Bench, Place, Power};
use host_mcu_sim::{
    Config, Factory, Framing, Geometry, Mcu, Port, Profile, Simulation, Timing, sample,
};

/// Fast enough for a test, slow enough that half an upload is a moment that can be met.
const BAUD: u32 = 460_800;

#[test]
fn a_server_takes_an_update_through_every_turn_it_can_take() {
    let device = std::env::var_os("OTAD_SMP_DEVICE").map(|path| Place::Tty(PathBuf::from(path)));
    let address = std::env::var("OTAD_SMP_TCP").ok().map(Place::Tcp);
    match device.or(address) {
        Some(place) => outside(place),
        None => simulated(),
    }
}

/// Somebody else's server.
fn outside(place: Place) {
    let image = std::env::var_os("OTAD_SMP_IMAGE").map(|path| std::fs::read(path).unwrap());
    let baud = std::env::var("OTAD_SMP_BAUD").map_or(115_200, |baud| baud.parse().unwrap());
    let framing = if std::env::var("OTAD_SMP_RAW").is_ok_and(|raw| raw == "1") {
        Framing::Raw
    } else {
        Framing::Console
    };
    let power = std::env::var("OTAD_SMP_POWER_CUT").map_or(Power::Reset, Power::Command);
    let mut bench = Bench::new(place, baud, framing, power);
    story::play(&mut bench, image.as_deref());
}

/// Servers of different age, on a terminal and on TCP, side by side.
fn simulated() {
    let folder = tempfile::tempdir().unwrap();
    let link = Some(folder.path().join("mcu"));
    let tcp = || Port::Tcp(([127, 0, 0, 1], 0).into());
    let servers = [
        (
            Profile::zephyr_3_4(),
            Port::Pty { link },
            &[Offer::Signed][..],
        ),
        // Once more, as if nobody had said what its bootloader takes.
        (
            Profile::zephyr_4_4(),
            tcp(),
            &[Offer::Signed, Offer::Nothing],
        ),
        (Profile::recovery_4_4(), tcp(), &[Offer::Signed]),
    ];
    std::thread::scope(|scope| {
        for (profile, port, offers) in servers {
            scope.spawn(move || one(profile, &port, offers));
        }
    });
}

/// What is known about the images that the bootloader takes.
#[derive(Debug, Clone, Copy)]
enum Offer {
    Signed,
    Nothing,
}

fn one(profile: Profile, port: &Port, offers: &[Offer]) {
    let signer = sample::Signer::of_seed(1);
    let mut config = Config::new(Geometry::new(4096, 64 << 10, 1).unwrap());
    config.factory = Factory {
        primary: vec![signer.image("1.0.0", &sample::noise("1.0.0", 8_000))],
        secondary: Vec::new(),
    };
    config.key = Some(signer.key());
    config.server = profile;
    config.timing = Timing::line(BAUD);
    let simulation = Simulation::start(Mcu::new(config).unwrap(), port).unwrap();
    let place = match port {
        Port::Pty { .. } => Place::Tty(PathBuf::from(simulation.address())),
        Port::Tcp(_) => Place::Tcp(simulation.address().to_owned()),
    };
    let power = Power::Simulated(Box::new(simulation));
    let mut bench = Bench::new(place, BAUD, Framing::Console, power);
    let new = signer.image("2.0.0", &sample::noise("2.0.0", 20_000));
    for offer in offers {
        let image = match offer {
            Offer::Signed => Some(&new[..]),
            Offer::Nothing => None,
        };
        story::play(&mut bench, image);
    }
}
