//! The plugin as a runtime runs it, for everything that needs neither agent nor namespaces.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

struct Answer {
    success: bool,
    document: Value,
    warnings: String,
}

fn run(environment: &[(&str, &str)], input: &str) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_podwire"))
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    // The plugin may refuse before it has read all: then the pipe is closed, which is no failure.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the plugin ends");
    let document = if output.stdout.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    };
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    Answer { success: output.status.success(), document, warnings }
}

fn config(socket: &str) -> String {
    json!({"cniVersion": "1.0.0", "name": "pods", "type": "podwire", "socket": socket}).to_string()
}

const NOWHERE: &str = "/nonexistent/agent.sock";

fn call<'a>(command: &'a str, netns: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ]
}

#[test]
fn version_names_what_is_supported() {
    let answer = run(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
    assert!(answer.success);
    assert_eq!(answer.document["cniVersion"], "0.4.0");
    let versions = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(answer.document["supportedVersions"], versions);
}

#[test]
fn version_by_hand_needs_no_input() {
    for input in ["", "\n"] {
        let answer = run(&[("CNI_COMMAND", "VERSION")], input);
        assert!(answer.success, "{input:?}: {}", answer.document);
        assert_eq!(answer.document["cniVersion"], "1.1.0");
    }
    let garbage = run(&[("CNI_COMMAND", "VERSION")], "{");
    assert_eq!(garbage.document["code"], 6, "{}", garbage.document);
}

#[test]
fn version_on_a_terminal_does_not_wait() {
    // `script` gives the plugin a terminal on which nobody types: the pipe stays open.
    let plugin = format!("CNI_COMMAND=VERSION {}", env!("CARGO_BIN_EXE_podwire"));
    let mut child = Command::new("timeout")
        .args(["20", "script", "--quiet", "--return", "--command", &plugin, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script starts");
    let hand = child.stdin.take();
    let output = child.wait_with_output().expect("it ends");
    drop(hand);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("supportedVersions"), "{output:?}");
}

#[test]
fn refusals_are_documents_with_the_code_of_the_specification() {
    let good = config(NOWHERE);
    let other_version = good.replace("1.0.0", "1.2.0");
    let newest = good.replace("1.0.0", "1.1.0");
    let old_version = good.replace("1.0.0", "0.3.1");
    let own = "/proc/self/ns/net";
    type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, u64);
    let rows: [Row<'_>; 16] = [
        ("no command", vec![], &good, 4),
        ("unknown command", vec![("CNI_COMMAND", "UPDATE")], &good, 4),
        ("STATUS before 1.1.0", call("STATUS", "").into(), &good, 1),
        ("GC before 1.1.0", call("GC", "").into(), &good, 1),
        ("STATUS of a newer version", call("STATUS", "").into(), &other_version, 1),
        ("STATUS alone", vec![("CNI_COMMAND", "STATUS")], &newest, 50),
        ("GC without a list", vec![("CNI_COMMAND", "GC")], &newest, 7),
        ("GC without a list", call("GC", "").into(), &newest, 7),
        ("newer version", call("ADD", own).into(), &other_version, 1),
        ("CHECK before 0.4.0", call("CHECK", own).into(), &old_version, 1),
        ("no JSON", call("ADD", own).into(), "{", 6),
        ("no container id", vec![("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")], &good, 4),
        ("no namespace", call("ADD", "").into(), &good, 4),
        ("namespace is gone", call("ADD", "/run/netns/nonexistent").into(), &good, 3),
        ("not a namespace", call("ADD", "/proc/version").into(), &good, 4),
        ("the host's namespace", call("ADD", own).into(), &good, 4),
    ];
    for (name, environment, input, code) in rows {
        let answer = run(&environment, input);
        assert!(!answer.success, "{name}: must fail");
        assert_eq!(answer.document["code"], code, "{name}: {}", answer.document);
        for key in ["cniVersion", "msg", "details"] {
            let text = answer.document[key].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{name}: no {key}: {}", answer.document);
        }
    }
}

#[test]
fn add_warns_of_keys_that_look_misspelt() {
    let mut input: Value = serde_json::from_str(&config(NOWHERE)).expect("JSON");
    input["soket"] = "/run/other.sock".into();
    input["ours"] = json!({"any": "thing"});
    let add = run(&call("ADD", "/run/netns/nonexistent"), &input.to_string());
    assert_eq!(add.document["code"], 3, "it was no error: {}", add.document);
    assert!(add.warnings.contains(r#""soket": is "socket" meant"#), "{}", add.warnings);
    assert!(!add.warnings.contains("ours"), "{}", add.warnings);
    let del = run(&call("DEL", ""), &input.to_string());
    assert!(del.success && del.warnings.is_empty(), "{}", del.warnings);
}

#[test]
fn gc_removes_nothing_without_a_whole_list() {
    for list in [json!(null), json!({}), json!([{"containerID": "c"}]), json!(["c"])] {
        let mut input: Value = serde_json::from_str(&config(NOWHERE)).expect("JSON");
        input["cniVersion"] = "1.1.0".into();
        input["cni.dev/valid-attachments"] = list.clone();
        let answer = run(&[("CNI_COMMAND", "GC")], &input.to_string());
        assert_eq!(answer.document["code"], 7, "{list}: {}", answer.document);
        let text = answer.document["msg"].as_str().unwrap_or_default();
        assert!(text.contains("cni.dev/valid-attachments"), "{}", answer.document);
    }
}

#[test]
fn status_refuses_what_add_refuses() {
    let mut input: Value = serde_json::from_str(&config(NOWHERE)).expect("JSON");
    input["cniVersion"] = "1.1.0".into();
    input["runtimeConfig"] = json!({"bandwidth": {"ingressRate": 1}});
    let answer = run(&[("CNI_COMMAND", "STATUS")], &input.to_string());
    assert_eq!(answer.document["code"], 2, "{}", answer.document);
}

#[test]
fn del_succeeds_where_no_agent_ever_ran() {
    for netns in ["", "/run/netns/nonexistent"] {
        let answer = run(&call("DEL", netns), &config(NOWHERE));
        assert!(answer.success, "{}", answer.document);
        assert_eq!(answer.document, Value::Null);
    }
}

#[test]
fn del_succeeds_with_what_add_refuses() {
    for change in [
        json!({"ipam": {"type": "dhcp"}}),
        json!({"ipam": {"ranges": []}}),
        json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}),
        json!({"runtimeConfig": {"mac": "01:00:00:00:00:01"}}),
        json!({"args": {"cni": {"ips": ["10.0.0.1", "10.0.0.2"]}}}),
        json!({"name": null, "type": null}),
    ] {
        let mut input: Value = serde_json::from_str(&config(NOWHERE)).expect("JSON");
        let parts = change.as_object().expect("an object").clone();
        input.as_object_mut().expect("an object").extend(parts);
        let add = run(&call("ADD", "/run/netns/nonexistent"), &input.to_string());
        let code = add.document["code"].as_u64();
        assert!(matches!(code, Some(2 | 7)), "{change}: {}", add.document);
        let del = run(&call("DEL", ""), &input.to_string());
        assert!(del.success, "{change}: {}", del.document);
    }
}

#[test]
fn del_succeeds_with_the_files_of_another_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent.sock");
    for text in ["", "{", r#"{"protocol":99,"bpffs":"/x"}"#, r#"{"protocol":99,"pins":"/x"}"#] {
        std::fs::write(directory.path().join("plugin.json"), text).expect("written");
        let answer = run(&call("DEL", ""), &config(&socket.display().to_string()));
        assert!(answer.success, "{text}: {}", answer.document);
    }
}

#[test]
fn errors_answer_in_the_version_that_was_asked() {
    let input = config(NOWHERE).replace("1.0.0", "0.4.0");
    assert_eq!(run(&call("ADD", ""), &input).document["cniVersion"], "0.4.0");
}
