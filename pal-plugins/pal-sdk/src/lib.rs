#![doc = include_str!("../PORTING.md")]

pub mod failure;
#[cfg(not(target_family = "wasm"))]
pub mod fake;
pub mod lent;
mod plugin;
pub mod record;
mod types;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod component;
#[cfg(target_family = "wasm")]
pub use component::Lent;

#[cfg(all(not(target_family = "wasm"), any(feature = "native", test)))]
#[doc(hidden)]
pub mod native;
#[cfg(all(not(target_family = "wasm"), any(feature = "native", test)))]
pub use native::Lent;

pub use failure::{Failure, code};
pub use plugin::Plugin;
pub use types::{
    Answer, Blob, Description, Duty, Extent, ImageInfo, Setting, TRANSFER_MAX_BYTES, TargetState,
    Transfer, Version, Wake, Working, capability, state,
};

/// Makes this crate a plugin: on wasm32 it exports the world `ota:pal/plugin`; elsewhere, where the crate has a feature
/// `native = ["pal-sdk/native"]` and it is on, the C ABI of `wit/native/ota_pal.h`; otherwise it expands to nothing, so
/// that the crate builds and its tests run like any other's.
///
/// Call it once, in the root of a crate with `crate-type = ["cdylib", "rlib"]`, with the type as it is lent the real
/// things, and what it needs of them: `pal_sdk::export_plugin!(MyPlugin<pal_sdk::Lent>, need::LOG | need::CLOCK);`, with
/// the bits of [`lent::need`]. (A component's imports say that by themselves; a library has to.)
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty, $needs:expr) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the exported functions are generated")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<::core::option::Option<$plugin>> =
                    const { ::core::cell::RefCell::new(None) };
            }

            impl $crate::component::Instance for $plugin {
                fn with<R>(
                    f: impl ::core::ops::FnOnce(&mut ::core::option::Option<Self>) -> R,
                ) -> R {
                    INSTANCE.with_borrow_mut(f)
                }
            }

            type Exported = $crate::component::Component<$plugin>;
            $crate::component::bindings::export!(Exported with_types_in $crate::component::bindings);
        };

        #[cfg(all(not(target_family = "wasm"), feature = "native"))]
        #[allow(unsafe_code, reason = "the exported function is generated")]
        const _: () = {
            impl $crate::native::Needs for $plugin {
                const BITS: u32 = {
                    use $crate::lent::need;
                    $needs
                };
            }

            static TABLE: $crate::native::abi::Plugin = $crate::native::Native::<$plugin>::TABLE;

            #[unsafe(no_mangle)]
            extern "C" fn ota_pal_plugin_entry() -> *const $crate::native::abi::Plugin {
                &raw const TABLE
            }
        };
    };
}
