//! Where a store lies on disk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use phoenix_model::StorePath;

/// Where the objects and the database of a local store are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The directory in the names of store paths, usually `/nix/store`.
    pub store_dir: String,
    /// The directory the objects really are in; another one for a store with a root of its own.
    pub real_dir: PathBuf,
    /// The directory of Nix's state, usually `/nix/var/nix`.
    pub state_dir: PathBuf,
    /// The directory of build logs, usually `/nix/var/log/nix`.
    pub log_dir: PathBuf,
}

/// What the environment says of stores (Nix manual, "Common Environment Variables").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreEnv {
    /// `NIX_STORE_DIR`, or else `NIX_STORE`.
    pub store_dir: Option<String>,
    /// `NIX_STATE_DIR`.
    pub state_dir: Option<String>,
    /// `NIX_LOG_DIR`.
    pub log_dir: Option<String>,
    /// `NIX_REMOTE`.
    pub remote: Option<String>,
}

impl Layout {
    /// The layout of the store that a URL names, by the rules of Nix (`src/libstore/store-api.cc`,
    /// `local-fs-store.hh`); `None` for a store that is not on this machine's disk.
    ///
    /// `auto`, `daemon`, `unix://…`, `local?root=…`, and paths are known.
    #[must_use]
    pub fn of(url: &str, env: &StoreEnv) -> Option<Self> {
        let url = match url {
            "" | "auto" => env.remote.as_deref().filter(|remote| *remote != "auto").unwrap_or_default(),
            other => other,
        };
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut root = None;
        if place.starts_with(['/', '.']) {
            root = Some(place.to_owned());
        } else if !matches!(place, "" | "auto" | "daemon" | "local")
            && !place.starts_with("unix://")
            && !place.starts_with("local://")
        {
            return None;
        }
        let parameter = |wanted: &str| {
            query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted)
        };
        let value = |wanted| parameter(wanted).map(|(_, value)| decode(value));
        if let Some(found) = value("root") {
            root = Some(found);
        } else if let Some(path) = place.strip_prefix("local://")
            && !path.is_empty()
        {
            root = Some(path.to_owned());
        }
        let store_dir = value("store")
            .or_else(|| env.store_dir.clone())
            .unwrap_or_else(|| "/nix/store".to_owned())
            .trim_end_matches('/')
            .to_owned();
        let real = value("real").map(PathBuf::from);
        let state = value("state").map(PathBuf::from);
        let log = value("log").map(PathBuf::from);
        let (real_dir, state_dir, log_dir) = match root.filter(|root| !root.is_empty()) {
            Some(root) => {
                let root = Path::new(&root);
                // Whatever the store directory is called.
                (root.join("nix/store"), root.join("nix/var/nix"), root.join("nix/var/log/nix"))
            }
            None => {
                let state = env.state_dir.clone().unwrap_or_else(|| "/nix/var/nix".to_owned());
                let log = env.log_dir.clone().unwrap_or_else(|| "/nix/var/log/nix".to_owned());
                (PathBuf::from(&store_dir), PathBuf::from(state), PathBuf::from(log))
            }
        };
        Some(Self {
            store_dir,
            real_dir: real.unwrap_or(real_dir),
            state_dir: state.unwrap_or(state_dir),
            log_dir: log.unwrap_or(log_dir),
        })
    }

    /// Where the file of a store path really is.
    #[must_use]
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        self.real_dir.join(path.base_name())
    }

    /// Whether the log of a build that is kept there is whole, which it is as soon as its builder has ended;
    /// `None` when there is none that was written since a time, or when it is not compressed, so that nobody can
    /// tell.
    ///
    /// Nix writes it to `drvs/` in two parts of the name (`src/libstore/log-store.cc`), as bzip2: a stream
    /// that is at its end has the square root of pi before its checksum, at any bit.
    #[must_use]
    pub fn is_log_whole(&self, drv_path: &StorePath, since: SystemTime) -> Option<bool> {
        const END: u128 = 0x1772_4538_5090;
        const TAIL: i64 = 11;
        let (first, rest) = drv_path.base_name().split_at_checked(2)?;
        let mut file = File::open(self.log_dir.join("drvs").join(first).join(format!("{rest}.bz2"))).ok()?;
        let metadata = file.metadata().ok()?;
        // An older build of the same may have left one.
        if metadata.modified().ok()? < since {
            return None;
        }
        if metadata.len() < TAIL.unsigned_abs() {
            return Some(false);
        }
        file.seek(SeekFrom::End(-TAIL)).ok()?;
        let mut tail = [0; 16];
        file.read_exact(&mut tail[5..]).ok()?;
        let tail = u128::from_be_bytes(tail);
        Some((0..8).any(|padding| (tail >> (32 + padding)) & 0xffff_ffff_ffff == END))
    }

    /// The database of valid paths.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("db/db.sqlite")
    }
}

/// Percent-decoding, as in the parameters of store URLs.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(url: &str, env: &StoreEnv) -> Option<(String, String, String)> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        Layout::of(url, env).map(|layout| (layout.store_dir, text(layout.real_dir), text(layout.state_dir)))
    }

    fn three(a: &str, b: &str, c: &str) -> Option<(String, String, String)> {
        Some((a.into(), b.into(), c.into()))
    }

    #[test]
    fn the_usual_store() {
        for url in ["", "auto", "daemon", "local", "unix:///run/socket"] {
            assert_eq!(
                real(url, &StoreEnv::default()),
                three("/nix/store", "/nix/store", "/nix/var/nix"),
                "{url}"
            );
        }
    }

    #[test]
    fn a_store_with_a_root_of_its_own() {
        let env = StoreEnv::default();
        for url in ["/tmp/r", "local?root=/tmp/r", "local?root=%2Ftmp%2Fr", "local:///tmp/r"] {
            assert_eq!(
                real(url, &env),
                three("/nix/store", "/tmp/r/nix/store", "/tmp/r/nix/var/nix"),
                "{url}"
            );
        }
        assert_eq!(
            real("local?root=/tmp/r&store=/c", &env),
            three("/c", "/tmp/r/nix/store", "/tmp/r/nix/var/nix"),
            "it has the usual place below the root"
        );
        assert_eq!(
            real("local?real=/a&state=/b&store=/c/", &env),
            three("/c", "/a", "/b"),
            "each part by its own name"
        );
    }

    #[test]
    fn the_environment_counts() {
        let env = StoreEnv {
            store_dir: Some("/s/store".into()),
            state_dir: Some("/s/var".into()),
            log_dir: None,
            remote: Some("daemon".into()),
        };
        assert_eq!(real("auto", &env), three("/s/store", "/s/store", "/s/var"));
        let remote = StoreEnv { remote: Some("ssh-ng://host".into()), ..StoreEnv::default() };
        assert_eq!(real("", &remote), None);
        assert!(real("local", &remote).is_some(), "the URL comes first");
    }

    #[test]
    fn what_is_elsewhere_has_no_layout() {
        for url in ["ssh-ng://host", "https://cache", "s3://bucket", "dummy://"] {
            assert_eq!(real(url, &StoreEnv::default()), None);
        }
    }

    #[test]
    fn a_log_is_whole_when_its_stream_has_an_end() {
        // `hello`, by Python's bz2.
        const HELLO: &[u8] = &[
            66, 90, 104, 57, 49, 65, 89, 38, 83, 89, 25, 49, 101, 61, 0, 0, 0, 129, 0, 2, 68, 160, 0, 33,
            154, 104, 51, 77, 7, 51, 139, 185, 34, 156, 40, 72, 12, 152, 178, 158, 128,
        ];
        const NOTHING: &[u8] = &[66, 90, 104, 57, 23, 114, 69, 56, 80, 144, 0, 0, 0, 0];
        let root = tempfile::tempdir().unwrap();
        let url = root.path().display().to_string();
        let layout = Layout::of(&url, &StoreEnv::default()).unwrap();
        let drv_path = StorePath::parse(&format!("/nix/store/{}-x.drv", "0".repeat(32))).unwrap();
        let is_whole = || layout.is_log_whole(&drv_path, SystemTime::UNIX_EPOCH);
        assert_eq!(is_whole(), None);
        let directory = root.path().join("nix/var/log/nix/drvs/00");
        fs_err::create_dir_all(&directory).unwrap();
        let file = directory.join(format!("{}-x.drv.bz2", "0".repeat(30)));
        for (bytes, whole) in [(HELLO, true), (NOTHING, true), (&HELLO[..40], false), (&HELLO[..4], false)] {
            fs_err::write(&file, bytes).unwrap();
            assert_eq!(is_whole(), Some(whole), "{} bytes", bytes.len());
        }
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert_eq!(layout.is_log_whole(&drv_path, later), None, "it is of an older build");
    }
}
