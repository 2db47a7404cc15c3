//! One function a parser. Each is given any bytes, asserts what must hold for them, and says whether they were taken: read
//! as what they are meant to be. None needs a valid input.

pub mod agent;
pub mod cloud;
#[cfg(feature = "host")]
pub mod host;

/// One parser.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As cargo-fuzz knows it.
    pub name: &'static str,
    /// What is run; whether the input was taken.
    pub run: fn(&[u8]) -> bool,
    /// What mutations are made of.
    pub corpus: fn() -> Corpus,
}

/// Inputs, each of which is tried as it is: one that is refused at the first check tries nothing behind that, and neither do
/// its mutations.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Those that are taken.
    pub good: Vec<Vec<u8>>,
    /// Those that are refused, late or for what others are not.
    pub bad: Vec<Vec<u8>>,
}

impl Corpus {
    /// All of them are taken.
    #[must_use]
    pub fn good(good: Vec<Vec<u8>>) -> Self {
        let bad = Vec::new();
        Self { good, bad }
    }
}

/// Those that need no wasmtime.
pub const LIGHT: &[Target] = &[
    Target {
        name: "job_document",
        run: agent::job_document,
        corpus: agent::job_documents,
    },
    Target {
        name: "job_message",
        run: agent::job_message,
        corpus: agent::job_messages,
    },
    Target {
        name: "job_outcome",
        run: agent::job_outcome,
        corpus: agent::job_outcomes,
    },
    Target {
        name: "status_reply",
        run: agent::status_reply,
        corpus: agent::status_replies,
    },
    Target {
        name: "stream_message",
        run: agent::stream_message,
        corpus: agent::stream_messages,
    },
    Target {
        name: "topic",
        run: agent::topic,
        corpus: agent::topics,
    },
    Target {
        name: "saved_state",
        run: agent::saved_state,
        corpus: agent::saved_states,
    },
    Target {
        name: "cloud_request",
        run: cloud::request,
        corpus: cloud::requests,
    },
    Target {
        name: "operator_line",
        run: cloud::operator_line,
        corpus: cloud::operator_lines,
    },
    Target {
        name: "cloud_state",
        run: cloud::state,
        corpus: cloud::states,
    },
];

/// Those of the daemon and its loader.
#[cfg(feature = "host")]
pub const HOST: &[Target] = &[
    Target {
        name: "control_line",
        run: host::control_line,
        corpus: host::control_lines,
    },
    Target {
        name: "agent_trace",
        run: host::agent_trace,
        corpus: host::agent_traces,
    },
    Target {
        name: "configuration",
        run: host::configuration,
        corpus: host::configurations,
    },
    Target {
        name: "image_trailer",
        run: host::image_trailer,
        corpus: host::image_trailers,
    },
    Target {
        name: "code_bundle",
        run: host::code_bundle,
        corpus: host::code_bundles,
    },
    Target {
        name: "launch_record",
        run: host::launch_record,
        corpus: host::launch_records,
    },
    Target {
        name: "verified_list",
        run: host::verified_list,
        corpus: host::verified_lists,
    },
    Target {
        name: "device_state",
        run: host::device_state,
        corpus: host::device_states,
    },
    Target {
        name: "plugin_frame",
        run: host::plugin_frame,
        corpus: host::plugin_frames,
    },
];

/// The loader of components: every input costs a validation, a good one a compilation.
#[cfg(feature = "host")]
pub const COMPONENT: Target = Target {
    name: "component",
    run: host::component,
    corpus: host::components,
};

/// All that this build has.
pub fn all() -> impl Iterator<Item = &'static Target> {
    let all = LIGHT.iter();
    #[cfg(feature = "host")]
    let all = all.chain(HOST).chain([&COMPONENT]);
    all
}
