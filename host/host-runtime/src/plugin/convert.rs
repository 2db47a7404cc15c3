//! Between the generated types of `wit/pal` and the host's own. Texts from a plugin are cut and lose their control
//! characters here; numbers are judged by whoever uses them.

use super::component::{
    wit_block_device, wit_describe, wit_image, wit_log, wit_serial_line, wit_types,
};
use super::lend::{LineParameters, Region};
use super::{Answer, Description, Duty, ExaminedImage, Extent, Transfer, WakeOn};
use crate::agent::text::clean;
use crate::types::{Blob, DETAIL_MAX_BYTES, Failure, Level, Setting, TargetState, Version};

/// Most bytes of a short text of a plugin's: name, version, kind, product.
const TEXT_MAX_BYTES: usize = 128;

pub(super) fn description(from: wit_describe::Description) -> Description {
    clean_description(Description {
        name: from.name,
        version: from.version,
        kinds: from.kinds,
        capabilities: from.capabilities,
        largest_write: from.largest_write,
        schemas: from.schemas,
    })
}

/// What a carrier brought, with its texts cut and without control characters.
pub(super) fn clean_description(from: Description) -> Description {
    let short = |text: &String| clean(text, TEXT_MAX_BYTES);
    Description {
        name: short(&from.name),
        version: short(&from.version),
        kinds: from.kinds.iter().map(short).collect(),
        ..from
    }
}

pub(super) fn failure(from: wit_types::Failure) -> Failure {
    clean_failure(from.main, from.sub, &from.detail)
}

/// As [`clean_description`].
pub(super) fn clean_failure(main: u8, sub: u32, detail: &str) -> Failure {
    Failure::new(main, sub, clean(detail, DETAIL_MAX_BYTES))
}

/// As [`clean_description`].
pub(super) fn clean_duty(from: Duty) -> Duty {
    match from {
        Duty::Finished(Answer::Info(info)) => Duty::Finished(Answer::Info(ExaminedImage {
            product: info.product.map(|p| clean(&p, TEXT_MAX_BYTES)),
            ..info
        })),
        duty => duty,
    }
}

pub(super) fn failure_out(from: Failure) -> wit_types::Failure {
    wit_types::Failure {
        main: from.main,
        sub: from.sub,
        detail: from.detail,
    }
}

pub(super) fn duty(from: wit_types::Duty) -> Duty {
    clean_duty(match from {
        wit_types::Duty::Finished(from) => Duty::Finished(answer(from)),
        wit_types::Duty::Working(from) => Duty::Working {
            done: from.done,
            total: from.total,
            wake: WakeOn {
                on_input: from.wake.on_input,
                on_data: from.wake.on_data,
                after_ms: from.wake.after_ms,
            },
        },
    })
}

fn answer(from: wit_types::Answer) -> Answer {
    match from {
        wit_types::Answer::Nothing => Answer::Nothing,
        wit_types::Answer::Info(info) => Answer::Info(ExaminedImage {
            version: info.version.map(version),
            product: info.product,
        }),
        wit_types::Answer::State(state) => Answer::State(TargetState {
            code: state.code,
            running: state.running.map(version),
            runs_new: state.runs_new,
        }),
        wit_types::Answer::HostResets => Answer::HostResets,
        wit_types::Answer::Other(bytes) => Answer::Other(bytes),
    }
}

fn version(from: wit_types::Version) -> Version {
    Version {
        major: from.major,
        minor: from.minor,
        revision: from.revision,
        build: from.build,
    }
}

pub(super) fn extent(from: wit_image::Extent) -> Extent {
    Extent {
        region: from.region,
        offset: from.offset,
        length: from.length,
    }
}

pub(super) fn blob(from: wit_types::Blob) -> Blob {
    Blob {
        schema: from.schema,
        bytes: from.bytes,
    }
}

pub(super) fn blob_in(from: &Blob) -> wit_types::Blob {
    wit_types::Blob {
        schema: from.schema,
        bytes: from.bytes.clone(),
    }
}

pub(super) fn setting(from: &Setting) -> wit_types::Setting {
    wit_types::Setting {
        key: from.key.clone(),
        value: from.value.clone(),
    }
}

pub(super) fn transfer(from: &Transfer) -> wit_image::Transfer {
    wit_image::Transfer {
        device: from.device.clone(),
        job_id: from.job_id.clone(),
        file_id: from.file_id,
        size: from.size,
        block_size: from.block_size,
        file_type: from.file_type,
        attributes: from.attributes,
        path: from.path.clone(),
        certificate: from.certificate.clone(),
        signature_kind: from.signature_kind.clone(),
        signature: from.signature.clone(),
    }
}

pub(super) fn region(from: Region) -> wit_block_device::Region {
    wit_block_device::Region {
        name: from.name,
        kind: from.kind,
        size: from.size,
        erase_size: from.erase_size,
        write_size: from.write_size,
        read_only: from.read_only,
    }
}

pub(super) fn parameters(from: wit_serial_line::Parameters) -> LineParameters {
    LineParameters {
        baud: from.baud,
        parity: from.parity,
        stop_bits: from.stop_bits,
        flow_control: from.flow_control,
    }
}

pub(super) fn level(from: wit_log::Level) -> Level {
    match from {
        wit_log::Level::Trace => Level::Trace,
        wit_log::Level::Debug => Level::Debug,
        wit_log::Level::Info => Level::Info,
        wit_log::Level::Warn => Level::Warn,
        wit_log::Level::Error => Level::Error,
    }
}
