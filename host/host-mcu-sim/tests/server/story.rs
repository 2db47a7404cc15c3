//! The turns of one update, each looked at by the list of images alone.

use host_mcu_sim::sample;
use smp_core::client::{ClientError, Order, Source as _, Whole};
use smp_core::code::{image_rc, rc};
use smp_core::reply::{ImageState, Reply};

use crate::bench::{Bench, step};

/// Body of the image that no bootloader starts: a few sectors.
const DAMAGED_BYTES: usize = 20_000;
/// The other slot, as bootloaders' own servers number them.
const RECOVERY_SECONDARY: u32 = 2;
/// Packets of the largest buffer that an interrupted upload may repeat, and what goes with them: probe, sizes, list.
const REPEATED_PACKETS: u64 = 3;

/// Plays it; `image` is one that the bootloader takes.
pub(crate) fn play(bench: &mut Bench, image: Option<&[u8]>) {
    let images = bench.begin_anew();
    let echo = bench.ask(Order::Echo("otad".to_owned()));
    if matches!(echo, Err(ClientError::Refused(refusal)) if refusal.is_unsupported()) {
        step("a bootloader's own server: upload into the other slot");
        return recovery(bench, image);
    }
    assert_eq!(echo, Ok(Reply::Echo("otad".to_owned())));
    let old = settle(bench, images);
    let damaged = damaged();
    let file = image.unwrap_or(&damaged);
    let new = Whole::new(file).hash().expect("an MCUboot image");
    assert_ne!(
        new, old,
        "the image runs already: name another one in OTAD_SMP_IMAGE"
    );
    erase(bench);
    interrupted(bench, file);
    cut(bench, file, &old);
    refusals(bench);
    mark(bench, &new, &old);
    let after = bench.restart();
    let Some(_) = image else {
        step("no image of its own: the bootloader refuses the damaged one");
        assert_eq!(told(&after), [(old, "AC")], "the old image alone");
        return;
    };
    step("on trial");
    assert_eq!(told(&after), [(new.clone(), "A"), (old.clone(), "C")]);
    assert!(matches!(
        bench.ask(Order::Erase(None)),
        Err(ClientError::Refused(_))
    ));
    step("a power cut on trial: back to the old one");
    assert_eq!(
        told(&bench.cut_power()),
        [(old.clone(), "AC"), (new.clone(), "")]
    );
    step("once more, without an upload, and confirmed");
    mark(bench, &new, &old);
    assert_eq!(
        told(&bench.restart()),
        [(new.clone(), "A"), (old.clone(), "C")]
    );
    assert!(bench.ask(Order::Confirm).is_ok());
    assert_eq!(
        told(&bench.cut_power()),
        [(new.clone(), "AC"), (old.clone(), "")]
    );
    step("and back to where it began, as an update of its own");
    mark(bench, &old, &new);
    assert_eq!(
        told(&bench.restart()),
        [(old.clone(), "A"), (new.clone(), "C")]
    );
    assert!(bench.ask(Order::Confirm).is_ok());
    assert_eq!(told(&bench.restart()), [(old, "AC"), (new, "")]);
}

/// Listed and marked like any other, for its hash is where it belongs; but its body has another one. So it is refused also
/// by a bootloader that asks for no signature, which would run what is no program.
fn damaged() -> Vec<u8> {
    let mut file = sample::image("250.0.0", DAMAGED_BYTES);
    if let Some(byte) = file.get_mut(DAMAGED_BYTES / 2) {
        *byte ^= 1;
    }
    file
}

/// Waits for a state without marks and trials; the hash of what runs.
fn settle(bench: &mut Bench, mut images: Vec<ImageState>) -> Vec<u8> {
    for _ in 0..2 {
        let is_settled = |image: &ImageState| !image.pending && (!image.active || image.confirmed);
        if images.iter().all(is_settled) {
            break;
        }
        step("a mark or a trial is left: restart until it is gone");
        images = bench.restart();
    }
    let active: Vec<&ImageState> = images.iter().filter(|image| image.active).collect();
    assert!(
        active.len() == 1 && active[0].confirmed,
        "one image that runs and is confirmed: {images:?}"
    );
    active[0].hash.clone()
}

fn erase(bench: &mut Bench) {
    step("erase the other slot");
    match bench.ask(Order::Erase(None)) {
        // Old servers call it an error if it is empty.
        Ok(_) => {}
        Err(ClientError::Refused(refusal)) if refusal.code == rc::UNKNOWN => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(list(bench).len(), 1);
}

/// The gateway is restarted in the middle; the target is not.
fn interrupted(bench: &mut Bench, file: &[u8]) {
    step("an upload that is interrupted goes on");
    let half = file.len() as u64 / 2;
    assert_eq!(bench.upload(file, |_| {}, half), None);
    bench.begin_anew();
    bench.written = 0;
    bench.upload(file, |_| {}, u64::MAX).unwrap().unwrap();
    // Three quarters of a line are payload, and of a small packet half.
    let buffer = bench.buffer_bytes();
    let most = (file.len() as u64 - half) * 2 + REPEATED_PACKETS * buffer * 3 / 2;
    assert!(
        bench.written <= most,
        "{} bytes were written",
        bench.written
    );
    let listed = list(bench);
    assert!(
        listed
            .iter()
            .any(|(hash, flags)| is(file, hash) && flags.is_empty()),
        "{listed:?}"
    );
}

/// The target is restarted in the middle.
fn cut(bench: &mut Bench, file: &[u8], old: &[u8]) {
    erase(bench);
    step("an upload that a power cut ends begins anew");
    assert_eq!(bench.upload(file, |_| {}, file.len() as u64 / 3), None);
    let after = bench.cut_power();
    assert_eq!(
        told(&after),
        [(old.to_vec(), "AC")],
        "half an image is none"
    );
    bench.upload(file, |_| {}, u64::MAX).unwrap().unwrap();
    assert!(list(bench).iter().any(|(hash, _)| is(file, hash)));
}

fn refusals(bench: &mut Bench) {
    step("an unknown hash is refused");
    let unknown = bench.ask(Order::Test(vec![0x5a; 32]));
    assert!(
        matches!(unknown, Err(ClientError::Refused(refusal)) if refusal.is_image(image_rc::HASH_NOT_FOUND)),
        "{unknown:?}"
    );
}

fn mark(bench: &mut Bench, new: &[u8], old: &[u8]) {
    step("mark for test");
    for _ in 0..2 {
        bench.ask(Order::Test(new.to_vec())).unwrap();
        let expected = [
            (old.to_vec(), "AC".to_owned()),
            (new.to_vec(), "P".to_owned()),
        ];
        assert_eq!(list(bench), expected);
    }
    for order in [Order::Erase(None), Order::Confirm] {
        let refused = bench.ask(order.clone());
        assert!(
            matches!(refused, Err(ClientError::Refused(_))),
            "{order:?}: {refused:?}"
        );
    }
}

/// A bootloader's own server: it takes uploads and restarts, and marks nothing.
fn recovery(bench: &mut Bench, image: Option<&[u8]>) {
    let damaged = damaged();
    let file = image.unwrap_or(&damaged);
    let into_other = |plan: &mut smp_core::client::Plan| {
        plan.image = Some(RECOVERY_SECONDARY);
        plan.repeat_image = true;
    };
    let half = file.len() as u64 / 2;
    assert_eq!(bench.upload(file, into_other, half), None);
    bench.begin_anew();
    bench.upload(file, into_other, u64::MAX).unwrap().unwrap();
    let listed = bench.meet().unwrap();
    let lists_hashes = listed.iter().any(|image| !image.hash.is_empty());
    let is_there = listed.iter().any(|image| is(file, &image.hash));
    assert!(is_there || !lists_hashes, "{listed:?}");
    let state = bench.ask(Order::Test(Whole::new(file).hash().unwrap()));
    step(if state.is_ok() {
        "it marks images, too"
    } else {
        "it marks no images"
    });
}

fn is(file: &[u8], hash: &[u8]) -> bool {
    Whole::new(file).hash().is_some_and(|own| own == hash)
}

fn list(bench: &mut Bench) -> Vec<(Vec<u8>, String)> {
    let images = bench.meet().unwrap();
    told(&images)
        .into_iter()
        .map(|(hash, flags)| (hash, flags.to_owned()))
        .collect()
}

/// Hash and flags of each, by slot.
fn told(images: &[ImageState]) -> Vec<(Vec<u8>, &'static str)> {
    let flags = |image: &ImageState| match (image.active, image.confirmed, image.pending) {
        (true, true, false) => "AC",
        (true, false, false) => "A",
        (false, true, false) => "C",
        (false, false, true) => "P",
        (false, false, false) => "",
        _ => "?",
    };
    images
        .iter()
        .map(|image| (image.hash.clone(), flags(image)))
        .collect()
}
