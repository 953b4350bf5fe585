//! Programs of the distribution, with the libraries that they need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use object::Endianness;
use object::elf::DT_NEEDED;
use object::read::elf::ElfFile64;

use crate::command;
use crate::paths;
use crate::platform::Platform;
use crate::progress::Step;

/// A file of the distribution: where it is here, and where it belongs.
pub(super) struct Part {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// Name, version and architecture, such as `nftables 1.0.6-2 arm64`; unknown on other distributions.
    pub(super) package: Option<String>,
}

/// How a package is described.
const FORMAT: &str = "--showformat=${Package} ${Version} ${Architecture}";

/// A program that is installed here, with its loader and libraries: `libc.so.6 => /lib/libc.so.6 (0x1234)`.
pub(super) fn installed(program: &Path) -> Result<Vec<Part>> {
    let listed = command::output(Command::new("ldd").arg(program))?;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let files: BTreeSet<PathBuf> = words.map(PathBuf::from).chain([program.to_owned()]).collect();
    Ok(files.iter().map(|file| own(file)).collect())
}

/// A file that is installed here.
pub(super) fn own(file: &Path) -> Part {
    let to = file.strip_prefix("/").unwrap_or(file).to_owned();
    Part { from: file.to_owned(), to, package: package_of(file) }
}

/// A library may be known under its name before `/usr` was merged, or after.
fn package_of(file: &Path) -> Option<String> {
    let merged = Path::new("/usr").join(file.strip_prefix("/").ok()?);
    [file, merged.as_path()].into_iter().find_map(|file| {
        let found = command::output(Command::new("dpkg-query").arg("--search").arg(file)).ok()?;
        let package = found.rsplit_once(": ")?.0.split(',').next()?.to_owned();
        command::output(Command::new("dpkg-query").args(["--show", FORMAT, &package])).ok()
    })
}

/// The distribution as it is on machines of another kind: packages that were fetched and unpacked, each by itself.
/// Nothing is installed, and the machine's own package manager knows nothing of it.
pub(super) struct Foreign {
    platform: Platform,
    place: PathBuf,
}

impl Foreign {
    pub(super) fn new(platform: Platform) -> Self {
        let place = paths::root().join("target/cross/packages").join(platform.architecture());
        Self { platform, place }
    }

    /// Fetches a package and all that it depends on.
    pub(super) fn fetch(&self, package: &str) -> Result<()> {
        let step = Step::start(format!("fetching {package} for {}", self.platform));
        if self.place.exists() {
            fs::remove_dir_all(&self.place).context("remove what was fetched earlier")?;
        }
        for directory in ["lists/partial", "cache/archives/partial", "unpacked"] {
            fs::create_dir_all(self.place.join(directory))?;
        }
        fs::write(self.place.join("status"), "")?;
        fs::write(self.place.join("apt.conf"), self.configuration())?;
        let advice =
            || format!("fetch Debian's packages for {}: see apt's message above", self.platform);
        command::output(self.apt().arg("update")).with_context(advice)?;
        let install = ["--yes", "--download-only", "--no-install-recommends", "install", package];
        command::output(self.apt().args(install)).with_context(advice)?;
        for archive in fs::read_dir(self.place.join("cache/archives"))? {
            let archive = archive?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                self.unpack(&archive)?;
            }
        }
        step.done();
        Ok(())
    }

    fn apt(&self) -> Command {
        let mut apt = Command::new("apt-get");
        apt.env("APT_CONFIG", self.place.join("apt.conf")).env("LC_ALL", "C");
        apt
    }

    /// The sources are the machine's; its state is not touched.
    fn configuration(&self) -> String {
        let (architecture, place) = (self.platform.architecture(), self.place.display());
        format!(
            "APT::Architecture \"{architecture}\";\n#clear APT::Architectures;\n\
             APT::Architectures {{ \"{architecture}\"; }};\nAPT::Sandbox::User \"\";\n\
             Dir::State \"{place}\";\nDir::State::lists \"{place}/lists\";\n\
             Dir::State::status \"{place}/status\";\nDir::Cache \"{place}/cache\";\n"
        )
    }

    fn unpack(&self, archive: &Path) -> Result<()> {
        let mut show = Command::new("dpkg-deb");
        let package = command::output(show.args(["--show", FORMAT]).arg(archive))?;
        let to = self.place.join("unpacked").join(package);
        command::output(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(to)).map(drop)
    }

    /// A program with its loader and libraries.
    pub(super) fn program(&self, program: &Path) -> Result<Vec<Part>> {
        let packages = fs::read_dir(self.place.join("unpacked")).with_context(|| {
            format!("nothing was fetched for {}: leave --built out", self.platform)
        })?;
        let packages: Vec<PathBuf> =
            packages.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let mut parts = vec![find(&packages, &[program.strip_prefix("/")?.to_owned()])?];
        let mut next = 0;
        while let Some(part) = parts.get(next) {
            for library in needed(&part.from)? {
                if !parts.iter().any(|part| part.to.ends_with(&library)) {
                    parts.push(find(&packages, &self.places(&library))?);
                }
            }
            next += 1;
        }
        Ok(parts)
    }

    /// Where a library can be; the loader is in the first.
    fn places(&self, library: &str) -> Vec<PathBuf> {
        let own = self.platform.gnu();
        let directories = ["lib", "lib64"].map(str::to_owned).into_iter();
        let directories = directories.chain([format!("lib/{own}"), format!("usr/lib/{own}")]);
        directories.map(|directory| Path::new(&directory).join(library)).collect()
    }
}

/// The first package that has a file at one of these places.
fn find(packages: &[PathBuf], places: &[PathBuf]) -> Result<Part> {
    for to in places {
        if let Some(package) = packages.iter().find(|package| package.join(to).exists()) {
            let name = package.file_name().map(|name| name.to_string_lossy().into_owned());
            return Ok(Part { from: package.join(to), to: to.clone(), package: name });
        }
    }
    anyhow::bail!("no package that was fetched has {}", places[0].display())
}

/// The libraries that a program or library names.
fn needed(file: &Path) -> Result<Vec<String>> {
    let read = || {
        let data = fs::read(file)?;
        let elf = ElfFile64::<Endianness, _>::parse(&*data)?;
        let table = elf.elf_dynamic_table()?;
        let names = table.iter().filter(|entry| entry.tag == DT_NEEDED);
        let names = names.map(|entry| Ok(String::from_utf8(table.string(entry)?.to_vec())?));
        names.collect::<Result<Vec<_>>>()
    };
    read().with_context(|| format!("read the libraries of {}", file.display()))
}

/// Refuses a program that is not for a platform.
pub(super) fn check_machine(file: &Path, platform: Platform) -> Result<()> {
    let data = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let elf = ElfFile64::<Endianness, _>::parse(&*data)
        .with_context(|| format!("{} is no program", file.display()))?;
    let machine = elf.elf_header().e_machine.get(elf.endian());
    let wanted = match platform {
        Platform::Amd64 => object::elf::EM_X86_64,
        Platform::Arm64 => object::elf::EM_AARCH64,
    };
    ensure!(machine == wanted, "{} is not for {platform}", file.display());
    Ok(())
}
