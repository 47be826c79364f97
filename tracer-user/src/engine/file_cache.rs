//! What was found out about files, kept by the identity of the file, so that processes that share one share the work.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Most files that are remembered; a process maps a few hundred.
const FILE_LIMIT: usize = 4096;

/// A file that has not been written to: device, inode, times of the last writing and of the last change (seconds,
/// nanoseconds), size in bytes. A new file may have the number of a deleted one, and a copy the time of its original.
type FileKey = (u64, u64, (i64, i64), (i64, i64), u64);

/// Facts by file.
#[derive(Debug)]
pub struct FileCache<Facts>(HashMap<FileKey, Arc<Facts>>);

impl<Facts> FileCache<Facts> {
    /// Nothing is known.
    pub fn new() -> Self {
        Self(HashMap::new())
    }

    /// What is known of a file.
    pub fn get(&self, file: &Metadata) -> Option<Arc<Facts>> {
        self.0.get(&key(file)).cloned()
    }

    /// Keeps facts about a file. When the limit is reached everything is forgotten: what is still in use is found again.
    pub fn insert(&mut self, file: &Metadata, facts: Facts) -> Arc<Facts> {
        if self.0.len() >= FILE_LIMIT {
            self.0.clear();
        }
        let facts = Arc::new(facts);
        self.0.insert(key(file), Arc::clone(&facts));
        facts
    }
}

/// Whether nothing about a file has changed between two looks.
pub fn is_the_same(before: &Metadata, after: &Metadata) -> bool {
    key(before) == key(after)
}

fn key(file: &Metadata) -> FileKey {
    let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    (file.dev(), file.ino(), modified, changed, file.size())
}
