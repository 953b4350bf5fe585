//! What a runtime asks for: environment and network configuration, checked before anything is touched.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{
    Context as _, DECODE, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, IO,
    UNSUPPORTED_FIELD, failure,
};
use crate::ipam;
use crate::names::{Attachment, DEFAULT_SOCKET};
use crate::protocol::Failure;
use crate::result::behind;

/// Versions of the specification, oldest first.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Longest configuration that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// `IFNAMSIZ` of the kernel, less the NUL.
const IFNAME_BYTES_MAX: usize = 15;

/// The network configuration (CNI 1.1, section 1). Keys that are not ours are the runtime's or the
/// chain's business.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    pub(crate) cni_version: Option<String>,
    pub(crate) name: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) ipam: Option<Value>,
    pub(crate) prev_result: Option<Value>,
    #[serde(default)]
    pub(crate) runtime_config: BTreeMap<String, Value>,
    pub(crate) args: Option<Value>,
    pub(crate) dns: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Value>,
    /// As it was read, for delegated plugins.
    #[serde(skip)]
    pub(crate) text: Vec<u8>,
    /// Keys of others, or misspelt ones.
    #[serde(flatten)]
    pub(crate) unknown: BTreeMap<String, Value>,
}

/// The environment of the call (CNI 1.1, section 2).
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) command: String,
    container_id: String,
    netns: String,
    ifname: String,
    args: String,
    path: String,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let get = |name| std::env::var(name).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
            path: get("CNI_PATH"),
        }
    }

    /// Names all of these variables that are missing.
    fn require(&self, wanted: &[(&str, &str)]) -> Result<(), Failure> {
        let missing = wanted.iter().filter(|(_, value)| value.is_empty());
        let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (missing, verb) = (missing.join(", "), &self.command);
        Err(failure(INVALID_ENVIRONMENT, format!("missing: {missing}"), format!("{verb} needs it")))
    }

    /// The attachment of ADD and CHECK, and the path of the container's network namespace.
    pub(crate) fn attachment_in_netns(&self) -> Result<(Attachment, &str), Failure> {
        self.require(&[
            ("CNI_CONTAINERID", &self.container_id),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.ifname),
        ])?;
        Ok((self.attachment()?, &self.netns))
    }

    /// The attachment of ADD, DEL and CHECK, by the rules of section 2.
    pub(crate) fn attachment(&self) -> Result<Attachment, Failure> {
        self.require(&[("CNI_CONTAINERID", &self.container_id), ("CNI_IFNAME", &self.ifname)])?;
        let invalid =
            |message: &str, details: String| Err(failure(INVALID_ENVIRONMENT, message, details));
        let id = &self.container_id;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !id.chars().all(allowed) {
            return invalid(
                "CNI_CONTAINERID is not a container id",
                format!("{id:?}: letters, digits, '_', '.' and '-', a letter or digit first"),
            );
        }
        let name = &self.ifname;
        if name.is_empty() || name.len() > IFNAME_BYTES_MAX {
            return invalid(
                "CNI_IFNAME is not an interface name",
                format!("{name:?}: 1 to {IFNAME_BYTES_MAX} bytes"),
            );
        }
        let wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name == "." || name == ".." || name.chars().any(wrong) {
            return invalid(
                "CNI_IFNAME is not an interface name",
                format!("{name:?}: no '/', ':' or blank, and not '.' or '..'"),
            );
        }
        Ok(Attachment { container_id: id.clone(), ifname: name.clone() })
    }

    /// For tests of other modules.
    #[cfg(test)]
    pub(crate) fn of_test(args: &str, path: &str) -> Self {
        Self { args: args.into(), path: path.into(), ..Self::default() }
    }

    /// `CNI_ARGS`.
    pub(crate) fn args(&self) -> &str {
        &self.args
    }

    /// `CNI_PATH`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// A value of `CNI_ARGS`.
    pub(crate) fn argument(&self, key: &str) -> Result<Option<&str>, Failure> {
        Ok(self.arguments()?.remove(key))
    }

    fn arguments(&self) -> Result<BTreeMap<&str, &str>, Failure> {
        let mut pairs = BTreeMap::new();
        for pair in self.args.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(failure(
                    INVALID_ENVIRONMENT,
                    "CNI_ARGS is not a list of KEY=VALUE",
                    format!("{pair:?} in {:?}", self.args),
                ));
            };
            pairs.insert(key, value);
        }
        Ok(pairs)
    }

    /// `K8S_POD_NAMESPACE/K8S_POD_NAME`, for people; other keys must be known or ignorable.
    pub(crate) fn pod(&self) -> Result<String, Failure> {
        let pairs = self.arguments()?;
        let ignore = matches!(pairs.get("IgnoreUnknown"), Some(&("1" | "true" | "TRUE" | "True")));
        let known =
            |key: &str| key.starts_with("K8S_") || ["IgnoreUnknown", "IP", "MAC"].contains(&key);
        let unknown = pairs.keys().find(|key| !known(key));
        if let (Some(key), false) = (unknown, ignore) {
            return Err(failure(
                INVALID_ENVIRONMENT,
                format!("CNI_ARGS has the unknown key {key}"),
                "IgnoreUnknown=1 lets it pass",
            ));
        }
        Ok(match (pairs.get("K8S_POD_NAMESPACE"), pairs.get("K8S_POD_NAME")) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => String::new(),
        })
    }
}

impl Config {
    /// Reads the configuration from standard input.
    pub(crate) fn read(from: impl Read) -> Result<Self, Failure> {
        let mut text = Vec::new();
        from.take(CONFIG_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .context(IO, || "read the network configuration from standard input".into())?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(failure(
                INVALID_CONFIG,
                "the network configuration is too long",
                format!("more than {CONFIG_BYTES_MAX} bytes"),
            ));
        }
        let config: Self = serde_json::from_slice(&text)
            .context(DECODE, || "standard input is not a network configuration".into())?;
        Ok(Self { text, ..config })
    }

    /// The version to answer in.
    ///
    /// The specification has 0.1.0 as default, which has other shapes; so it must be named.
    pub(crate) fn version(&self) -> Result<&'static str, Failure> {
        let asked = self.cni_version.as_deref().unwrap_or("0.1.0");
        VERSIONS.into_iter().find(|version| *version == asked).ok_or_else(|| {
            failure(
                INCOMPATIBLE_VERSION,
                format!("incompatible CNI version {asked}"),
                format!("\"cniVersion\" must be one of {}", VERSIONS.join(", ")),
            )
        })
    }

    /// Refuses a place of the agent that depends on where the runtime was started.
    pub(crate) fn check_socket(&self) -> Result<(), Failure> {
        if self.socket.as_ref().is_some_and(|socket| !socket.is_absolute()) {
            return Err(failure(
                INVALID_CONFIG,
                "\"socket\" is not an absolute path",
                "the agent's --socket",
            ));
        }
        Ok(())
    }

    /// The network's name.
    pub(crate) fn network(&self) -> Result<&str, Failure> {
        let name = self.name();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(allowed) {
            return Err(failure(
                INVALID_CONFIG,
                "\"name\" is missing or no network name",
                "letters, digits, '_', '.' and '-', a letter or digit first",
            ));
        }
        Ok(name)
    }

    /// The attachments that GC leaves. Without the list it would have to guess.
    pub(crate) fn valid_attachments(&self) -> Result<Vec<Attachment>, Failure> {
        #[derive(Deserialize)]
        struct Valid {
            #[serde(rename = "containerID")]
            container_id: String,
            ifname: String,
        }
        let Some(list) = &self.valid_attachments else {
            return Err(failure(
                INVALID_CONFIG,
                "\"cni.dev/valid-attachments\" is missing",
                "GC removes what is not in this list, and nothing without it; [] removes all of the \
                 network",
            ));
        };
        let list: Vec<Valid> = Vec::deserialize(list).map_err(|error| {
            failure(
                INVALID_CONFIG,
                "\"cni.dev/valid-attachments\" is no list of \"containerID\" and \"ifname\"",
                format!("{error}; nothing was removed"),
            )
        })?;
        let attachment =
            |valid: Valid| Attachment { container_id: valid.container_id, ifname: valid.ifname };
        Ok(list.into_iter().map(attachment).collect())
    }

    /// Refuses what ADD cannot do, before anything is touched. DEL, CHECK and GC do not look at it: who
    /// changes the configuration must still get rid of the pods that he has.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let invalid = |message: &str, details: &str| Err(failure(INVALID_CONFIG, message, details));
        self.network()?;
        if self.kind.as_deref().unwrap_or_default().is_empty() {
            return invalid("\"type\" is missing", "the plugin's name, \"podwire\"");
        }
        ipam::delegated_type(self)?;
        behind(self.prev_result.as_ref(), Value::Null)?;
        let key = "bandwidth";
        let of_args = self.args.as_ref().map(|args| &args["cni"][key]);
        let asked = self.runtime_config.get(key).or(of_args.filter(|value| !value.is_null()));
        if let Some(value) = asked {
            return Err(failure(
                UNSUPPORTED_FIELD,
                format!("the runtime asks for {key:?}: {value}"),
                "chain the plugin \"bandwidth\", and give it the capability",
            ));
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(id: &str, ifname: &str, args: &str) -> Environment {
        Environment {
            container_id: id.into(),
            ifname: ifname.into(),
            args: args.into(),
            ..Environment::default()
        }
    }

    fn config(text: &str) -> Result<Config, Failure> {
        let config = Config::read(text.as_bytes())?;
        config.version()?;
        config.check_socket()?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn attachments_are_checked() {
        assert!(environment("a1-b_c.d", "eth0", "").attachment().is_ok());
        for (id, ifname) in [
            ("", "eth0"),
            ("-a", "eth0"),
            ("a/b", "eth0"),
            ("a b", "eth0"),
            ("a", ""),
            ("a", "."),
            ("a", ".."),
            ("a", "e/0"),
            ("a", "e:0"),
            ("a", "e 0"),
            ("a", "sixteen-bytes-xx"),
        ] {
            let error = environment(id, ifname, "").attachment().expect_err("refused");
            assert_eq!(error.code, INVALID_ENVIRONMENT, "{id:?} {ifname:?}");
        }
        let error = environment("", "", "").attachment_in_netns().expect_err("nothing there");
        assert_eq!(error.message, "missing: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME");
    }

    #[test]
    fn arguments_are_checked() {
        let pod = |args| environment("a", "eth0", args).pod();
        assert_eq!(pod("K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web").as_deref(), Ok("ns/web"));
        assert_eq!(pod("IgnoreUnknown=1;foo=bar").as_deref(), Ok(""));
        assert_eq!(pod("foo=bar").expect_err("unknown").code, INVALID_ENVIRONMENT);
        assert_eq!(pod("nonsense").expect_err("no pair").code, INVALID_ENVIRONMENT);
        assert_eq!(pod("IP=1.2.3.4;MAC=02:00:00:00:00:01").as_deref(), Ok(""));
    }

    #[test]
    fn configurations_are_checked() {
        assert!(config(r#"{"cniVersion":"1.0.0","name":"n","type":"podwire","other":1}"#).is_ok());
        for (text, code) in [
            ("", DECODE),
            ("[]", DECODE),
            ("{\"name\": 1}", DECODE),
            (r#"{"name":"n","type":"podwire"}"#, INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":"1.2.0","name":"n","type":"podwire"}"#, INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":"1.0.0","type":"podwire"}"#, INVALID_CONFIG),
            (r#"{"cniVersion":"1.0.0","name":"/n","type":"podwire"}"#, INVALID_CONFIG),
            (r#"{"cniVersion":"1.0.0","name":"n"}"#, INVALID_CONFIG),
            (
                r#"{"cniVersion":"1.0.0","name":"n","type":"podwire","socket":"a.sock"}"#,
                INVALID_CONFIG,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","type":"podwire","ipam":{"type":"dhcp"}}"#,
                UNSUPPORTED_FIELD,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","type":"podwire","runtimeConfig":{"bandwidth":{}}}"#,
                UNSUPPORTED_FIELD,
            ),
        ] {
            assert_eq!(config(text).expect_err(text).code, code, "{text}");
        }
        let long = format!("{{\"name\":\"{}\"}}", "a".repeat(1 << 20));
        assert_eq!(config(&long).expect_err("too long").code, INVALID_CONFIG);
    }
}
