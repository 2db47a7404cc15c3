//! The gate, with real signatures: who is let in, who is not, and what is said.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use host_crypto::SigningKey;
use host_runtime::engine::Budget;
use host_runtime::plugin::native::Isolation;
use host_runtime::types::Version;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::code::{Grants, Limits, floor};
use crate::gateway::{Questions, kept, question};

/// 2027-01-15.
const NOW: u64 = 1_800_000_000;

struct At(Option<u64>);

impl Clock for At {
    fn now_ms(&self) -> u64 {
        0
    }

    fn wall_s(&self) -> Option<u64> {
        self.0
    }
}

/// A signer with a certificate that holds from 2026 to 2030.
struct Signer {
    key: SigningKey,
    pem: String,
    certificate: String,
}

impl Signer {
    fn new() -> Self {
        Self::of(KeyPair::generate().expect("a key"), 2030)
    }

    /// A certificate of the same key that holds longer.
    fn until(&self, year: i32) -> Self {
        Self::of(KeyPair::from_pem(&self.pem).expect("a key"), year)
    }

    fn of(pair: KeyPair, until: i32) -> Self {
        let pem = pair.serialize_pem();
        let mut params = CertificateParams::new(vec!["signer".into()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        Self {
            certificate: params.self_signed(&pair).expect("a certificate").pem(),
            key: SigningKey::from_pem(&pem).expect("its key"),
            pem,
        }
    }
}

/// A gateway's directories, with one trusted signer.
struct Site {
    folder: TempDir,
    signer: Signer,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().expect("a folder"),
            signer: Signer::new(),
        };
        let trust = site.path("trust");
        fs::create_dir(&trust).expect("a folder");
        fs::set_permissions(&trust, fs::Permissions::from_mode(0o755)).expect("mode");
        site.trust("vendor", &site.signer);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trust(&self, entry: &str, signer: &Signer) {
        let path = self.path(&format!("trust/{entry}.pem"));
        fs::write(&path, &signer.certificate).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    }

    fn gate(&self) -> Gate {
        Gate {
            trust: Trust::Directory(self.path("trust"), None),
            signers: None,
            unsigned_agents: false,
            unsigned_plugins: false,
            allow_older: false,
            state_dir: Some(self.path("state")),
            clock: Arc::new(At(Some(NOW))),
        }
    }

    /// `plugin.wasm` of this version, signed; the manifest may be bent before.
    fn put(&self, version: &str, signer: &Signer, bend: impl FnOnce(&mut Manifest)) -> PathBuf {
        let bytes = [b"\0asm\x0d\0\x01\0", version.as_bytes()].concat();
        let path = self.path("plugin.wasm");
        fs::write(&path, &bytes).expect("a file");
        let mut manifest = Manifest {
            kind: Kind::Plugin,
            form: Form::Component,
            name: "pal-pump".to_owned(),
            version: parse_version(version).expect("a version"),
            world: world(Kind::Plugin, Form::Component),
            least_host: Version::default(),
            size: bytes.len() as u64,
            sha256: hash(&bytes),
            grants: Grants {
                lent: vec!["log".to_owned()],
                ..Grants::default()
            },
            limits: Limits::default(),
        };
        bend(&mut manifest);
        sign(&path, manifest.text().expect("text").as_bytes(), signer);
        path
    }

    fn good(&self) -> PathBuf {
        self.put("1.2.0", &self.signer, |_| ())
    }
}

fn sign(path: &Path, text: &[u8], signer: &Signer) {
    let mut hasher = Hasher::default();
    hasher.update(text);
    let signature = signer.key.sign(&hasher.finish()).expect("it signs");
    fs::write(beside(path, MANIFEST), text).expect("a file");
    fs::write(beside(path, SIGNATURE), signature).expect("a file");
}

fn words(end: Result<Code, CodeError>) -> String {
    crate::exit::chain(&end.expect_err("it is refused"))
}

#[test]
fn what_somebody_trusted_has_signed_is_let_in_with_its_limits() {
    let site = Site::new();
    let path = site.put("1.2.0", &site.signer, |manifest| {
        manifest.limits.memory_bytes = Some(65_536);
    });
    let code = site.gate().read(Kind::Plugin, &path).unwrap();
    assert_eq!(code.whose(), "signed by vendor");
    assert_eq!(code.bytes, fs::read(&path).unwrap());
    assert_eq!(code.budget().memory_bytes, 65_536);
    assert_eq!(code.budget().fuel, Budget::PLUGIN.fuel);
}

#[test]
fn nothing_else_is_let_in_and_each_reason_is_told() {
    type Spoil = fn(&Site, &Path);
    fn bent(site: &Site, bend: fn(&mut Manifest)) {
        site.put("1.2.0", &site.signer, bend);
    }
    let rows: [(&str, Spoil); 16] = [
        ("nobody has signed it", |_, path| {
            fs::remove_file(beside(path, MANIFEST)).unwrap();
        }),
        ("its manifest is not signed", |_, path| {
            fs::remove_file(beside(path, SIGNATURE)).unwrap();
        }),
        ("nobody whom this gateway trusts (vendor)", |site, _| {
            site.put("1.2.0", &Signer::new(), |_| ());
        }),
        ("nobody whom this gateway trusts (nobody)", |site, _| {
            fs::remove_file(site.path("trust/vendor.pem")).unwrap();
        }),
        ("changed after it was signed", |_, path| {
            fs::write(path, b"\0asm\x0d\0\x01\x001.2.1").unwrap();
        }),
        ("nobody whom this gateway trusts", |_, path| {
            let manifest = beside(path, MANIFEST);
            let text = fs::read_to_string(&manifest).unwrap();
            fs::write(manifest, text.replace("\"log\"", "\"clock\"")).unwrap();
        }),
        ("its signature is malformed", |_, path| {
            fs::write(beside(path, SIGNATURE), b"hello").unwrap();
        }),
        ("more than 512 bytes", |_, path| {
            fs::write(beside(path, SIGNATURE), [0; 513]).unwrap();
        }),
        ("signed by `vendor`: line 1", |site, path| {
            sign(path, b"hello", &site.signer);
        }),
        ("signed by `vendor`: it is no UTF-8", |site, path| {
            sign(path, &[0xff], &site.signer);
        }),
        ("it is signed as agent", |site, _| {
            bent(site, |m| m.kind = Kind::Agent);
        }),
        ("it is signed as plugin", |site, _| {
            bent(site, |m| m.form = Form::Native);
        }),
        ("for ota:pal/plugin@9.9", |site, _| {
            bent(site, |m| m.world = "ota:pal/plugin@9.9".to_owned());
        }),
        ("it needs otad 9.0.0", |site, _| {
            bent(site, |m| m.least_host = parse_version("9.0.0").unwrap());
        }),
        ("at most", |site, _| {
            bent(site, |m| m.limits.memory_bytes = Some(u64::from(u32::MAX)));
        }),
        ("plugin.wasm", |_, path| fs::remove_file(path).unwrap()),
    ];
    for (wanted, spoil) in rows {
        let site = Site::new();
        let path = site.good();
        spoil(&site, &path);
        let end = words(site.gate().read(Kind::Plugin, &path));
        assert!(end.contains(wanted), "{wanted}: {end}");
    }
    let site = Site::new();
    let end = words(site.gate().read(Kind::Agent, &site.good()));
    assert!(end.contains("is to be agent"), "{end}");
}

#[test]
fn the_error_says_how_to_sign() {
    let site = Site::new();
    let path = site.path("plain.so");
    fs::write(&path, b"\x7fELF").unwrap();
    let end = words(site.gate().read(Kind::Plugin, &path));
    assert!(end.contains("`otad sign "), "{end}");
    assert!(end.contains("allow_file_plugins = true"), "{end}");
    let end = words(site.gate().read(Kind::Agent, &path));
    assert!(end.contains("allow_file_agents = true"), "{end}");
}

#[test]
fn a_development_setting_lets_in_what_nobody_has_signed_and_nothing_that_was_signed_wrongly() {
    let site = Site::new();
    let gate = Gate {
        unsigned_plugins: true,
        ..site.gate()
    };
    let path = site.put("1.2.0", &Signer::new(), |_| ());
    assert!(words(gate.read(Kind::Plugin, &path)).contains("nobody whom"));
    fs::remove_file(beside(&path, MANIFEST)).unwrap();
    let code = gate.read(Kind::Plugin, &path).unwrap();
    assert_eq!(code.signed, None);
    assert_eq!(code.whose(), "SIGNED BY NOBODY");
    assert!(code.admit("anybody", "x", &["log".to_owned()]).is_ok());
    assert!(gate.read(Kind::Agent, &path).is_err(), "agents are apart");
}

/// Read it for a target, as if it were put in there.
fn enter(gate: &Gate, path: &Path, entry: Entry) -> Result<Code, CodeError> {
    let code = gate.read(Kind::Plugin, path)?;
    gate.check(code.signed.as_ref(), &target("main"), entry)?;
    Ok(code)
}

fn target(name: &str) -> Place {
    Place::plugin("pump-1", name)
}

#[test]
fn below_what_was_accepted_nothing_comes_in_unless_it_is_allowed() {
    let site = Site::new();
    let gate = site.gate();
    let put = |version: &str| site.put(version, &site.signer, |_| ());
    let second = enter(&gate, &put("1.2.0"), Entry::New).unwrap();
    // Only what was taken counts: a build that was looked at and failed its trial is no floor.
    assert!(enter(&gate, &put("1.1.0"), Entry::New).is_ok());
    gate.accept(second.signed.as_ref(), &target("main"))
        .unwrap();
    let end = words(enter(&gate, &put("1.1.9+9"), Entry::New));
    assert!(end.contains("it is version 1.1.9+9, and 1.2.0"), "{end}");
    assert!(end.contains("allow_older_code = true"), "{end}");
    assert!(end.contains("target \"main\" of pump-1"), "{end}");
    assert!(enter(&gate, &put("1.2.0"), Entry::New).is_ok());
    assert!(enter(&gate, &put("1.2.1"), Entry::New).is_ok());
    let other = site.put("1.0.0", &site.signer, |m| m.name = "pal-valve".to_owned());
    assert!(enter(&gate, &other, Entry::New).is_ok(), "another name");
    let old = put("1.1.0");
    let again = site.gate();
    assert!(enter(&again, &old, Entry::New).is_err(), "over a restart");
    let elsewhere = gate.read(Kind::Plugin, &old).unwrap();
    let elsewhere = gate.check(elsewhere.signed.as_ref(), &target("mcu"), Entry::New);
    assert!(elsewhere.is_ok(), "another target has its own");
    assert!(enter(&again, &old, Entry::Before).is_ok());
    let code = enter(&again, &old, Entry::Older).unwrap();
    again.accept(code.signed.as_ref(), &target("main")).unwrap();
    let end = enter(&again, &old, Entry::New);
    assert!(end.is_ok(), "it is the floor now");
}

#[test]
fn a_configured_build_may_be_older_than_the_one_that_was_put_in_its_place() {
    use host_runtime::ports::state_dir::{FileStateDir, StateDir as _};
    let rows = [
        (
            Kind::Agent,
            Place::agent("pump-1"),
            "agent.json",
            "[[device.target]]",
            "[device.agent]\ncomponent = \"plugin.wasm\"\n[[device.target]]",
        ),
        (
            Kind::Plugin,
            target("main"),
            "plugin.json",
            "\"flash-file\"",
            "\"plugin.wasm\"",
        ),
    ];
    for (kind, place, choice, from, to) in rows {
        let site = Site::new();
        let put = |version: &str| {
            site.put(version, &site.signer, |m| {
                m.kind = kind;
                m.world = world(kind, Form::Component);
            })
        };
        let code = site.gate().read(kind, &put("1.3.0")).unwrap();
        site.gate().accept(code.signed.as_ref(), &place).unwrap();
        let configured = put("1.2.0");
        let text = crate::config::tests::GOOD.replace(from, to);
        let config = crate::config::parse(&site.path("otad.toml"), &text, []).unwrap();
        let found = crate::config::check_code(&config);
        assert_eq!(found.len(), 1, "{found:?}");
        let said = &found[0].diagnostic.message;
        assert!(said.contains("1.3.0 was accepted before"), "{said}");
        let chosen = serde_json::json!({
            "format": 1,
            "configured": configured.display().to_string(),
            "serves": { "label": "next.wasm", "sha256": "00".repeat(32) },
        });
        let state = FileStateDir::open(&site.path("state")).unwrap();
        let chosen = chosen.to_string();
        state.store(&place.file(choice), chosen.as_bytes()).unwrap();
        assert_eq!(crate::config::check_code(&config), []);
    }
}

#[test]
fn a_check_asks_only_what_is_what_was_signed() {
    let site = Site::new();
    let bytes = guest_artifacts::FLASH_FILE;
    let path = site.put("1.2.0", &site.signer, |m| {
        m.size = bytes.len() as u64;
        m.sha256 = hash(bytes);
    });
    fs::write(path, bytes).unwrap();
    let text = crate::config::tests::GOOD.replace("\"flash-file\"", "\"./plugin.wasm\"");
    let config = crate::config::parse(&site.path("otad.toml"), &text, []).unwrap();
    let found = crate::config::check_plugins(&config, None);
    let said = format!("{found:?}");
    assert!(said.contains("pal-pump 1.2.0"), "{said}");
    // A reload, which goes on as a start does.
    let reloaded = crate::config::check_plugins(&config, Some(&Questions::new()));
    assert_eq!(reloaded, []);
}

#[test]
fn a_check_looks_as_the_user_of_the_service() {
    let site = Site::new();
    let path = site.good();
    fs::create_dir(site.path("state")).unwrap();
    // Where it can be, the service is another user than the one who asks; only root can give files away.
    for name in ["trust", "trust/vendor.pem", "state"] {
        drop(std::os::unix::fs::chown(site.path(name), Some(4242), None));
    }
    let own = fs::metadata(site.path("state")).unwrap().uid();
    let text = crate::config::tests::GOOD.replace("\"flash-file\"", "\"./plugin.wasm\"");
    let config = crate::config::parse(&site.path("otad.toml"), &text, []).unwrap();
    assert_eq!(crate::config::check_code(&config), []);
    // What belongs to root is good for everybody.
    let is_roots = own == 0;
    for (user, is_let_in) in [(Some(own), true), (None, true), (Some(own + 1), is_roots)] {
        let gate = Gate::for_user(&config, user, Arc::new(At(Some(NOW))));
        let end = gate.read(Kind::Plugin, &path);
        assert_eq!(end.is_ok(), is_let_in, "{user:?}: {:?}", end.err());
    }
}

#[test]
fn a_reload_asks_again_where_the_file_has_changed_or_other_settings_are_told() {
    let site = Site::new();
    let path = site.path("plugin.wasm");
    // It needs a line, which the target does not have.
    fs::write(&path, guest_artifacts::SERIAL_MCU).unwrap();
    let text = crate::config::tests::GOOD.replace("\"flash-file\"", "\"./plugin.wasm\"");
    let text = format!("{text}[development]\nallow_file_plugins = true\n");
    let file = site.path("otad.toml");
    let config = crate::config::parse(&file, &text, []).unwrap();
    let more = "[device.target.settings]\nbaud = 9600\n[development]";
    let other = crate::config::parse(&file, &text.replace("[development]", more), []).unwrap();
    let device = &config.devices[0];
    let asked = |target, bytes| {
        let place = Place::plugin(&device.name.value, "main");
        Questions::from([(place, question(target, &hash(bytes), None))])
    };
    let served = asked(&device.targets[0], guest_artifacts::SERIAL_MCU);
    let replaced = asked(&device.targets[0], guest_artifacts::FLASH_FILE);
    for (config, served, why) in [
        (&config, &served, None),
        (&config, &replaced, Some("staged-image")),
        (&other, &served, Some("staged-image")),
    ] {
        let found = crate::config::check_plugins(config, Some(served));
        assert_eq!(found.len(), usize::from(why.is_some()), "{found:?}");
        let said = format!("{found:?}");
        assert!(said.contains(why.unwrap_or_default()), "{said}");
    }
}

impl Site {
    /// The shipped flash-file plugin, signed with so much fuel, and a configuration that names it.
    fn fuelled(&self, fuel: Option<u64>) -> Config {
        let bytes = guest_artifacts::FLASH_FILE;
        let path = self.put("1.0.0", &self.signer, |m| {
            m.size = bytes.len() as u64;
            m.sha256 = hash(bytes);
            m.name = "pal-flash-file".to_owned();
            m.version = Version::default();
            m.grants.lent = ["block-device", "clock", "log"].map(str::to_owned).into();
            m.limits.fuel = fuel;
        });
        fs::write(path, bytes).unwrap();
        let text = crate::config::tests::GOOD.replace("\"flash-file\"", "\"./plugin.wasm\"");
        crate::config::parse(&self.path("otad.toml"), &text, []).unwrap()
    }
}

/// Enough to say who it is.
const LITTLE_FUEL: u64 = 1024;

#[test]
fn a_plugin_that_breaks_over_its_settings_is_told_of_by_a_check_and_by_a_reload() {
    let site = Site::new();
    let config = site.fuelled(Some(LITTLE_FUEL));
    for served in [None, Some(&Questions::new())] {
        let found = crate::config::check_plugins(&config, served);
        let said = format!("{found:?}");
        assert!(
            said.contains("breaks as it begins with the settings"),
            "{said}"
        );
        assert!(said.contains("1024 units of fuel"), "{said}");
    }
}

#[test]
fn a_reload_asks_again_where_only_the_manifest_has_changed() {
    let site = Site::new();
    let config = site.fuelled(None);
    let code = || site.gate().read(Kind::Plugin, &site.path("plugin.wasm"));
    let first = code().unwrap();
    let device = &config.devices[0];
    let place = Place::plugin(&device.name.value, "main");
    let asked = question(&device.targets[0], &first.sha256, first.signed.as_ref());
    let served = Questions::from([(place, asked)]);
    assert_eq!(crate::config::check_plugins(&config, Some(&served)), []);
    for (fuel, breaks) in [(Some(LITTLE_FUEL), true), (None, false)] {
        let config = site.fuelled(fuel);
        assert_eq!(code().unwrap().sha256, first.sha256);
        let said = format!("{:?}", crate::config::check_plugins(&config, Some(&served)));
        assert_eq!(said.contains("1024 units of fuel"), breaks, "{said}");
    }
}

#[test]
fn a_damaged_record_of_what_was_accepted_lets_nothing_new_in() {
    let site = Site::new();
    let record = site.path("state").join(target("main").file(floor::NAME));
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(record, "{").unwrap();
    let end = words(enter(&site.gate(), &site.good(), Entry::New));
    assert!(end.contains("accepted before"), "{end}");
    assert!(enter(&site.gate(), &site.good(), Entry::Before).is_ok());
}

#[test]
fn what_is_kept_is_let_in_from_there() {
    use host_runtime::ports::state_dir::FileStateDir;
    let site = Site::new();
    let gate = site.gate();
    let code = gate.read(Kind::Plugin, &site.good()).unwrap();
    let state = FileStateDir::open(&site.path("state")).unwrap();
    code.keep(&state, "plugins/").unwrap();
    let manifest = code.signed.as_ref().map(Signed::manifest_sha256);
    let kept = kept::name("plugins/", &code.sha256, manifest.as_deref());
    let kept = site.path("state").join(kept);
    let again = gate.read(Kind::Plugin, &kept).unwrap();
    assert_eq!(again.bytes, code.bytes);
    assert_eq!(again.signed, code.signed);
    // The same bytes, taken in when nobody vouched for them.
    let unsigned = Code {
        signed: None,
        ..code
    };
    unsigned.keep(&state, "plugins/").unwrap();
    let unsigned = site
        .path("state")
        .join(kept::name("plugins/", &unsigned.sha256, None));
    assert!(words(gate.read(Kind::Plugin, &unsigned)).contains("nobody has signed it"));
    // What was signed is still that.
    assert_eq!(gate.read(Kind::Plugin, &kept).unwrap().signed, again.signed);
}

#[test]
fn a_check_says_what_becomes_of_a_build_that_was_put_in_and_counts_no_more() {
    use host_runtime::ports::state_dir::{FileStateDir, StateDir as _};
    let site = Site::new();
    let code = site.gate().read(Kind::Plugin, &site.good()).unwrap();
    let state = FileStateDir::open(&site.path("state")).unwrap();
    code.keep(&state, "plugins/").unwrap();
    let manifest = code.signed.as_ref().map(Signed::manifest_sha256);
    let text = crate::config::tests::GOOD;
    let config = crate::config::parse(&site.path("otad.toml"), text, []).unwrap();
    let choose = |more: &str| {
        let chosen = format!(
            r#"{{ "format": 1, "configured": "builtin:flash-file", {more}
                 "serves": {{ "label": "next.wasm", "sha256": "{}", "manifest": "{}" }} }}"#,
            code.sha256,
            manifest.as_deref().unwrap(),
        );
        let file = target("main").file("plugin.json");
        state.store(&file, chosen.as_bytes()).unwrap();
    };
    choose("");
    assert_eq!(crate::config::check_code(&config), []);
    fs::remove_file(site.path("trust/vendor.pem")).unwrap();
    let zeros = "00".repeat(32);
    let former = format!(
        r#""on_trial": true, "former": {{ "label": "builtin:flash-file", "sha256": "{zeros}" }},"#
    );
    let barred = former
        .replace("builtin:flash-file", "former.wasm")
        .replace("00", "11");
    for (more, becomes) in [
        ("", "until then every job of the target fails"),
        (&*former, "the build before it serves for good"),
        (&*barred, "until then every job of the target fails"),
    ] {
        choose(more);
        let said = format!("{:?}", crate::config::check_code(&config));
        assert!(said.contains("nobody whom this gateway trusts"), "{said}");
        assert!(said.contains(becomes), "{more}: {said}");
    }
}

#[test]
fn what_is_kept_is_looked_at_once_for_all_places() {
    use host_runtime::choice;
    use host_runtime::ports::state_dir::{FileStateDir, StateDir as _};
    let site = Site::new();
    let gate = site.gate();
    let code = gate.read(Kind::Plugin, &site.good()).unwrap();
    let path = site.path("state");
    let state = FileStateDir::open(&path).unwrap();
    code.keep(&state, "plugins/").unwrap();
    let manifest = code.signed.as_ref().map(Signed::manifest_sha256);
    let chosen = serde_json::json!({
        "format": 1,
        "configured": "builtin:flash-file",
        "serves": { "label": "next.wasm", "sha256": code.sha256, "manifest": manifest },
    });
    let chosen = chosen.to_string();
    let places = ["main", "other"].map(target);
    for place in &places {
        let file = place.file("plugin.json");
        state.store(&file, chosen.as_bytes()).unwrap();
    }
    let mut look = kept::Look::new(&gate, &state, &path);
    let label = "builtin:flash-file";
    let mut check = |place| look.check(place, choice::Kind::Plugin, label).is_ok();
    assert!(check(&places[0]));
    let kept = kept::name("plugins/", &code.sha256, manifest.as_deref());
    fs::remove_file(path.join(kept)).unwrap();
    assert!(check(&places[1]));
    let mut look = kept::Look::new(&gate, &state, &path);
    let gone = look.check(&places[1], choice::Kind::Plugin, label);
    let why = gone.map_err(|barred| barred.why).unwrap_err();
    assert!(why.ends_with("is not there any more"), "{why}");
}

#[test]
fn what_comes_by_a_job_is_signed_by_somebody_who_is_named_for_that() {
    let site = Site::new();
    let path = site.good();
    let part = |ending| fs::read(beside(&path, ending)).unwrap();
    let code = fs::read(&path).unwrap();
    let bytes = crate::code::bundle(&code, &part(MANIFEST), &part(SIGNATURE)).unwrap();
    let take = |signers: Option<&str>| {
        let gate = Gate {
            signers: signers.map(|name| vec![name.to_owned()]),
            ..site.gate()
        };
        let label = "job".to_owned();
        let bytes = bytes.clone();
        gate.take(Kind::Plugin, Source::Bundle { label, bytes })
    };
    assert_eq!(take(Some("vendor")).unwrap().whose(), "signed by vendor");
    assert!(words(take(Some("another"))).contains("nobody whom this gateway trusts"));
    // Who may sign images, as all in the trust store.
    assert!(words(take(None)).contains("set `code_signers` in [trust]"));
    assert!(site.gate().read(Kind::Plugin, &path).is_ok(), "by hand");
}

#[test]
fn signers_come_and_go_without_a_restart() {
    let site = Site::new();
    let gate = site.gate();
    let next = Signer::new();
    let path = site.put("1.2.0", &next, |_| ());
    assert!(gate.read(Kind::Plugin, &path).is_err());
    site.trust("vendor-2", &next);
    assert_eq!(
        gate.read(Kind::Plugin, &path).unwrap().whose(),
        "signed by vendor-2"
    );
    fs::remove_file(site.path("trust/vendor-2.pem")).unwrap();
    assert!(gate.read(Kind::Plugin, &path).is_err());
}

#[test]
fn only_those_whom_the_configuration_names_may_sign_code() {
    let site = Site::new();
    let path = site.good();
    for (signers, may) in [
        (vec!["vendor"], true),
        (vec!["other"], false),
        (vec![], false),
    ] {
        let gate = Gate {
            signers: Some(signers.into_iter().map(str::to_owned).collect()),
            ..site.gate()
        };
        assert_eq!(gate.read(Kind::Plugin, &path).is_ok(), may);
    }
}

#[test]
fn a_certificate_that_has_ended_lets_nothing_new_in_and_takes_nothing_away() {
    let site = Site::new();
    let path = site.good();
    let at = |now: Option<u64>| Gate {
        clock: Arc::new(At(now)),
        ..site.gate()
    };
    let after = at(Some(NOW + 4 * 365 * 86_400));
    assert!(words(enter(&after, &path, Entry::New)).contains("has ended"));
    let early = at(Some(1_700_000_000));
    assert!(words(enter(&early, &path, Entry::New)).contains("has not begun"));
    assert!(enter(&at(None), &path, Entry::New).is_ok());
    assert!(enter(&after, &path, Entry::Before).is_ok());
    let gate = site.gate();
    let code = enter(&gate, &path, Entry::New).unwrap();
    gate.accept(code.signed.as_ref(), &target("main")).unwrap();
    assert!(enter(&after, &path, Entry::New).is_ok());
    let newer = site.put("1.3.0", &site.signer, |_| ());
    assert!(enter(&after, &newer, Entry::New).is_err());
}

#[test]
fn a_renewed_certificate_of_the_same_key_counts_in_place_of_the_one_that_ended() {
    let site = Site::new();
    let path = site.good();
    let renewed = site.signer.until(2040);
    site.trust("vendor-renewed", &renewed);
    let after = Gate {
        clock: Arc::new(At(Some(NOW + 4 * 365 * 86_400))),
        ..site.gate()
    };
    let code = enter(&after, &path, Entry::New).unwrap();
    assert_eq!(code.whose(), "signed by vendor-renewed");
}

#[test]
fn what_a_build_says_and_wants_must_be_what_was_signed() {
    let site = Site::new();
    let code = site.gate().read(Kind::Plugin, &site.good()).unwrap();
    let log = ["log".to_owned()];
    assert!(code.admit("pal-pump", "1.2.0", &log).is_ok());
    for (name, version, imports, wanted) in [
        ("pal-valve", "1.2.0", vec![], "pal-valve 1.2.0"),
        ("pal-pump", "1.2.1", vec![], "pal-pump 1.2.1"),
        ("pal-pump", "new\n", vec![], "pal-pump new "),
        (
            "pal-pump",
            "1.2.0",
            vec!["log".to_owned(), "serial-line".to_owned()],
            "it wants serial-line lent",
        ),
    ] {
        let end = code.admit(name, version, &imports).unwrap_err().to_string();
        assert!(end.contains(wanted), "{end}");
    }
}

#[test]
fn a_configuration_cannot_grant_more_than_the_manifest() {
    use host_runtime::plugin::native::{Confinement, HostProgram};
    let site = Site::new();
    let mine = site.path("mine");
    fs::create_dir_all(mine.join("deep")).unwrap();
    std::os::unix::fs::symlink(site.folder.path(), mine.join("out")).unwrap();
    let path = site.put("1.2.0", &site.signer, |manifest| {
        manifest.grants.directories = vec![mine.clone()];
        manifest.grants.devices = vec!["/dev".into()];
        manifest.limits.memory_bytes = Some(1 << 20);
    });
    let code = site.gate().read(Kind::Plugin, &path).unwrap();
    let process = |directory: PathBuf, device: &str| {
        let confinement = Confinement {
            directories: vec![directory],
            devices: vec![device.into()],
            ..Confinement::default()
        };
        code.confine(Isolation::Process(HostProgram::this(), confinement))
    };
    match process(mine.join("deep"), "/dev/null") {
        Ok(Isolation::Process(_, confinement)) => {
            assert_eq!(confinement.memory_max_bytes, Some(1 << 20));
        }
        end => panic!("{end:?}"),
    }
    assert!(process(mine.clone(), "/dev/null").is_ok());
    for (directory, device, wanted) in [
        (site.path("state"), "/dev/null", "--directory"),
        (mine.join("out"), "/dev/null", "--directory"),
        (mine.clone(), "/etc/passwd", "--device"),
    ] {
        let end = process(directory, device).unwrap_err().to_string();
        assert!(end.contains(wanted), "{end}");
    }
    let end = code.confine(Isolation::InProcess).unwrap_err().to_string();
    assert!(end.contains("--in-process"), "{end}");
}
