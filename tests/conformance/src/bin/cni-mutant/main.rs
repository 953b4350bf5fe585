//! A plugin that keeps the specification but for one rule, to see that the kit notices.
//!
//! It runs a real plugin, mends what that is known to break, and adds STATUS and GC, which older releases
//! do not have. Variables steer it: `CNI_MUTANT_BASE` (the real plugin), `CNI_MUTANT_STATE` (a directory),
//! `CNI_MUTANT_POOL` (how many attachments there is room for) and `CNI_MUTANT_RULE` (what to break).

mod after;
mod base;
mod before;
mod call;
mod rules;

use std::process::ExitCode;

use anyhow::{Result, ensure};

use call::{Call, Reply};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--list") {
        for rule in rules::RULES {
            println!("{} {} {} {}", rule.name, rule.base, rule.version, rule.checks.join(" "));
        }
        return ExitCode::SUCCESS;
    }
    match answer() {
        Ok(reply) => reply.print(),
        Err(error) => {
            eprintln!("cni-mutant: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<Reply> {
    let rule = std::env::var("CNI_MUTANT_RULE").unwrap_or_default();
    let is_rule = rule.is_empty() || rules::RULES.iter().any(|known| known.name == rule);
    ensure!(is_rule, "CNI_MUTANT_RULE={rule:?}: see --list");
    let mut call = Call::read()?;
    if let Some(reply) = before::before(&rule, &mut call)? {
        return Ok(reply);
    }
    let mut reply = base::run(&rule, &call)?;
    after::after(&rule, &call, &mut reply)?;
    Ok(reply)
}
