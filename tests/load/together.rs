//! Reports that are added up, compared, and refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use super::servers::{Server, serve, upper};
use super::{load, number, page, report_of, talk_of, turnstile};

fn report(words: &[&str], files: &[&Path]) -> Output {
    turnstile(&["report"]).args(words).args(files).output().expect("it starts")
}

fn save(folder: &TempDir, name: &str, report: &Value) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, report.to_string()).expect("written");
    path
}

/// Runs two testers at the same time.
fn two_at_once(server: &Server, words: [&[&str]; 2]) -> [Value; 2] {
    let runs = words.map(|words| {
        turnstile(&["load", &server.address, "--json", "--warm-up", "0s"])
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    });
    runs.map(|run| report_of(&run.wait_with_output().expect("it ends")))
}

#[test]
fn only_parts_of_one_run_add_up() {
    let folder = tempdir().expect("a folder");
    let server = serve(upper);
    let words = ["-d", "2s", "-c", "2", "--run", "tuesday"];
    let [one, two] = two_at_once(&server, [&words, &words]);
    let [one, two] = [("one", one), ("two", two)].map(|(name, it)| save(&folder, name, &it));
    let sum = report_of(&report(&["--json"], &[&one, &two]));
    assert_eq!(number(&sum, "/runs"), 2);
    assert_eq!(sum["parts"][0]["run"], "tuesday");

    let refused = |files: [&Path; 2], why: &str| {
        let output = report(&[], &files);
        let talk = talk_of(&output);
        assert_eq!(output.status.code(), Some(1), "{talk}");
        assert!(talk.contains(why) && talk.lines().count() == 1, "{talk}");
        for file in files {
            assert!(talk.contains(&file.display().to_string()), "{talk}");
        }
    };
    refused([&one, &one], "would count twice");
    let later = load(&server, &["-d", "1s", "-c", "2", "--run", "tuesday"]);
    refused([&one, &save(&folder, "later", &later)], "not made at the same time");
    let nameless = load(&server, &["-d", "1s", "-c", "2"]);
    refused(
        [&one, &save(&folder, "nameless", &nameless)],
        "different runs (`tuesday` and no --run)",
    );
    let deep = load(&server, &["-d", "1s", "-c", "2", "--depth", "3", "--run", "tuesday"]);
    refused([&one, &save(&folder, "deep", &deep)], "depth: 1 and 3");
    let idle = load(&server, &["-d", "1s", "-c", "2", "--think", "5ms", "--run", "tuesday"]);
    refused([&one, &save(&folder, "idle", &idle)], "think seconds: 0.0 and 0.005");
}

#[test]
fn a_comparison_has_a_verdict_and_an_exit_code() {
    let folder = tempdir().expect("a folder");
    let slow = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(20));
        upper(number, stream, request)
    });
    let fast = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(2));
        upper(number, stream, request)
    });
    let words = ["-d", "2s", "-c", "2"];
    let fast = save(&folder, "fast", &load(&fast, &words));
    let slow_report = save(&folder, "slow", &load(&slow, &words));
    let other = save(&folder, "other", &load(&slow, &["-d", "2s", "-c", "3"]));
    let page = folder.path().join("page.html");

    let worse =
        report(&["--compare", "--html", &page.display().to_string()], &[&fast, &slow_report]);
    let text = String::from_utf8_lossy(&worse.stdout);
    assert_eq!(worse.status.code(), Some(3), "{text}");
    assert!(
        text.contains("WORSE") && text.contains("/fast (") && text.contains("/slow ("),
        "{text}"
    );
    page::check_text(&page, "<h1 id=\"title\" class=\"bad\">Worse than before</h1>");
    page::check_text(&page, "<td class=\"bad\">WORSE, more than noise</td>");

    let better = report(&["--compare", "--json"], &[&slow_report, &fast]);
    assert_eq!((better.status.code(), &report_of(&better)["verdict"]), (Some(0), &"better".into()));

    let different = report(&["--compare"], &[&slow_report, &other]);
    let text = String::from_utf8_lossy(&different.stdout);
    assert_eq!(different.status.code(), Some(2), "{text}");
    assert!(text.contains("connections       2 -> 3") && text.contains("no verdict"), "{text}");
}

#[test]
fn files_that_are_no_reports_are_refused_in_a_line_and_without_memory() {
    let folder = tempdir().expect("a folder");
    let server = serve(upper);
    let sound = load(&server, &["-n", "100", "-c", "1"]);
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut report = sound.clone();
        change(&mut report);
        save(&folder, name, &report)
    };
    let sparse = folder.path().join("sparse");
    fs::File::create(&sparse).and_then(|file| file.set_len(1 << 40)).expect("a file");
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    // The head of a histogram that says that it has 3 GiB of counts.
    let mut bomb = vec![0x1c, 0x84, 0x93, 0x13, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    bomb.extend(1u64.to_be_bytes());
    bomb.extend(3_600_000_000_000u64.to_be_bytes());
    bomb.extend(1f64.to_be_bytes());
    let bomb = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bomb);
    let nested = folder.path().join("nested");
    fs::write(&nested, "{\"a\":".repeat(200_000)).expect("written");
    let twice = folder.path().join("twice");
    let text = sound.to_string().replacen("\"replies\":", "\"replies\":7,\"replies\":", 1);
    fs::write(&twice, text).expect("written");
    let cases = [
        (sparse, "longer than 16 MiB"),
        (PathBuf::from("/dev/zero"), "no report"),
        (pipe, "empty"),
        (folder.path().to_owned(), "directory"),
        (nested, "no report"),
        (twice, "duplicate field"),
        (
            changed("bomb", &|it| it["phases"]["request"]["histogram"] = bomb.clone().into()),
            "3221225472",
        ),
        (changed("old", &|it| it["schema"] = "turnstile-load/1".into()), "turnstile-load/1"),
        (changed("less", &|it| it["replies"] = (-5).into()), "-5"),
        (changed("books", &|it| it["due"] = 7.into()), "7 requests were due"),
    ];
    for (file, why) in cases {
        // Less address space than any of them would take.
        let script = format!("ulimit -v 1000000; exec \"{}\" report \"$0\"", super::TURNSTILE);
        let output = std::process::Command::new("sh").args(["-c", &script]).arg(&file).output();
        let output = output.expect("it starts");
        let talk = talk_of(&output);
        assert_eq!(output.status.code(), Some(1), "{talk}");
        assert_eq!(talk.lines().count(), 1, "{talk}");
        assert!(talk.contains(why) && talk.contains(&file.display().to_string()), "{why}: {talk}");
    }
}
