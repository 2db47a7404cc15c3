//! What a target lists, and what may be done about it: each answer in words that a field engineer can act on.

use host_runtime::agent::clean;
use smp_core::reply::ImageState;

/// Most bytes of a version that are shown: four numbers have 26 at most.
const VERSION_MAX_BYTES: usize = 64;

/// The images of a target, empty slots left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    images: Vec<ImageState>,
}

/// Why an image cannot be marked for test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTestable {
    /// It runs already.
    Runs,
    /// It is marked already.
    Marked,
    /// Another image runs that is not confirmed: marking would confirm that one.
    OnTrial(String),
    /// No such image lies there.
    Missing,
    /// More than one does.
    Ambiguous,
}

impl View {
    /// Of what was listed.
    #[must_use]
    pub fn new(images: Vec<ImageState>) -> Self {
        let is_there = |image: &ImageState| !image.is_empty_slot();
        // A target says what it likes; a terminal must not obey it.
        let shown = |image: ImageState| ImageState {
            version: clean(&image.version, VERSION_MAX_BYTES),
            ..image
        };
        let images = images.into_iter().filter(is_there).map(shown);
        Self {
            images: images.collect(),
        }
    }

    /// All of them.
    #[must_use]
    pub fn images(&self) -> &[ImageState] {
        &self.images
    }

    /// What runs as this image.
    #[must_use]
    pub fn active(&self, image: u32) -> Option<&ImageState> {
        let mut all = self.images.iter();
        all.find(|listed| listed.image == image && listed.active)
    }

    /// The image with this hash, in whichever slot.
    #[must_use]
    pub fn with_hash(&self, hash: &[u8]) -> Option<&ImageState> {
        // The one that does not run first: the same image may lie in both slots.
        let of_hash = |listed: &&ImageState| !hash.is_empty() && listed.hash == hash;
        let mut found: Vec<&ImageState> = self.images.iter().filter(of_hash).collect();
        found.sort_by_key(|listed| listed.active);
        found.first().copied()
    }

    /// The image that is to be put to test: with this beginning of its hash in hex, or the only one that does not run.
    ///
    /// # Errors
    /// Why not.
    pub fn to_test(&self, hash: Option<&str>) -> Result<&ImageState, NotTestable> {
        let wanted: Vec<&ImageState> = self
            .images
            .iter()
            .filter(|image| match hash {
                Some(hash) => hex(&image.hash).starts_with(&hash.to_ascii_lowercase()),
                None => !image.active,
            })
            .collect();
        let image = match wanted.as_slice() {
            [] => return Err(NotTestable::Missing),
            [one] => *one,
            // The same image in both slots: the one that runs counts, for "test" picks that one.
            [one, rest @ ..] if rest.iter().all(|other| other.hash == one.hash) => *one,
            _ => return Err(NotTestable::Ambiguous),
        };
        if let Some(active) = self.active(image.image) {
            if active.hash == image.hash {
                return Err(NotTestable::Runs);
            }
            if !active.confirmed {
                return Err(NotTestable::OnTrial(active.version.clone()));
            }
        }
        if image.pending {
            return Err(NotTestable::Marked);
        }
        Ok(image)
    }

    /// One line an image: `0.1 2.0.0 pending  3f2a…`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |image: &ImageState| {
            let hash = hex(&image.hash);
            let hash = if hash.is_empty() { "(no hash)" } else { &hash };
            let line = format!(
                "{}.{}  {:<16} {:<20} {hash}",
                image.image,
                image.slot,
                image.version,
                flags(image)
            );
            line.trim_end().to_owned()
        };
        self.images.iter().map(line).collect()
    }

    /// As `--json` prints it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let one = |image: &ImageState| {
            serde_json::json!({
                "image": image.image,
                "slot": image.slot,
                "version": image.version,
                "hash": hex(&image.hash),
                "active": image.active,
                "confirmed": image.confirmed,
                "pending": image.pending,
                "permanent": image.permanent,
                "bootable": image.bootable,
            })
        };
        self.images.iter().map(one).collect()
    }
}

/// What an image is, in words.
fn flags(image: &ImageState) -> String {
    let words = [
        (image.active, "active"),
        (image.confirmed, "confirmed"),
        (image.pending, "pending"),
        (image.permanent, "permanent"),
    ];
    let words: Vec<&str> = words
        .iter()
        .filter(|(is_so, _)| *is_so)
        .map(|(_, word)| *word)
        .collect();
    words.join(" ")
}

/// Bytes in hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    host_crypto::hex(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(slot: u32, hash: u8, flags: &str) -> ImageState {
        ImageState {
            slot,
            version: format!("{hash}.0.0"),
            hash: vec![hash; 32],
            active: flags.contains('A'),
            confirmed: flags.contains('C'),
            pending: flags.contains('P'),
            ..ImageState::default()
        }
    }

    #[test]
    fn what_may_be_tested_follows_from_the_list() {
        let rows = [
            (vec![image(0, 1, "AC"), image(1, 2, "")], None, Ok(2)),
            (
                vec![image(0, 1, "AC"), image(1, 2, "")],
                Some("0202"),
                Ok(2),
            ),
            (vec![image(0, 1, "AC")], None, Err(NotTestable::Missing)),
            (
                vec![image(0, 1, "AC"), image(1, 2, "P")],
                None,
                Err(NotTestable::Marked),
            ),
            (
                vec![image(0, 2, "A"), image(1, 1, "C")],
                None,
                Err(NotTestable::OnTrial("2.0.0".to_owned())),
            ),
            (
                vec![image(0, 1, "AC"), image(1, 2, "")],
                Some("01"),
                Err(NotTestable::Runs),
            ),
            (
                vec![image(0, 1, "AC"), image(1, 1, "")],
                None,
                Err(NotTestable::Runs),
            ),
            (
                vec![image(0, 1, "AC"), image(1, 2, "")],
                Some(""),
                Err(NotTestable::Ambiguous),
            ),
        ];
        for (images, hash, expected) in rows {
            let view = View::new(images);
            let found = view.to_test(hash).map(|image| image.hash[0]);
            assert_eq!(found, expected, "{:?} {hash:?}", view.lines());
        }
    }

    #[test]
    fn a_version_cannot_speak_to_the_terminal() {
        let mut hostile = image(0, 1, "A");
        hostile.version = format!("1.0.0\u{1b}[2J{}", "9".repeat(1000));
        let line = View::new(vec![hostile]).lines().remove(0);
        assert!(!line.contains('\u{1b}'), "{line:?}");
        assert!(line.len() < 200, "{line:?}");
    }

    #[test]
    fn the_empty_slot_of_an_old_recovery_is_not_shown() {
        let empty = ImageState {
            slot: 1,
            version: "255.255.655354294967295".to_owned(),
            ..ImageState::default()
        };
        let view = View::new(vec![image(0, 1, "A"), empty]);
        assert_eq!(view.images().len(), 1);
        assert!(view.lines()[0].starts_with("0.0  1.0.0"));
    }
}
