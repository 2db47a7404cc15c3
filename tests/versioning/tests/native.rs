//! The C ABI of native plugins: `ota_pal.rs` is what a C compiler makes of `ota_pal.h`, member by member, and the header
//! is one that C and C++ compilers of all ages take without a word.

#[path = "../../../wit/native/ota_pal.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "only sizes and offsets are looked at"
)]
mod ota_pal;

use std::fmt::Write as _;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

/// `type: size` and `type.member: offset`, as Rust has them, and the C expressions for the same.
struct Layout {
    rust: Vec<String>,
    c: String,
}

macro_rules! layout {
    ($($rust:ident = $c:ident { $($member:ident),* $(,)? })*) => {{
        let mut layout = Layout { rust: Vec::new(), c: String::new() };
        $(
            layout.rust.push(format!("{}: {}", stringify!($c), size_of::<ota_pal::$rust>()));
            layout.say(stringify!($c), &format!("sizeof({})", stringify!($c)));
            $(
                let name = format!("{}.{}", stringify!($c), stringify!($member));
                layout.rust.push(format!("{name}: {}", offset_of!(ota_pal::$rust, $member)));
                layout.say(&name, &format!("offsetof({}, {})", stringify!($c), stringify!($member)));
            )*
        )*
        layout
    }};
}

impl Layout {
    fn say(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.c, "printf(\"{name}: %zu\\n\", {value});"); // a String takes everything
    }

    /// A number that both have.
    fn constant(&mut self, name: &str, rust: u64) {
        self.rust.push(format!("{name}: {rust}"));
        self.say(name, &format!("(size_t){name}"));
    }
}

fn cc(compiler: &str, arguments: &[&str], source: &Path) -> bool {
    let headers = versioning::wit().join("native");
    let output = Command::new(compiler)
        .args(arguments)
        .arg("-I")
        .arg(headers)
        .arg(source)
        .output()
        .expect("there is a compiler");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{compiler} {arguments:?}: {said}");
    output.status.success()
}

#[test]
fn the_header_and_its_rust_twin_agree_in_every_member() {
    let mut layout = layout! {
        Failure = ota_pal_failure { main, sub, detail }
        Version = ota_pal_version { major, minor, revision, build }
        Setting = ota_pal_setting { key, value }
        Saved = ota_pal_saved { schema, length, bytes }
        Description = ota_pal_description {
            struct_size, capabilities, largest_write, needs, name, version, kinds, schemas, schema_count, reserved,
        }
        Transfer = ota_pal_transfer {
            struct_size, file_id, size, block_size, file_type, attributes, signature_length, signature, device, job_id,
            path, certificate, signature_kind,
        }
        Duty = ota_pal_duty {
            struct_size, status, done, total, wake, wake_after_ms, answer, state, runs_new, has_version, version, product,
        }
        Extent = ota_pal_extent { region, reserved, offset, length }
        Region = ota_pal_region { size, kind, erase_size, write_size, read_only, name }
        Line = ota_pal_line { baud, parity, stop_bits, flow_control }
        Lent = ota_pal_lent {
            struct_size, granted, host, region_count, region, read_at, write_at, erase, sync, staged_held, staged_verified,
            staged_read, line_open, line_write, line_read, line_unsent, line_drain, line_set, line_close, pulse, now_ms, log,
        }
        Plugin = ota_pal_plugin {
            struct_size, abi_version, describe, open, close, create, reopen, write_block, extents, examine, install,
            activate, reset, self_test, commit, reject, state, abort, step, suspend,
        }
    };
    for (name, value) in [
        ("OTA_PAL_ABI_VERSION", u64::from(ota_pal::ABI_VERSION)),
        ("OTA_PAL_DETAIL_BYTES", ota_pal::DETAIL_BYTES as u64),
        ("OTA_PAL_PRODUCT_BYTES", ota_pal::PRODUCT_BYTES as u64),
        (
            "OTA_PAL_REGION_NAME_BYTES",
            ota_pal::REGION_NAME_BYTES as u64,
        ),
        (
            "OTA_PAL_TRANSFER_MAX_BYTES",
            u64::from(ota_pal::TRANSFER_MAX_BYTES),
        ),
        ("OTA_PAL_SAVED_MAX_BYTES", ota_pal::SAVED_MAX_BYTES as u64),
        ("OTA_PAL_EXTENTS_MAX", ota_pal::EXTENTS_MAX as u64),
        ("OTA_PAL_KINDS_MAX", ota_pal::KINDS_MAX as u64),
        ("OTA_PAL_CALL_MAX_MS", ota_pal::CALL_MAX_MS),
        ("OTA_PAL_FINISHED", u64::from(ota_pal::FINISHED)),
        ("OTA_PAL_WORKING", u64::from(ota_pal::WORKING)),
        ("OTA_PAL_WAKE_INPUT", u64::from(ota_pal::WAKE_INPUT)),
        ("OTA_PAL_WAKE_DATA", u64::from(ota_pal::WAKE_DATA)),
        ("OTA_PAL_WAKE_AFTER", u64::from(ota_pal::WAKE_AFTER)),
        ("OTA_PAL_NOTHING", u64::from(ota_pal::NOTHING)),
        ("OTA_PAL_INFO", u64::from(ota_pal::INFO)),
        ("OTA_PAL_STATE", u64::from(ota_pal::STATE)),
        ("OTA_PAL_HOST_RESETS", u64::from(ota_pal::HOST_RESETS)),
        ("OTA_PAL_CANNOT_TELL", u64::from(ota_pal::CANNOT_TELL)),
        ("OTA_PAL_YES", u64::from(ota_pal::YES)),
        ("OTA_PAL_NO", u64::from(ota_pal::NO)),
        ("OTA_PAL_TRACE", u64::from(ota_pal::TRACE)),
        ("OTA_PAL_DEBUG", u64::from(ota_pal::DEBUG)),
        ("OTA_PAL_INFORM", u64::from(ota_pal::INFORM)),
        ("OTA_PAL_WARN", u64::from(ota_pal::WARN)),
        ("OTA_PAL_ERROR", u64::from(ota_pal::ERROR)),
    ] {
        layout.constant(name, value);
    }
    let capitals = |name: &str| name.to_uppercase().replace('-', "_");
    for (n, name) in ota_pal::INTERFACES.iter().enumerate() {
        layout.constant(&format!("OTA_PAL_{}", capitals(name)), 1 << n);
    }
    for (n, name) in ota_pal::CAPABILITIES.iter().enumerate() {
        layout.constant(&format!("OTA_PAL_CAN_{}", capitals(name)), 1 << n);
    }
    for (n, name) in (0..).zip(ota_pal::STATES) {
        layout.constant(&format!("OTA_PAL_STATE_{}", capitals(name)), n);
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("layout.c"), dir.path().join("layout"));
    let text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include \"ota_pal.h\"\nint main(void) {{\n{}return 0;\n}}\n",
        layout.c
    );
    fs::write(&source, text).unwrap();
    assert!(cc("cc", &["-o", program.to_str().unwrap()], &source));
    let said = Command::new(program).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said, layout.rust);
}

#[test]
fn the_header_is_plain_c_and_cpp() {
    let dir = tempfile::tempdir().unwrap();
    for (compiler, standards, name) in [
        ("cc", ["-std=c99", "-std=c11", "-std=c17"], "x.c"),
        ("c++", ["-std=c++11", "-std=c++17", "-std=c++20"], "x.cc"),
    ] {
        if support::interop::program(compiler).is_none() {
            continue;
        }
        let source = dir.path().join(name);
        fs::write(&source, "#include \"ota_pal.h\"\n").unwrap();
        for standard in standards {
            let words = [standard, "-Wall", "-Wextra", "-Wpedantic", "-fsyntax-only"];
            assert!(cc(compiler, &words, &source));
        }
    }
}

#[test]
fn the_exported_symbol_has_its_name() {
    let header = fs::read_to_string(versioning::wit().join("native/ota_pal.h")).unwrap();
    let declared = format!("const ota_pal_plugin *{}(void);", ota_pal::ENTRY);
    assert!(header.contains(&declared), "{declared}");
}
