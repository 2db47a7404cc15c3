//! A loaded library: its table of functions behind trait [`Plugin`], and what is lent as the table that it calls.
//!
//! In the child, and in this process where the operator granted that. `convert.rs` bounds every length and text that is
//! read; nothing can bound where a pointer of the library's leads. That is why a library has a process of its own unless
//! the operator says otherwise.

use std::ffi::{CString, c_void};
use std::fs::File;
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;

use libloading::os::unix::{Library as SharedObject, RTLD_LOCAL, RTLD_NOW};

use super::abi;
use super::convert::{description, duty_in, failure_in, length, no_duty, no_failure};
use super::lent::Table;
use crate::plugin::lend::Lent;
use crate::plugin::{Answer, Description, Duty, Extent, Plugin, PluginError, Transfer};
use crate::types::{Blob, Failure, Setting, code};

/// A library that was loaded and looked at. It is never closed: threads and handlers of its own would fall into a hole.
pub(super) struct Library {
    table: abi::Plugin,
    pub(super) description: Description,
    /// Bits, as in `ota_pal.h`.
    pub(super) needs: u32,
}

#[expect(
    unsafe_code,
    reason = "the table holds addresses of functions; they may be called from any thread, one at a time, which trait \
              Plugin's `&mut self` sees to"
)]
// SAFETY: see above; nothing in it is written after `load`.
unsafe impl Send for Library {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Load what `file` holds and ask it who it is.
    ///
    /// # Errors
    /// It is no library, or not a plugin of this ABI, in words.
    #[expect(unsafe_code, reason = "this is what loading a library is")]
    pub(super) fn load(file: File) -> Result<Self, String> {
        // Its number is its name, by which the loader knows it again: nobody may have it after this one.
        let path = format!("/proc/self/fd/{}", file.into_raw_fd());
        // All that it calls must be there now: a function that is not would end the process where it is called first, and
        // in `activate` that would count as the restart of the target.
        let flags = RTLD_NOW | RTLD_LOCAL;
        // SAFETY: its constructors run now. The caller has confined this process or was told not to.
        let library = unsafe { SharedObject::open(Some(&path), flags) }
            .map_err(|e| format!("it cannot be loaded: {}", chain(&e)))?;
        // SAFETY: the symbol has this type in every version of the ABI.
        let entry: abi::Entry = unsafe { library.get::<abi::Entry>(abi::ENTRY.as_bytes()) }
            .map(|symbol| *symbol)
            .map_err(|_| format!("it exports no {}; it is no plugin", abi::ENTRY))?;
        // It stays: see the type.
        let _ = library.into_raw();
        // SAFETY: as the header says.
        let table = unsafe { entry() };
        if table.is_null() {
            return Err("it gives no table; it refuses to be loaded".to_owned());
        }
        // SAFETY: these two members stand first in every version of the ABI.
        let (size, version) = unsafe { ((*table).struct_size, (*table).abi_version) };
        if version != abi::ABI_VERSION {
            return Err(format!(
                "it was built for version {version} of ota_pal.h, this host has {}",
                abi::ABI_VERSION
            ));
        }
        if (size as usize) < size_of::<abi::Plugin>() {
            return Err(format!(
                "its table has {size} bytes, version {version} of ota_pal.h has {}",
                size_of::<abi::Plugin>()
            ));
        }
        // SAFETY: it has at least this size, and lives as long as the library.
        let table = unsafe { *table };
        complete(&table)?;
        let describe = table.describe.ok_or("it has no `describe`")?;
        // SAFETY: as the header says.
        let (description, needs) = unsafe { description(describe()) }?;
        Ok(Self {
            table,
            description,
            needs,
        })
    }
}

/// Whether the functions are there that every plugin must have.
fn complete(table: &abi::Plugin) -> Result<(), String> {
    for (name, there) in [
        ("open", table.open.is_some()),
        ("create", table.create.is_some()),
        ("reopen", table.reopen.is_some()),
        ("activate", table.activate.is_some()),
        ("commit", table.commit.is_some()),
        ("reject", table.reject.is_some()),
        ("state", table.state.is_some()),
        ("abort", table.abort.is_some()),
    ] {
        if !there {
            return Err(format!("its table has no `{name}`"));
        }
    }
    Ok(())
}

/// One instance.
pub(super) struct Instance {
    library: Arc<Library>,
    lent: Box<Table>,
    /// NULL before `open`.
    me: *mut c_void,
}

#[expect(
    unsafe_code,
    reason = "as `Library`: one call at a time, from any thread"
)]
// SAFETY: see the header's rules.
unsafe impl Send for Instance {}

impl Instance {
    pub(super) fn new(library: Arc<Library>, lent: Lent) -> Self {
        Self {
            library,
            lent: Table::new(lent),
            me: std::ptr::null_mut(),
        }
    }

    /// Call something that answers a duty.
    fn duty(
        &mut self,
        call: impl FnOnce(&abi::Plugin, *mut c_void, &mut abi::Duty, &mut abi::Failure) -> Option<i32>,
    ) -> Result<Option<Duty>, PluginError> {
        let mut duty = no_duty();
        let mut failure = no_failure();
        if self.me.is_null() {
            return Err(misuse("it is not open"));
        }
        match call(&self.library.table, self.me, &mut duty, &mut failure) {
            None => Ok(None),
            Some(0) => Ok(Some(duty_in(&duty)?)),
            Some(_) => Err(PluginError::Failed(failure_in(&failure))),
        }
    }

    /// As [`duty`](Self::duty), for what every plugin can do or is said to be unable to.
    fn sure(
        &mut self,
        call: impl FnOnce(&abi::Plugin, *mut c_void, &mut abi::Duty, &mut abi::Failure) -> Option<i32>,
    ) -> Result<Duty, PluginError> {
        self.duty(call)?.ok_or_else(cannot)
    }

    #[expect(unsafe_code, reason = "calls the library")]
    fn plain(
        &mut self,
        which: impl FnOnce(&abi::Plugin) -> Option<abi::Plain>,
    ) -> Result<Option<Duty>, PluginError> {
        // SAFETY: as the header says.
        self.duty(|table, me, duty, failure| Some(unsafe { which(table)?(me, duty, failure) }))
    }

    #[expect(unsafe_code, reason = "calls the library")]
    fn begin(
        &mut self,
        which: impl FnOnce(&abi::Plugin) -> Option<abi::Begin>,
        transfer: &Transfer,
    ) -> Result<Duty, PluginError> {
        let texts = [
            &transfer.device,
            &transfer.job_id,
            &transfer.path,
            &transfer.certificate,
            &transfer.signature_kind,
        ];
        let mut c = Vec::with_capacity(texts.len());
        for text in texts {
            c.push(text_out(text)?);
        }
        let transfer = abi::Transfer {
            struct_size: size_of::<abi::Transfer>() as u32,
            file_id: transfer.file_id,
            size: transfer.size,
            block_size: transfer.block_size,
            file_type: transfer.file_type,
            attributes: transfer.attributes,
            signature_length: length(transfer.signature.len()),
            signature: transfer.signature.as_ptr(),
            device: c[0].as_ptr(),
            job_id: c[1].as_ptr(),
            path: c[2].as_ptr(),
            certificate: c[3].as_ptr(),
            signature_kind: c[4].as_ptr(),
        };
        self.sure(|table, me, duty, failure| {
            // SAFETY: as the header says; `c` lives until after the call.
            Some(unsafe { which(table)?(me, &raw const transfer, duty, failure) })
        })
    }
}

impl Drop for Instance {
    #[expect(unsafe_code, reason = "calls the library")]
    fn drop(&mut self) {
        if let (false, Some(close)) = (self.me.is_null(), self.library.table.close) {
            // SAFETY: it is open, and not called again.
            unsafe { close(self.me) };
        }
    }
}

impl Plugin for Instance {
    #[expect(unsafe_code, reason = "calls the library")]
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        if !self.me.is_null() {
            return Err(misuse("it is open already"));
        }
        let mut texts = Vec::with_capacity(settings.len());
        for setting in settings {
            texts.push((text_out(&setting.key)?, text_out(&setting.value)?));
        }
        let settings: Vec<_> = texts
            .iter()
            .map(|(key, value)| abi::Setting {
                key: key.as_ptr(),
                value: value.as_ptr(),
            })
            .collect();
        let saved = saved.map(|saved| abi::Saved {
            schema: saved.schema,
            length: length(saved.bytes.len()),
            bytes: saved.bytes.as_ptr(),
        });
        let saved: *const abi::Saved = saved.as_ref().map_or(std::ptr::null(), |s| s);
        let Some(open) = self.library.table.open else {
            return Err(cannot());
        };
        let mut failure = no_failure();
        let mut me = std::ptr::null_mut();
        // SAFETY: as the header says; the lent table lives as long as this, and drops after `close`.
        let end = unsafe {
            open(
                self.lent.address(),
                settings.as_ptr(),
                length(settings.len()),
                saved,
                &raw mut me,
                &raw mut failure,
            )
        };
        if end != 0 {
            return Err(PluginError::Failed(failure_in(&failure)));
        }
        if me.is_null() {
            return Err(PluginError::Broken("`open` gave no instance".to_owned()));
        }
        self.me = me;
        Ok(())
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.begin(|table| table.create, transfer)
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.begin(|table| table.reopen, transfer)
    }

    #[expect(unsafe_code, reason = "calls the library")]
    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        self.sure(|table, me, duty, failure| {
            let write = table.write_block?;
            // SAFETY: as the header says.
            Some(unsafe { write(me, offset, data.as_ptr(), length(data.len()), duty, failure) })
        })
    }

    #[expect(unsafe_code, reason = "calls the library")]
    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        let Some(call) = self.library.table.extents else {
            return Err(cannot());
        };
        if self.me.is_null() {
            return Err(misuse("it is not open"));
        }
        let mut extents = [abi::Extent::default(); abi::EXTENTS_MAX];
        let mut count = length(extents.len());
        let mut failure = no_failure();
        // SAFETY: as the header says.
        let end = unsafe {
            call(
                self.me,
                extents.as_mut_ptr(),
                &raw mut count,
                &raw mut failure,
            )
        };
        if end != 0 {
            return Err(PluginError::Failed(failure_in(&failure)));
        }
        let extents = extents.get(..count as usize).ok_or_else(|| {
            PluginError::Broken(format!(
                "it names {count} extents, at most {}",
                abi::EXTENTS_MAX
            ))
        })?;
        let extent = |e: &abi::Extent| Extent {
            region: e.region,
            offset: e.offset,
            length: e.length,
        };
        Ok(extents.iter().map(extent).collect())
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.plain(|table| table.examine)?.ok_or_else(cannot)
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        let end = self.plain(|table| table.install)?;
        Ok(end.unwrap_or(Duty::Finished(Answer::Nothing)))
    }

    #[expect(unsafe_code, reason = "calls the library")]
    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        self.sure(|table, me, duty, failure| {
            // SAFETY: as the header says.
            Some(unsafe { table.activate?(me, sha256.as_ptr(), duty, failure) })
        })
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        let end = self.plain(|table| table.reset)?;
        Ok(end.unwrap_or(Duty::Finished(Answer::HostResets)))
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        self.plain(|table| table.self_test)?.ok_or_else(cannot)
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        self.plain(|table| table.commit)?.ok_or_else(cannot)
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        self.plain(|table| table.reject)?.ok_or_else(cannot)
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        self.plain(|table| table.state)?.ok_or_else(cannot)
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.plain(|table| table.abort)?.ok_or_else(cannot)
    }

    #[expect(unsafe_code, reason = "calls the library")]
    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        let end = self.duty(|table, me, duty, failure| {
            // SAFETY: as the header says.
            Some(unsafe { table.step?(me, budget_bytes, duty, failure) })
        })?;
        end.ok_or_else(|| misuse("no duty is under way"))
    }

    #[expect(unsafe_code, reason = "calls the library")]
    fn suspend(&mut self) -> Result<Blob, PluginError> {
        let Some(suspend) = self.library.table.suspend else {
            return Ok(Blob {
                schema: 1,
                bytes: Vec::new(),
            });
        };
        if self.me.is_null() {
            return Err(misuse("it is not open"));
        }
        let mut bytes = vec![0; abi::SAVED_MAX_BYTES];
        let (mut schema, mut count) = (0, length(bytes.len()));
        let mut failure = no_failure();
        // SAFETY: as the header says.
        let end = unsafe {
            suspend(
                self.me,
                &raw mut schema,
                bytes.as_mut_ptr(),
                &raw mut count,
                &raw mut failure,
            )
        };
        if end != 0 {
            return Err(PluginError::Failed(failure_in(&failure)));
        }
        if count as usize > bytes.len() {
            return Err(PluginError::Broken(format!(
                "it saved {count} bytes, at most {}",
                bytes.len()
            )));
        }
        bytes.truncate(count as usize);
        Ok(Blob { schema, bytes })
    }
}

fn text_out(text: &str) -> Result<CString, PluginError> {
    CString::new(text).map_err(|_| misuse("a text with a NUL cannot be handed to a library"))
}

fn misuse(what: &str) -> PluginError {
    PluginError::Failed(Failure::new(code::BAD_ARGUMENT, 0, what))
}

fn cannot() -> PluginError {
    PluginError::Failed(Failure::new(
        code::UNSUPPORTED,
        0,
        "this plugin has no such function",
    ))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
