//! The scenarios as data: what the world is like, what is done to it, how it has to end.
//!
//! Not here: how any of it is carried out; that is `stage.rs`.

use host_cloud::service::Protocol;

use super::program::Behaviour;

/// One scenario.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// For `--list`, and the first line of a run.
    pub(super) about: &'static str,
    /// What the job brings.
    pub(super) job: Job,
    /// Secondary MCUs behind serial lines; their file ids follow the application's.
    pub(super) mcus: &'static [&'static str],
    /// Lines that are added to the configuration of the target, and of the agent.
    pub(super) target_lines: &'static str,
    pub(super) agent_lines: &'static str,
    /// What is done while it runs, in order.
    pub(super) script: &'static [Act],
    /// Blocks that the cloud loses and sends twice, of 100.
    pub(super) lost_percent: u8,
    pub(super) doubled_percent: u8,
    /// What the job offers, the preferred one first.
    pub(super) protocols: &'static [Protocol],
    /// By which of them the image has to come: all of it, or some by each.
    pub(super) carried_by: &'static [Protocol],
    /// Whether a stream has to be asked for in JSON, and not in CBOR.
    pub(super) json: bool,
    pub(super) end: End,
}

/// What the job brings.
#[derive(Debug)]
pub(super) enum Job {
    /// A version of the application.
    Image(Image),
    /// Another build of the gateway's agent.
    Agent(Image),
    /// Several files in one job: the application, and images for secondary MCUs.
    Group(&'static [Image]),
    /// A job document that is not an OTA update.
    Document(&'static str),
}

impl Job {
    /// The images that it brings.
    pub(super) fn images(&self) -> &[Image] {
        match self {
            Self::Image(image) | Self::Agent(image) => std::slice::from_ref(image),
            Self::Group(images) => images,
            Self::Document(_) => &[],
        }
    }
}

/// An image for a target.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) file_id: u32,
    pub(super) version: &'static str,
    pub(super) product: &'static str,
    pub(super) behaviour: Behaviour,
    pub(super) size_bytes: usize,
    /// One bit is turned over after it was signed.
    pub(super) tampered: bool,
}

/// One step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Wait until so many of 100 blocks are held.
    AwaitHeldPercent(u64),
    /// Wait until the application is told this.
    AwaitEvent(&'static str),
    /// Cut the line for so long.
    CutMs(u64),
    /// The image server is gone, for good.
    EndHttp,
    /// The operator cancels the job at the cloud.
    Cancel,
    /// The gateway's owner refuses the job.
    Decline(&'static str),
    /// The old version must still run, in the process that it had before the job.
    CheckOldRuns,
    /// The gateway's owner lets the activation happen.
    Activate,
}

/// How it has to end.
#[derive(Debug)]
pub(super) struct End {
    /// Status of the job.
    pub(super) status: &'static str,
    /// What `statusDetails.reason` has to begin with; empty = anything.
    pub(super) reason: &'static str,
    /// What the programs of the targets print at the end, by file id.
    pub(super) versions: &'static [&'static str],
    /// Milestones that have to be passed, in this order.
    pub(super) passed: &'static [Milestone],
    /// Milestones that must not be passed.
    pub(super) avoided: &'static [Milestone],
}

/// What the timeline shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Milestone {
    Notified,
    Downloaded,
    ReadBack,
    Verified,
    Activated,
    Restarted,
    SelfTested,
    Committed,
    RolledBack,
}

impl Milestone {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Notified => "notified",
            Self::Downloaded => "downloaded",
            Self::ReadBack => "read back",
            Self::Verified => "verified",
            Self::Activated => "activated",
            Self::Restarted => "restarted",
            Self::SelfTested => "self-tested",
            Self::Committed => "committed",
            Self::RolledBack => "rolled back",
        }
    }
}

/// The demo's image: large enough for a progress bar.
const IMAGE_BYTES: usize = 2 << 20;

const PRODUCT: &str = "demo-gateway";

const NEW: Image = Image {
    file_id: 0,
    version: "1.1.0",
    product: PRODUCT,
    behaviour: Behaviour::Good,
    size_bytes: IMAGE_BYTES,
    tampered: false,
};

/// Names of the secondary MCUs, and what a job brings for all.
const MCUS: &[&str] = &["pump", "valve"];

const PUMP: Image = Image {
    file_id: 1,
    size_bytes: 30_000,
    ..NEW
};

const VALVE: Image = Image {
    file_id: 2,
    size_bytes: 50_000,
    ..NEW
};

const GROUP: &[Image] = &[NEW, PUMP, VALVE];

const GROUP_SICK: &[Image] = &[
    NEW,
    PUMP,
    Image {
        behaviour: Behaviour::Sick,
        ..VALVE
    },
];

const WHOLE: &[Milestone] = &[
    Milestone::Notified,
    Milestone::Downloaded,
    Milestone::ReadBack,
    Milestone::Verified,
    Milestone::Activated,
    Milestone::Restarted,
    Milestone::SelfTested,
    Milestone::Committed,
];

const UNTIL_READ_BACK: &[Milestone] = &[
    Milestone::Notified,
    Milestone::Downloaded,
    Milestone::ReadBack,
];

const NEVER_ACTIVATED: &[Milestone] = &[Milestone::Activated, Milestone::Restarted];

const SUCCEEDED: End = End {
    status: "SUCCEEDED",
    reason: "accepted  v1.1.0",
    versions: &["1.1.0"],
    passed: WHOLE,
    avoided: &[Milestone::RolledBack],
};

const DEFAULT: Scenario = Scenario {
    name: "default",
    about: "a signed 2 MiB image over TLS, from 1.0.0 to 1.1.0",
    job: Job::Image(NEW),
    mcus: &[],
    target_lines: "",
    agent_lines: "",
    script: &[],
    lost_percent: 0,
    doubled_percent: 0,
    protocols: &[Protocol::Mqtt],
    carried_by: &[Protocol::Mqtt],
    json: false,
    end: SUCCEEDED,
};

/// All of them, the first one runs when none is named.
pub(super) const SCENARIOS: &[Scenario] = &[
    DEFAULT,
    Scenario {
        name: "bad-signature",
        about: "one bit of the image is turned over after it was signed: never activated, FAILED",
        job: Job::Image(Image {
            tampered: true,
            ..NEW
        }),
        end: End {
            status: "FAILED",
            reason: "0x000000e3",
            versions: &["1.0.0"],
            passed: UNTIL_READ_BACK,
            avoided: &[
                Milestone::Verified,
                Milestone::Activated,
                Milestone::Restarted,
            ],
        },
        ..DEFAULT
    },
    Scenario {
        name: "downgrade",
        about: "an image of version 0.9.0 on a gateway that runs 1.0.0: refused before activation",
        job: Job::Image(Image {
            version: "0.9.0",
            ..NEW
        }),
        end: End {
            status: "FAILED",
            reason: "rejected: 0x0000000f",
            versions: &["1.0.0"],
            passed: UNTIL_READ_BACK,
            avoided: NEVER_ACTIVATED,
        },
        ..DEFAULT
    },
    Scenario {
        name: "same-version",
        about: "an image of the version that runs already: refused before activation",
        job: Job::Image(Image {
            version: "1.0.0",
            ..NEW
        }),
        end: End {
            status: "FAILED",
            reason: "rejected: 0x00000010",
            versions: &["1.0.0"],
            passed: UNTIL_READ_BACK,
            avoided: NEVER_ACTIVATED,
        },
        ..DEFAULT
    },
    Scenario {
        name: "incompatible",
        about: "a well signed image for another product: refused before activation with a code of its own",
        job: Job::Image(Image {
            product: "toaster",
            ..NEW
        }),
        end: End {
            status: "FAILED",
            reason: "0x000000d3",
            versions: &["1.0.0"],
            passed: UNTIL_READ_BACK,
            avoided: NEVER_ACTIVATED,
        },
        ..DEFAULT
    },
    Scenario {
        name: "self-test-failure",
        about: "the new version starts and is not well: the health check says so, the old version comes back",
        job: Job::Image(Image {
            behaviour: Behaviour::Sick,
            ..NEW
        }),
        end: End {
            status: "FAILED",
            // The operator's health check, its exit code.
            reason: "rejected: 0xde000001",
            versions: &["1.0.0"],
            passed: &[
                Milestone::Verified,
                Milestone::Activated,
                Milestone::Restarted,
                Milestone::RolledBack,
            ],
            avoided: &[Milestone::Committed],
        },
        ..DEFAULT
    },
    Scenario {
        name: "never-starts",
        about: "the new version ends at once: the launcher uses up its tries and goes back to the old one",
        job: Job::Image(Image {
            behaviour: Behaviour::Broken,
            ..NEW
        }),
        end: End {
            status: "FAILED",
            // OtadErrRolledBack: the target went back by itself.
            reason: "rejected: 0x00000046",
            versions: &["1.0.0"],
            passed: &[
                Milestone::Verified,
                Milestone::Activated,
                Milestone::RolledBack,
            ],
            avoided: &[Milestone::SelfTested, Milestone::Committed],
        },
        ..DEFAULT
    },
    Scenario {
        name: "lossy",
        about: "of 100 blocks 10 are lost and 5 arrive twice: asked for again, written once",
        lost_percent: 10,
        doubled_percent: 5,
        // Whoever loses blocks on purpose need not wait ten seconds for each; and of larger blocks fewer are lost.
        agent_lines: "block_size = 16384\nblocks_per_request = 7\nrequest_timeout_ms = 150\nmomentum_max = 100\n",
        ..DEFAULT
    },
    Scenario {
        name: "broker-cut",
        about: "the connection is cut in mid-download for two seconds: the download goes on where it was",
        script: &[
            Act::AwaitHeldPercent(30),
            Act::CheckOldRuns,
            Act::CutMs(2000),
        ],
        ..DEFAULT
    },
    Scenario {
        name: "http",
        about: "the image comes by pre-signed URL over HTTPS in ranges, the job is controlled over MQTT",
        agent_lines: "protocols = [\"http\"]\n",
        protocols: &[Protocol::Http],
        carried_by: &[Protocol::Http],
        ..DEFAULT
    },
    Scenario {
        name: "fallback",
        about: "the image server dies in mid-file: MQTT brings what is missing, nothing comes twice",
        agent_lines: "protocols = [\"http\", \"mqtt\"]\nrequests_in_flight = 2\n",
        protocols: &[Protocol::Http, Protocol::Mqtt],
        carried_by: &[Protocol::Http, Protocol::Mqtt],
        script: &[Act::AwaitHeldPercent(30), Act::EndHttp],
        ..DEFAULT
    },
    Scenario {
        name: "json",
        about: "the image comes as a stream of JSON messages instead of CBOR",
        agent_lines: "stream_encoding = \"json\"\n",
        json: true,
        ..DEFAULT
    },
    Scenario {
        name: "simple-orchestrator",
        about: "another agent in 150 lines: start-next, JSON streams, one block at a time",
        agent_lines: "component = \"simple\"\nblock_size = 16384\n",
        json: true,
        ..DEFAULT
    },
    Scenario {
        name: "cancelled",
        about: "the operator cancels the job in mid-download: the gateway stops and waits for the next",
        script: &[Act::AwaitHeldPercent(30), Act::Cancel],
        end: End {
            status: "CANCELED",
            reason: "",
            versions: &["1.0.0"],
            passed: &[Milestone::Notified],
            avoided: &[
                Milestone::Verified,
                Milestone::Activated,
                Milestone::Restarted,
            ],
        },
        ..DEFAULT
    },
    Scenario {
        name: "declined",
        about: "the gateway is set to ask, and its owner declines the job: REJECTED with the owner's reason",
        agent_lines: "on_job = \"ask\"\n",
        script: &[
            Act::AwaitEvent("received-job"),
            Act::Decline("not during the harvest"),
        ],
        end: End {
            status: "REJECTED",
            reason: "not during the harvest",
            versions: &["1.0.0"],
            passed: &[],
            avoided: &[Milestone::Downloaded, Milestone::Activated],
        },
        ..DEFAULT
    },
    Scenario {
        name: "deferred",
        about: "activation is put off: nothing restarts until `otad activate`",
        target_lines: "activation = \"deferred\"\n",
        script: &[
            Act::AwaitEvent("activate"),
            Act::CheckOldRuns,
            Act::Activate,
        ],
        ..DEFAULT
    },
    Scenario {
        name: "foreign-job",
        about: "a job that is no OTA update and that nobody takes: FAILED, and the gateway waits for the next",
        job: Job::Document(r#"{"operation":"reboot","delay_s":5}"#),
        agent_lines: "custom_answer_ms = 0\n",
        end: End {
            status: "FAILED",
            reason: "0x0000000c: 0x00000004",
            versions: &["1.0.0"],
            passed: &[],
            avoided: &[Milestone::Downloaded, Milestone::Activated],
        },
        ..DEFAULT
    },
    Scenario {
        name: "file-id",
        about: "two targets, a job for file id 1 of 10446 bytes in blocks of 4096: target 0 is not touched",
        job: Job::Image(Image {
            file_id: 1,
            size_bytes: 10_446,
            ..NEW
        }),
        end: End {
            versions: &["1.0.0", "1.1.0"],
            reason: "accepted  v",
            ..SUCCEEDED
        },
        ..DEFAULT
    },
    Scenario {
        name: "agent",
        about: "the job brings another build of the agent itself: it takes over, carries the job on and ends it",
        job: Job::Agent(Image {
            file_id: 1,
            version: "0.0.0",
            size_bytes: 0,
            ..NEW
        }),
        end: End {
            versions: &["1.0.0"],
            reason: "accepted  v",
            ..SUCCEEDED
        },
        ..DEFAULT
    },
    Scenario {
        name: "secondary",
        about: "one job for the gateway's software and two MCUs behind serial lines: all of them run it, or none",
        job: Job::Group(GROUP),
        mcus: MCUS,
        end: End {
            versions: &["1.1.0", "1.1.0", "1.1.0"],
            ..SUCCEEDED
        },
        ..DEFAULT
    },
    Scenario {
        name: "secondary-rollback",
        about: "the same, and the operator's check of one MCU says no: all three go back",
        job: Job::Group(GROUP_SICK),
        mcus: MCUS,
        end: End {
            status: "FAILED",
            reason: "rejected: 0xde000001",
            versions: &["1.0.0", "1.0.0", "1.0.0"],
            passed: &[
                Milestone::Verified,
                Milestone::Activated,
                Milestone::Restarted,
                Milestone::RolledBack,
            ],
            avoided: &[Milestone::Committed],
        },
        ..DEFAULT
    },
];

/// The scenario of this name.
pub(super) fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|s| s.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        let mut names: Vec<_> = SCENARIOS.iter().map(|s| s.name).collect();
        assert_eq!(names[0], "default");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
        for s in SCENARIOS {
            assert!(s.about.len() > 20, "{}", s.name);
            assert!(find(s.name).is_some());
        }
        assert!(find("toast").is_none());
    }

    #[test]
    fn an_image_comes_only_by_what_its_job_offers() {
        for s in SCENARIOS {
            let offered = |p: &Protocol| s.protocols.contains(p);
            assert!(s.carried_by.iter().all(offered), "{}", s.name);
        }
    }

    #[test]
    fn no_scenario_both_passes_and_avoids_a_milestone() {
        for s in SCENARIOS {
            assert!(
                s.end.passed.iter().all(|m| !s.end.avoided.contains(m)),
                "{}",
                s.name
            );
            assert!(s.end.passed.is_sorted(), "{}", s.name);
        }
    }
}
