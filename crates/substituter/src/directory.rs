//! A binary cache in a directory (`file://`).

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::LARGEST_NARINFO;
use crate::http::File;

/// How many files are read at once: enough where the directory is on a network.
pub(crate) const READS_AT_ONCE: usize = 16;

/// Gets a file of a directory.
pub(crate) async fn get(directory: &Path, name: &str) -> File {
    let path = directory.join(name);
    let name = name.to_owned();
    let read = tokio::task::spawn_blocking(move || read(path)).await;
    match read {
        Ok(Ok(bytes)) if bytes.len() > LARGEST_NARINFO => {
            File::Strange(format!("its {name} is larger than 1 MiB"))
        }
        Ok(Ok(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => File::Text(text),
            Err(_) => File::Strange(format!("its {name} is no text")),
        },
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => File::Absent,
        Ok(Err(error)) => File::Strange(format!("its {name} cannot be read: {error}")),
        Err(error) => File::Strange(format!("its {name} cannot be read: {error}")),
    }
}

fn read(path: PathBuf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(LARGEST_NARINFO).unwrap_or(u64::MAX) + 1;
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether there is such a directory.
pub(crate) async fn check(directory: &Path) -> Result<(), String> {
    let directory = directory.to_owned();
    let metadata = tokio::task::spawn_blocking(move || std::fs::metadata(directory)).await;
    match metadata.map_err(io::Error::other).and_then(|metadata| metadata) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err("it is no directory".to_owned()),
        Err(error) => Err(format!("its directory cannot be read: {error}")),
    }
}
