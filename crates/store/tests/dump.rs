//! Reading a tree, against `nix-store --dump`.

#![expect(clippy::unwrap_used, reason = "a test")]

mod nasty;

use std::path::Path;

use fs_err as fs;
use phoenix_pack::nar::{Sink, Writer};
use phoenix_store::{DumpError, dump};
use phoenix_testkit::NixRoot;

fn root() -> NixRoot {
    NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

#[track_caller]
fn same_as_nix(nix: &NixRoot, path: &Path) {
    let mut nar = Writer::default();
    dump(path, &mut nar).unwrap();
    let output = nix.output("nix-store", &["--dump", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        nar.bytes == output.stdout,
        "{}: {} and {}",
        path.display(),
        nar.bytes.len(),
        output.stdout.len()
    );
}

#[test]
fn a_tree_is_told_as_nix_tells_it() {
    let nix = root();
    let tree = nix.path("tree");
    // Nix 2.34 goes down 64 directories, and no further.
    nasty::make(&tree, 60);
    same_as_nix(&nix, &tree);
    for part in ["empty", "empty program", "large", "dangling", "empty directory", "loop"] {
        same_as_nix(&nix, &tree.join(part));
    }
}

#[test]
fn what_cannot_be_told_is_named() {
    let nix = root();
    let mut nar = Writer::default();
    let missing = nix.path("tree/missing");
    let error = dump(&missing, &mut nar).unwrap_err();
    assert!(matches!(&error, DumpError::Read { path, .. } if *path == missing), "{error}");

    fs::create_dir_all(nix.path("tree/sub")).unwrap();
    let socket = nix.path("tree/sub/s");
    let status = std::process::Command::new("mkfifo").arg(&socket).status().unwrap();
    assert!(status.success());
    let error = dump(&nix.path("tree"), &mut nar).unwrap_err();
    assert!(matches!(&error, DumpError::Kind { path } if *path == socket), "{error}");
    assert!(
        error.to_string().ends_with("tree/sub/s is no file, directory or symlink, and cannot be in a store")
    );
}

/// Makes a file shorter when it is told.
struct Shortens<'p>(&'p Path);

impl Sink for Shortens<'_> {
    type Error = std::convert::Infallible;

    fn directory(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
    fn entry(&mut self, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }
    fn leave(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
    fn file(&mut self, _: bool, _: u64) -> Result<(), Self::Error> {
        fs::write(self.0, "x").unwrap();
        Ok(())
    }
    fn data(&mut self, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }
    fn file_end(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
    fn symlink(&mut self, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let nix = root();
    let file = nix.path("file");
    fs::write(&file, "more than one").unwrap();
    let error = dump(&file, &mut Shortens(&file)).unwrap_err();
    assert!(matches!(&error, DumpError::Changed { path } if *path == file), "{error}");
}
