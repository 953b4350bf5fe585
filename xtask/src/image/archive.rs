//! Layers, blobs, and the archive that holds them (OCI image specification 1.1, image layout).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::content::Entry;

/// A layer.
pub(super) struct Layer {
    /// Digest of what is compressed.
    pub(super) diff_id: String,
    pub(super) blob: Blob,
}

/// Bytes that their hash names.
pub(super) struct Blob(Vec<u8>);

impl Blob {
    pub(super) fn json(value: &Value) -> Result<Self> {
        Ok(Self(serde_json::to_vec(value)?))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn digest(&self) -> String {
        format!("sha256:{}", hash(&self.0))
    }

    pub(super) fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest(), "size": self.len() })
    }
}

/// The archive of one image.
pub(super) struct Layout<'a> {
    pub(super) name: &'a str,
    pub(super) manifest: Blob,
    /// All others.
    pub(super) blobs: Vec<Blob>,
}

impl Layout<'_> {
    /// Writes it whole.
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let mut manifest = self.manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        // containerd goes by the first, podman by the second.
        manifest["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
        ];
        for blob in self.blobs.iter().chain([&self.manifest]) {
            files.push((format!("blobs/sha256/{}", hash(&blob.0)), blob.0.clone()));
        }
        files.sort();
        let new = to.with_extension("new");
        let mut archive = tar::Builder::new(File::create(&new)?);
        for (path, content) in &files {
            append(&mut archive, path, content, 0o644)?;
        }
        archive.into_inner()?.sync_all()?;
        Ok(fs::rename(&new, to)?)
    }
}

/// Packs files, in order and without a time or an owner.
pub(super) fn layer(files: &[Entry]) -> Result<Layer> {
    let mut archive = tar::Builder::new(Vec::new());
    let directories: BTreeSet<&Path> =
        files.iter().flat_map(|file| file.path.ancestors().skip(1)).collect();
    for directory in directories.into_iter().filter(|path| path.components().next().is_some()) {
        let mut header = header(0, 0o755);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, directory, std::io::empty())?;
    }
    for file in files {
        append(&mut archive, &file.path, &file.content, file.mode)?;
    }
    let plain = archive.into_inner()?;
    let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    compressed.write_all(&plain)?;
    let diff_id = format!("sha256:{}", hash(&plain));
    Ok(Layer { diff_id, blob: Blob(compressed.finish()?) })
}

fn append(
    archive: &mut tar::Builder<impl std::io::Write>,
    path: impl AsRef<Path>,
    content: &[u8],
    mode: u32,
) -> Result<()> {
    Ok(archive.append_data(&mut header(content.len() as u64, mode), path, content)?)
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn entry(path: &str, mode: u32) -> Entry {
        Entry { path: path.into(), mode, content: path.as_bytes().to_vec() }
    }

    #[test]
    fn a_layer_has_every_file_and_its_directories_once() {
        let files =
            [entry("podwire", 0o755), entry("usr/lib/a.so", 0o644), entry("usr/lib/b.so", 0o644)];
        let layer = layer(&files).expect("a layer");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&layer.blob.0[..]).read_to_end(&mut plain).expect("gzip");
        assert_eq!(layer.diff_id, format!("sha256:{}", hash(&plain)));
        let mut archive = tar::Archive::new(&plain[..]);
        let shown: Vec<String> = archive
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
                let path = entry.path().expect("a path").display().to_string();
                format!("{path} {:o}", header.mode().unwrap())
            })
            .collect();
        assert_eq!(
            shown,
            ["usr 755", "usr/lib 755", "podwire 755", "usr/lib/a.so 644", "usr/lib/b.so 644"]
        );
    }

    #[test]
    fn two_archives_of_the_same_are_the_same() {
        let directory = std::env::temp_dir().join(format!("podwire-image-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let archive = |name: &str| {
            let layer = layer(&[entry("podwire", 0o755)]).expect("a layer");
            let manifest = Blob::json(&json!({ "layer": layer.diff_id })).expect("JSON");
            let to = directory.join(name);
            let layout = Layout { name: "x/y:1", manifest, blobs: vec![layer.blob] };
            layout.write(&to).expect("an archive");
            fs::read(to).expect("a file")
        };
        let (one, two) = (archive("one.tar"), archive("two.tar"));
        fs::remove_dir_all(&directory).expect("to remove it");
        assert!(one == two && !one.is_empty());
    }
}
