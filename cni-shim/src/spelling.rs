//! Keys of the network configuration that look like misspelt ones. They are no errors: the specification
//! lets anybody add keys.

use strsim::normalized_damerau_levenshtein;

/// Keys that mean something to this plugin.
const OURS: [&str; 10] = [
    "cniVersion",
    "name",
    "type",
    "socket",
    "ipam",
    "dns",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
];
/// Share of equal letters from which on a key is taken for another: one slip in four.
const SIMILAR_MIN: f64 = 0.75;

/// What to tell people about keys that are not ours.
pub(crate) fn warnings<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<String> {
    let warning = |key: &String| {
        let meant = meant(key)?;
        Some(format!("the network configuration has the key {key:?}: is {meant:?} meant?"))
    };
    keys.filter_map(warning).collect()
}

fn meant(key: &str) -> Option<&'static str> {
    let lower = key.to_lowercase();
    OURS.into_iter()
        .map(|known| (known, normalized_damerau_levenshtein(&lower, &known.to_lowercase())))
        .filter(|(_, similarity)| *similarity >= SIMILAR_MIN)
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(known, _)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_and_keys_of_others_are_not() {
        for (key, wanted) in [
            ("soket", "socket"),
            ("Socket", "socket"),
            ("sockets", "socket"),
            ("ipma", "ipam"),
            ("cniversion", "cniVersion"),
            ("runtimeconfig", "runtimeConfig"),
            ("prev_result", "prevResult"),
        ] {
            assert_eq!(meant(key), Some(wanted), "{key}");
        }
        let others = ["ipMasq", "mode", "mtu", "disableCheck", ""];
        for key in others.into_iter().chain(["plugins", "bridge", "master", "vlan"]) {
            assert_eq!(meant(key), None, "{key}");
        }
    }
}
