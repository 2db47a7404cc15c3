//! Every key that is no number: how it is written, its default, and what it does. For whoever writes a configuration; a test
//! holds it against what the reader asks for.
//!
//! Not here: numbers (`keys.rs`), and the reading itself (`sections.rs` and its siblings).

/// One key of the configuration that is no number.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// The table it stands in; `command` stands for every table that names a program.
    pub section: &'static str,
    /// Its key.
    pub key: &'static str,
    /// How its value is written.
    pub form: &'static str,
    /// Value when it is not set, as it would be written; `None` = what holds then stands in `about`.
    pub default: Option<&'static str>,
    /// What it does.
    pub about: &'static str,
}

/// A file or directory; a relative one is relative to the configuration file.
const PATH: &str = "path";
const PATHS: &str = "list of paths";
const TEXT: &str = "text";
const TEXTS: &str = "list of texts";
/// How a switch is written.
pub const SWITCH: &str = "true or false";
/// How a program is written: a table with the keys of `command`.
pub const PROGRAM: &str = "{ command = […], deadline_ms = … }";
const PROGRAMS: &str = "{ command = […], deadline_ms = … }, or a list of up to 8";

macro_rules! words {
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
    ($($section:literal { $($key:literal [$form:expr] $($default:literal)?, $about:literal;)* })*) => {
        /// Every table, in the order of the documentation; also those that have numbers alone.
        pub const SECTIONS: &[&str] = &[$($section),*];
        /// All of them, in that order.
        pub const WORDS: &[Word] = &[$($(
            Word {
                section: $section, key: $key, form: $form, default: words!(@default $($default)?), about: $about,
            },
        )*)*];
    };
}

words! {
    "daemon" {
        "state_dir" [PATH], "directory of journals, block maps, records and locks; required";
        "control_socket" [PATH], "where `otad status` and its siblings reach the daemon; left out: control.sock in `state_dir`";
        "control_group" [TEXT], "group that may use the control socket (mode 0660); left out: only its owner and root (0600)";
        "plugin_dir" [PATH],
            "a build renamed to <device>.<target>.wasm (.so, .bundle) in it is put in; left out: no directory is watched";
        "plugin_dir_shared" [SWITCH] "false",
            "`plugin_dir` is watched also where others than otad's own user and root may write to it";
        "cache_dir" [PATH], "compiled components, which only save the next start some time; left out: code in `state_dir`";
        "log" [TEXT] "\"info\"", "what is logged, such as \"info,host_mqtt=debug\"; `otad run --log` goes before it";
    }
    "development" {
        "allow_unsigned_images" [SWITCH] "false", "images without a signature are taken; announced at every start";
        "allow_plaintext" [SWITCH] "false", "MQTT without TLS also to other machines; announced at every start";
        "allow_plaintext_http" [SWITCH] "false", "URLs of images without TLS are followed; announced at every start";
        "allow_file_plugins" [SWITCH] "false",
            "plugins are loaded also from files that nobody has signed; announced at every start";
        "allow_file_agents" [SWITCH] "false",
            "agents are loaded also from files that nobody has signed; announced at every start";
        "allow_older_code" [SWITCH] "false",
            "plugins and agents may be older than those accepted before; announced at every start";
    }
    "trust" {
        "directory" [PATH],
            "certificates (PEM) of those who may sign; an entry is named as its file without the extension; required";
        "default" [TEXT], "entry for jobs that name none; left out: such a job is refused, unless its target has `certificate`";
        "labels" ["table of texts"],
            "what jobs call it (`certfile`) = entry of `directory`; left out: a job that names one is refused";
        "code_signers" [TEXTS],
            "entries that may sign plugins and agents; left out: all, but none for what comes by a job";
    }
    "http" {
        "roots" [PATHS], "root certificates (PEM) of servers of images; left out: those of the machine";
        "allow_hosts" [TEXTS],
            "names of servers that URLs may name, `*.` in front for all below one; left out: any";
        "allow_networks" [TEXTS],
            "addresses that are not public and are taken all the same, such as \"10.1.0.0/16\"; left out: none";
        "proxy" [r#""environment" | "none""#] "\"environment\"",
            "\"environment\": the proxies of HTTPS_PROXY, ALL_PROXY and NO_PROXY; \"none\": no proxy";
    }
    "bandwidth" {}
    "bandwidth.at" {
        "from" [TEXT], "time of day from which the table holds, in UTC, such as \"08:00\"; required";
        "to" [TEXT], "time of day until which it holds, also over midnight; required";
        "paused" [SWITCH] "false", "nothing is received; stands in place of `bytes_per_s`";
    }
    "download" {
        "scheme" [TEXT], "scheme of URLs that are files of `directory`, without `://`, such as \"stick\"; required";
        "directory" [PATH], "what the paths of these URLs are below; required";
    }
    "hooks" {
        "job" [PROGRAM], "is the offered job to be taken? makes `on_job` \"ask\" unless that is set; left out: nobody is asked";
        "activate" [PROGRAM],
            "may the target restart now? makes `activation` \"deferred\" unless that is set; left out: nobody is asked";
        "start_test" [PROGRAM],
            "is the image in test good? makes `self_test` \"external\" unless that is set; left out: nobody is asked";
        "fail" [PROGRAM], "told that a job has failed; left out: nobody is told";
        "custom_job" [PROGRAMS],
            "whose is a job that is no update? asked one after the other until one says yes or no; left out: nobody is asked";
    }
    "device" {
        "name" [TEXT], "thing name: 1 to 128 letters, digits, `:`, `_` or `-`; required";
    }
    "device.mqtt" {
        "endpoint" [TEXT], "host name or address of the broker; required, unless `connection_of` is there";
        "connection_of" [TEXT],
            "device whose connection is used; only `reply_subscriptions` may stand beside it; left out: one of its own";
        "client_id" [TEXT], "MQTT client id, 1 to 128 bytes; left out: the name of the device";
        "tls" [SWITCH] "true", "TLS; without it only to this machine, or with `allow_plaintext`";
        "root_certificate" [PATH], "certificates (PEM) that the broker's must lead to; required with TLS";
        "certificate" [PATH], "the device's certificate (PEM); required with TLS, unless there is a password";
        "private_key" [PATH], "private key (PEM) of `certificate`; required with it";
        "user_name" [TEXT], "name that the broker knows the device by; required with a password, left out: none is sent";
        "password_file" [PATH], "file whose first line is the password, mode 0600; left out: `password_env`, or no password";
        "password_env" [TEXT],
            "environment variable of the daemon that holds the password; left out: `password_file`, or no password";
        "alpn" [r#""auto" | "off" | text"#] "\"auto\"",
            "protocol name to offer in TLS; \"auto\": AWS IoT's on port 443, none elsewhere";
        "aws" [SWITCH] "false", "the endpoint is AWS IoT under another name";
        "reply_subscriptions" [r#""auto" | "always" | "never""#] "\"auto\"",
            "whether replies of the job service are subscribed to; \"auto\": except at AWS IoT, which sends them unasked";
    }
    "device.agent" {
        "component" [r#""agent" | "simple" | path"#] "\"agent\"", "which agent the device has: a built-in one, or a file";
        "foreign_jobs" [r#""refuse" | "leave""#] "\"refuse\"",
            "what becomes of a job that is no update and that nobody takes: refused, or left to others";
        "on_job" [r#""accept" | "ask" | "ignore""#],
            "a new job is taken, offered to an application first, or left queued; left out: \"accept\", with a hook \"ask\"";
        "stream_encoding" [r#""cbor" | "json""#] "\"cbor\"", "how messages of file streams are written";
        "protocols" [r#"list of "mqtt" and "http""#] "[\"mqtt\", \"http\"]",
            "how blocks may come: the first one that the job offers, then the next";
    }
    "device.notice" {
        "topic" [TEXT], "topic by which jobs are announced, on which only a service of your own may publish; required";
        "brings" [r#""news" | "job""#] "\"news\"",
            "\"news\": there may be a job, the device asks; \"job\": the message is the job, in the shape of `$next/get`";
    }
    "device.hooks" {
        "job" [PROGRAM], "as in [hooks], for this device alone; left out: that one";
        "activate" [PROGRAM], "as in [hooks], for this device alone; left out: that one";
        "start_test" [PROGRAM], "as in [hooks], for this device alone; left out: that one";
        "fail" [PROGRAM], "as in [hooks], for this device alone; left out: that one";
        "custom_job" [PROGRAMS], "as in [hooks], for this device alone; left out: those";
    }
    "device.target" {
        "name" [TEXT], "what commands call it, once in a device: 1 to 64 letters, digits, `_` or `-`; required";
        "plugin" [r#""flash-file" | "serial-mcu" | "build" | path"#],
            "who installs and boots its images: a built-in plugin, or a file; required";
        "of_target" [TEXT],
            "target whose plugin's builds it brings, with the plugin \"build\" alone; left out: builds of the device's agent";
        "carrier" [r#""component" | "native""#],
            "what the plugin is; left out: \"native\" for the file of a shared library (.so), else \"component\"";
        "directory" [PATH],
            "slots and records are files in it; left out: as each region says, which \"flash-file\" needs then";
        "staging" [PATH],
            "file in which an image is put together; left out: of \"serial-mcu\" and \"build\" one in `state_dir`, else none";
        "version_from" [r#""trailer" | "plugin" | "mcuboot" | "offset" | "none""#],
            "where an image has its version; left out: \"trailer\", of \"serial-mcu\" \"mcuboot\", of \"build\" \"plugin\"";
        "version_command" [PROGRAM], "prints the version that runs; left out: what the plugin says, else what was committed";
        "product" [TEXT], "product that an image must name; left out: any";
        "hardware" [TEXT], "hardware that an image must name; left out: any";
        "filepaths" [TEXTS],
            "what a job's `filepath` may say, to the letter; it opens nothing; left out: any relative path without `..`";
        "certificate" [TEXT], "trust entry for jobs that name none; left out: `default` of [trust]";
        "allow_downgrade" [SWITCH] "false", "the same version and older ones are taken too";
        "no_revert_allowed" [SWITCH] "false", "it is updated also where the plugin cannot go back from a bad image";
        "firmware" [SWITCH],
            "its images are activated and tested whatever their file type, or never; left out: as `firmware_file_type` says";
        "inspect" [PROGRAM], "looks at an image that is verified: any exit code but 0 fails the job; left out: no such look";
        "activation" [r#""immediate" | "deferred""#],
            "a verified image is activated at once, or on order; left out: \"immediate\", with a hook `activate` \"deferred\"";
        "reset" [r#""plugin" | "command" | "process""#],
            "who restarts it; \"process\": otad, which ends; left out: \"command\" if there is `restart`, else \"plugin\"";
        "restart" [PROGRAM], "restarts it; required with `reset = \"command\"`";
        "self_test" [r#""auto" | "external""#],
            "who judges the image in test; left out: \"auto\", with a hook `start_test` \"external\"";
        "health" [PROGRAM], "exits 0 if the target is well, as part of the self-test; left out: the plugin's own test alone";
        "settings" ["table of texts, whole numbers, true or false"],
            "for the plugin, which says what it knows; left out: its own defaults";
    }
    "device.target.region" {
        "name" [TEXT], "name the plugin knows it by, such as \"slot-a\"; required";
        "kind" [r#""slot" | "record""#] "\"slot\"", "what is in it: images, or what the boot reader reads";
        "path" [PATH], "the file; required";
        "read_only" [SWITCH] "false", "the plugin may not write it";
    }
    "device.target.line" {
        "port" [TEXT], "path of a serial port, or \"tcp://host:port\"; required";
        "parity" [r#""none" | "odd" | "even""#], "parity of a character; left out: as the plugin asks, else \"none\"";
        "flow_control" [r#""none" | "rts-cts" | "xon-xoff""#],
            "who holds the sender back; left out: as the plugin asks, else \"none\"";
        "dtr" [SWITCH],
            "level of DTR once the port is open; left out: as the driver has it, or as a target that it resets needs it to run";
        "rts" [SWITCH],
            "level of RTS once the port is open; left out: as the driver has it, or as a target that it resets needs it to run";
        "low_latency" [SWITCH] "true", "asks the driver to hand on each byte at once, where it can";
    }
    "device.target.hardware_reset" {
        "gpio" [PATH], "GPIO chip of the reset input, with `offset`; left out: `control` or `command`, one is required";
        "control" [r#""dtr" | "rts""#],
            "control line of the target's own port that resets it; left out: `gpio` or `command`, one is required";
        "command" [TEXTS],
            "program that resets it, with `deadline_ms`, as in [command]; left out: `gpio` or `control`, one is required";
        "active_low" [SWITCH] "true", "low, of a control line the driver's false, is in reset";
    }
    "device.target.native" {
        "isolation" [r#""process" | "in-process""#] "\"process\"",
            "where a shared library runs: in a process of its own, or in the daemon's, said at every start";
        "allow_unconfined" [SWITCH] "false", "it runs also where the kernel cannot confine its process; said at every start";
        "directories" [PATHS], "directories that it may read and write, the first is where it works; left out: none";
        "devices" [PATHS], "devices that it may open; left out: none";
    }
    "command" {
        "command" [TEXTS],
            "path of the program, of a hook absolute, and its arguments; no shell reads it; required where a program is named";
    }
}
