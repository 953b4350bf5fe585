//! VERSION, and what follows from its answer.

use serde_json::{Value, json};

use super::{Check, must, reference, should};
use crate::bench::Bench;
use crate::stop::{Outcome, ensure, fail};

const VERSION: &str = "2 VERSION, 5 VERSION Success";

pub(super) const CHECKS: &[Check] = &[
    must("version/succeeds", VERSION, "VERSION needs CNI_COMMAND only, and succeeds", succeeds),
    must("version/cni-version", VERSION, "the answer has a cniVersion", cni_version),
    must(
        "version/echoes-input",
        VERSION,
        "cniVersion is the value of cniVersion on input",
        echoes_input,
    )
    .each_version(),
    must(
        "version/supported-versions",
        VERSION,
        "supportedVersions is a list of versions",
        supported_versions,
    ),
    must(
        "version/promise",
        "1 Version considerations",
        "ADD and DEL work in each version that VERSION names",
        promise,
    )
    .each_version(),
    should(
        "version/unknown-refused",
        "5 Error; 0.4.0 Result",
        "a cniVersion that is not supported is refused with code 1",
        unknown_refused,
    ),
    reference(
        "version/unknown-makes-nothing",
        "5 Error",
        "an ADD that is refused for its version makes no interface",
        unknown_makes_nothing,
    ),
];

fn ask(bench: &Bench<'_>, version: &str) -> Outcome<Value> {
    let input = json!({ "cniVersion": version }).to_string();
    bench.run(bench.call("VERSION").without("CNI_PATH").stdin(&input))?.result()
}

fn succeeds(bench: &Bench<'_>) -> Outcome {
    ask(bench, bench.version).map(drop)
}

fn cni_version(bench: &Bench<'_>) -> Outcome {
    let answer = ask(bench, bench.version)?;
    ensure(answer["cniVersion"].is_string(), || format!("cniVersion is no string: {answer}"))
}

fn echoes_input(bench: &Bench<'_>) -> Outcome {
    let answer = ask(bench, bench.version)?;
    ensure(answer["cniVersion"] == bench.version, || {
        format!("asked with {}, answered with {}", bench.version, answer["cniVersion"])
    })
}

fn supported_versions(bench: &Bench<'_>) -> Outcome {
    let answer = ask(bench, bench.version)?;
    let Some(versions) = answer["supportedVersions"].as_array() else {
        return fail(format!("supportedVersions is no list: {answer}"));
    };
    ensure(!versions.is_empty(), || "supportedVersions is empty".to_owned())?;
    for version in versions {
        ensure(version.as_str().is_some_and(is_semantic), || format!("{version} is no version"))?;
    }
    Ok(())
}

fn is_semantic(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

fn promise(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let result = bench.add(&container)?;
    bench.del(&container, &result)
}

fn unknown_refused(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    for version in ["99.0.0", "1.99.0", "0.99.0"] {
        let request = bench.on("ADD", &container).set("cniVersion", version);
        bench.run(request)?.failed_with(&[1])?;
    }
    Ok(())
}

fn unknown_makes_nothing(bench: &Bench<'_>) -> Outcome {
    let container = bench.container()?;
    let before = crate::kernel::names(&container.namespace)?;
    bench.run(bench.on("ADD", &container).set("cniVersion", "99.0.0"))?.failed()?;
    let after = crate::kernel::names(&container.namespace)?;
    ensure(before == after, || format!("interfaces were {before:?} and are {after:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_other_texts() {
        for (text, is_version) in
            [("1.0.0", true), ("0.3.1-rc1", true), ("1.0", false), ("v1.0.0", false), ("", false)]
        {
            assert_eq!(is_semantic(text), is_version, "{text}");
        }
    }
}
