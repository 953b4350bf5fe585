//! The clock.

use std::io;

use super::finding::Finding;
use crate::advice::Advice;
use crate::kernel::live::probe::clock::is_synchronised;

pub(super) fn examine() -> Vec<Finding> {
    vec![judge(is_synchronised())]
}

fn judge(answer: io::Result<bool>) -> Finding {
    let check = "clock";
    match answer {
        Ok(true) => Finding::ok(check, "it is synchronised"),
        Ok(false) => Finding::warning(
            check,
            Advice::new(
                "nothing synchronises it: a clock that is far off makes certificates of the API server invalid and \
                 leases expire, and events of different nodes cannot be put in order",
                "`timedatectl set-ntp true`, or install chrony",
            ),
        ),
        Err(error) => Finding::unseen(check, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn a_clock_that_nothing_keeps_right_is_a_warning() {
        assert_eq!(judge(Ok(true)).state, Severity::Ok);
        assert_eq!(judge(Ok(false)).state, Severity::Warning);
        assert_eq!(judge(Err(io::ErrorKind::PermissionDenied.into())).state, Severity::Note);
    }
}
