//! A time limit for who nearly never waits.

use std::time::{Duration, Instant};

/// It begins with the first look at it: who need not wait does not ask for the time, which is two new pages in a
/// new process.
#[derive(Debug)]
pub(crate) struct Limit {
    length: Duration,
    end: Option<Instant>,
}

impl Limit {
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, end: None }
    }

    /// Whether it has passed.
    pub(crate) fn is_over(&mut self) -> bool {
        let now = Instant::now();
        now >= *self.end.get_or_insert(now + self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends() {
        assert!(Limit::new(Duration::ZERO).is_over());
        let mut limit = Limit::new(Duration::from_millis(1));
        assert!(!limit.is_over());
        while !limit.is_over() {}
    }
}
