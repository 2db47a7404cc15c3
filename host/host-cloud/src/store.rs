//! What the cloud keeps on disk: its state as one file, images by digest, and a lock.
//!
//! ```text
//! <dir>/lock             held while a cloud runs here
//! <dir>/state.json       things, jobs and streams; replaced whole
//! <dir>/images/<sha256>  images, never changed once they have their name
//! <dir>/pki/             certificates and keys
//! ```
//!
//! The whole state is written at each change that somebody relies on; changes that come while a write runs share the
//! next one. That is simple and safe and enough for a fleet of some thousand things; it is not a data base.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::{
    error::CloudError,
    file::{self, PRIVATE},
    service::{ImageError, ImageId, ImageSource, State},
};

/// Open image files kept; roll-outs read a few images again and again.
const OPEN_IMAGES_MAX: usize = 32;
/// Bytes copied at once while an image is taken in.
const COPY_BYTES: usize = 256 * 1024;

/// The cloud's directory.
pub(crate) struct Store {
    dir: PathBuf,
    /// Held as long as this lives.
    _lock: File,
}

impl Store {
    /// Takes the directory for this process.
    pub(crate) fn open(dir: &Path) -> Result<Self, CloudError> {
        file::private_dir(dir)?;
        file::private_dir(&dir.join("images"))?;
        let path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| CloudError::io("open", &path, &e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(CloudError::InUse(dir.display().to_string()));
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn state_path(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// The stored state, or an empty one where there was never any.
    pub(crate) fn load(&self) -> Result<State, CloudError> {
        let path = self.state_path();
        let Some(bytes) = file::read_if_there(&path)? else {
            return Ok(State::default());
        };
        serde_json::from_slice(&bytes).map_err(|error| CloudError::Damaged {
            path: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// Stores a state as [`encode`] made it; it has survived a power cut when this returns.
    pub(crate) fn save(&self, state: &[u8]) -> Result<(), CloudError> {
        file::write_atomic(&self.state_path(), state, PRIVATE)
    }

    pub(crate) fn images(&self) -> ImageDir {
        ImageDir {
            dir: self.dir.join("images"),
            open: Mutex::new(HashMap::new()),
        }
    }
}

/// The state as it is stored.
pub(crate) fn encode(state: &State) -> Vec<u8> {
    // Text keys into memory: serde_json has no way to fail here.
    serde_json::to_vec(state).unwrap_or_default()
}

/// Images in a directory, named by their digest.
pub(crate) struct ImageDir {
    dir: PathBuf,
    open: Mutex<HashMap<ImageId, Arc<File>>>,
}

impl ImageDir {
    /// Copies a regular file in; returns its digest and size. `size_max` is checked before and while it is read.
    pub(crate) fn take_file(
        &self,
        path: &Path,
        size_max: u64,
    ) -> Result<(ImageId, u64), CloudError> {
        let failed = |error: &io::Error| CloudError::io("read the image", path, error);
        let metadata = fs::metadata(path).map_err(|e| failed(&e))?;
        if !metadata.is_file() {
            return Err(failed(&io::Error::other("it is not a regular file")));
        }
        let too_large = |size: u64| {
            let reason = format!("it has {size} bytes, at most {size_max} are allowed");
            failed(&io::Error::other(reason))
        };
        if metadata.len() > size_max {
            return Err(too_large(metadata.len()));
        }
        let source = File::open(path).map_err(|e| failed(&e))?;
        self.take(path, source.take(size_max.saturating_add(1)))
            .and_then(|(id, size)| {
                if size > size_max {
                    Err(too_large(size))
                } else {
                    Ok((id, size))
                }
            })
    }

    /// Takes bytes in.
    pub(crate) fn take_bytes(&self, bytes: &[u8]) -> Result<(ImageId, u64), CloudError> {
        self.take(&self.dir, bytes)
    }

    fn take(&self, source: &Path, mut reader: impl Read) -> Result<(ImageId, u64), CloudError> {
        let temporary = file::temporary_beside(&self.dir.join("image"))?;
        let copied = (|| {
            let mut target = file::create_new(&temporary, PRIVATE)?;
            let mut digest = Sha256::new();
            let mut buffer = vec![0; COPY_BYTES];
            let mut size = 0u64;
            loop {
                let read = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                digest.update(&buffer[..read]);
                target.write_all(&buffer[..read])?;
                size += read as u64;
            }
            target.sync_all()?;
            let id = ImageId::from_digest(&digest.finalize().into());
            let path = self.dir.join(id.as_str());
            fs::rename(&temporary, &path)?;
            file::sync_parent(&path)?;
            Ok((id, size))
        })();
        copied.map_err(|error: io::Error| {
            file::remove_quietly(&temporary);
            CloudError::io("take in the image", source, &error)
        })
    }

    fn file(&self, image: &ImageId) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(image) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.dir.join(image.as_str()))?);
        if open.len() >= OPEN_IMAGES_MAX {
            open.clear();
        }
        open.insert(image.clone(), Arc::clone(&file));
        Ok(file)
    }
}

impl ImageSource for ImageDir {
    fn read_at(&self, image: &ImageId, offset: u64, out: &mut [u8]) -> Result<(), ImageError> {
        let read = self
            .file(image)
            .and_then(|file| file.read_exact_at(out, offset));
        read.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => {
                ImageError::Changed(image.clone())
            }
            io::ErrorKind::PermissionDenied => ImageError::Denied(image.clone()),
            _ => ImageError::Failed {
                image: image.clone(),
                reason: error.to_string(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::Limits,
        service::{Service, ThingName},
    };

    #[test]
    fn a_state_is_found_again_and_a_damaged_one_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        let images = Arc::new(store.images());
        let mut service = Service::new(Limits::Aws, images);
        service
            .create_thing(1, ThingName::new("gw").unwrap())
            .unwrap();
        store.save(&encode(service.state())).unwrap();
        assert_eq!(store.load().unwrap(), *service.state());
        fs::write(dir.path().join("state.json"), b"{\"schema\":1").unwrap();
        let error = store.load().unwrap_err();
        assert_eq!(error.code(), "damaged");
        assert!(error.to_string().contains("state.json"), "{error}");
    }

    #[test]
    fn two_clouds_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        let Err(error) = Store::open(dir.path()) else {
            panic!("shared");
        };
        assert_eq!(error.code(), "in_use");
        drop(first);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn an_image_is_copied_by_digest_and_read_back_in_ranges() {
        let dir = tempfile::tempdir().unwrap();
        let images = Store::open(dir.path()).unwrap().images();
        let bytes: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
        let path = dir.path().join("fw.bin");
        fs::write(&path, &bytes).unwrap();
        let (id, size) = images.take_file(&path, 600_000).unwrap();
        assert_eq!((&id, size), (&ImageId::of(&bytes), 600_000));
        assert_eq!(images.take_bytes(&bytes).unwrap().0, id);
        // The original may go.
        fs::remove_file(&path).unwrap();
        let mut out = vec![0; 1000];
        images.read_at(&id, 599_000, &mut out).unwrap();
        assert_eq!(out, bytes[599_000..]);
        let beyond = images.read_at(&id, 599_001, &mut out);
        assert_eq!(beyond, Err(ImageError::Changed(id)));
        let none = ImageId::of(b"none");
        assert_eq!(
            images.read_at(&none, 0, &mut out),
            Err(ImageError::Changed(none.clone()))
        );
        assert_eq!(fs::read_dir(dir.path().join("images")).unwrap().count(), 1);
    }

    #[test]
    fn an_image_that_is_too_large_or_no_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let images = Store::open(dir.path()).unwrap().images();
        let path = dir.path().join("fw.bin");
        fs::write(&path, b"12345").unwrap();
        let error = images.take_file(&path, 4).unwrap_err().to_string();
        assert!(
            error.contains("fw.bin") && error.contains("at most 4"),
            "{error}"
        );
        let error = images.take_file(dir.path(), 4).unwrap_err().to_string();
        assert!(error.contains("regular file"), "{error}");
        let missing = dir.path().join("none.bin");
        let error = images.take_file(&missing, 4).unwrap_err().to_string();
        assert!(error.contains("none.bin"), "{error}");
        // An empty image is an image.
        assert_eq!(images.take_bytes(b"").unwrap().1, 0);
    }
}
