//! Between C's types and the host's. Lengths and texts of a library's are bounded here, and texts lose their control
//! characters; where a pointer of a library's leads cannot be bounded.

use std::ffi::{CStr, c_char};

use super::abi;
use crate::plugin::convert::{clean_duty, clean_failure};
use crate::plugin::{Answer, Description, Duty, ExaminedImage, PluginError, WakeOn};
use crate::types::{Failure, TargetState, Version};

#[expect(unsafe_code, reason = "it lies in the library")]
/// # Safety
/// `from` is what `describe` gave.
pub(super) unsafe fn description(
    from: *const abi::Description,
) -> Result<(Description, u32), String> {
    // SAFETY: the caller's, and what the header says of each pointer in it.
    unsafe {
        if from.is_null() || ((*from).struct_size as usize) < size_of::<abi::Description>() {
            return Err("it does not say who it is".to_owned());
        }
        let from = *from;
        let mut kinds = Vec::new();
        for n in 0..=abi::KINDS_MAX {
            if from.kinds.is_null() || (*from.kinds.add(n)).is_null() {
                break;
            }
            kinds.push(text(*from.kinds.add(n)));
        }
        // One more than allowed is enough to be refused.
        let schemas = (from.schema_count as usize).min(abi::KINDS_MAX + 1);
        let schemas = if from.schemas.is_null() {
            Vec::new()
        } else {
            std::slice::from_raw_parts(from.schemas, schemas).to_vec()
        };
        let description = Description {
            name: text(from.name),
            version: text(from.version),
            kinds,
            capabilities: from.capabilities,
            largest_write: from.largest_write,
            schemas,
        };
        Ok((description, from.needs))
    }
}

#[expect(unsafe_code, reason = "it lies in the library")]
/// # Safety
/// NULL, or a text with NUL.
unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(from) }
        .to_string_lossy()
        .into_owned()
}

/// A duty; a number in it that stands for nothing breaks the library.
pub(super) fn duty_in(from: &abi::Duty) -> Result<Duty, PluginError> {
    let unknown =
        |what: &str, value: u32| PluginError::Broken(format!("its {what} is {value}, no such"));
    let version = (from.has_version != 0).then_some(Version {
        major: from.version.major,
        minor: from.version.minor,
        revision: from.version.revision,
        build: from.version.build,
    });
    match from.status {
        abi::WORKING => Ok(Duty::Working {
            done: from.done,
            total: from.total,
            wake: WakeOn {
                on_input: from.wake & abi::WAKE_INPUT != 0,
                on_data: from.wake & abi::WAKE_DATA != 0,
                after_ms: (from.wake & abi::WAKE_AFTER != 0).then_some(from.wake_after_ms),
            },
        }),
        abi::FINISHED => Ok(clean_duty(Duty::Finished(match from.answer {
            abi::NOTHING => Answer::Nothing,
            abi::INFO => {
                let product = array(&from.product);
                Answer::Info(ExaminedImage {
                    version,
                    product: (!product.is_empty()).then_some(product),
                })
            }
            abi::STATE => Answer::State(TargetState {
                code: u8::try_from(from.state).map_err(|_| unknown("state", from.state))?,
                running: version,
                runs_new: match from.runs_new {
                    abi::CANNOT_TELL => None,
                    abi::YES => Some(true),
                    abi::NO => Some(false),
                    other => return Err(unknown("runs_new", other)),
                },
            }),
            abi::HOST_RESETS => Answer::HostResets,
            other => return Err(unknown("answer", other)),
        }))),
        other => Err(unknown("status", other)),
    }
}

pub(super) fn failure_in(from: &abi::Failure) -> Failure {
    // 0 is no code of the table: the slot then says that it is unknown.
    let main = u8::try_from(from.main).unwrap_or(0);
    clean_failure(main, from.sub, &array(&from.detail))
}

/// A text in an array: up to its NUL, or all of it.
fn array(from: &[c_char]) -> String {
    let bytes: Vec<u8> = from
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| c.cast_unsigned())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

pub(super) fn no_failure() -> abi::Failure {
    abi::Failure {
        main: 0,
        sub: 0,
        detail: [0; abi::DETAIL_BYTES],
    }
}

pub(super) fn no_duty() -> abi::Duty {
    abi::Duty {
        struct_size: size_of::<abi::Duty>() as u32,
        status: abi::FINISHED,
        done: 0,
        total: 0,
        wake: 0,
        wake_after_ms: 0,
        answer: abi::NOTHING,
        state: 0,
        runs_new: abi::CANNOT_TELL,
        has_version: 0,
        version: abi::Version::default(),
        product: [0; abi::PRODUCT_BYTES],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::lend::TRANSFER_MAX_BYTES;

    #[test]
    fn the_headers_numbers_are_the_contracts() {
        assert_eq!(abi::TRANSFER_MAX_BYTES, TRANSFER_MAX_BYTES);
        for (n, name) in abi::CAPABILITIES.iter().enumerate() {
            let description = Description {
                name: String::new(),
                version: String::new(),
                kinds: Vec::new(),
                capabilities: 1 << n,
                largest_write: 0,
                schemas: Vec::new(),
            };
            assert_eq!(description.abilities(), [*name]);
        }
        for (code, name) in (0..).zip(abi::STATES) {
            let mut duty = no_duty();
            (duty.answer, duty.state) = (abi::STATE, code);
            let Duty::Finished(Answer::State(state)) = duty_in(&duty).unwrap() else {
                panic!("{name} is no state");
            };
            assert_eq!(u32::from(state.code), code, "{name}");
        }
    }
}
