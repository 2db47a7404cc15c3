//! What a guest says before it breaks: the last error line that it has logged in the call that it broke in. A trap has
//! addresses only; a guest that panics logs the place first, as those that ship do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_runtime::agent::{
    AgentBuild, AgentInstance, ApplicationEvent, Around, Context, Event, Outside, StartInfo, Turn,
    clean,
};
use host_runtime::engine::GuestFault;
use host_runtime::plugin::lend::Log;
use host_runtime::target::VerifiedRef;
use host_runtime::types::{Blob, Failure, FileId, FileSpec, Level, Qos, Started, Token};

/// Most bytes of them.
const WORDS_MAX_BYTES: usize = 512;

/// See the module. Clones are the same words.
#[derive(Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<String>>>);

impl LastWords {
    fn words(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins.
    pub(crate) fn begin(&self) {
        *self.words() = None;
    }

    fn hear(&self, level: Level, text: &str) {
        if level == Level::Error {
            *self.words() = Some(clean(text, WORDS_MAX_BYTES));
        }
    }

    /// Why the call broke, after what was said in it.
    pub(crate) fn with(&self, why: String) -> String {
        match &*self.words() {
            Some(words) => format!("last words `{words}`; {why}"),
            None => why,
        }
    }
}

/// A plugin's log that is heard.
pub(crate) struct HeardLog<L> {
    pub(crate) log: L,
    pub(crate) words: LastWords,
}

impl<L: Log> Log for HeardLog<L> {
    fn log(&self, level: Level, text: &str) {
        self.words.hear(level, text);
        self.log.log(level, text);
    }
}

/// The same build; what it traps with begins with its last words.
pub(crate) fn heard(build: &Arc<AgentBuild>) -> Arc<AgentBuild> {
    let inner = Arc::clone(build);
    AgentBuild::native(build.label(), build.description().clone(), move |outside| {
        let words = LastWords::default();
        let outside = Box::new(Ear {
            outside,
            words: words.clone(),
        });
        Ok(Box::new(Heard {
            inner: inner.instantiate(outside)?,
            words,
        }))
    })
}

struct Heard {
    inner: Box<dyn AgentInstance>,
    words: LastWords,
}

impl Heard {
    fn call<R>(
        &mut self,
        call: impl FnOnce(&mut dyn AgentInstance) -> Result<R, GuestFault>,
    ) -> Result<R, GuestFault> {
        self.words.begin();
        call(&mut *self.inner).map_err(|fault| match fault {
            GuestFault::Trapped(why) => GuestFault::Trapped(self.words.with(why)),
            other => other,
        })
    }
}

impl Around for Heard {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.inner
    }

    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        self.call(|inner| inner.start(context, info))
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        self.call(|inner| inner.handle(context, event))
    }

    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        self.call(|inner| inner.snapshot(context))
    }
}

/// Hears what is logged, and passes everything on.
struct Ear {
    outside: Box<dyn Outside>,
    words: LastWords,
}

impl Outside for Ear {
    fn subscribe(&mut self, filter: String, qos: Qos) -> Token {
        self.outside.subscribe(filter, qos)
    }
    fn unsubscribe(&mut self, filter: String) -> Token {
        self.outside.unsubscribe(filter)
    }
    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token {
        self.outside.publish(topic, payload, qos)
    }
    fn http_get(&mut self, url: String, offset: u64, length: u32) -> Token {
        self.outside.http_get(url, offset, length)
    }
    fn cancel(&mut self, token: Token) {
        self.outside.cancel(token);
    }
    fn create(&mut self, spec: FileSpec) -> Started {
        self.outside.create(spec)
    }
    fn reopen(&mut self, job_id: String, file: FileId) -> Started {
        self.outside.reopen(job_id, file)
    }
    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started {
        self.outside.write_block(file, offset, data)
    }
    fn close(&mut self, file: FileId) -> Started {
        self.outside.close(file)
    }
    fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        self.outside.verified(file)
    }
    fn install(&mut self, image: &VerifiedRef) -> Started {
        self.outside.install(image)
    }
    fn activate(&mut self, image: &VerifiedRef) -> Started {
        self.outside.activate(image)
    }
    fn reset(&mut self, file: FileId) -> Started {
        self.outside.reset(file)
    }
    fn self_test(&mut self, file: FileId) -> Started {
        self.outside.self_test(file)
    }
    fn commit(&mut self, file: FileId) -> Started {
        self.outside.commit(file)
    }
    fn reject(&mut self, file: FileId) -> Started {
        self.outside.reject(file)
    }
    fn state(&mut self, file: FileId) -> Started {
        self.outside.state(file)
    }
    fn abort(&mut self, file: FileId) -> Started {
        self.outside.abort(file)
    }
    fn journal_store(&mut self, journal: Blob) -> Token {
        self.outside.journal_store(journal)
    }
    fn log(&mut self, level: Level, text: String) {
        self.words.hear(level, &text);
        self.outside.log(level, text);
    }
    fn emit(&mut self, event: ApplicationEvent) {
        self.outside.emit(event);
    }
}
