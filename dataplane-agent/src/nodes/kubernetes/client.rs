//! The way to the API server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::sync::Notify;
use tower::limit::RateLimitLayer;
use tower::util::MapResponseLayer;

use super::watching::WATCH_SECONDS;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A watch that tells nothing ends by itself before.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 30);
/// Whatever a server answers, it is not asked more often.
const REQUESTS_PER_SECOND_MAX: u64 = 10;

/// Why the API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig is bad.
    #[error("--kubeconfig {}: {source}", file.display())]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// No pod of a cluster.
    #[error(
        "--kubernetes: this is no pod with a service account: {0}; run the agent as one, or give it \
         --kubeconfig"
    )]
    NotInCluster(#[from] Box<InClusterError>),
    /// The configuration makes no client.
    #[error("cannot use the Kubernetes configuration: {0}")]
    Unusable(#[from] Box<kube::Error>),
}

/// A client, and where it leads.
#[derive(Clone)]
pub(super) struct ApiServer {
    pub(super) client: Client,
    pub(super) url: String,
    /// Told of every answer that is no refusal.
    pub(super) heard: Arc<Notify>,
}

impl ApiServer {
    /// By the kubeconfig, else as the pod that this is. Does not ask anything yet.
    pub(super) async fn new(kubeconfig: Option<&Path>) -> Result<Self, ClientError> {
        let config = match kubeconfig {
            Some(file) => read(file).await.map_err(|source| ClientError::Kubeconfig {
                file: file.to_owned(),
                source: source.into(),
            })?,
            None => Config::incluster().map_err(Box::new)?,
        };
        Self::with(config).map_err(|error| ClientError::Unusable(error.into()))
    }

    pub(super) fn with(mut config: Config) -> Result<Self, kube::Error> {
        config.connect_timeout = Some(CONNECT_TIME_MAX);
        config.read_timeout = Some(SILENCE_MAX);
        config.reset_reader_on_write = true;
        let url = config.cluster_url.to_string();
        let heard = Arc::new(Notify::new());
        let tell = Arc::clone(&heard);
        let client = ClientBuilder::try_from(config)?
            .with_layer(&MapResponseLayer::new(move |response: hyper::Response<_>| {
                if response.status().is_success() {
                    tell.notify_one();
                }
                response
            }))
            .with_layer(&RateLimitLayer::new(REQUESTS_PER_SECOND_MAX, Duration::from_secs(1)))
            .build();
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), heard })
    }
}

async fn read(file: &Path) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(file)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

/// An error of the API as one line for people, with what to do where that is known.
pub(super) fn explain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        if status.code == 0 {
            return "it answers what is neither a node nor an error".to_owned();
        }
        let remedy = match status.code {
            401 => "; its token or certificate is not accepted",
            403 => "; see the rights in docs/kubernetes.md",
            _ => "",
        };
        let message = if status.message.is_empty() { &status.reason } else { &status.message };
        return format!("it answers {}: {message}{remedy}", status.code);
    }
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            // What a wrapper says of its cause is said by the cause.
            text = if part.contains(&text) || text.is_empty() {
                part
            } else {
                format!("{text}: {part}")
            };
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(kubeconfig: Option<&Path>) -> String {
        ApiServer::new(kubeconfig).await.err().unwrap().to_string()
    }

    #[tokio::test]
    async fn what_cannot_lead_anywhere_is_refused_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kubeconfig");
        let error = refused(Some(&file)).await;
        assert!(error.contains("--kubeconfig") && error.contains("No such file"), "{error}");
        std::fs::write(&file, "clusters: {").unwrap();
        assert!(refused(Some(&file)).await.contains("failed to parse"));
        std::fs::write(&file, "current-context: x\nclusters: []\n").unwrap();
        assert!(refused(Some(&file)).await.contains("context"));
        let error = refused(None).await;
        assert!(error.contains("no pod with a service account") && error.contains("--kubeconfig"));
    }

    #[tokio::test]
    async fn a_kubeconfig_leads_to_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kubeconfig");
        let text = "current-context: x\n\
            clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1/'}}]\n\
            users: [{name: u, user: {token: t}}]\n\
            contexts: [{name: x, context: {cluster: c, user: u}}]\n";
        std::fs::write(&file, text).unwrap();
        let server = ApiServer::new(Some(&file)).await.unwrap();
        assert_eq!(server.url, "http://127.0.0.1:1");
        let error = server.client.apiserver_version().await.unwrap_err();
        let error = explain(&error);
        assert!(error.contains("Connection refused"), "{error}");
        assert_eq!(error.matches("onnect").count(), 3, "nothing twice: {error}");
    }
}
