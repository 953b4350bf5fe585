//! What shows others that the agent is there: the socket, and beside it the plugin's file and locks.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cni_shim::names::{BigTcp, LOCK_DIRECTORY, PLUGIN_FILE, PluginFile, beside};
use cni_shim::protocol::PROTOCOL_VERSION;
use tokio::sync::{mpsc, watch};

use crate::engine::Command;
use crate::files;
use crate::server::Server;
use crate::store::{StoreError, is_or_becomes, make_directory, make_plugin_locks, write_whole};

/// `status` and the plugin tell from the age of the plugin file how long the agent has been away.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);

/// The places.
#[derive(Clone, Debug)]
pub struct Presence {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Directory for pins, which the plugin has to know.
    pub bpffs: PathBuf,
    /// Whether the plugin has the kernel hurry.
    pub expedite: bool,
    /// How long packets of new pods may be.
    pub big_tcp: watch::Receiver<BigTcp>,
}

impl Presence {
    /// Makes the directory, the locks and the plugin's file, as far as they are missing.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn make(&self) -> Result<(), StoreError> {
        make_directory(self.socket.parent().unwrap_or(Path::new("/")))?;
        make_plugin_locks(&self.socket)?;
        let file = beside(&self.socket, PLUGIN_FILE);
        if file.exists() { Ok(()) } else { self.write_plugin_file() }
    }

    /// Writes the plugin's file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_plugin_file(&self) -> Result<(), StoreError> {
        let content = PluginFile {
            protocol: PROTOCOL_VERSION,
            bpffs: self.bpffs.clone(),
            expedite: self.expedite,
            big_tcp: *self.big_tcp.borrow(),
        };
        let file = beside(&self.socket, PLUGIN_FILE);
        let text = serde_json::to_vec(&content).map_err(|error| StoreError::Io {
            what: "cannot write",
            path: file.clone(),
            source: error.into(),
        })?;
        write_whole(&file, &text)
    }

    /// Serves at the socket, shows signs of life, and makes again what somebody removes.
    pub async fn keep(&self, mut server: Server, engine: mpsc::Sender<Command>) {
        let mut inode = self.inode();
        loop {
            tokio::select! {
                () = server.serve(engine.clone()) => return,
                () = self.lives_until_lost(inode) => {}
            }
            tracing::warn!(socket = %self.socket.display(), "the socket was removed: made again");
            match Server::bind(&self.socket) {
                Ok(new) => {
                    inode = self.inode();
                    server = new.counted(server.calls());
                }
                Err(error) => tracing::error!(%error, "nobody can reach this agent"),
            }
        }
    }

    /// Ends when the socket is no longer that of this inode.
    async fn lives_until_lost(&self, inode: Option<u64>) {
        let mut big_tcp = self.big_tcp.clone();
        loop {
            let changed = async {
                match big_tcp.changed().await {
                    Ok(()) => {}
                    // The engine has ended.
                    Err(_) => std::future::pending().await,
                }
            };
            let shown = tokio::select! {
                () = changed => self.write_plugin_file(),
                () = tokio::time::sleep(SIGN_OF_LIFE_EVERY) => self.make().and_then(|()| self.touch()),
            };
            if let Err(error) = shown {
                tracing::warn!(%error, "cannot show that this agent lives");
            }
            if self.inode() != inode {
                return;
            }
        }
    }

    fn touch(&self) -> Result<(), StoreError> {
        let path = beside(&self.socket, PLUGIN_FILE);
        let file = File::options().write(true).open(&path);
        file.and_then(|file| file.set_modified(SystemTime::now()))
            .map_err(|source| StoreError::Io { what: "cannot touch", path, source })
    }

    fn inode(&self) -> Option<u64> {
        fs::symlink_metadata(&self.socket).ok().map(|found| found.ino())
    }
}

/// What beside a socket is ours, and the socket.
///
/// # Errors
/// When the directory cannot be read.
pub fn own_files(socket: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let stem = socket.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let is_socket = |name: &str| {
        let new = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix(".new"));
        new.is_some_and(|process| process.parse::<u32>().is_ok())
            || socket.file_name() == Some(name.as_ref())
    };
    let mut own =
        files::list(directory, |name| is_socket(name) || is_or_becomes(name, PLUGIN_FILE))?;
    own.extend(plugin_locks(socket)?);
    own.extend(files::list(directory, |name| name == LOCK_DIRECTORY)?);
    Ok(own)
}

/// The locks that plugins take, beside a socket.
///
/// # Errors
/// When the directory cannot be read.
pub fn plugin_locks(socket: &Path) -> io::Result<Vec<PathBuf>> {
    let is_lock = |name: &str| name.len() == 2 && u8::from_str_radix(name, 16).is_ok();
    files::list(&beside(socket, LOCK_DIRECTORY), is_lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_the_socket_others_have_files_too() {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("locks")).unwrap();
        let ours = ["agent.new17", "agent.sock", "plugin.json", "plugin.new", "locks/0a", "locks"];
        let theirs = ["plugin.pid", "plugin", "agent.newer", "agent.pid", "locks/other"];
        for name in ours.iter().chain(&theirs).filter(|name| **name != "locks") {
            fs::write(run.path().join(name), "").unwrap();
        }
        let own = own_files(&run.path().join("agent.sock")).unwrap();
        assert_eq!(own, ours.map(|name| run.path().join(name)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_removed_comes_back() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("podwire");
        let (socket, bpffs) = (directory.join("agent.sock"), "/sys/fs/bpf/x".into());
        let (big_tcp, told) = watch::channel(BigTcp::default());
        let presence = Presence { socket, bpffs, expedite: true, big_tcp: told };
        presence.make().unwrap();
        let server = Server::bind(&presence.socket).unwrap();
        let (engine, _commands) = mpsc::channel(1);
        let kept = presence.clone();
        let task = tokio::spawn(async move { kept.keep(server, engine).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        fs::remove_dir_all(&directory).unwrap();
        tokio::time::sleep(SIGN_OF_LIFE_EVERY * 2).await;
        assert!(std::os::unix::net::UnixStream::connect(&presence.socket).is_ok());
        let told = fs::read_to_string(directory.join("plugin.json")).unwrap();
        assert!(told.contains("bpf/x") && told.contains(r#""expedite":true"#), "{told}");
        assert!(!told.contains("bigTcp"), "as without BIG TCP: {told}");
        big_tcp.send(BigTcp { ipv4: None, ipv6: Some(200_000) }).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told = fs::read_to_string(directory.join("plugin.json")).unwrap();
        assert!(told.contains(r#""bigTcp":{"ipv6":200000}"#), "{told}");
        assert_eq!(fs::read_dir(directory.join("locks")).unwrap().count(), 256);
        task.abort();
    }
}
