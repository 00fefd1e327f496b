//! The manifests of `packaging/kubernetes` and what the chart renders, checked by Kubernetes' own schemas: kubeconform with
//! `packaging/kubernetes/schemas`, which `tools/schemas` makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::paths::{self, Module};
use crate::process::{Error, at, output};

/// The version of Kubernetes that charts are rendered for.
const KUBERNETES: &str = "1.33.0";

/// Values that the chart refuses, and words of the refusal.
const REFUSALS: &[(&str, &str)] = &[
    ("security=root", "userNamespace"),
    ("replicaCount=2", "replicaCount"),
    ("tls.enabled=true", "tls.enabled needs tls.secretName"),
    (
        "autoscaling.hpa.enabled=true,autoscaling.keda.enabled=true",
        "enable one",
    ),
    (
        "metrics.enabled=false,metrics.serviceMonitor.enabled=true",
        "need metrics.enabled",
    ),
    (
        "registryCertificates[0].name=a",
        "either a configMap or a secret",
    ),
    ("arch=riscv", "arm64"),
];

/// Checks everything; `false` when something is refused that should not be, or the other way round.
pub(crate) fn run() -> Result<bool, Error> {
    let charts = Charts::find()?;
    let scratch = paths::cache().join(format!("charts-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(at("making", &scratch))?;
    let outcome = check(&charts, &scratch);
    let _left_behind = fs::remove_dir_all(&scratch);
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::Failed {
            program, output, ..
        }) => {
            println!("FAILED   {program}{output}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn check(charts: &Charts, scratch: &Path) -> Result<(), Error> {
    let manifests = files(&charts.packaging.join("kubernetes"))?;
    charts.conform(&manifests)?;
    println!("ok       {} plain manifests", manifests.len());
    for values in files(&charts.packaging.join("helm/rbuild/ci"))? {
        let rendered = scratch.join("rendered.yaml");
        let text = charts.render("release", &["--values", &values.display().to_string()])?;
        fs::write(&rendered, &text).map_err(at("writing", &rendered))?;
        charts.conform(std::slice::from_ref(&rendered))?;
        // The check must be able to fail.
        let broken = text.replace("terminationGracePeriodSeconds", "terminationGrace");
        fs::write(&rendered, broken).map_err(at("writing", &rendered))?;
        refused(charts.conform(&[rendered]), "terminationGrace")?;
        println!("ok       the chart with {}", values.display());
    }
    for (values, words) in REFUSALS {
        refused(
            charts.render("release", &["--set", values]).map(drop),
            words,
        )?;
    }
    println!("ok       {} sets of values are refused", REFUSALS.len());
    Ok(())
}

/// An error unless the outcome is a refusal with these words.
fn refused(outcome: Result<(), Error>, words: &str) -> Result<(), Error> {
    match outcome {
        Err(Error::Failed { output, .. }) if output.contains(words) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(Error::Failed {
            program: "the check".to_owned(),
            status: String::new(),
            output: format!(" accepts what it should refuse with {words:?}"),
        }),
    }
}

/// The YAML files of a folder.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).map_err(at("reading", dir))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    Ok(files)
}

/// helm, kubeconform and our packaging.
#[derive(Debug)]
pub(crate) struct Charts {
    tools: PathBuf,
    packaging: PathBuf,
}

impl Charts {
    pub(crate) fn find() -> Result<Self, Error> {
        Ok(Self {
            tools: Module::find()?.tools(),
            packaging: paths::source().join("../packaging"),
        })
    }

    /// Returns the manifests of a release of the chart.
    pub(crate) fn render(&self, release: &str, arguments: &[&str]) -> Result<String, Error> {
        output(
            Command::new(self.tools.join("helm"))
                .args(["template", release, "--kube-version", KUBERNETES])
                .arg(self.packaging.join("helm/rbuild"))
                .args(arguments),
        )
    }

    fn conform(&self, files: &[PathBuf]) -> Result<(), Error> {
        let schemas = self
            .packaging
            .join("kubernetes/schemas/{{.ResourceKind}}{{.KindSuffix}}.json");
        let ran = Command::new(self.tools.join("kubeconform"))
            .args(["-strict", "-schema-location"])
            .arg(schemas)
            .args(files)
            .output()
            .map_err(|source| Error::Start {
                program: "kubeconform".to_owned(),
                source,
            })?;
        if ran.status.success() {
            return Ok(());
        }
        // It writes to standard output what is wrong.
        Err(Error::Failed {
            program: "kubeconform".to_owned(),
            status: ran.status.to_string(),
            output: String::from_utf8_lossy(&ran.stdout).into_owned(),
        })
    }
}
