//! What the target says about its images: the one thing that decides. And restarting it, which is the one thing that must
//! not happen once too often: it takes back an image that is in test.

use pal_sdk::lent::Level;
use pal_sdk::{Failure, code};
use smp_core::client::{ClientError, Order};
use smp_core::code::rc;
use smp_core::reply::{ImageState, Reply};

use crate::port::{Lent, Port, failed};
use crate::sub;

/// After the answer to a reset the old server lives for 250 ms more and would still answer.
const AFTER_RESET_MS: u64 = 600;
/// What has not restarted so long after a server took a reset never will: four times what Zephyr's servers wait.
const RESET_DELAY_MAX_MS: u64 = 1_000;
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

    /// What runs is confirmed, and the next start changes nothing.
    pub(crate) fn settled(&self) -> bool {
        self.active.confirmed && !self.pending()
    }
}

/// Lists the images; a target that is silent, or too busy, is asked for `patience_ms`.
///
/// # Errors
/// 0xd4 silent; 0xe8 it lists nothing that runs, or is too busy.
pub(crate) async fn look<L: Lent>(port: &Port<L>, patience_ms: u64) -> Result<View, Failure> {
    let until = port.now_ms() + patience_ms;
    port.asked();
    loop {
        // A target that was silent may speak another version: recovery, or an older build.
        let order = if port.met.replace(false) {
            Order::Images
        } else {
            Order::Probe
        };
        match port.ask(order).await {
            Ok(Reply::Images(images)) => {
                port.heard();
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
            // Whoever takes that for silence resets an image in its test.
            Err(error) if is_busy(error) && port.now_ms() < until => port.sleep(LOOK_MS).await,
            Err(error) => {
                let number = if is_busy(error) {
                    sub::BUSY
                } else {
                    sub::NOTHING_ACTIVE
                };
                let failure = failed(code::BAD_IMAGE_STATE, number, error);
                return Err(port.explain(failure));
            }
            Ok(_) => return Err(Failure::bad_state("the target answers something else")),
        }
    }
}

/// No room for an answer just now.
fn is_busy(error: ClientError) -> bool {
    match error {
        ClientError::Refused(refusal) => {
            matches!(refusal.as_generic(), rc::BUSY | rc::NO_MEMORY)
        }
        _ => false,
    }
}

/// Asks something of a target that may be restarting: one that is silent, or too busy, gets the time to come back, and is
/// asked once more.
///
/// # Errors
/// The client's, of the second time.
pub(crate) async fn insist<L: Lent>(port: &Port<L>, order: Order) -> Result<Reply, ClientError> {
    let first = port.ask(order.clone()).await;
    let passes = match first {
        Err(ClientError::Silent | ClientError::Malformed) => true,
        Err(error) => is_busy(error),
        Ok(_) => false,
    };
    if passes && look(port, port.settings.silence_ms).await.is_ok() {
        return port.ask(order).await;
    }
    first
}

/// What becomes of a target that answers, and does not say what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// It is left as it is: what runs may be an image in test that a restart would take back.
    Stays,
    /// It is restarted: whatever is in test is to go back.
    Restarts,
}

/// Restarts the target, unless it is `done` already, and waits until it answers and `back` is content with what it says.
///
/// # Errors
/// 0xd4: it does not come back; 0xe8: it does not restart, or does not say what it runs.
pub(crate) async fn restart<L: Lent>(
    port: &Port<L>,
    unclear: Unclear,
    done: impl Fn(&View) -> bool,
    back: impl Fn(&View) -> bool,
) -> Result<View, Failure> {
    let mut follows = true;
    for _ in 0..RESETS_MAX {
        let before = look_before_reset(port, &done).await;
        match &before {
            Ok(view) if done(view) => return before,
            // A second refusal shows in that nothing restarts.
            Ok(_) => {
                order_reset(port).await;
            }
            Err(failure) if failure.main == code::UNREACHABLE => pulse(port),
            Err(_) if unclear == Unclear::Stays => return before,
            Err(_) => {
                // After a reset by its line there is none to be tried in place of that.
                follows = follows && order_reset(port).await;
                if !follows {
                    pulse(port);
                }
            }
        }
        let armed = before.is_ok_and(|view| view.pending());
        port.sleep(AFTER_RESET_MS).await;
        let ignored_at = port.now_ms() + IGNORED_MS;
        let until = port.now_ms() + port.settings.swap_timeout_ms;
        loop {
            match look(port, 0).await {
                // What is still marked has not started.
                Ok(view) if back(&view) && !(armed && view.pending()) => {
                    port.learn_sizes().await;
                    return Ok(view);
                }
                Ok(_) if port.now_ms() >= ignored_at => break,
                Ok(_) => {}
                // It has taken the order, and is there all the time.
                Err(failure)
                    if follows
                        && unclear == Unclear::Restarts
                        && failure.main != code::UNREACHABLE
                        && port.now_ms() >= until =>
                {
                    follows = false;
                    break;
                }
                Err(failure) if port.now_ms() >= until => return Err(failure),
                Err(_) => {}
            }
            port.sleep(LOOK_MS).await;
        }
    }
    let text = "the target answers and does not restart";
    Err(Failure::new(code::BAD_IMAGE_STATE, sub::NO_RESTART, text))
}

/// A look on which a reset may follow, because no other one is under way. A second reset would meet the new image in its
/// test, and take it back.
///
/// The other one may be an earlier instance's, whose host was killed as soon as it had sent it. A server handles requests
/// in order: what it answers now comes after every reset that has ever reached it, and a while later that one has
/// happened. A target that is silent may be swapping: its reset input would be a power cut, so it gets its time.
async fn look_before_reset<L: Lent>(
    port: &Port<L>,
    done: impl Fn(&View) -> bool,
) -> Result<View, Failure> {
    loop {
        let asked_ms = port.now_ms();
        let until = port.asked() + port.settings.swap_timeout_ms;
        let view = look(port, until.saturating_sub(asked_ms)).await?;
        let safe_ms = port.heard() + RESET_DELAY_MAX_MS;
        if done(&view) || asked_ms >= safe_ms {
            return Ok(view);
        }
        port.sleep(safe_ms.saturating_sub(port.now_ms())).await;
    }
}

/// Whether the target has not refused it.
async fn order_reset<L: Lent>(port: &Port<L>) -> bool {
    port.resets();
    for force in [false, true] {
        let order = Order::Reset {
            force,
            boot_mode: None,
        };
        // Refused: something objects. By force then.
        if port.ask(order).await.is_ok() {
            return true;
        }
    }
    false
}

/// The only way to restart a target that does not answer, or does not take orders.
fn pulse<L: Lent>(port: &Port<L>) {
    port.resets();
    if let Err(failure) = port.lent.pulse(0) {
        // Its own watchdog may still restart it; if not, waiting ends.
        port.say(Level::Warn, &["no reset line: ", &failure.detail]);
    }
}
