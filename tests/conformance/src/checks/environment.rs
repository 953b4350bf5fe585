//! The variables.

use super::{Check, INTERFACE, must, reference};
use crate::bench::{Bench, Request};
use crate::stop::{Outcome, Stop, ensure, not_applicable};

const PARAMETERS: &str = "2 Parameters";
const CODE_4: &str = "2 Parameters, 5 Error";
/// The code for variables that are missing or wrong.
const INVALID: &[u64] = &[4];

pub(super) const CHECKS: &[Check] = &[
    must("env/command-missing", CODE_4, "a missing CNI_COMMAND is refused with code 4", |bench| {
        refused(bench, bench.call("ADD").without("CNI_COMMAND"), "CNI_COMMAND")
    }),
    must("env/command-unknown", CODE_4, "an unknown CNI_COMMAND is refused with code 4", |bench| {
        let container = bench.container()?;
        refused(bench, bench.on("FROBNICATE", &container), "CNI_COMMAND")
    }),
    must("env/add-container-id", CODE_4, "ADD without CNI_CONTAINERID gives code 4", |bench| {
        missing(bench, "ADD", "CNI_CONTAINERID")
    }),
    must("env/add-netns", CODE_4, "ADD without CNI_NETNS gives code 4", |bench| {
        missing(bench, "ADD", "CNI_NETNS")
    }),
    must("env/add-ifname", CODE_4, "ADD without CNI_IFNAME gives code 4", |bench| {
        missing(bench, "ADD", "CNI_IFNAME")
    }),
    must("env/del-container-id", CODE_4, "DEL without CNI_CONTAINERID gives code 4", |bench| {
        missing(bench, "DEL", "CNI_CONTAINERID")
    }),
    must("env/del-ifname", CODE_4, "DEL without CNI_IFNAME gives code 4", |bench| {
        missing(bench, "DEL", "CNI_IFNAME")
    }),
    must("env/check-container-id", CODE_4, "CHECK without CNI_CONTAINERID gives code 4", |bench| {
        missing(bench, "CHECK", "CNI_CONTAINERID")
    })
    .since("0.4.0"),
    must("env/check-netns", CODE_4, "CHECK without CNI_NETNS gives code 4", |bench| {
        missing(bench, "CHECK", "CNI_NETNS")
    })
    .since("0.4.0"),
    must("env/check-ifname", CODE_4, "CHECK without CNI_IFNAME gives code 4", |bench| {
        missing(bench, "CHECK", "CNI_IFNAME")
    })
    .since("0.4.0"),
    must(
        "env/container-id-invalid",
        CODE_4,
        "a container id with other characters than the allowed ones gives code 4",
        |bench| invalid(bench, "CNI_CONTAINERID", &["../x", "-a", "a b", "a/b", ".a"]),
    ),
    must(
        "env/ifname-invalid",
        CODE_4,
        "an interface name that the kernel refuses gives code 4",
        |bench| invalid(bench, "CNI_IFNAME", &["a/b", "..", "a b", "a:b", "sixteen-bytes-xx"]),
    )
    .kinds(INTERFACE),
    must("env/path-optional", PARAMETERS, "ADD and DEL need no CNI_PATH", path_optional),
    reference(
        "env/kubernetes-args",
        PARAMETERS,
        "the CNI_ARGS that Kubernetes' runtimes give are accepted",
        kubernetes_args,
    ),
];

/// A request with what CHECK needs besides.
fn request(
    bench: &Bench<'_>,
    verb: &str,
) -> Outcome<(std::sync::Arc<crate::bench::Container>, Request)> {
    let container = bench.container()?;
    let request = bench.on(verb, &container);
    if verb != "CHECK" {
        return Ok((container, request));
    }
    let result = bench.add(&container)?;
    let request = request.prev_result(&result);
    Ok((container, request))
}

fn missing(bench: &Bench<'_>, verb: &str, variable: &str) -> Outcome {
    let (_container, request) = request(bench, verb)?;
    refused(bench, request.without(variable), variable)
}

/// Code 4, with the name of the variable in the message.
fn refused(bench: &Bench<'_>, request: Request, variable: &str) -> Outcome {
    let error = bench.run(request)?.failed_with(INVALID)?;
    ensure(error.to_string().contains(variable), || {
        format!("the error does not name {variable}: {error}")
    })
}

fn invalid(bench: &Bench<'_>, variable: &str, values: &[&str]) -> Outcome {
    let container = bench.container()?;
    for value in values {
        let reply = bench.run(bench.on("ADD", &container).env(variable, value))?;
        reply.failed_with(INVALID).map_err(|stop| match stop {
            Stop::Failed(text) => Stop::Failed(format!("{variable}={value:?}: {text}")),
            Stop::NotApplicable(_) | Stop::Broken(_) => stop,
        })?;
    }
    Ok(())
}

fn path_optional(bench: &Bench<'_>) -> Outcome {
    if bench.setup.delegate().is_some() {
        return not_applicable("the plugin needs it to find the one that it delegates to");
    }
    let container = bench.container()?;
    let result = bench.run(bench.on("ADD", &container).without("CNI_PATH"))?.result()?;
    let del = bench.on("DEL", &container).prev_result(&result).without("CNI_PATH");
    bench.run(del)?.succeeded()
}

fn kubernetes_args(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;\
                K8S_POD_INFRA_CONTAINER_ID=0123456789;K8S_POD_UID=0";
    bench.run(bench.on("ADD", &container).env("CNI_ARGS", args))?.result().map(drop)
}
