//! What the target says about its images: the one thing that decides.

use pal_sdk::lent::Level;
use pal_sdk::{Failure, code};
use smp_core::client::{ClientError, Order};
use smp_core::reply::{ImageState, Reply};

use crate::port::{Lent, Port, failed};
use crate::sub;

/// After the answer to a reset the old server lives for 250 ms more and would still answer.
pub(crate) const AFTER_RESET_MS: u64 = 600;
/// Time between two looks at a target that restarts.
const LOOK_MS: u64 = 500;
/// A target that still runs as before so long after a reset was not reset.
const IGNORED_MS: u64 = 5_000;
/// Resets that are sent for one restart.
const RESETS_MAX: u32 = 3;

/// The slots of the image that this target is about.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What runs.
    pub(crate) active: ImageState,
    /// What lies in the other slot.
    pub(crate) other: Option<ImageState>,
}

impl View {
    fn of(images: Vec<ImageState>, number: u32) -> Option<Self> {
        let (mut active, mut other) = (None, None);
        for image in images {
            if image.image != number || image.is_empty_slot() {
                continue;
            }
            if image.active {
                active = Some(image);
            } else {
                other = Some(image);
            }
        }
        Some(Self {
            active: active?,
            other,
        })
    }

    pub(crate) fn runs(&self, hash: &[u8]) -> bool {
        self.active.hash == hash
    }

    /// This image lies in the other slot.
    pub(crate) fn holds(&self, hash: &[u8]) -> bool {
        self.other.as_ref().is_some_and(|other| other.hash == hash)
    }

    pub(crate) fn pending(&self) -> bool {
        self.other.as_ref().is_some_and(|other| other.pending)
    }
}

/// Lists the images; a silent target is asked for `patience_ms`.
///
/// # Errors
/// 0xd4 silent; 0xe8 it lists nothing that runs.
pub(crate) async fn look<L: Lent>(port: &Port<L>, patience_ms: u64) -> Result<View, Failure> {
    let until = port.now_ms() + patience_ms;
    loop {
        // A target that was silent may speak another version: recovery, or an older build.
        let order = if port.met.replace(false) {
            Order::Images
        } else {
            Order::Probe
        };
        match port.ask(order).await {
            Ok(Reply::Images(images)) => {
                port.met.set(true);
                let number = port.settings.image.unwrap_or(0);
                return View::of(images, number).ok_or_else(|| {
                    Failure::new(
                        code::BAD_IMAGE_STATE,
                        sub::NOTHING_ACTIVE,
                        "the target lists no running image",
                    )
                });
            }
            Err(ClientError::Silent | ClientError::Malformed) if port.now_ms() < until => {}
            Err(error) => {
                let failure = failed(code::BAD_IMAGE_STATE, sub::NOTHING_ACTIVE, error);
                return Err(port.explain(failure));
            }
            Ok(_) => return Err(Failure::bad_state("the target answers something else")),
        }
    }
}

/// Restarts the target and waits until it answers and `back` is content with what it says.
///
/// # Errors
/// 0xd4: it does not come back; 0xe8: it does not restart.
pub(crate) async fn restart<L: Lent>(
    port: &Port<L>,
    back: impl Fn(&View) -> bool,
) -> Result<View, Failure> {
    let until = port.now_ms() + port.settings.swap_timeout_ms;
    let mut resets = 0;
    loop {
        resets += 1;
        reset_once(port).await;
        let ignored_at = port.now_ms() + IGNORED_MS;
        loop {
            match look(port, 0).await {
                Ok(view) if back(&view) => {
                    port.learn_sizes().await;
                    return Ok(view);
                }
                Ok(_) if port.now_ms() >= ignored_at => break,
                Ok(_) => {}
                Err(failure) if port.now_ms() >= until => return Err(failure),
                Err(_) => {}
            }
            port.sleep(LOOK_MS).await;
        }
        if resets == RESETS_MAX {
            let text = "the target answers and does not restart";
            return Err(Failure::new(code::BAD_IMAGE_STATE, sub::NO_RESTART, text));
        }
    }
}

/// By command; a target that does not answer is reset by its line, if there is one.
async fn reset_once<L: Lent>(port: &Port<L>) {
    let answers = look(port, 0).await.is_ok();
    if answers {
        let order = |force| Order::Reset {
            force,
            boot_mode: None,
        };
        // Refused: something objects. By force then; a second refusal shows in that nothing restarts.
        if port.ask(order(false)).await.is_ok() || port.ask(order(true)).await.is_ok() {
            port.sleep(AFTER_RESET_MS).await;
            return;
        }
    }
    if let Err(failure) = port.lent.pulse(0) {
        // Its own watchdog may still restart it; if not, waiting ends.
        port.say(Level::Warn, &["no reset line: ", &failure.detail]);
    }
    port.sleep(AFTER_RESET_MS).await;
}
