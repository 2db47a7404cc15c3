//! Between the generated types and their twins, field by field.

use super::{block_device, describe, image, log, serial_line, types};
use crate::lent::{Level, LineParameters, Region};
use crate::{
    Answer, Blob, Description, Duty, Extent, Failure, ImageInfo, Setting, TargetState, Transfer,
    Version,
};

impl From<types::Failure> for Failure {
    fn from(failure: types::Failure) -> Self {
        let types::Failure { main, sub, detail } = failure;
        Self { main, sub, detail }
    }
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        let Failure { main, sub, detail } = failure;
        Self { main, sub, detail }
    }
}

impl From<types::Setting> for Setting {
    fn from(setting: types::Setting) -> Self {
        let types::Setting { key, value } = setting;
        Self { key, value }
    }
}

impl From<types::Blob> for Blob {
    fn from(blob: types::Blob) -> Self {
        let types::Blob { schema, bytes } = blob;
        Self { schema, bytes }
    }
}

impl From<Blob> for types::Blob {
    fn from(blob: Blob) -> Self {
        let Blob { schema, bytes } = blob;
        Self { schema, bytes }
    }
}

impl From<Description> for describe::Description {
    fn from(description: Description) -> Self {
        let Description {
            name,
            version,
            kinds,
            capabilities,
            largest_write,
            schemas,
        } = description;
        Self {
            name,
            version,
            kinds,
            capabilities,
            largest_write,
            schemas,
        }
    }
}

impl From<image::Transfer> for Transfer {
    fn from(transfer: image::Transfer) -> Self {
        let image::Transfer {
            device,
            job_id,
            file_id,
            size,
            block_size,
            file_type,
            attributes,
            path,
            certificate,
            signature_kind,
            signature,
        } = transfer;
        Self {
            device,
            job_id,
            file_id,
            size,
            block_size,
            file_type,
            attributes,
            path,
            certificate,
            signature_kind,
            signature,
        }
    }
}

impl From<Extent> for image::Extent {
    fn from(extent: Extent) -> Self {
        let Extent {
            region,
            offset,
            length,
        } = extent;
        Self {
            region,
            offset,
            length,
        }
    }
}

impl From<block_device::Region> for Region {
    fn from(region: block_device::Region) -> Self {
        let block_device::Region {
            name,
            kind,
            size,
            erase_size,
            write_size,
            read_only,
        } = region;
        Self {
            name,
            kind,
            size,
            erase_size,
            write_size,
            read_only,
        }
    }
}

impl From<LineParameters> for serial_line::Parameters {
    fn from(parameters: LineParameters) -> Self {
        let LineParameters {
            baud,
            parity,
            stop_bits,
            flow_control,
        } = parameters;
        Self {
            baud,
            parity,
            stop_bits,
            flow_control,
        }
    }
}

impl From<Level> for log::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

impl From<Version> for types::Version {
    fn from(version: Version) -> Self {
        let Version {
            major,
            minor,
            revision,
            build,
        } = version;
        Self {
            major,
            minor,
            revision,
            build,
        }
    }
}

impl From<ImageInfo> for types::ImageInfo {
    fn from(info: ImageInfo) -> Self {
        Self {
            version: info.version.map(Into::into),
            product: info.product,
        }
    }
}

impl From<TargetState> for types::TargetState {
    fn from(state: TargetState) -> Self {
        Self {
            code: state.code,
            running: state.running.map(Into::into),
            runs_new: state.runs_new,
        }
    }
}

impl From<Answer> for types::Answer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Nothing => Self::Nothing,
            Answer::Info(info) => Self::Info(info.into()),
            Answer::State(state) => Self::State(state.into()),
            Answer::HostResets => Self::HostResets,
            Answer::Other(bytes) => Self::Other(bytes),
        }
    }
}

impl From<Duty> for types::Duty {
    fn from(duty: Duty) -> Self {
        match duty {
            Duty::Finished(answer) => Self::Finished(answer.into()),
            Duty::Working(working) => Self::Working(types::Working {
                done: working.done,
                total: working.total,
                wake: types::Wake {
                    on_input: working.wake.on_input,
                    on_data: working.wake.on_data,
                    after_ms: working.wake.after_ms,
                },
            }),
        }
    }
}
