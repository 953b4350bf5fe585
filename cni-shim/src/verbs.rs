//! What the plugin does.

mod add;
mod check;
mod del;
mod gc;
mod status;

pub(crate) use add::add;
pub(crate) use check::check;
pub(crate) use del::del;
pub(crate) use gc::gc;
pub(crate) use status::status;
