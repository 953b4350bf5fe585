//! STATUS: fails exactly when an ADD would fail for everybody. A runtime then calls the node not ready and
//! its pods are moved, so an agent that is being replaced is no reason.

use std::time::Duration;

use crate::agent;
use crate::error::{LIMITED, NOT_AVAILABLE, PROTOCOL, TRY_AGAIN, failure};
use crate::ipam;
use crate::kernel;
use crate::names::Pins;
use crate::protocol::{Call, Failure, ReadyCall, Reply};
use crate::request::{Config, Environment};

/// So long an agent may be away.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Says whether an ADD with this configuration would work.
///
/// 1. The configuration is one that ADD takes.
/// 2. An agent has been here, and of this release: else 50.
/// 3. The pins are whole: else 51, as forwarding hangs on them.
/// 4. A delegated plugin says so too.
/// 5. The agent would serve an ADD: else 50 with its reason.
/// 6. An agent that does not answer has been away for less than a minute: else 50.
pub(crate) fn status(environment: &Environment, config: &Config) -> Result<(), Failure> {
    config.check()?; // 1
    let socket = config.socket();
    let file = agent::plugin_file(&socket).map_err(not_available)?; // 2
    kernel::check_pins(&Pins(file.bpffs))?; // 3
    let pools = ipam::delegated_type(config)?.is_none();
    ipam::status(environment, config).map_err(of_delegate)?; // 4
    // Before the question: an agent that comes back meanwhile does not make an old one young.
    let away = agent::away(&socket);
    match agent::ask_once(&socket, Call::Ready(ReadyCall { pools })) {
        Ok(Reply::Ready) => Ok(()), // 5
        Ok(Reply::Failed(why)) => Err(not_available(why)),
        Ok(other @ (Reply::Added(_) | Reply::Deleted | Reply::Status(_) | Reply::Collected(_))) => {
            Err(not_available(agent::unfit(&other)))
        }
        Err(error) if error.code == TRY_AGAIN && away < AWAY_MAX => Ok(()), // 6
        Err(error) => Err(not_available(error)),
    }
}

/// One that says so has the right code; whatever else is wrong with it, an ADD would fail.
fn of_delegate(why: Failure) -> Failure {
    if matches!(why.code, NOT_AVAILABLE | LIMITED) { why } else { not_available(why) }
}

fn not_available(why: Failure) -> Failure {
    let advice = if why.code == PROTOCOL { "" } else { "; `podwire-agent status` tells more" };
    failure(NOT_AVAILABLE, why.message, format!("{}{advice}", why.details))
}
