//! What each value changes, and that it changes nothing else.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::objects::{Rendered, VERSION, chart, differences, named};

const WITHOUT_DOCTOR: &str = "doctor/: all of it -> nothing";
const WITHOUT_POLICY: &str = "ValidatingAdmissionPolicy: all of it -> nothing";
const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Values, and what differs then from what the chart's own make. `VERSION` is the project's; `both` are the agent and
/// its check-up, whose options come after the name of the command.
fn effects() -> Vec<(Value, Vec<&'static str>)> {
    [options(), ways(), image(), pod()].concat()
}

/// What becomes an option of the agent.
fn options() -> Vec<(Value, Vec<&'static str>)> {
    let argument = |value, change| (value, vec![change]);
    vec![
        argument(
            json!({"encapsulation": "vxlan"}),
            r#"both/options/4: nothing -> "--encapsulation=vxlan""#,
        ),
        argument(
            json!({"vxlan": {"port": 4789}}),
            r#"both/options/4: nothing -> "--vxlan-port=4789""#,
        ),
        argument(
            json!({"vxlan": {"vni": 16_777_215}}),
            r#"both/options/4: nothing -> "--vxlan-vni=16777215""#,
        ),
        argument(json!({"mtu": 1400}), r#"both/options/4: nothing -> "--mtu=1400""#),
        argument(json!({"bigTcp": "off"}), r#"both/options/4: nothing -> "--big-tcp=off""#),
        (
            json!({"uplinks": ["eth0", "bond0.7"]}),
            vec![
                r#"both/options/4: nothing -> "--uplink=eth0""#,
                r#"both/options/5: nothing -> "--uplink=bond0.7""#,
            ],
        ),
        (
            json!({"clusterCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"]}),
            vec![
                r#"both/options/4: nothing -> "--cluster-cidr=10.244.0.0/16""#,
                r#"both/options/5: nothing -> "--cluster-cidr=fd00:10:244::/48""#,
            ],
        ),
        argument(
            json!({"logLevel": "warn,dataplane_agent=debug"}),
            r#"both/options/4: nothing -> "--log-level=warn,dataplane_agent=debug""#,
        ),
        argument(json!({"expedite": false}), r#"both/options/4: nothing -> "--expedite=false""#),
    ]
}

/// The agent's ways to its host, to who asks it, and to the API server.
fn ways() -> Vec<(Value, Vec<&'static str>)> {
    vec![
        (
            json!({"cni": {"binDir": "/usr/lib/cni"}}),
            vec![
                r#"both/options/1: "--cni-bin-dir=/opt/cni/bin" -> "--cni-bin-dir=/usr/lib/cni""#,
                r#"both/volumeMounts/plugins/mountPath: "/opt/cni/bin" -> "/usr/lib/cni""#,
                r#"pod/volumes/plugins/hostPath/path: "/opt/cni/bin" -> "/usr/lib/cni""#,
            ],
        ),
        (
            json!({"cni": {"confDir": "/etc/cni/conf"}}),
            vec![
                r#"both/options/2: "--cni-conf-dir=/etc/cni/net.d" -> "--cni-conf-dir=/etc/cni/conf""#,
                r#"both/volumeMounts/configurations/mountPath: "/etc/cni/net.d" -> "/etc/cni/conf""#,
                r#"pod/volumes/configurations/hostPath/path: "/etc/cni/net.d" -> "/etc/cni/conf""#,
            ],
        ),
        (
            json!({"metrics": {"address": "0.0.0.0"}}),
            vec![r#"both/options/3: "--listen=[::]:9869" -> "--listen=0.0.0.0:9869""#],
        ),
        (
            json!({"metrics": {"address": "::1"}}),
            vec![
                r#"both/options/3: "--listen=[::]:9869" -> "--listen=[::1]:9869""#,
                r#"agent/livenessProbe/httpGet/host: nothing -> "::1""#,
                r#"agent/readinessProbe/httpGet/host: nothing -> "::1""#,
            ],
        ),
        (
            json!({"metrics": {"port": 19_869}}),
            vec![
                r#"both/options/3: "--listen=[::]:9869" -> "--listen=[::]:19869""#,
                "agent/ports/metrics/containerPort: 9869 -> 19869",
            ],
        ),
        (
            json!({"kubernetesService": {"host": "fd00::1"}}),
            vec![
                r#"agent/env/KUBERNETES_SERVICE_HOST/name: nothing -> "KUBERNETES_SERVICE_HOST""#,
                r#"agent/env/KUBERNETES_SERVICE_HOST/value: nothing -> "fd00::1""#,
                r#"agent/env/KUBERNETES_SERVICE_PORT/name: nothing -> "KUBERNETES_SERVICE_PORT""#,
                r#"agent/env/KUBERNETES_SERVICE_PORT/value: nothing -> "6443""#,
            ],
        ),
        (
            json!({"kubernetesService": {"host": "api.example.com", "port": 443}}),
            vec![
                r#"agent/env/KUBERNETES_SERVICE_HOST/name: nothing -> "KUBERNETES_SERVICE_HOST""#,
                r#"agent/env/KUBERNETES_SERVICE_HOST/value: nothing -> "api.example.com""#,
                r#"agent/env/KUBERNETES_SERVICE_PORT/name: nothing -> "KUBERNETES_SERVICE_PORT""#,
                r#"agent/env/KUBERNETES_SERVICE_PORT/value: nothing -> "443""#,
            ],
        ),
    ]
}

fn image() -> Vec<(Value, Vec<&'static str>)> {
    vec![
        (
            json!({"image": {"repository": "registry.example.com:5000/net/podwire"}}),
            vec![
                r#"both/image: "docker.io/podwire/podwire:VERSION" -> "registry.example.com:5000/net/podwire:VERSION""#,
            ],
        ),
        (
            json!({"image": {"tag": "1.2.3"}}),
            vec![
                r#"both/image: "docker.io/podwire/podwire:VERSION" -> "docker.io/podwire/podwire:1.2.3""#,
            ],
        ),
        (
            json!({"image": {"tag": "1.2.3", "digest": DIGEST}}),
            vec![
                r#"both/image: "docker.io/podwire/podwire:VERSION" -> "docker.io/podwire/podwire@DIGEST""#,
            ],
        ),
        (
            json!({"image": {"pullPolicy": "Always"}}),
            vec![r#"both/imagePullPolicy: "IfNotPresent" -> "Always""#],
        ),
        (
            json!({"imagePullSecrets": [{"name": "registry"}]}),
            vec![r#"pod/imagePullSecrets/registry/name: nothing -> "registry""#],
        ),
    ]
}

fn pod() -> Vec<(Value, Vec<&'static str>)> {
    vec![
        (
            json!({"resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "64Mi"}}}),
            vec![
                r#"both/resources/limits/memory: nothing -> "64Mi""#,
                r#"both/resources/requests/cpu: "20m" -> "50m""#,
            ],
        ),
        (json!({"doctor": false}), vec![WITHOUT_DOCTOR]),
        (json!({"ownNodeOnly": false}), vec![WITHOUT_POLICY]),
        (
            json!({"priorityClassName": "network"}),
            vec![r#"pod/priorityClassName: "system-node-critical" -> "network""#],
        ),
        (
            json!({"nodeSelector": {"example.com/network": "true"}}),
            vec![r#"pod/nodeSelector/example.com/network: nothing -> "true""#],
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "virtual", "operator": "DoesNotExist"}]}],
            }}}}),
            vec![
                r#"pod/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/0/key: nothing -> "virtual""#,
                r#"pod/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/0/operator: nothing -> "DoesNotExist""#,
            ],
        ),
        (json!({"tolerations": []}), vec![r#"pod/tolerations/0/operator: "Exists" -> nothing"#]),
        (
            json!({"updateStrategy": {"maxUnavailable": 3}}),
            vec![r#"set/spec/updateStrategy/rollingUpdate/maxUnavailable: "10%" -> 3"#],
        ),
        (
            json!({"updateStrategy": {"type": "OnDelete"}}),
            vec![
                r#"set/spec/updateStrategy/rollingUpdate/maxUnavailable: "10%" -> nothing"#,
                r#"set/spec/updateStrategy/type: "RollingUpdate" -> "OnDelete""#,
            ],
        ),
        (
            json!({"podAnnotations": {"example.com/scrape": "true"}}),
            vec![r#"set/spec/template/metadata/annotations/example.com/scrape: nothing -> "true""#],
        ),
        (
            json!({"podLabels": {"team": "network"}}),
            vec![r#"set/spec/template/metadata/labels/team: nothing -> "network""#],
        ),
    ]
}

#[test]
fn each_value_changes_what_it_should_and_nothing_else() -> Result<()> {
    let before = chart(&json!({}))?;
    for (values, changes) in effects() {
        let after = chart(&values).with_context(|| values.to_string())?;
        let mut all = Vec::new();
        for line in changes {
            all.extend(written_out(line, &before)?);
        }
        all.sort();
        assert_eq!(differences(&before, &after), all, "{values}");
    }
    Ok(())
}

fn written_out(line: &str, before: &Rendered) -> Result<Vec<String>> {
    if let Some(gone) = line.strip_suffix(": all of it -> nothing") {
        let mut all = differences(before, &Rendered::default());
        all.retain(|line| line.starts_with(gone));
        ensure!(!all.is_empty(), "no {gone}");
        return Ok(all);
    }
    let line = line.replace("VERSION", VERSION).replace("DIGEST", DIGEST);
    if let Some(option) = line.strip_prefix("both/options/") {
        let (number, change) = option.split_once(':').context("a number")?;
        let number: usize = number.parse()?;
        let places = [("agent", "run --kubernetes"), ("doctor", "doctor")];
        let at = |words: &str| number + words.split(' ').count();
        return Ok(places
            .map(|(name, words)| format!("{name}/args/{}:{change}", at(words)))
            .into());
    }
    Ok(match line.strip_prefix("both/") {
        Some(change) => vec![format!("agent/{change}"), format!("doctor/{change}")],
        None => vec![line],
    })
}

#[test]
fn every_value_has_an_effect_here() -> Result<()> {
    let tried: BTreeSet<String> =
        effects().iter().flat_map(|(values, _)| named(values).into_keys()).collect();
    let all: BTreeSet<String> = named(&chart(&json!({}))?.defaults).into_keys().collect();
    assert_eq!(tried, all);
    Ok(())
}

/// Part of another chart, it gets values that are everybody's.
#[test]
fn values_of_all_charts_are_left_alone() -> Result<()> {
    let (before, after) = (chart(&json!({}))?, chart(&json!({"global": {"registry": "a"}}))?);
    ensure!(differences(&before, &after).is_empty());
    Ok(())
}

/// All of them at once.
pub(super) fn all() -> Value {
    let mut values = json!({});
    for (more, _) in effects() {
        merge(&mut values, &more);
    }
    values
}

fn merge(values: &mut Value, more: &Value) {
    if let (Value::Object(values), Value::Object(more)) = (&mut *values, more) {
        for (name, value) in more {
            merge(values.entry(name).or_insert(Value::Null), value);
        }
    } else {
        *values = more.clone();
    }
}
