//! Images in a directory: taken in by copy, named by digest, never changed, removed when no stream names them.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::{
    error::CloudError,
    file::{self, PRIVATE},
    service::{ImageError, ImageId, ImageSource},
};

/// Open image files kept; roll-outs read a few images again and again.
const OPEN_IMAGES_MAX: usize = 32;
/// Bytes copied at once while an image is taken in.
pub(crate) const COPY_BYTES: usize = 256 * 1024;

/// Images in a directory, named by their digest.
pub(crate) struct ImageDir {
    dir: PathBuf,
    open: Mutex<HashMap<ImageId, Arc<File>>>,
    pins: Arc<Pins>,
}

/// Images that somebody is about to use: they may not be removed, whether a stream names them or not.
#[derive(Default)]
struct Pins {
    held: Mutex<HashMap<ImageId, Held>>,
    /// Pinned no more, and perhaps named by nobody.
    loose: Mutex<BTreeSet<ImageId>>,
    loosened: Notify,
}

#[derive(Default)]
struct Held {
    pins: usize,
    /// Whether it may be that no stream names it: it was just taken in, or was to be removed.
    is_doubtful: bool,
}

impl Pins {
    fn held(&self) -> MutexGuard<'_, HashMap<ImageId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loose(&self) -> MutexGuard<'_, BTreeSet<ImageId>> {
        self.loose.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps an image while it lives, until a stream names it.
pub struct ImagePin {
    image: ImageId,
    pins: Arc<Pins>,
}

impl std::fmt::Debug for ImagePin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ImagePin").field(&self.image).finish()
    }
}

impl ImagePin {
    /// Which.
    #[must_use]
    pub fn image(&self) -> &ImageId {
        &self.image
    }
}

impl Drop for ImagePin {
    fn drop(&mut self) {
        let mut held = self.pins.held();
        let Some(of_it) = held.get_mut(&self.image) else {
            return;
        };
        of_it.pins -= 1;
        if of_it.pins == 0 {
            if of_it.is_doubtful {
                self.pins.loose().insert(self.image.clone());
                self.pins.loosened.notify_one();
            }
            held.remove(&self.image);
        }
    }
}

/// An image on its way in.
pub(crate) struct Incoming {
    images: Arc<ImageDir>,
    temporary: PathBuf,
    target: File,
    digest: Sha256,
    size: u64,
    /// Whether it has its name.
    done: bool,
}

impl Incoming {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.target.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Gives the image its name; it has survived a power cut when this returns.
    pub(crate) fn finish(mut self) -> io::Result<Taken> {
        self.target.sync_all()?;
        let digest = std::mem::take(&mut self.digest).finalize();
        let id = ImageId::from_digest(&digest.into());
        let pin = self.images.pin(&id, true);
        let path = self.images.dir.join(id.as_str());
        fs::rename(&self.temporary, &path)?;
        self.done = true;
        file::sync_parent(&path)?;
        Ok(Taken {
            size: self.size,
            pin,
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.done {
            file::remove_quietly(&self.temporary);
        }
    }
}

/// An image that was taken in.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) size: u64,
    pub(crate) pin: ImagePin,
}

impl ImageDir {
    pub(crate) fn open(dir: &Path) -> Result<Self, CloudError> {
        file::private_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            open: Mutex::default(),
            pins: Arc::default(),
        })
    }

    /// Removes what no stream names: images that were taken in for an update that never came to be, and what a process
    /// that was killed left half written.
    pub(crate) fn keep_only(&self, used: &BTreeSet<ImageId>) -> Result<(), CloudError> {
        let failed = |error: io::Error| CloudError::io("read the directory", &self.dir, &error);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let id = name.to_str().map(|name| ImageId::try_from(name.to_owned()));
            if !matches!(id, Some(Ok(id)) if used.contains(&id)) {
                file::remove_quietly(&self.dir.join(name));
            }
        }
        Ok(())
    }

    /// Removes images that no stream named any more when they were chosen, but for those that somebody uses by now, which is
    /// what `used` says, or is about to: these are loose at the end of their last pin.
    pub(crate) fn remove<'a>(
        &self,
        images: impl IntoIterator<Item = &'a ImageId>,
        used: impl FnOnce() -> BTreeSet<ImageId>,
    ) {
        // Held while files go: nobody takes the same image in meanwhile and believes it is there.
        let mut held = self.pins.held();
        // Asked under that lock: whoever has given up a pin has a stream by now, or will have none. It takes the service's
        // lock; nobody who holds the service's pins or unpins.
        let used = used();
        for image in images {
            if used.contains(image) {
                continue;
            }
            if let Some(of_it) = held.get_mut(image) {
                of_it.is_doubtful = true;
                continue;
            }
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(image);
            file::remove_quietly(&self.dir.join(image.as_str()));
        }
    }

    /// Has images removed that no stream names any more, once the disk knows of none either.
    pub(crate) fn loosen<'a>(&self, images: impl IntoIterator<Item = &'a ImageId>) {
        self.pins.loose().extend(images.into_iter().cloned());
        self.pins.loosened.notify_one();
    }

    /// Waits for images that were loosened, or whose last pin has gone, and that perhaps no stream names.
    pub(crate) async fn loose(&self) -> BTreeSet<ImageId> {
        loop {
            let loose = std::mem::take(&mut *self.pins.loose());
            if !loose.is_empty() {
                return loose;
            }
            self.pins.loosened.notified().await;
        }
    }

    fn pin(&self, image: &ImageId, is_doubtful: bool) -> ImagePin {
        let mut held = self.pins.held();
        let of_it = held.entry(image.clone()).or_default();
        of_it.pins += 1;
        of_it.is_doubtful |= is_doubtful;
        ImagePin {
            image: image.clone(),
            pins: Arc::clone(&self.pins),
        }
    }

    /// Pins an image that was taken in before; `None` = it is not there.
    pub(crate) fn find(&self, image: &ImageId) -> Option<Taken> {
        let pin = self.pin(image, false);
        let metadata = fs::metadata(self.dir.join(image.as_str())).ok()?;
        Some(Taken {
            size: metadata.len(),
            pin,
        })
    }

    /// Begins to take an image in.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Incoming, CloudError> {
        let temporary = file::temporary_beside(&self.dir.join("image"))?;
        let target = file::create_new(&temporary, PRIVATE)
            .map_err(|e| CloudError::io("create", &temporary, &e))?;
        Ok(Incoming {
            images: Arc::clone(self),
            temporary,
            target,
            digest: Sha256::new(),
            size: 0,
            done: false,
        })
    }

    /// Copies a regular file in. `size_max` is checked before and while it is read.
    pub(crate) fn take_file(
        self: &Arc<Self>,
        path: &Path,
        size_max: u64,
    ) -> Result<Taken, CloudError> {
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
            .and_then(|taken| {
                if taken.size > size_max {
                    Err(too_large(taken.size))
                } else {
                    Ok(taken)
                }
            })
    }

    /// Takes bytes in.
    pub(crate) fn take_bytes(self: &Arc<Self>, bytes: &[u8]) -> Result<Taken, CloudError> {
        self.take(&self.dir, bytes)
    }

    fn take(self: &Arc<Self>, source: &Path, mut reader: impl Read) -> Result<Taken, CloudError> {
        let mut incoming = self.begin()?;
        let copied = (|| {
            let mut buffer = vec![0; COPY_BYTES];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => incoming.write(&buffer[..read])?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            incoming.finish()
        })();
        copied.map_err(|error: io::Error| CloudError::io("take in the image", source, &error))
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

    #[test]
    fn an_image_is_copied_by_digest_and_read_back_in_ranges() {
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::new(ImageDir::open(&dir.path().join("images")).unwrap());
        let bytes: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
        let path = dir.path().join("fw.bin");
        fs::write(&path, &bytes).unwrap();
        let taken = images.take_file(&path, 600_000).unwrap();
        let id = taken.pin.image().clone();
        assert_eq!((&id, taken.size), (&ImageId::of(&bytes), 600_000));
        assert_eq!(images.take_bytes(&bytes).unwrap().pin.image(), &id);
        assert_eq!(images.find(&id).unwrap().size, 600_000);
        assert!(images.find(&ImageId::of(b"none")).is_none());
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
        let images = Arc::new(ImageDir::open(&dir.path().join("images")).unwrap());
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
        assert_eq!(images.take_bytes(b"").unwrap().size, 0);
    }

    #[test]
    fn an_image_goes_when_nobody_names_it_and_nobody_is_about_to() {
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::new(ImageDir::open(&dir.path().join("images")).unwrap());
        let path = |id: &ImageId| dir.path().join("images").join(id.as_str());
        let (first, second) = (
            images.take_bytes(b"1").unwrap(),
            images.take_bytes(b"1").unwrap(),
        );
        let id = first.pin.image().clone();
        drop(first);
        images.remove(std::slice::from_ref(&id), BTreeSet::new);
        assert!(path(&id).exists(), "the second is about to use it");
        drop(second);
        images.remove(std::slice::from_ref(&id), BTreeSet::new);
        assert!(!path(&id).exists());
        let mut out = [0];
        assert_eq!(
            images.read_at(&id, 0, &mut out),
            Err(ImageError::Changed(id))
        );
    }

    #[tokio::test]
    async fn an_image_that_was_in_use_when_it_was_to_go_is_loose_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::new(ImageDir::open(dir.path()).unwrap());
        let taken = images.take_bytes(b"1").unwrap();
        let id = taken.pin.image().clone();
        drop(taken);
        assert_eq!(images.loose().await, [id.clone()].into(), "just taken in");
        // A stream names it, and a device reads it, again and again.
        drop(images.find(&id));
        let (reader, other) = (images.find(&id).unwrap(), images.find(&id));
        images.remove([&id], BTreeSet::new);
        assert!(other.is_some());
        drop(other);
        drop(reader);
        assert_eq!(images.loose().await, [id.clone()].into());
        images.remove([&id], BTreeSet::new);
        assert!(images.find(&id).is_none());
    }

    #[test]
    fn a_start_removes_what_no_stream_names_and_what_was_left_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::new(ImageDir::open(&dir.path().join("images")).unwrap());
        let kept = images.take_bytes(b"kept").unwrap().pin.image().clone();
        let gone = images.take_bytes(b"gone").unwrap().pin.image().clone();
        let mut half = images.begin().unwrap();
        half.write(b"half").unwrap();
        std::mem::forget(half);
        images.keep_only(&[kept.clone()].into()).unwrap();
        assert!(images.find(&kept).is_some());
        assert!(images.find(&gone).is_none());
        assert_eq!(fs::read_dir(dir.path().join("images")).unwrap().count(), 1);
    }
}
