//! The gate, seen from outside: who comes in, who does not, and what the log says of both.

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{
    DEMO, DEMO_SECRET, Daemon, ask, is_closed_silently, listener, md5_answer, pass_gate, receive,
    rest, sha256_answer,
};
use socket2::Socket;

fn gated() -> Daemon {
    Daemon::start(&format!("{DEMO_SECRET}{}", listener("gate", "upper", "auth = 'hmac-md5'")))
}

#[test]
fn the_right_answer_lets_in_without_a_word() {
    let daemon = gated();
    let mut wire = daemon.connect("gate");
    let challenge = receive(&mut wire, 32);
    let answer = md5_answer(DEMO, &challenge);
    assert_eq!(answer.len(), 16);
    wire.write_all(&answer).expect("sent");
    let question = "grüße, 亲! \0\u{7f} az AZ 09 \r\n".as_bytes();
    assert_eq!(ask(&mut wire, question), "GRüßE, 亲! \0\u{7f} AZ AZ 09 \r\n".as_bytes());
    let every_byte: Vec<u8> = (0..=255).collect();
    assert_eq!(ask(&mut wire, &every_byte), every_byte.to_ascii_uppercase());
    wire.shutdown(std::net::Shutdown::Write).expect("ended");
    assert_eq!(rest(&mut wire), b"", "nothing but what was asked for");
    let line = daemon.wait_for_line("closed listener=gate");
    let sent = 32 + question.len() + 256;
    let received = 16 + question.len() + 256;
    let expected = format!("identity=demo state=Established received={received} sent={sent} ");
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn the_answer_may_come_in_pieces() {
    let daemon = gated();
    for cuts in [vec![1; 16], vec![15, 1], vec![1, 15], vec![8, 8], vec![5, 5, 6]] {
        let mut wire = daemon.connect("gate");
        let answer = md5_answer(DEMO, &receive(&mut wire, 32));
        let mut rest = &answer[..];
        for cut in cuts {
            wire.write_all(&rest[..cut]).expect("sent");
            rest = &rest[cut..];
        }
        assert_eq!(ask(&mut wire, b"in"), b"IN");
    }
}

#[test]
fn bytes_behind_the_answer_belong_to_the_service() {
    let daemon = gated();
    for data in [&b"x"[..], b"glued to the answer", &[b'y'; 200_000]] {
        let mut wire = daemon.connect("gate");
        let mut segment = md5_answer(DEMO, &receive(&mut wire, 32));
        segment.extend(data);
        let mut writer = wire.try_clone().expect("a descriptor");
        let sending = std::thread::spawn(move || writer.write_all(&segment));
        assert_eq!(receive(&mut wire, data.len()), data.to_ascii_uppercase());
        sending.join().expect("no panic").expect("sent");
    }
}

#[test]
fn the_end_may_be_glued_to_the_answer_too() {
    let daemon = gated();
    let mut wire = daemon.connect("gate");
    let mut segment = md5_answer(DEMO, &receive(&mut wire, 32));
    segment.extend(b"all at once");
    wire.write_all(&segment).expect("sent");
    wire.shutdown(std::net::Shutdown::Write).expect("ended");
    assert_eq!(rest(&mut wire), b"ALL AT ONCE");
}

#[test]
fn a_wrong_answer_closes_without_a_word() {
    let daemon = gated();
    let mut replayed = daemon.connect("gate");
    let old_answer = md5_answer(DEMO, &receive(&mut replayed, 32));
    let wrong: [(&str, Vec<u8>); 5] = [
        ("zeros", vec![0; 16]),
        ("replayed", old_answer.clone()),
        ("of another secret", md5_answer(b"Jedan has a big key?", &[0; 32])),
        ("longer and wrong", vec![b'x'; 5000]),
        ("not UTF-8", vec![0xff; 16]),
    ];
    for (number, (name, answer)) in wrong.into_iter().enumerate() {
        let mut wire = daemon.connect("gate");
        receive(&mut wire, 32);
        wire.write_all(&answer).expect("sent");
        assert!(is_closed_silently(&mut wire), "{name}");
        let lines = daemon.wait_for_lines("the answer to the challenge was wrong", number + 1);
        let line = &lines[number];
        assert!(line.contains("refused listener=gate peer=127.0.0.1:"), "{line}");
        assert!(line.contains("identity=- state=AuthPending"), "{line}");
    }
    replayed.write_all(&old_answer).expect("sent");
    assert_eq!(ask(&mut replayed, b"it was its own"), b"IT WAS ITS OWN");
}

#[test]
fn one_wrong_bit_anywhere_is_wrong() {
    let daemon = gated();
    for bit in 0..128 {
        let mut wire = daemon.connect("gate");
        let mut answer = md5_answer(DEMO, &receive(&mut wire, 32));
        answer[bit / 8] ^= 1 << (bit % 8);
        wire.write_all(&answer).expect("sent");
        assert!(is_closed_silently(&mut wire), "bit {bit}");
    }
}

#[test]
fn a_short_answer_and_then_the_end_is_no_answer() {
    let daemon = gated();
    for len in [1, 8, 15] {
        let mut wire = daemon.connect("gate");
        let answer = md5_answer(DEMO, &receive(&mut wire, 32));
        wire.write_all(&answer[..len]).expect("sent");
        wire.shutdown(std::net::Shutdown::Write).expect("ended");
        assert!(is_closed_silently(&mut wire), "{len} bytes");
    }
    daemon.wait_for_lines("the peer left before it answered the challenge", 3);
}

#[test]
fn the_deadline_is_absolute_whatever_drips() {
    let timeouts = "auth = 'hmac-md5'\n[listener.timeouts]\nauth = '400ms'";
    let daemon = Daemon::start(&format!(
        "{DEMO_SECRET}{}{}",
        listener("gate", "upper", timeouts),
        listener("echo", "echo", "")
    ));
    let mut silent = daemon.connect("gate");
    receive(&mut silent, 32);
    let start = Instant::now();
    assert!(is_closed_silently(&mut silent));
    assert!(start.elapsed() >= Duration::from_millis(300), "it was closed too early");

    // Bytes that each come well within the deadline: the pace is that of a read that times out.
    let mut dripping = daemon.connect("gate");
    receive(&mut dripping, 32);
    dripping.set_read_timeout(Some(Duration::from_millis(60))).expect("a timeout");
    let drops = (0..16).take_while(|_| drip(&mut dripping)).count();
    assert!(drops < 16, "sixteen drops take 960 ms, and the deadline was 400");
    daemon.wait_for_lines("the challenge was not answered in time", 2);
}

/// Sends a byte; false once the connection is closed.
fn drip(wire: &mut Socket) -> bool {
    use std::io::Read;
    let sent = wire.write_all(b"x");
    let is_open = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
    };
    sent.is_ok() && matches!(wire.read(&mut [0; 1]), Err(error) if is_open(&error))
}

#[test]
fn passing_the_gate_ends_its_deadline() {
    let timeouts = "auth = 'hmac-md5'\n[listener.timeouts]\nauth = '250ms'";
    let daemon = Daemon::start(&format!("{DEMO_SECRET}{}", listener("gate", "upper", timeouts)));
    let mut admitted = daemon.connect("gate");
    pass_gate(&mut admitted, DEMO);
    let mut silent = daemon.connect("gate");
    receive(&mut silent, 32);
    assert!(is_closed_silently(&mut silent), "its deadline is later than that of the first");
    assert_eq!(ask(&mut admitted, b"still here"), b"STILL HERE");
}

#[test]
fn challenges_never_come_twice() {
    let daemon = gated();
    let challenges: std::collections::HashSet<_> =
        (0..200).map(|_| receive(&mut daemon.connect("gate"), 32)).collect();
    assert_eq!(challenges.len(), 200);
}

#[test]
fn sha256_takes_32_bytes_and_nothing_else() {
    let daemon = Daemon::start(&format!(
        "{DEMO_SECRET}{}",
        listener("gate", "echo", "auth = 'hmac-sha256'")
    ));
    let mut wire = daemon.connect("gate");
    let challenge = receive(&mut wire, 32);
    let answer = sha256_answer(DEMO, &challenge);
    assert_eq!(answer.len(), 32);
    wire.write_all(&answer[..31]).expect("sent");
    wire.write_all(&[answer[31], b'!']).expect("sent");
    assert_eq!(receive(&mut wire, 1), b"!");

    let mut wire = daemon.connect("gate");
    let challenge = receive(&mut wire, 32);
    wire.write_all(&md5_answer(DEMO, &challenge).repeat(2)).expect("sent");
    assert!(is_closed_silently(&mut wire));
}

#[test]
fn the_name_of_the_secret_is_the_identity() {
    let secrets = "[[secret]]\nname = 'ann'\nvalue = 'open sesame'\n\
                   [[secret]]\nname = 'bob'\nvalue = 'swordfish'\n\
                   [[secret]]\nname = 'eve'\nvalue = 'not for this door'\n";
    let daemon = Daemon::start(&format!(
        "{secrets}{}{}",
        listener("two", "upper", "auth = 'hmac-md5'\nsecrets = ['ann', 'bob']"),
        listener("all", "upper", "auth = 'hmac-md5'")
    ));
    for (door, secret, name) in [
        ("two", "open sesame", "ann"),
        ("two", "swordfish", "bob"),
        ("all", "not for this door", "eve"),
    ] {
        let mut wire = daemon.connect(door);
        pass_gate(&mut wire, secret.as_bytes());
        assert_eq!(ask(&mut wire, b"hello"), b"HELLO");
        drop(wire);
        let line = daemon.wait_for_line(&format!("identity={name} "));
        assert!(line.contains(&format!("closed listener={door} ")), "{line}");
    }
    let mut wire = daemon.connect("two");
    pass_gate(&mut wire, b"not for this door");
    assert!(is_closed_silently(&mut wire));
    daemon.wait_for_line("refused listener=two");
    for secret in ["open sesame", "swordfish", "not for this door"] {
        assert!(daemon.lines(secret).is_empty(), "a secret stands in the log");
    }
}
