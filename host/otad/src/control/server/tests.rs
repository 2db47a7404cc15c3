//! The socket's mode, who may use it, and what happens to bad requests, over a real unix socket.

use std::os::unix::fs::PermissionsExt as _;

use super::super::client::Client;
use super::super::protocol::Verb;
use super::*;

struct Echo;

impl Backend for Echo {
    async fn call(&self, request: Request, items: mpsc::Sender<Value>) -> Result<Value, Refusal> {
        match request.verb {
            Verb::Events { after, follow } => {
                for n in 0..after {
                    if items.send(Value::from(n)).await.is_err() {
                        break;
                    }
                }
                if follow {
                    items.closed().await;
                }
                Ok(Value::Null)
            }
            Verb::Status => Ok(serde_json::json!({ "device": request.device })),
            _ => Err(Refusal::new(Exit::Nothing, "no job is active")),
        }
    }
}

fn own() -> Access {
    Access {
        owner: rustix::process::geteuid().as_raw(),
        group: None,
    }
}

fn serve(dir: &Path, access: Access) -> PathBuf {
    let path = dir.join("control.sock");
    let server = Server::bind(&path, access).expect("bind");
    tokio::spawn(server.serve(Arc::new(Echo)));
    path
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_or_the_groups() {
    let dir = tempfile::tempdir().unwrap();
    let gid = rustix::process::getegid().as_raw();
    for (group, mode) in [(None, 0o600), (Some(gid), 0o660)] {
        let path = serve(dir.path(), Access { group, ..own() });
        let meta = fs::metadata(path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode);
    }
}

#[tokio::test]
async fn items_come_before_the_answer_and_an_error_keeps_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = serve(dir.path(), own());
    let client = Client::new(&path);
    let mut items = Vec::new();
    let verb = Verb::Events {
        after: 200,
        follow: false,
    };
    client
        .stream(&Request::new(verb), |item| {
            items.push(item.as_u64().unwrap())
        })
        .await
        .unwrap();
    assert_eq!(items, (0..200).collect::<Vec<_>>());

    let request = Request {
        device: Some("a".to_owned()),
        ..Request::new(Verb::Status)
    };
    let value = client.call(&request).await.unwrap();
    assert_eq!(value["device"], "a");

    let failed = client.call(&Request::new(Verb::Abort)).await.unwrap_err();
    assert_eq!(
        (failed.exit, failed.text.as_str()),
        (Exit::Nothing, "no job is active")
    );
}

#[tokio::test]
async fn an_answer_of_another_shape_or_version_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for (n, answer, words) in [
        (
            1,
            r#"{"otad":1,"ok":{"devices":[]}}"#,
            "use the otad that it came with",
        ),
        (2, r#"{"otad":2,"ok":[7]}"#, "no object, but [7]"),
    ] {
        let path = dir.path().join(format!("{n}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let line = format!("{answer}\n");
            stream.write_all(line.as_bytes()).await.unwrap();
            // It has read what it was asked before it hangs up.
            let mut request = String::new();
            BufReader::new(stream)
                .read_line(&mut request)
                .await
                .unwrap();
        });
        let request = Request::new(Verb::Status);
        let failed = Client::new(&path).gather(&request, "devices").await;
        let text = failed.unwrap_err().text;
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_or_no_request_is_answered_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = serve(dir.path(), own());
    for (bytes, words) in [
        (vec![b'x'; REQUEST_MAX_BYTES + 1], "more than 16384 bytes"),
        (b"hello\n".to_vec(), "not JSON"),
    ] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(words), "{answer}");
    }
}

#[tokio::test]
async fn nothing_but_a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    fs::write(&path, "precious").unwrap();
    let error = Server::bind(&path, own()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn without_a_daemon_the_client_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&dir.path().join("control.sock"));
    let failed = client.call(&Request::new(Verb::Status)).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Retry);
    assert!(failed.text.contains("otad run"), "{}", failed.text);
}

#[test]
fn strangers_are_refused_whatever_the_mode_of_the_file() {
    let access = Access {
        owner: 1000,
        group: Some(77),
    };
    let rows = [
        (0, 0, true),
        (1000, 5, true),
        (1001, 77, true),
        (1001, 5, false),
    ];
    for (uid, gid, may) in rows {
        assert_eq!(access.allows(uid, gid, None), may, "uid {uid} gid {gid}");
    }
}

async fn follow(path: &Path) -> (BufReader<UnixStream>, String) {
    let verb = Verb::Events {
        after: 1,
        follow: true,
    };
    let mut line = serde_json::to_vec(&Request::new(verb)).unwrap();
    line.push(b'\n');
    let mut stream = BufReader::new(UnixStream::connect(path).await.unwrap());
    stream.write_all(&line).await.unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    (stream, answer)
}

#[tokio::test]
async fn followers_have_a_limit_of_their_own_and_a_status_is_answered_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = serve(dir.path(), own());
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS_MAX {
        let (stream, first) = follow(&path).await;
        assert!(first.contains("item"), "{first}");
        followers.push(stream);
    }
    let (_, refused) = follow(&path).await;
    assert!(refused.contains("busy with 16 followers"), "{refused}");
    assert!(refused.contains("retry"), "{refused}");
    let client = Client::new(&path);
    client.call(&Request::new(Verb::Status)).await.unwrap();
}

#[tokio::test]
async fn a_request_over_the_limit_is_answered_that_the_daemon_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let path = serve(dir.path(), own());
    // They have the daemon's time to send their requests.
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    let client = Client::new(&path);
    let failed = client.call(&Request::new(Verb::Status)).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Retry);
    assert!(
        failed.text.contains("busy with 32 requests"),
        "{}",
        failed.text
    );
}

#[tokio::test]
async fn the_longest_path_that_is_allowed_can_be_bound() {
    let dir = tempfile::tempdir().unwrap();
    let room = PATH_MAX_BYTES - dir.path().as_os_str().len() - 1;
    let longest = dir.path().join("s".repeat(room));
    assert_eq!(longest.as_os_str().len(), PATH_MAX_BYTES);
    Server::bind(&longest, own()).unwrap();
    let longer = dir.path().join("s".repeat(room + 1));
    Server::bind(&longer, own()).unwrap_err();
}
