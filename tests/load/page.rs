//! The page of a report, opened in a browser without a window.

use std::path::Path;
use std::process::Command;

/// The plots of a page, by the names of their figures, and what each must hold.
const PLOTS: [(&str, &str); 5] = [
    ("percentiles", "<polyline"),
    ("rate", "<polyline"),
    ("latency", "<polyline"),
    ("phases", "<rect"),
    ("errors", "<rect"),
];

/// Panics where the page lacks a plot or the browser had something to complain about. Without a
/// browser it says so, unless a CI promised that there is one.
pub(crate) fn check(html: &Path) {
    check_figures(html, &PLOTS);
}

/// The same, for one figure.
pub(crate) fn check_figure(html: &Path, name: &str, shape: &str) {
    check_figures(html, &[(name, shape)]);
}

/// Panics where the page does not come to hold `text`, as [`check`] does.
pub(crate) fn check_text(html: &Path, text: &str) {
    if let Some(page) = opened(html) {
        assert!(page.contains(text), "{page}");
    }
}

fn check_figures(html: &Path, figures: &[(&str, &str)]) {
    let Some(page) = opened(html) else { return };
    for (name, shape) in figures {
        let figure = page.split(&format!("<figure id=\"{name}\">")).nth(1);
        let figure = figure.and_then(|rest| rest.split("</figure>").next()).unwrap_or_default();
        assert!(figure.contains("<svg") && figure.contains(shape), "{name}: {figure}");
    }
}

/// What the page is once its script has run; `None` where there is no browser.
fn opened(html: &Path) -> Option<String> {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(exists)
    else {
        assert!(std::env::var_os("CI").is_none(), "there is no Chromium (Debian: chromium)");
        println!("skipped: there is no Chromium to open the page in (Debian: chromium)");
        return None;
    };
    let profile = html.with_extension("profile");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", html.display()))
        .output()
        .expect("the browser starts");
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(!talk.contains(":CONSOLE"), "the browser's console: {talk}");
    Some(page)
}

fn exists(program: &&str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
