//! A depot in a directory of a file system.

mod buffers;
mod draft;
mod folder;
mod reading;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::spawn_blocking;

use crate::directory::buffers::Buffers;
use crate::directory::draft::{Begun, Draft};
use crate::directory::folder::Folder;
use crate::{Blob, BlobName, Body, Created, Depot, DepotError, Problem};

/// How many bytes of a body are written in one go: while they are, the next are taken from it.
const BATCH: usize = 1 << 20;

/// How many pieces of a body are written in one go, however small they are.
const MOST_PIECES: usize = 1024;

/// Blobs as files below a directory; the segments of their names are folders.
///
/// A directory that is not there is empty, and is made by the first [`create`](Depot::create). What is being
/// written stands in the folder `,unfinished` (no name of a blob has a `,`) until it is whole and on the disk,
/// and is then renamed in one step that never overwrites; the promise of one [`Created::New`] holds between
/// all processes that share the file system. What dead processes left unfinished is removed by the next who
/// creates something. Symbolic links below the directory are not followed: what is behind one is not there.
/// On a file system that does not tell upper from lower case, neither does the depot.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    location: String,
    buffers: Buffers,
}

impl Directory {
    /// The depot in the directory `path`, which is neither looked at nor made yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { location: format!("dir:{}", path.display()), path, buffers: Buffers::default() }
    }

    /// The directory that it is in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, doing: impl Into<String>, problem: Problem) -> DepotError {
        DepotError { location: self.location.clone(), doing: doing.into(), problem }
    }

    /// Runs what waits for the disk where waiting is no harm.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let path = self.path.clone();
        joined(spawn_blocking(move || work(&path))).await
    }

    async fn write(&self, name: &BlobName, mut body: Body) -> Result<Created, Problem> {
        let wanted = name.clone();
        let mut draft = match self.blocking(move |path| Draft::begin(path, wanted)).await? {
            Begun::Draft(draft) => draft,
            Begun::Taken => return Ok(Created::Taken),
        };
        let mut batch = next_batch(&mut body).await?;
        while !batch.is_empty() {
            let written = spawn_blocking(move || draft.write(&batch).map(|()| draft));
            // Even when the body failed the draft is waited for, so that nothing of it is left afterwards.
            let next = next_batch(&mut body).await;
            draft = joined(written).await?;
            batch = next?;
        }
        joined(spawn_blocking(move || draft.finish())).await
    }

    async fn under(&self, prefix: &str) -> Result<Vec<reading::Entry>, Problem> {
        let prefix = prefix.to_owned();
        self.blocking(move |path| reading::under(path, &prefix)).await
    }
}

#[async_trait::async_trait]
impl Depot for Directory {
    fn location(&self) -> &str {
        &self.location
    }

    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.write(name, body).await.map_err(|problem| self.error(format!("creating {name}"), problem))
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        let wanted = name.clone();
        let found = self.blocking(move |path| reading::find(path, wanted)).await;
        found
            .map(|entry| entry.map(reading::Entry::blob))
            .map_err(|problem| self.error(format!("looking for {name}"), problem))
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        let entries = self
            .under(prefix)
            .await
            .map_err(|problem| self.error(format!("looking for the newest of {prefix}"), problem))?;
        Ok(entries.into_iter().max_by(reading::Entry::by_age).map(reading::Entry::blob))
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (name, buffers) = (blob.name.clone(), self.buffers.clone());
        let bytes = match crate::depot::within(&range, blob.size) {
            Ok(length) => self.blocking(move |path| read(path, &name, range.start, length, &buffers)).await,
            Err(problem) => Err(problem),
        };
        bytes.map_err(|problem| self.error(format!("reading {}", blob.name), problem))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        let mut entries =
            self.under(prefix).await.map_err(|problem| self.error(format!("listing {prefix}"), problem))?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries.into_iter().map(reading::Entry::blob).collect())
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        let unwanted = name.clone();
        let removed = self.blocking(move |path| folder::remove(path, &unwanted)).await;
        removed.map_err(|problem| self.error(format!("removing {name}"), problem))
    }
}

/// What a task came to; one that died did not answer.
async fn joined<T>(task: tokio::task::JoinHandle<Result<T, Problem>>) -> Result<T, Problem> {
    task.await.unwrap_or_else(|error| Err(Problem::Unreachable(error.to_string())))
}

/// The next pieces of a body, about [`BATCH`] bytes of it; none when it has ended.
async fn next_batch(body: &mut Body) -> Result<Vec<Bytes>, Problem> {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < BATCH && batch.len() < MOST_PIECES {
        let Some(piece) = body.next().await else { break };
        let piece = piece.map_err(Problem::Body)?;
        if !piece.is_empty() {
            size += piece.len();
            batch.push(piece);
        }
    }
    Ok(batch)
}

fn read(
    root: &Path,
    name: &BlobName,
    start: u64,
    length: usize,
    buffers: &Buffers,
) -> Result<Bytes, Problem> {
    let path = || root.join(name.as_str());
    let file = match Folder::holding(root, name).map_err(|error| problem(&error, &path()))? {
        Some(folder) => folder.open(name.leaf()).map_err(|error| problem(&error, &path()))?,
        None => None,
    };
    let file: File = file.ok_or(Problem::Gone)?;
    let size = file.metadata().map_err(|error| problem(&error, &path()))?.len();
    crate::depot::within(&(start..start.saturating_add(length as u64)), size)?;
    let mut buffer = buffers.take(length);
    file.read_exact_at(&mut buffer.bytes, start).map_err(|error| problem(&error, &path()))?;
    Ok(buffer.freeze())
}

/// What an error of the file system means to whoever uses the depot.
fn problem(error: &io::Error, path: &Path) -> Problem {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Problem::Full(format!("{path}: {error}; free some space there, or use another depot"))
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Problem::Denied(format!("{path}: {error}; give this user the right to, or use another depot"))
        }
        ErrorKind::UnexpectedEof => Problem::Short(format!("{path} was cut off while it was read")),
        ErrorKind::NotADirectory => Problem::Unreachable(format!(
            "{path}: {error}; something else is where a folder has to be: move it away, or use another depot"
        )),
        _ => Problem::Unreachable(format!("{path}: {error}")),
    }
}
