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

/// Media type of what lists images for several platforms.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image for one platform.
pub(super) struct Image {
    pub(super) architecture: &'static str,
    manifest: Blob,
    config: Blob,
    layer: Blob,
}

impl Image {
    /// An image of one layer.
    pub(super) fn new(architecture: &'static str, config: &Value, layer: Layer) -> Result<Self> {
        let (config, layer) = (Blob::json(config)?, layer.blob);
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        }))?;
        Ok(Self { architecture, manifest, config, layer })
    }

    /// Bytes of what a node fetches, compressed.
    pub(super) fn len(&self) -> usize {
        self.layer.len()
    }
}

/// The archive of an image.
pub(super) struct Layout {
    /// What the name stands for: the manifest of the image, or the list of those of all platforms.
    top: Value,
    blobs: Vec<Blob>,
}

impl Layout {
    /// One image, or one for each of several platforms.
    pub(super) fn new(images: Vec<Image>) -> Result<Self> {
        let list = |image: &Image| {
            let mut manifest = image.manifest.descriptor(MANIFEST);
            manifest["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
            manifest
        };
        let listed: Vec<Value> = images.iter().map(list).collect();
        let mut blobs: Vec<Blob> = Vec::new();
        let mut top = Value::Null;
        for image in images {
            top = image.manifest.descriptor(MANIFEST);
            blobs.extend([image.manifest, image.config, image.layer]);
        }
        if listed.len() > 1 {
            let index = Blob::json(&index(&listed))?;
            top = index.descriptor(INDEX);
            blobs.push(index);
        }
        Ok(Self { top, blobs })
    }

    /// The digest that the name stands for.
    pub(super) fn digest(&self) -> &str {
        self.top["digest"].as_str().unwrap_or_default()
    }

    /// Writes it whole.
    pub(super) fn write(&self, name: &str, to: &Path) -> Result<()> {
        let mut top = self.top.clone();
        // containerd goes by the first, podman by the second.
        top["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        });
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), serde_json::to_vec(&index(&[top]))?),
        ];
        for blob in &self.blobs {
            files.push((format!("blobs/sha256/{}", hash(&blob.0)), blob.0.clone()));
        }
        files.sort();
        files.dedup();
        let new = to.with_extension("new");
        let mut archive = tar::Builder::new(File::create(&new)?);
        for (path, content) in &files {
            append(&mut archive, path, content, 0o644)?;
        }
        archive.into_inner()?.sync_all()?;
        Ok(fs::rename(&new, to)?)
    }
}

fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
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

    fn layout(architectures: &[&'static str]) -> Layout {
        let image = |architecture: &&'static str| {
            let layer = layer(&[entry("podwire", 0o755)]).expect("a layer");
            Image::new(architecture, &json!({ "architecture": architecture }), layer).expect("one")
        };
        Layout::new(architectures.iter().map(image).collect()).expect("a layout")
    }

    #[test]
    fn a_list_names_the_image_of_each_platform() {
        let content = |layout: &Layout, digest: &Value| {
            let blob = layout.blobs.iter().find(|blob| *digest == blob.digest()).expect("a blob");
            serde_json::from_slice::<Value>(&blob.0).expect("JSON")
        };
        let one = layout(&["arm64"]);
        assert_eq!(one.top["mediaType"], MANIFEST);
        let both = layout(&["amd64", "arm64"]);
        assert_eq!(both.top["mediaType"], INDEX);
        let list = content(&both, &both.top["digest"]);
        for (number, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
            let listed = &list["manifests"][number];
            assert_eq!(listed["platform"], json!({"architecture": architecture, "os": "linux"}));
            let manifest = content(&both, &listed["digest"]);
            let config = content(&both, &manifest["config"]["digest"]);
            assert_eq!(config["architecture"], architecture);
        }
        assert_eq!(
            content(&both, &list["manifests"][1]["digest"]),
            content(&one, &one.top["digest"])
        );
    }

    #[test]
    fn two_archives_of_the_same_are_the_same() {
        let directory = std::env::temp_dir().join(format!("podwire-image-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let archive = |name: &str| {
            let to = directory.join(name);
            layout(&["amd64"]).write("x/y:1", &to).expect("an archive");
            fs::read(to).expect("a file")
        };
        let (one, two) = (archive("one.tar"), archive("two.tar"));
        fs::remove_dir_all(&directory).expect("to remove it");
        assert!(one == two && !one.is_empty());
    }
}
