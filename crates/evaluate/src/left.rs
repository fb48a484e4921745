//! What was left by those who were killed.

use std::path::Path;
use std::time::Duration;

use fs_err as fs;

/// How old something is that nobody uses any more.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// Removes the directories whose names begin so and that nobody has changed for a day. What cannot be removed stays.
pub(crate) fn remove_left(directory: &Path, prefix: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(prefix) && age.is_some_and(|age| age > LEFT) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::SystemTime;

    #[test]
    fn what_is_old_goes_and_what_is_new_or_of_others_stays() {
        let directory = tempfile::tempdir().unwrap();
        for (name, days) in [("phoenix-a-old", 2), ("phoenix-a-new", 0), ("phoenix-b-old", 2)] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "").unwrap();
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600 + 60);
            File::open(&path).unwrap().set_modified(then).unwrap();
        }
        remove_left(directory.path(), "phoenix-a-");
        let left = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["phoenix-a-new", "phoenix-b-old"]);
    }
}
