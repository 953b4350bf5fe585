//! The control plane: etcd, API server, controllers, scheduler, on a machine of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::cluster::CLUSTER_CIDRS;
use harness::command::Process;
use harness::fabric::Fabric;
use harness::namespace::Namespace;
use harness::run::Run;
use harness::wait::wait_until;
use serde_json::Value;

use crate::addresses::{CONTROL, SERVICE_CIDRS};
use crate::certificates::{ADMIN, Certificates};
use crate::containerd::Containerd;
use crate::kubectl::Kubectl;
use crate::programs;

const START_TIME_MAX: Duration = Duration::from_secs(120);
const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";
/// What is asked in the name of the agents is written down: a line of JSON each.
const AUDIT_LOG: &str = "audit.log";
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": ["system:serviceaccount:kube-system:podwire"]},
        {"level": "None"}
    ]
}"#;

/// The control plane.
#[derive(Debug)]
pub(crate) struct Control {
    services: Vec<(String, Process)>,
    /// Its network.
    pub(crate) namespace: Namespace,
    pub(crate) directory: PathBuf,
    pub(crate) certificates: Certificates,
    pub(crate) kubectl: Kubectl,
    keep: bool,
}

impl Control {
    /// Starts it and waits until the API server is ready.
    pub(crate) fn start(run: &Run, fabric: &Fabric, containerd: Containerd) -> Result<Self> {
        let namespace = Namespace::new(&format!("{}-control", run.name()), run.is_kept())?;
        fabric.plug("control", &namespace, 1)?;
        let [ipv4, ipv6] = CONTROL;
        namespace.ip(&format!(
            "address add {ipv4}/24 dev eth0\naddress add {ipv6}/64 dev eth0\n\
             route add default via 192.168.1.1\nroute add default via fd00:1::1"
        ))?;
        let directory = run.directory().join("control");
        fs::create_dir_all(&directory)?;
        let certificates = Certificates::new(&directory)?;
        let kubeconfig = directory.join("admin.kubeconfig");
        certificates.kubeconfig(&kubeconfig, &ADMIN)?;
        let kubectl = Kubectl::new(&namespace, kubeconfig)?;
        let keep = run.is_kept();
        let services = Vec::new();
        let mut control = Self { services, namespace, directory, certificates, kubectl, keep };
        control.start_etcd(containerd.etcd()?)?;
        control.start_api_server()?;
        control.start_controllers()?;
        control.start_client(SCHEDULER, &[])?;
        // Without it the API server refuses pods.
        control.wait("the default service account", |control| {
            control.kubectl.run("get serviceaccount default").map(drop)
        })?;
        Ok(control)
    }

    /// Kills the API server; what it knows stays.
    ///
    /// # Errors
    /// When none runs.
    pub(crate) fn stop_api_server(&mut self) -> Result<()> {
        self.stop(API_SERVER)
    }

    /// Kills the controllers: nodes are given no pod networks.
    ///
    /// # Errors
    /// When they do not run.
    pub(crate) fn stop_controllers(&mut self) -> Result<()> {
        self.stop(CONTROLLERS)
    }

    fn stop(&mut self, name: &str) -> Result<()> {
        let at = self.services.iter().position(|(running, _)| running == name);
        let (_, mut service) =
            self.services.remove(at.with_context(|| format!("{name} does not run"))?);
        service.kill();
        Ok(())
    }

    fn start_etcd(&mut self, program: PathBuf) -> Result<()> {
        let data = self.directory.join("etcd");
        let data = format!("--data-dir={}", data.display());
        // A crash of the machine ends the cluster anyway.
        let etcd = ["--unsafe-no-fsync", "--logger=zap", "--log-level=warn", &data];
        self.spawn("etcd", program, &etcd.map(OsString::from))
    }

    /// Starts the API server, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or takes too long.
    pub(crate) fn start_api_server(&mut self) -> Result<()> {
        let file =
            |flag: &str, name: &str| format!("--{flag}={}", self.certificates.path(name).display());
        let policy = self.directory.join("audit-policy.json");
        fs::write(&policy, AUDIT_POLICY)?;
        let flags = [
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--advertise-address={}", CONTROL[0]),
            "--bind-address=::".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            file("service-account-key-file", "accounts.pub"),
            file("service-account-signing-key-file", "accounts.key"),
            file("client-ca-file", "ca.crt"),
            file("tls-cert-file", "apiserver.crt"),
            file("tls-private-key-file", "apiserver.key"),
            file("kubelet-client-certificate", "kubelet-client.crt"),
            file("kubelet-client-key", "kubelet-client.key"),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.directory.join(AUDIT_LOG).display()),
        ];
        let program = programs::built(API_SERVER)?;
        self.spawn(API_SERVER, program, &flags.map(OsString::from))?;
        self.wait("the API server", |control| {
            control.kubectl.run("get --raw=/readyz --request-timeout=5s").map(drop)
        })
    }

    /// What was asked of the API server in the name of the agents.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn asked_by_agents(&self) -> Result<Vec<Value>> {
        let log = fs::read_to_string(self.directory.join(AUDIT_LOG)).context(AUDIT_LOG)?;
        log.lines().map(|line| serde_json::from_str(line).context("a line of it")).collect()
    }

    /// Starts the controllers.
    ///
    /// # Errors
    /// When they cannot be started.
    pub(crate) fn start_controllers(&mut self) -> Result<()> {
        let flag = |name: &str, value: PathBuf| format!("--{name}={}", value.display());
        self.start_client(
            CONTROLLERS,
            &[
                "--allocate-node-cidrs=true".to_owned(),
                format!("--cluster-cidr={}", CLUSTER_CIDRS.join(",")),
                "--node-cidr-mask-size-ipv4=24".to_owned(),
                "--node-cidr-mask-size-ipv6=64".to_owned(),
                format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
                flag("service-account-private-key-file", self.certificates.path("accounts.key")),
                flag("root-ca-file", self.certificates.path("ca.crt")),
                "--use-service-account-credentials=true".to_owned(),
            ],
        )
    }

    /// Starts what only talks to the API server, with a user of its own.
    fn start_client(&mut self, name: &str, flags: &[String]) -> Result<()> {
        let kubeconfig = self.directory.join(format!("{name}.kubeconfig"));
        self.certificates.kubeconfig(&kubeconfig, &[&format!("system:{name}"), ""])?;
        let own = [format!("--kubeconfig={}", kubeconfig.display()), "--leader-elect=false".into()];
        let flags: Vec<OsString> = own.iter().chain(flags).map(OsString::from).collect();
        self.spawn(name, programs::built(name)?, &flags)
    }

    /// Waits for something; the end of a service is an error at once.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        mut check: impl FnMut(&Self) -> Result<()>,
    ) -> Result<()> {
        let ended = wait_until(what, START_TIME_MAX, || {
            for (name, service) in &mut self.services {
                if service.has_ended() {
                    return Ok(Some(name.clone()));
                }
            }
            check(self).map(|()| None)
        })?;
        match ended {
            None => Ok(()),
            Some(name) => bail!("{name} has ended: {}", self.tail(&name)),
        }
    }

    fn spawn(&mut self, name: &str, program: PathBuf, flags: &[OsString]) -> Result<()> {
        ensure!(program.exists(), "{} is missing", program.display());
        let log = self.directory.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.namespace.service(program, !self.keep);
        command.args(flags).current_dir(&self.directory).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("nsenter")?;
        self.services.push((name.to_owned(), Process::new(child)));
        Ok(())
    }

    fn tail(&self, name: &str) -> String {
        let log = fs::read_to_string(self.directory.join(format!("{name}.log")));
        tail(&log.unwrap_or_default())
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

impl Drop for Control {
    fn drop(&mut self) {
        // What depends on others goes first.
        for (_, service) in self.services.iter_mut().rev() {
            if self.keep {
                service.let_go();
            } else {
                service.kill();
            }
        }
    }
}
