//! Replies whose length nobody knows beforehand, from servers that are known and from real ones:
//! Redis, nginx, and an SMTP server as strict as the standard.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::servers::{REQUEST, Seen, Server, serve};
use crate::{PATIENCE, all_errors, errors, load, number, talk_of, turnstile};

/// A server that talks so with each of its clients, on a thread of its own.
fn serve_each(talk: fn(TcpStream) -> std::io::Result<()>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let seen = Arc::new(Seen::default());
    let server = Server { address, seen: Arc::clone(&seen) };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            seen.connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = stream.set_nodelay(true);
            thread::spawn(move || talk(stream));
        }
    });
    server
}

/// Reads the head of a request of HTTP; answers its first line.
fn head(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            return lines.into_iter().next().ok_or(std::io::ErrorKind::InvalidData.into());
        }
        lines.push(line);
    }
}

fn statuses(report: &Value) -> Vec<(String, u64)> {
    let statuses = report["traffic"]["statuses"].as_object().expect("statuses");
    statuses
        .iter()
        .map(|(status, count)| (status.clone(), count.as_u64().expect("a count")))
        .collect()
}

#[test]
fn http_is_read_in_every_form_and_its_statuses_are_counted() {
    let server = serve_each(|stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        for number in 0.. {
            let line = head(&mut reader)?;
            assert_eq!(line, "GET /x?y HTTP/1.1\r\n");
            match number % 3 {
                0 => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
                1 => {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\n")?;
                    stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r")?;
                    stream.write_all(b"\n0\r\n\r\n")?;
                }
                _ => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
            }
        }
        Ok(())
    });
    let url = Server { address: format!("http://{}/x?y", server.address), seen: server.seen };
    let report = load(&url, &["-n", "300", "-c", "1"]);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (300, 0), "{report:#}");
    let expected = [("200", 100), ("204", 100), ("404", 100)];
    assert_eq!(statuses(&report), expected.map(|(status, count)| (status.to_owned(), count)));
    assert_eq!(report["target"], url.address);
    assert_eq!(number(&report, "/phases/connect/count"), 1, "the connection is kept");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("status of 400 or above"), "{remarks}");
    let strict = load(&url, &["-d", "1s", "-c", "1", "--expect", "http:2xx"]);
    assert!(errors(&strict, "wrong_bytes") > 0, "{strict:#}");
    let example = strict["error_examples"]["wrong_bytes"].to_string();
    assert!(example.contains("the status is 404, and should be 2xx"), "{example}");
}

#[test]
fn a_connection_that_http_ends_is_no_error() {
    let server = serve_each(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        for left in (0..5).rev() {
            head(&mut reader)?;
            let connection = if left == 0 { "close" } else { "keep-alive" };
            let reply = format!(
                "HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: 1\r\n\r\nx"
            );
            stream.write_all(reply.as_bytes())?;
        }
        Ok(())
    });
    let url = Server { address: format!("http://{}", server.address), seen: server.seen };
    for depth in ["1", "3"] {
        let report = load(&url, &["-n", "200", "-c", "2", "--depth", depth]);
        assert_eq!((number(&report, "/replies"), all_errors(&report)), (200, 0), "{report:#}");
        assert!(number(&report, "/phases/connect/count") >= 40, "{report:#}");
        let closed = ["idle", "used"].map(|kind| format!("/connections/closed_{kind}"));
        let closed: u64 = closed.iter().map(|name| number(&report, name)).sum();
        assert!(closed >= 38, "{report:#}");
    }
    let open = load(&url, &["-d", "1s", "-r", "300", "-c", "2", "--depth", "2"]);
    assert_eq!((number(&open, "/replies"), all_errors(&open)), (300, 0), "{open:#}");
}

#[test]
fn content_is_sent_and_a_reply_may_end_with_the_connection() {
    let server = serve_each(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            reader.read_line(&mut request)?;
        }
        let length = request.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut content = vec![0; length.expect("a length").parse().expect("a number")];
        reader.read_exact(&mut content)?;
        assert!(request.starts_with("PUT / HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        assert!(request.contains("\r\nX-Test: yes\r\n") && content.starts_with(b"n=\r\n"));
        stream.write_all(b"HTTP/1.0 201 Created\r\n\r\nas much as ")?;
        stream.write_all(b"there is")
    });
    let url = Server { address: format!("http://{}/", server.address), seen: server.seen };
    let words = ["--method", "PUT", "--header", "X-Test: yes", "--template", r"n=\r\n{counter}"];
    let report = load(&url, &[&words[..], &["-n", "100", "-c", "2"]].concat());
    assert_eq!(statuses(&report), [("201".to_owned(), 100)]);
    assert_eq!(all_errors(&report), 0, "{report:#}");
}

#[test]
fn what_is_no_http_is_wrong() {
    let server = serve(|_, stream, _| stream.write_all(b"220 mail\r\n"));
    let report = load(&server, &["--expect", "http", "-d", "1s", "-c", "1"]);
    assert!(errors(&report, "wrong_bytes") > 0 && number(&report, "/replies") == 0, "{report:#}");
    let example = report["error_examples"]["wrong_bytes"].to_string();
    assert!(example.contains("not an HTTP/1.1 reply"), "{example}");
}

#[test]
fn a_length_in_the_reply_ends_it() {
    let server = serve(|number, stream, _| {
        let length = number % 50;
        stream.write_all(b"Z\0\0")?;
        stream.write_all(&[0, length as u8 + 4])?;
        stream.write_all(&vec![b'x'; length])
    });
    let report = load(&server, &["--expect", "length:u32be@1-4", "-n", "300", "-c", "2"]);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (300, 0), "{report:#}");
}

#[test]
fn a_silence_ends_a_reply_whose_time_ends_with_its_last_byte() {
    let server = serve(|_, stream, _| {
        stream.write_all(b"head\n")?;
        thread::sleep(Duration::from_millis(20));
        stream.write_all(b"body\n")
    });
    let words = ["--expect", "idle:300ms", "-n", "100", "-c", "50", "--size", "64B"];
    let report = load(&server, &words);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (100, 0), "{report:#}");
    assert!((100..=200).contains(&server.seen.requests()), "{}", server.seen.requests());
    assert!(number(&report, "/phases/request/min_ns") >= 19_980_000, "{report:#}");
    assert!(number(&report, "/phases/request/p50_ns") < 300_000_000, "{report:#}");
}

#[test]
fn pieces_that_were_counted_are_said_to_be_pieces() {
    let server = serve(|_, stream, _| {
        stream.write_all(b"head\n")?;
        thread::sleep(Duration::from_millis(5));
        stream.write_all(b"body\n")
    });
    let report = load(&server, &["--expect", "any", "-n", "100", "-c", "1"]);
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("--expect any, pieces were counted"), "{remarks}");
    let whole = load(&server, &["--expect", r"text:head\nbody\n", "-n", "100", "-c", "1"]);
    assert_eq!((number(&whole, "/replies"), all_errors(&whole)), (100, 0));
    assert!(!whole["remarks"].to_string().contains("pieces"));
}

/// Commands must end with CRLF, and the greeting comes in two lines and takes its time.
fn smtp(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    stream.write_all(b"220-mail.example\r\n")?;
    thread::sleep(Duration::from_millis(5));
    stream.write_all(b"220 ESMTP\r\n")?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let is_known = line == "NOOP\r\n";
        stream.write_all(if is_known { b"250 2.0.0 OK\r\n" } else { b"500 what?\r\n" })?;
    }
}

#[test]
fn a_server_that_speaks_first_is_measured_from_its_first_answer() {
    let server = serve_each(smtp);
    let words = ["--text", r"NOOP\r\n", "--expect", r#"until:"\r\n""#];
    for more in [&["-n", "300", "-c", "3"][..], &["-d", "1s", "-r", "200", "-c", "3"]] {
        let report = load(&server, &[&words[..], more].concat());
        assert!(number(&report, "/replies") >= 200, "{report:#}");
        assert_eq!(all_errors(&report), 0, "{report:#}");
        assert!(report["remarks"].to_string().contains("The server speaks first"), "{report:#}");
        // The reply to each request is that to NOOP, and not the one before it.
        let received = number(&report, "/traffic/received_bytes");
        assert_eq!(received % "250 2.0.0 OK\r\n".len() as u64, 0, "{report:#}");
    }
    let exact =
        ["--text", r"NOOP\r\n", "--expect", r"text:250 2.0.0 OK\r\n", "-d", "1s", "-c", "1"];
    let report = load(&server, &exact);
    assert!(errors(&report, "wrong_bytes") > 0, "the greeting is none of these bytes: {report:#}");
}

/// A program that serves until it is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server of `name` that listens on `port` once `arguments` are its. `None` where the
/// machine lacks it, which a CI must not.
fn start(name: &str, arguments: &[&str], port: u16) -> Option<Program> {
    let child =
        Command::new(name).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let child = match child {
        Ok(child) => Program(child),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{name}: {error}");
            println!("skipped: there is no {name} here ({error})");
            return None;
        }
    };
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < PATIENCE, "{name} does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Some(child)
}

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn redis_is_measured_without_a_file() {
    let (folder, port) = (folder(), free_port());
    let (place, port_word) = (folder.path().display().to_string(), port.to_string());
    let arguments = ["--port", &port_word, "--dir", &place, "--save", "", "--bind", "127.0.0.1"];
    let Some(_redis) = start("redis-server", &arguments, port) else { return };
    let server = Server { address: format!("127.0.0.1:{port}"), seen: Arc::default() };
    let mark = ["--text", r"PING\r\n", "--expect", r"until:'\r\n'"];
    let report = load(&server, &[&mark[..], &["-n", "2000", "-c", "4", "--depth", "5"]].concat());
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (2000, 0), "{report:#}");
    let exact = ["--text", r"PING\r\n", "--expect", r"text:+PONG\r\n", "-n", "500", "-c", "4"];
    let report = load(&server, &exact);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (500, 0), "{report:#}");
    let counted = [r"--template", r"SET k {counter}\r\n", "--expect", r"text:+OK\r\n", "-n", "500"];
    let report = load(&server, &counted);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (500, 0), "{report:#}");
}

#[test]
fn nginx_is_measured_with_its_connections_kept_and_ended() {
    let (folder, port) = (folder(), free_port());
    let place = folder.path().display().to_string();
    fs::write(folder.path().join("index.html"), "x".repeat(5000)).expect("written");
    let config = format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/log; events {{}}
         http {{ access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
         fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
         keepalive_requests 100; gzip on; gzip_min_length 1;
         server {{ listen 127.0.0.1:{port}; root {place}; location /no {{ return 503; }} }} }}"
    );
    fs::write(folder.path().join("conf"), config).expect("written");
    // Its workers may be another user's.
    std::os::unix::fs::chown(folder.path(), None, None).expect("ours");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), open).expect("ours");
    let conf = format!("{place}/conf");
    let Some(_nginx) = start("nginx", &["-p", &place, "-c", &conf], port) else { return };
    let at = |path: &str| Server {
        address: format!("http://127.0.0.1:{port}{path}"),
        seen: Arc::default(),
    };
    let report = load(&at("/"), &["-n", "1000", "-c", "4", "--depth", "2"]);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (1000, 0), "{report:#}");
    assert_eq!(statuses(&report), [("200".to_owned(), 1000)]);
    assert!(number(&report, "/phases/connect/count") >= 10, "after 100 requests it closes");
    let more = ["-H", "Accept-Encoding: gzip", "-n", "300", "-c", "2"];
    let chunked = load(&at("/"), &more);
    assert_eq!(statuses(&chunked), [("200".to_owned(), 300)]);
    assert!(number(&chunked, "/traffic/received_bytes") < 300 * 5000, "it is compressed");
    let heads = load(&at("/"), &["--method", "HEAD", "-n", "300", "-c", "2"]);
    assert_eq!((statuses(&heads), all_errors(&heads)), (vec![("200".to_owned(), 300)], 0));
    let refused = load(&at("/no"), &["-n", "300", "-c", "2", "--connect-per-request"]);
    assert_eq!((statuses(&refused), all_errors(&refused)), (vec![("503".to_owned(), 300)], 0));
}

#[test]
fn what_cannot_be_asked_for_is_explained() {
    let cases: [(&[&str], &str); 8] = [
        (&["127.0.0.1:9", "--header", "a: b"], "are for http:// and https://"),
        (&["http://127.0.0.1:9", "--header", "a b"], "is not a header"),
        (&["127.0.0.1:9", "--text", r"\q"], "means nothing"),
        (&["127.0.0.1:9", "--expect", "length:u99"], "is not length:TYPE"),
        (&["127.0.0.1:9", "--expect", "idle:5ms", "--depth", "2"], "use a depth of 1"),
        (&["udp://127.0.0.1:9", "--expect", "http"], "a datagram is a whole reply"),
        (&["127.0.0.1:9", "--rate", "1..2"], "is no rate"),
        (&["127.0.0.1:9", "--rate", "1 for 9s, 2 for 9s", "-n", "100"], "leave -n out"),
    ];
    for (words, what) in cases {
        let output = turnstile(&[&["load"], words].concat()).output().expect("it starts");
        let talk = talk_of(&output);
        assert!(talk.contains(what) && !output.status.success(), "{words:?}: {talk}");
    }
    assert_eq!(REQUEST, 64, "what a request of the default size is");
}
