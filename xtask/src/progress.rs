//! Shows that a long step is alive: a spinner on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Longest silence where nobody can see a spinner.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A step that takes a while.
pub(crate) struct Step {
    what: String,
    bar: Option<ProgressBar>,
    started: Instant,
    spoke: Instant,
}

impl Step {
    /// Says what starts.
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("  {what} ...");
        }
        let now = Instant::now();
        Self { what, bar, started: now, spoke: now }
    }

    /// Says how far the step is.
    pub(crate) fn note(&mut self, text: &str) {
        let text: String = text.trim().chars().take(70).collect();
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if self.spoke.elapsed() >= SILENCE_MAX => {
                self.spoke = Instant::now();
                eprintln!("    {} s: {text}", self.started.elapsed().as_secs());
            }
            None => {}
        }
    }

    /// Says that the step is done.
    pub(crate) fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("  {}: done in {:.1} s", self.what, self.started.elapsed().as_secs_f32());
    }
}
