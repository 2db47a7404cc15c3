//! Two instances of one library, as a process has them that isolates nothing.

use super::*;

/// A plugin that says what a panic would, when it is asked for its state.
struct Talker;

impl Needs for Talker {
    const BITS: u32 = 0;
}

impl Plugin for Talker {
    type Lent = Lent;

    fn describe() -> Description {
        Description {
            name: "talker".to_owned(),
            version: "1.0.0".to_owned(),
            kinds: Vec::new(),
            capabilities: 0,
            largest_write: 0,
            schemas: Vec::new(),
        }
    }

    fn open(_: Lent, settings: Vec<Setting>, _: Option<Blob>) -> Result<Self, Failure> {
        if settings.is_empty() {
            Ok(Self)
        } else {
            Err(Failure::bad_argument("no settings"))
        }
    }

    fn create(&mut self, _: Transfer) -> Result<Duty, Failure> {
        Duty::done()
    }

    fn reopen(&mut self, _: Transfer) -> Result<Duty, Failure> {
        Duty::done()
    }

    fn activate(&mut self, _: [u8; 32]) -> Result<Duty, Failure> {
        Duty::done()
    }

    fn commit(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }

    fn reject(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }

    fn state(&mut self) -> Result<Duty, Failure> {
        say_last("gone");
        Duty::done()
    }

    fn abort(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }
}

macro_rules! none {
    (($($argument:ty),*) -> $result:ty = $value:expr) => {{
        unsafe extern "C" fn none($(_: $argument),*) -> $result {
            $value
        }
        none
    }};
}

type Host = *mut c_void;
type Why = *mut abi::Failure;

/// Texts that one instance's host was told.
type Told = Vec<String>;

unsafe extern "C" fn log(host: Host, _: u32, text: *const c_char) {
    // SAFETY: `lent` put it there, and it lives as long as the table.
    let told = unsafe { &mut *host.cast::<Told>() };
    // SAFETY: a text with NUL.
    told.push(unsafe { super::text(text) });
}

fn lent(told: &mut Told) -> abi::Lent {
    abi::Lent {
        struct_size: size_of::<abi::Lent>() as u32,
        granted: 0,
        host: core::ptr::from_mut(told).cast(),
        region_count: none!((Host) -> u32 = 0),
        region: none!((Host, u32, *mut abi::Region, Why) -> i32 = -1),
        read_at: none!((Host, u32, u64, *mut u8, u32, Why) -> i32 = -1),
        write_at: none!((Host, u32, u64, *const u8, u32, Why) -> i32 = -1),
        erase: none!((Host, u32, u64, u64, Why) -> i32 = -1),
        sync: none!((Host, u32, Why) -> i32 = -1),
        staged_held: none!((Host) -> u64 = 0),
        staged_verified: none!((Host) -> u32 = 0),
        staged_read: none!((Host, u64, *mut u8, u32, Why) -> i32 = -1),
        line_open: none!((Host, *const abi::Line, Why) -> i32 = -1),
        line_write: none!((Host, *const u8, u32, *mut u32, Why) -> i32 = -1),
        line_read: none!((Host, *mut u8, u32, *mut u32, Why) -> i32 = -1),
        line_unsent: none!((Host, *mut u32, Why) -> i32 = -1),
        line_drain: none!((Host, Why) -> i32 = -1),
        line_set: none!((Host, i32, i32, i32, Why) -> i32 = -1),
        line_close: none!((Host) -> () = ()),
        pulse: none!((Host, u32, Why) -> i32 = -1),
        now_ms: none!((Host) -> u64 = 0),
        log,
    }
}

/// `open` with so many settings.
fn open(lent: &abi::Lent, settings: &[abi::Setting]) -> Option<Host> {
    let mut me = core::ptr::null_mut();
    let mut failure = none_yet();
    // SAFETY: all of them live, and `lent` until `close`.
    let end = unsafe {
        Native::<Talker>::open(
            lent,
            settings.as_ptr(),
            settings.len() as u32,
            core::ptr::null(),
            &raw mut me,
            &raw mut failure,
        )
    };
    (end == 0).then_some(me)
}

fn none_yet() -> abi::Failure {
    abi::Failure {
        main: 0,
        sub: 0,
        detail: [0; abi::DETAIL_BYTES],
    }
}

fn state(me: Host) {
    // SAFETY: zeros are a duty.
    let mut duty: abi::Duty = unsafe { core::mem::zeroed() };
    let mut failure = none_yet();
    // SAFETY: from `open`, and not closed.
    let end = unsafe { Native::<Talker>::state(me, &raw mut duty, &raw mut failure) };
    assert_eq!(end, 0);
}

#[test]
fn the_last_words_of_an_instance_go_to_its_own_host_whatever_became_of_others() {
    let (mut first, mut second, mut refused) = (Told::new(), Told::new(), Told::new());
    let tables = [lent(&mut first), lent(&mut second), lent(&mut refused)];
    let a = open(&tables[0], &[]).unwrap();
    let b = open(&tables[1], &[]).unwrap();
    let setting = abi::Setting {
        key: c"colour".as_ptr(),
        value: c"red".as_ptr(),
    };
    assert!(open(&tables[2], &[setting]).is_none());
    state(a);
    // SAFETY: from `open`, and not used again.
    unsafe { Native::<Talker>::close(b) };
    state(a);
    // SAFETY: as above.
    unsafe { Native::<Talker>::close(a) };
    // Nobody is called: nobody is told.
    say_last("late");
    assert_eq!(first, ["gone", "gone"]);
    assert_eq!((second.len(), refused.len()), (0, 0));
}
