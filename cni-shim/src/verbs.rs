//! ADD, DEL and CHECK.

mod add;
mod check;
mod del;

pub(crate) use add::add;
pub(crate) use check::check;
pub(crate) use del::del;
