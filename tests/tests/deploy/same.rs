//! One content, three ways to it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::render::file;

use super::objects::{DAEMON_SET, Rendered, VERSION, agent, chart, differences, release, render};

fn manifest() -> Result<Rendered> {
    render("manifest", "deploy/podwire.yaml", json!({}))
}

#[test]
fn the_chart_makes_the_objects_of_the_manifest() -> Result<()> {
    let (manifest, chart) = (manifest()?, chart(&json!({}))?);
    assert_eq!(manifest.objects.len(), 8, "{:?}", manifest.objects.keys());
    assert!(manifest.objects.contains_key(DAEMON_SET), "{:?}", manifest.objects.keys());
    assert_eq!(differences(&manifest, &chart), [""; 0]);
    ensure!(
        chart.notes.contains("kube-system rollout status daemonset/podwire"),
        "{}",
        chart.notes
    );
    Ok(())
}

#[test]
fn kustomize_makes_the_objects_of_the_manifest() -> Result<()> {
    let made = render("kustomization", "deploy", json!({}))?;
    assert_eq!(differences(&manifest()?, &made), [""; 0]);
    Ok(())
}

/// The overlay of the documents.
#[test]
fn an_overlay_sets_image_and_arguments() -> Result<()> {
    let overlay = "tests/tests/deploy/overlay";
    let text = fs::read_to_string(file(overlay).join("kustomization.yaml"))?;
    let shown: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let shown = shown.replace("../../../../deploy", "podwire/deploy");
    let documents = fs::read_to_string(file("docs/kubernetes.md"))?;
    ensure!(documents.contains(&shown), "docs/kubernetes.md does not show\n{shown}");

    let image = format!(
        "image: \"docker.io/podwire/podwire:{VERSION}\" -> \"registry.example.com/podwire:{VERSION}\""
    );
    let changes = [
        r#"agent/args/6: nothing -> "--encapsulation=direct""#,
        &format!("agent/{image}"),
        r#"doctor/args/5: nothing -> "--encapsulation=direct""#,
        &format!("doctor/{image}"),
    ];
    let made = render("kustomization", overlay, json!({}))?;
    assert_eq!(differences(&manifest()?, &made), changes);
    Ok(())
}

/// A second release would bring the same objects, which Helm refuses.
#[test]
fn the_name_of_the_release_changes_nothing() -> Result<()> {
    let other = release("network", "kube-system", &json!({}))?;
    assert_eq!(differences(&manifest()?, &other), [""; 0]);
    Ok(())
}

#[test]
fn the_chart_is_installed_into_the_namespace_of_its_release() -> Result<()> {
    let changed = |objects: &Value| objects.to_string().replace("kube-system", "network");
    let text = |rendered: &Rendered| rendered.objects.values().map(changed).collect::<Vec<_>>();
    let (manifest, other) = (manifest()?, release("podwire", "network", &json!({}))?);
    assert!(!format!("{:?}", other.objects).contains("kube-system"));
    let (mut one, mut two) = (text(&manifest), text(&other));
    one.sort();
    two.sort();
    assert_eq!(one, two);
    Ok(())
}

#[test]
fn all_have_the_version_of_the_project() -> Result<()> {
    let manifest = manifest()?;
    let image = agent(&manifest)?["image"].as_str().context("image")?;
    assert_eq!(image, format!("docker.io/podwire/podwire:{VERSION}"));
    let text = fs::read_to_string(file("deploy/helm/podwire/Chart.yaml"))?;
    for line in [format!("version: {VERSION}"), format!("appVersion: {VERSION}")] {
        ensure!(text.lines().any(|other| other == line), "Chart.yaml has no `{line}`");
    }
    Ok(())
}
