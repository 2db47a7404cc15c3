//! A simulated MCU in real time: on a pseudo terminal and on TCP, plugged out and in, with one client after another.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use host_mcu_sim::{Config, Geometry, Mcu, Port, Simulation, State, sample};
use serial2::SerialPort;

const ECHO: &[u8] = b"\x06\tABAKAAAGAAAAAKFhZGJoaeJ8\n";
/// What the answer's text begins with: an answer to a write, version 2.
const ANSWER: &[u8] = b"\x06\tAB";
const PATIENCE: Duration = Duration::from_secs(5);

fn mcu() -> Mcu {
    let mut config = Config::new(Geometry::new(4096, 64 << 10, 1).unwrap());
    config.factory.primary = vec![sample::image("1.0.0", 5000)];
    config.timing.boot_ns = 1_000_000;
    Mcu::new(config).unwrap()
}

fn open(path: &str) -> std::io::Result<SerialPort> {
    let mut port = SerialPort::open(path, 115_200)?;
    port.set_read_timeout(PATIENCE)?;
    Ok(port)
}

fn connect(address: &str) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Reads until a whole line with an answer is there.
fn answer(port: &mut impl Read) -> Vec<u8> {
    let mut seen = Vec::new();
    loop {
        let mut buffer = [0; 256];
        let count = port.read(&mut buffer).unwrap();
        assert!(count > 0, "the end, after {seen:?}");
        seen.extend_from_slice(&buffer[..count]);
        let begin = seen
            .windows(ANSWER.len())
            .position(|window| window == ANSWER);
        if let Some(begin) = begin
            && seen[begin..].contains(&b'\n')
        {
            return seen[begin..].to_vec();
        }
    }
}

/// Waits until the MCU serves; the port's thread goes on by itself.
fn wait_up(simulation: &Simulation) {
    for _ in 0..5_000 {
        if simulation.with(|mcu, _| mcu.state() == State::Serving) {
            return;
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("it does not start");
}

#[test]
fn clients_come_and_go_on_a_terminal() {
    let simulation = Simulation::start(mcu(), &Port::Pty { link: None }).unwrap();
    wait_up(&simulation);
    for _ in 0..2 {
        let mut client = open(simulation.address()).unwrap();
        client.write_all(b"\n").unwrap();
        client.write_all(ECHO).unwrap();
        let answer = answer(&mut client);
        assert!(answer.ends_with(b"\n"), "{answer:?}");
    }
}

#[test]
fn a_link_stays_the_same_when_the_plug_is_pulled_and_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("ttyMCU");
    let port = Port::Pty {
        link: Some(link.clone()),
    };
    let simulation = Simulation::start(mcu(), &port).unwrap();
    wait_up(&simulation);
    let address = simulation.address().to_owned();
    assert_eq!(Path::new(&address), link);
    let mut client = open(&address).unwrap();
    client.write_all(ECHO).unwrap();
    answer(&mut client);

    simulation.with(|mcu, now_ns| mcu.unplug(now_ns, None));
    // The client sees the end or an error, and the name is gone.
    while client.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    assert!(open(&address).is_err());

    simulation.with(Mcu::plug);
    let mut client = (0..5_000)
        .find_map(|_| {
            std::thread::park_timeout(Duration::from_millis(1));
            open(&address).ok()
        })
        .expect("the link is back");
    client.write_all(ECHO).unwrap();
    answer(&mut client);
    drop(simulation);
    assert!(!link.is_symlink());
}

#[test]
fn a_tcp_client_is_served_and_lost_with_the_plug() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let simulation = Simulation::start(mcu(), &Port::Tcp(any)).unwrap();
    wait_up(&simulation);
    let mut client = connect(simulation.address());
    client.write_all(ECHO).unwrap();
    answer(&mut client);
    simulation.with(|mcu, now_ns| mcu.unplug(now_ns, None));
    assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0);
    simulation.with(Mcu::plug);
    let mut client = connect(simulation.address());
    client.write_all(ECHO).unwrap();
    answer(&mut client);
}

#[test]
fn sixteen_terminals_answer_at_once() {
    let all: Vec<Simulation> = (0..16)
        .map(|_| Simulation::start(mcu(), &Port::Pty { link: None }).unwrap())
        .collect();
    let mut clients: Vec<SerialPort> = Vec::new();
    for simulation in &all {
        wait_up(simulation);
        clients.push(open(simulation.address()).unwrap());
    }
    for client in &mut clients {
        client.write_all(ECHO).unwrap();
    }
    for client in &mut clients {
        answer(client);
    }
}
