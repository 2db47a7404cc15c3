//! Lines on real pseudo terminals and sockets. The other end blocks, in the test's own thread.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serial2::SerialPort;

use super::*;

/// A pseudo terminal: its other end, and the name of this one.
fn pty() -> (SerialPort, PathBuf) {
    let (far, near) = SerialPort::pair().unwrap();
    let near = OwnedFd::from(near);
    let path = std::fs::read_link(format!("/proc/self/fd/{}", near.as_raw_fd())).unwrap();
    (far, path)
}

fn line(place: LinePlace) -> Line {
    Line::new(LineConfig::new(place))
}

fn nobody() -> Wake {
    Arc::new(|| ())
}

const PLAIN: LineParameters = LineParameters {
    baud: 0,
    parity: 0,
    stop_bits: 1,
    flow_control: 0,
};

/// Reads until so many bytes have come.
async fn read_all(line: &Line, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        line.changed().await;
        bytes.extend(line.read(4096).unwrap());
    }
    bytes
}

/// Waits for the failure that says that the line has gone.
async fn fault(line: &Line) -> Failure {
    loop {
        line.changed().await;
        if let Err(failure) = line.read(16) {
            return failure;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_go_both_ways_over_a_terminal_and_wake() {
    let (far, path) = pty();
    let line = line(LinePlace::Tty(path));
    let wakes = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&wakes);
    let wake: Wake = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    line.open(&PLAIN, wake).unwrap();
    assert_eq!(line.write(b"\x06\x09question\n").unwrap(), 11);
    let mut question = [0; 11];
    far.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"\x06\x09question\n", "raw: nothing is changed");
    far.write_all(b"\x00\x04\x11\x13\r\n").unwrap();
    assert_eq!(read_all(&line, 6).await, b"\x00\x04\x11\x13\r\n");
    // What has come can be read before whoever waits for it is told.
    let told = async {
        while wakes.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(10);
    tokio::time::timeout(patience, told).await.unwrap();
    assert!(!line.has_news());
    assert_eq!(line.unsent().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_line_that_is_pulled_out_says_so_until_it_is_opened_again() {
    let (far, path) = pty();
    let link = tempfile::tempdir().unwrap();
    let name = link.path().join("tty");
    std::os::unix::fs::symlink(path, &name).unwrap();
    let line = line(LinePlace::Tty(name.clone()));
    line.open(&PLAIN, nobody()).unwrap();
    drop(far);
    let failure = fault(&line).await;
    assert_eq!((failure.main, failure.sub), (code::UNREACHABLE, UNPLUGGED));
    assert_eq!(line.write(b"x").unwrap_err().sub, UNPLUGGED);
    assert_eq!(line.open(&PLAIN, nobody()).unwrap_err().sub, UNPLUGGED);

    let (far, path) = pty();
    std::fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink(path, &name).unwrap();
    line.open(&PLAIN, nobody()).unwrap();
    far.write_all(b"back").unwrap();
    assert_eq!(read_all(&line, 4).await, b"back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_terminal_has_one_holder_and_is_free_when_it_is_given_back() {
    let (_far, path) = pty();
    let first = line(LinePlace::Tty(path.clone()));
    let second = line(LinePlace::Tty(path));
    first.open(&PLAIN, nobody()).unwrap();
    let refused = second.open(&PLAIN, nobody()).unwrap_err();
    assert!(refused.detail.contains("another process"), "{refused}");
    // The same one may be opened again, as with other parameters.
    first.open(&PLAIN, nobody()).unwrap();
    first.close();
    assert_eq!(first.read(1).unwrap_err().sub, UNPLUGGED);
    second.open(&PLAIN, nobody()).unwrap();
    drop(second);
    first.open(&PLAIN, nobody()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for (path, why) in [
        (dir.path().join("ttyUSB0"), "plugged in"),
        (file, "no terminal device"),
    ] {
        let failure = line(LinePlace::Tty(path))
            .open(&PLAIN, nobody())
            .unwrap_err();
        assert!(failure.detail.contains(why), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_operators_word_comes_before_the_plugins() {
    let (far, path) = pty();
    let config = LineConfig {
        baud: Some(57_600),
        stop_bits: Some(2),
        ..LineConfig::new(LinePlace::Tty(path))
    };
    let asked = LineParameters {
        baud: 9600,
        ..PLAIN
    };
    let line = Line::new(config);
    line.open(&asked, nobody()).unwrap();
    // Both ends of a pseudo terminal have one set of settings.
    let settings = far.get_configuration().unwrap();
    assert_eq!(settings.get_baud_rate().unwrap(), 57_600);
    assert_eq!(settings.get_stop_bits().unwrap(), serial2::StopBits::Two);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_go_both_ways_over_tcp_and_its_end_is_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let line = line(LinePlace::parse(&format!("tcp://{address}")).unwrap());
    line.open(&PLAIN, nobody()).unwrap();
    // Taken before the connection stands, and sent as soon as it does.
    assert_eq!(line.write(b"early").unwrap(), 5);
    let (mut far, _) = listener.accept().unwrap();
    let mut early = [0; 5];
    far.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    far.write_all(b"answer").unwrap();
    assert_eq!(read_all(&line, 6).await, b"answer");
    assert_eq!(
        line.set_line(Some(true), None, None).unwrap_err().main,
        code::UNSUPPORTED
    );
    drop(far);
    assert_eq!(fault(&line).await.sub, UNPLUGGED);
    drop(listener);
    line.open(&PLAIN, nobody()).unwrap();
    assert_eq!(fault(&line).await.main, code::UNREACHABLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_line_that_chatters_unread_takes_no_more_than_its_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let line = line(LinePlace::Tcp(address));
    line.open(&PLAIN, nobody()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(&vec![b'x'; 3 * INPUT_MAX_BYTES]).unwrap();
    drop(far);
    while line.usable().is_ok() {
        tokio::task::yield_now().await;
    }
    let mut bytes = 0;
    while let Ok(piece) = line.read(1 << 20) {
        bytes += piece.len();
    }
    assert_eq!(bytes, INPUT_MAX_BYTES);
}

#[test]
fn places_are_paths_and_tcp_addresses() {
    let tty = LinePlace::parse("/dev/serial/by-id/usb-x").unwrap();
    assert_eq!(tty.to_string(), "/dev/serial/by-id/usb-x");
    let by_path = "/dev/serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0";
    assert!(LinePlace::parse(by_path).is_ok());
    let tcp = LinePlace::parse("tcp://[::1]:4001").unwrap();
    assert_eq!(tcp, LinePlace::Tcp("[::1]:4001".into()));
    for wrong in [
        "",
        "tcp://host",
        "tcp://:1",
        "tcp://host:0",
        "udp://host:1",
        "spi:///dev/x",
        "spi:/dev/x",
    ] {
        assert!(LinePlace::parse(wrong).is_err(), "{wrong}");
    }
}
