//! What the programs of a debugging build say (aya-log), among the agent's own log. Other builds have no such map.

use std::collections::BTreeMap;

use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, SchedClassifier};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::Context as _;
use crate::kernel::KernelError;

/// The ring, as the library calls it.
const MAP: &str = "AYA_LOGS";

/// Follows the rings of these programs: one for all, but for those that an agent of another build has loaded.
pub(super) fn follow<'a>(
    object: &[u8],
    programs: impl Iterator<Item = &'a SchedClassifier>,
) -> Result<(), KernelError> {
    if !object.windows(MAP.len()).any(|part| part == MAP.as_bytes()) {
        return Ok(());
    }
    let what = || "read the programs' log".to_owned();
    let mut rings = BTreeMap::new();
    for program in programs {
        let info = program.info().context(what)?;
        rings.extend(ring(&info).map(|ring| (ring, info.id())));
    }
    for program in rings.into_values() {
        let logger = EbpfLogger::init_from_id(program).context(what)?;
        // SAFETY: the logger owns the ring's descriptor for as long as it lives, and always tells the same.
        let ring = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        tokio::spawn(read(ring.map_err(|refused| refused.into_parts().1).context(what)?));
    }
    Ok(())
}

/// The kernel's id of a program's ring.
fn ring(program: &ProgramInfo) -> Option<u32> {
    let maps = program.map_ids().ok()??;
    let infos = maps.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
    infos.into_iter().find(|info| info.name_as_str() == Some(MAP)).map(|info| info.id())
}

async fn read(mut ring: AsyncFd<EbpfLogger<&'static dyn log::Log>>) {
    while let Ok(mut ready) = ring.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
