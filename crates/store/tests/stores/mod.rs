//! A store with paths that Nix made, and empty stores for the same paths.

#![expect(clippy::unwrap_used, reason = "a test")]
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fs_err as fs;
use phoenix_model::{StorePath, ValidPathInfo};
use phoenix_pack::nar::Writer;
use phoenix_store::{Import, Layout, PathInfos, Registered, StoreEnv, dump};
use phoenix_testkit::NixRoot;

/// A store that Nix filled.
pub(crate) struct Source {
    pub(crate) nix: NixRoot,
    pub(crate) layout: Layout,
    pub(crate) public_key: String,
}

/// An empty store with the same store directory, at another place.
pub(crate) struct Target<'s> {
    source: &'s Source,
    pub(crate) root: PathBuf,
    pub(crate) layout: Layout,
}

/// Builds that refer to each other and themselves, a fixed output, a text, a source, and their derivations.
const EXPRESSION: &str = r#"
let
  make = name: script: attrs: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" ("PATH=/bin:/usr/bin; " + script) ];
  } // attrs);
  text = builtins.toFile "text" "a text\n";
  sources = ./tree;
  leaf = make "leaf" "mkdir -p $out/bin; echo ${text} > $out/t; cp /bin/true $out/bin/p; ln -s p $out/bin/q" { };
  self = make "self" "mkdir $out; echo $out > $out/own; echo ${leaf} > $out/leaf" { };
  fixed = make "fixed" "printf fixed > $out" {
    outputHash = builtins.hashString "sha256" "fixed"; outputHashAlgo = "sha256"; outputHashMode = "flat";
  };
  two = make "two" "echo $out > $out; mkdir $dev; ln -s $out $dev/out" { outputs = [ "out" "dev" ]; };
  many = builtins.genList (n: make "many-${toString n}"
    "mkdir -p $out/d; for i in 1 2 3 4 5 6 7 8; do echo ${toString n} $i ${leaf} > $out/d/$i; done; head -c ${toString (n * 30000)} /dev/zero > $out/big" { }) 12;
in make "top" "mkdir $out; echo ${self} ${fixed} ${two} ${two.dev} ${sources} ${toString many} > $out/all" { }
"#;

impl Source {
    pub(crate) fn new() -> Self {
        let nix = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
        fs::create_dir(nix.path("x")).unwrap();
        // Nix 2.26 breaks down over a source that is much deeper.
        super::nasty::make(&nix.path("x/tree"), 8);
        // Nix does not take names that are not UTF-8 from an expression in every version.
        if cfg!(target_os = "linux") {
            use std::os::unix::ffi::OsStrExt as _;
            let name = std::ffi::OsStr::from_bytes(b"names/\xff\xfe\x80");
            fs::remove_file(nix.path("x/tree").join(name)).unwrap();
        }
        fs::write(nix.path("x/x.nix"), EXPRESSION).unwrap();
        let expression = nix.path("x/x.nix").display().to_string();
        nix.run("nix-build", &["--no-out-link", &expression]);
        let (secret, public) = (nix.path("secret"), nix.path("public"));
        let (secret, public) = (secret.to_str().unwrap(), public.to_str().unwrap());
        nix.run("nix-store", &["--generate-binary-cache-key", "test-1", secret, public]);
        nix.run("nix", &["store", "sign", "--all", "--key-file", secret]);
        let layout = Layout::of("local", &env(&nix)).unwrap();
        let public_key = fs::read_to_string(public).unwrap();
        Self { nix, layout, public_key }
    }

    /// All that is valid there.
    pub(crate) fn infos(&self) -> Vec<ValidPathInfo> {
        let infos = PathInfos::open(&self.layout).unwrap();
        let paths = infos.all_paths().unwrap();
        let infos = infos.of(&paths).unwrap();
        assert_eq!(infos.len(), paths.len());
        infos
    }

    pub(crate) fn nar(&self, path: &StorePath) -> Vec<u8> {
        let mut nar = Writer::default();
        dump(&self.layout.real_path(path), &mut nar).unwrap();
        nar.bytes
    }

    /// An empty store.
    pub(crate) fn target(&self, name: &str) -> Target<'_> {
        let target = self.no_store(name);
        target.run("nix-store", &["--init"]);
        target
    }

    /// A place for a store.
    pub(crate) fn no_store(&self, name: &str) -> Target<'_> {
        let root = self.nix.path("targets").join(name);
        fs::create_dir_all(&root).unwrap();
        let layout = Layout::of(&format!("local?root={}", root.display()), &env(&self.nix)).unwrap();
        Target { source: self, root, layout }
    }
}

fn env(nix: &NixRoot) -> StoreEnv {
    let store_dir = Some(nix.store_dir());
    StoreEnv {
        store_dir,
        state_dir: Some(nix.path("var/nix").display().to_string()),
        log_dir: None,
        remote: None,
    }
}

impl Target<'_> {
    pub(crate) fn url(&self) -> String {
        format!("local?root={}", self.root.display())
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.source.nix.command(program);
        command.env("NIX_REMOTE", self.url());
        if program == "nix" {
            command.args(["--extra-experimental-features", "nix-command flakes"]);
        }
        command
    }

    pub(crate) fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Nix finds every path that is valid whole.
    #[track_caller]
    pub(crate) fn verify(&self) {
        let output = self.output("nix-store", &["--verify", "--check-contents"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        for bad in ["error", "modified", "disappeared", "but it still has", "not a valid"] {
            assert!(!text.contains(bad), "{text}");
        }
    }

    pub(crate) fn import(&self) -> Import {
        Import::open(&self.layout).unwrap()
    }

    pub(crate) fn infos(&self) -> Vec<ValidPathInfo> {
        let infos = PathInfos::open(&self.layout).unwrap();
        let paths = infos.all_paths().unwrap();
        infos.of(&paths).unwrap()
    }

    /// Takes in paths, in pieces of this size.
    #[track_caller]
    pub(crate) fn take(&self, import: &Import, infos: &[ValidPathInfo], piece: usize) -> Registered {
        let mut received = Vec::new();
        for info in infos {
            let Some(mut receive) = import.receive(info.clone()).unwrap() else { continue };
            for piece in self.source.nar(&info.path).chunks(piece) {
                receive.feed(piece).unwrap();
            }
            received.push(receive.finish().unwrap());
        }
        import.register(received).unwrap()
    }

    /// Everything in the store directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.layout.real_dir).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".links");
        names.sort();
        names
    }
}

/// Everything about the files below a directory but their contents: by path, the mode, the time of the last
/// change, the owner and the size.
pub(crate) fn metadata(top: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, u32, u32, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut all = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let size = if stat.is_dir() { 0 } else { stat.size() };
        let name = path.strip_prefix(top).unwrap().to_owned();
        all.insert(name, (stat.mode(), stat.mtime(), stat.mtime_nsec(), stat.uid(), stat.gid(), size));
    }
    all
}
