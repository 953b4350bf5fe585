//! What commands print: its form, and its way out.

use std::io::{self, Write};

use clap::ValueEnum;

/// The form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// The whole document.
    Json,
}

/// A reader that has seen enough, like `head`, is no error.
pub(crate) fn print(to: &mut impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_may_go_away() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        print(&mut writer, "text").unwrap();
        let full = std::fs::File::options().write(true).open("/dev/full");
        assert!(print(&mut full.unwrap(), "text").is_err());
    }
}
