//! A tree with everything that a store may hold and programs stumble over.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use fs_err as fs;

/// Makes it, with directories that go down so far; `at` must not be there.
pub(crate) fn make(at: &Path, depth: usize) {
    fs::create_dir(at).unwrap();
    let file = |name: &[u8], contents: &[u8], mode: u32| {
        let path = at.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    file(b"empty", b"", 0o644);
    file(b"empty program", b"", 0o755);
    for size in [1, 7, 8, 9, 15, 16, 17, 4095, 4096, 4097] {
        file(format!("sizes/{size}").as_bytes(), &vec![b'x'; size], 0o644);
    }
    let large: Vec<u8> = (0..3_000_001_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    file(b"large", &large, 0o600);
    file(b"only the group executes", b"x", 0o654);
    file(b"only the owner executes", b"x", 0o744);
    fs::create_dir(at.join("empty directory")).unwrap();
    file(&[b'n'; 255], b"a long name", 0o644);
    for name in
        ["ünïcödé", "日本", "new\nline", " ", "a", "a.b", "a-b", "A", "ab", "-n", "~", "\\", "\"$(x)`"]
    {
        file(format!("names/{name}").as_bytes(), name.as_bytes(), 0o644);
    }
    // Linux only: others do not take names that are not UTF-8.
    if cfg!(target_os = "linux") {
        file(b"names/\xff\xfe\x80", b"not UTF-8", 0o644);
    }
    file(format!("{}bottom", "d/".repeat(depth)).as_bytes(), b"deep", 0o755);
    symlink("nowhere", at.join("dangling")).unwrap();
    symlink("/etc/passwd", at.join("out")).unwrap();
    symlink("empty directory", at.join("to a directory")).unwrap();
    symlink("t".repeat(4000), at.join("to far away")).unwrap();
    symlink(".", at.join("loop")).unwrap();
}
