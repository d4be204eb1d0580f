//! An outcome as one page with plots, which needs nothing but a browser: no network, no other file.
//!
//! The page is `page.html`; `plot.js` draws, in `page.css`'s colours, for any page; this module puts
//! them together and fills in the figures.

use serde::Serialize;

use super::outcome::{Outcome, Stretch, Times};
use super::summary::summarize;

const PAGE: &str = include_str!("page.html");

/// How wide the summary in it is, in columns.
const WIDTH: usize = 80;

/// What draws.
const PLOT: &str = include_str!("plot.js");

/// How it looks.
const STYLE: &str = include_str!("page.css");

/// Where the figures go in a page.
const SLOT: &str = "@FIGURES@";

/// What the page draws.
#[derive(Serialize)]
struct Figures {
    summary: String,
    /// What was answered wrongly or not at all, and its share of what was due.
    errors: (u64, f64),
    outcome: Outcome,
    curves: Vec<Curve>,
}

/// The times of a phase by the share of requests that stay within them.
#[derive(Serialize)]
struct Curve {
    phase: String,
    /// Pairs of quantile and nanoseconds.
    points: Vec<(f64, u64)>,
}

/// The page.
///
/// # Errors
/// A histogram of `outcome` is damaged: how.
pub fn page(outcome: &Outcome) -> Result<String, String> {
    let curves = outcome.phases.iter().map(|(phase, times)| curve(phase, times));
    let figures = Figures {
        summary: summarize(outcome, WIDTH),
        errors: (outcome.unanswered(outcome.timeout_ns()).0, outcome.error_share()),
        curves: curves.collect::<Result<_, _>>()?,
        outcome: without_histograms(outcome),
    };
    assemble(PAGE, &figures)
}

/// A page of which `template` is the frame: what draws, how it looks and `figures`, in JSON, go into
/// the places that it leaves for them.
///
/// # Errors
/// The figures have no form in JSON.
pub fn assemble(template: &str, figures: &impl Serialize) -> Result<String, String> {
    let figures = serde_json::to_string(figures).map_err(|error| error.to_string())?;
    let frame = template.replacen("@STYLE@", STYLE, 1).replacen("@PLOT@", PLOT, 1);
    // Nothing in a text may end the script that holds it.
    Ok(frame.replacen(SLOT, &figures.replace('<', "\\u003c"), 1))
}

fn curve(phase: &str, times: &Times) -> Result<Curve, String> {
    let histogram = times.histogram()?;
    let points = histogram
        .iter_quantiles(4)
        .map(|step| (step.quantile_iterated_to(), step.value_iterated_to()))
        .collect();
    Ok(Curve { phase: phase.to_owned(), points })
}

fn without_histograms(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    for times in outcome.phases.values_mut() {
        times.histogram.clear();
    }
    let blank = |stretch: &Stretch| Stretch { histogram: String::new(), ..stretch.clone() };
    outcome.intervals = outcome.intervals.iter().map(blank).collect();
    outcome
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome_of;
    use super::*;

    #[test]
    fn the_page_is_whole_and_calls_nobody() {
        let mut outcome = outcome_of(&[1_000, 2_000_000]);
        outcome.error_examples.insert("other".to_owned(), "</script><b>".to_owned());
        let page = page(&outcome).expect("sound");
        assert!(!page.contains(SLOT) && !page.contains("</script><b>"));
        assert_eq!(page.matches("</script>").count(), 2, "the figures, and what draws them");
        for foreign in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "the page asks for something: {foreign}");
        }
    }
}
